//! The store in SQL: SQLite through sqlx, written so that other engines can share all of it but `dialect` and `schema`.
//!
//! It carries ciphertext and owns no key. It does not gather writes: one call of `commit` is one transaction, and whoever
//! wants many writes per fsync hands them over together.

mod dialect;
#[doc(hidden)]
pub mod fuzz;
mod plan;
mod read;
mod rows;
mod schema;
mod write;

#[cfg(test)]
mod tests;

pub use schema::SqliteOptions;

use claviger_domain::{KeyRef, Revision, VersionId};
use claviger_ports::{BarrierRow, ChangeRow, CommitOutcome, HeadRow, HeadSealer, KeyRow, Loaded, Sealed, Store, StoreError, Write};
use dialect::{Connection, Db, classify};
use futures::future::{BoxFuture, FutureExt};
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, Row as _, SqlitePool};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, MutexGuard};

/// A [`Store`] in a SQL database.
///
/// # Guarantees
/// Those of [`Store`]. Readers never wait for the writer, nor it for them. After a commit of unknown outcome,
/// [`Store::head`] answers only when the outcome is settled for good: what it then says, no crash will change.
///
/// # Assumptions
/// The file is on a local disk; SQLite's locks and shared memory do not work over networks. Several processes may open
/// it; their commits wait for each other up to 5 s.
#[derive(Debug)]
pub struct SqlStore {
    options: SqliteOptions,
    /// The one connection that writes; none after an error, until the next write opens a new one.
    writer: Mutex<Option<Connection>>,
    readers: SqlitePool,
    /// A commit's outcome is unknown, and no later commit has settled it.
    unsettled: AtomicBool,
    closed: AtomicBool,
}

impl SqlStore {
    /// Opens the SQLite store at `path`, making the file (mode 0600) and the schema where there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the file cannot be opened or written, [`StoreError::Damaged`] when it is not
    /// Claviger's, [`StoreError::TooNew`] when a newer program made it, [`StoreError::Full`] when a new one finds no space.
    pub async fn open_sqlite(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_sqlite_with(SqliteOptions::new(path.as_ref())).await
    }

    /// Opens the SQLite store at `path` for reading only, as it is; a server may be writing to it. Every write is refused.
    ///
    /// # Errors
    /// As [`SqlStore::open_sqlite`]; also when the schema is not this program's.
    pub async fn open_sqlite_for_reading(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_sqlite_with(SqliteOptions { read_only: true, ..SqliteOptions::new(path.as_ref()) }).await
    }

    /// Opens a SQLite store with options.
    ///
    /// # Errors
    /// As [`SqlStore::open_sqlite`].
    pub async fn open_sqlite_with(options: SqliteOptions) -> Result<Self, StoreError> {
        schema::prepare_file(&options).await?;
        let readers = schema::readers(&options);
        let writer = match options.read_only {
            true => None,
            false => Self::first_writer(&options, &readers).await?,
        };
        let (unsettled, closed) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { options, writer: Mutex::new(writer), readers, unsettled, closed })
    }

    async fn first_writer(options: &SqliteOptions, readers: &SqlitePool) -> Result<Option<Connection>, StoreError> {
        match schema::connect_writer(options).await {
            Ok(writer) => Ok(Some(writer)),
            // A full disk is no reason not to serve what is there.
            Err(full @ StoreError::Full(_)) if schema::is_current(readers).await => {
                tracing::warn!(error = %full, "opened for reading; writes will be tried again");
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// What the engine's own check finds wrong with the file, in its words; empty when it is sound. `thorough` also
    /// compares indexes with tables. It reads everything and may take minutes; the store works on meanwhile.
    ///
    /// # Errors
    /// As any reading; damage so bad that the check cannot run is [`StoreError::Damaged`].
    pub async fn raw_check(&self, thorough: bool) -> Result<Vec<String>, StoreError> {
        let mut conn = self.reader().await?;
        let check = if thorough { "PRAGMA integrity_check(100)" } else { "PRAGMA quick_check(100)" };
        let rows = sqlx::query(check).fetch_all(&mut *conn).await.map_err(|e| classify(&e))?;
        let findings: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0).map_err(|e| classify(&e))).collect();
        Ok(findings?.into_iter().filter(|finding| finding != "ok").collect())
    }

    async fn reader(&self) -> Result<PoolConnection<Db>, StoreError> {
        self.readers.acquire().await.map_err(|e| classify(&e))
    }

    /// Takes the writer for one transaction.
    async fn lease(&self) -> Result<Lease<'_>, StoreError> {
        let mut slot = self.writer.lock().await;
        let conn = match slot.take() {
            Some(conn) => conn,
            None => self.reconnect().await?,
        };
        Ok(Lease { conn: Some(conn), slot, unsettled: &self.unsettled })
    }

    async fn reconnect(&self) -> Result<Connection, StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("it was closed".to_owned()));
        }
        if self.options.read_only {
            return Err(StoreError::Unavailable("it was opened for reading only".to_owned()));
        }
        let conn = schema::connect_writer(&self.options).await?;
        self.unsettled.store(false, Ordering::Release);
        Ok(conn)
    }

    /// Where a commit's outcome is unknown, waits for the writer and commits something harmless after it.
    async fn settle(&self) -> Result<(), StoreError> {
        if !self.unsettled.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut slot = self.writer.lock().await;
        if self.unsettled.load(Ordering::Acquire) {
            *slot = Some(self.reconnect().await?);
        }
        Ok(())
    }
}

/// The writer during one transaction. Unless that ends well, its connection is not used again.
struct Lease<'a> {
    conn: Option<Connection>,
    slot: MutexGuard<'a, Option<Connection>>,
    unsettled: &'a AtomicBool,
}

impl Lease<'_> {
    fn conn(&mut self) -> &mut Connection {
        self.conn.as_mut().expect("only `finish` takes it, and that consumes the lease")
    }

    fn finish<T>(mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let conn = self.conn.take();
        match &result {
            Ok(_) => *self.slot = conn,
            Err(StoreError::Unknown(_)) => self.unsettled.store(true, Ordering::Release),
            Err(_) => {}
        }
        result
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // The caller went away in the middle, perhaps of COMMIT.
        if self.conn.is_some() {
            self.unsettled.store(true, Ordering::Release);
        }
    }
}

impl Store for SqlStore {
    fn head(&self) -> BoxFuture<'_, Result<Option<HeadRow>, StoreError>> {
        async {
            self.settle().await?;
            write::read_head(&mut *self.reader().await?).await
        }
        .boxed()
    }

    fn initialise<'a>(&'a self, head: &'a HeadRow, barrier: &'a [BarrierRow]) -> BoxFuture<'a, Result<(), StoreError>> {
        async {
            let mut lease = self.lease().await?;
            let result = write::initialise(lease.conn(), head, barrier).await;
            lease.finish(result)
        }
        .boxed()
    }

    fn load<'a>(
        &'a self,
        inline_limit: u64,
        visit: &'a mut (dyn FnMut(Vec<Loaded>) -> Result<(), StoreError> + Send),
    ) -> BoxFuture<'a, Result<HeadRow, StoreError>> {
        async move {
            self.settle().await?;
            read::load(&mut *self.reader().await?, inline_limit, visit).await
        }
        .boxed()
    }

    fn commit<'a>(&'a self, batch: &'a [Write], sealer: &'a dyn HeadSealer) -> BoxFuture<'a, Result<Vec<CommitOutcome>, StoreError>> {
        async move {
            let mut lease = self.lease().await?;
            let result = write::commit(lease.conn(), batch, sealer).await;
            lease.finish(result)
        }
        .boxed()
    }

    fn reseal<'a>(&'a self, sealer: &'a dyn HeadSealer) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let mut lease = self.lease().await?;
            let result = write::reseal(lease.conn(), sealer).await;
            lease.finish(result)
        }
        .boxed()
    }

    fn version<'a>(&'a self, key: &'a KeyRef, version: VersionId) -> BoxFuture<'a, Result<Option<(Sealed, Sealed)>, StoreError>> {
        async move { read::version(&mut *self.reader().await?, key, version).await }.boxed()
    }

    fn history<'a>(&'a self, key: &'a KeyRef, limit: u32) -> BoxFuture<'a, Result<Vec<(KeyRow, Revision)>, StoreError>> {
        async move { read::history(&mut *self.reader().await?, key, limit).await }.boxed()
    }

    fn changes(&self, after: Revision, limit: u32) -> BoxFuture<'_, Result<Vec<ChangeRow>, StoreError>> {
        async move { read::changes(&mut *self.reader().await?, after, limit).await }.boxed()
    }

    fn barriers(&self) -> BoxFuture<'_, Result<Vec<BarrierRow>, StoreError>> {
        async { read::barriers(&mut *self.reader().await?).await }.boxed()
    }

    fn add_barriers<'a>(&'a self, rows: &'a [BarrierRow]) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let mut lease = self.lease().await?;
            let result = write::add_barriers(lease.conn(), rows).await;
            lease.finish(result)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            let mut slot = self.writer.lock().await;
            self.closed.store(true, Ordering::Release);
            self.readers.close().await;
            // The last connection to close moves the write-ahead log into the database and removes it.
            if let Some(conn) = slot.take()
                && let Err(error) = conn.close().await
            {
                tracing::warn!(%error, "the store's last connection did not close cleanly; the next start will recover");
            }
        }
        .boxed()
    }
}
