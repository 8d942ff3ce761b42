//! Opening the database: is it ours, how new is it, and with what settings.
//!
//! It never changes a file that is not Claviger's.

use crate::dialect::{BEGIN_WRITE, Connection, classify, classify_commit};
use claviger_ports::StoreError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor, Row as _, SqlSafeStr};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Marks the file as Claviger's in SQLite's header: "Clvg".
const APPLICATION_ID: i64 = 0x436c_7667;

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages of write-ahead log after which a commit moves them into the database. Each move costs two more fsyncs and writes
/// each changed page once more, so it must be rare; but the log is read again at the next start (32 MiB: some 20 ms).
const CHECKPOINT_PAGES: &str = "8192";

/// Readers at once; a start reads with one, requests for large data with the others.
const READERS: u32 = 4;

/// Rows that the driver may read ahead: a page of a load, its end, and one to spare.
const ROWS_AHEAD: usize = crate::read::PAGE + 2;

/// One step per schema version, applied in order. A released step never changes.
const MIGRATIONS: [&str; 3] =
    [include_str!("../migrations/1.sql"), include_str!("../migrations/2.sql"), include_str!("../migrations/3.sql")];

/// The newest schema that this program knows.
pub(crate) const NEWEST: i64 = MIGRATIONS.len() as i64;

const SCHEMA_VERSION: &str = "SELECT version FROM schema_version WHERE id = 1";
/// It changes the row even where the version stays: SQLite does not write a page whose bytes would be the same.
const SET_SCHEMA_VERSION: &str = "UPDATE schema_version SET version = ?, opened = opened + 1 WHERE id = 1";

/// Where a store is and what it may take.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The database file; its `-wal` and `-shm` stand beside it.
    pub path: PathBuf,
    /// At most this many pages of 4096 bytes; writes beyond are [`StoreError::Full`]. `None`: what the disk has.
    pub max_pages: Option<u32>,
    /// Whether it is only read: nothing is made, brought up to date, locked or moved out of the write-ahead log.
    pub read_only: bool,
}

impl SqliteOptions {
    /// A store at `path` without a limit.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_pages: None, read_only: false }
    }

    fn plain(&self) -> SqliteConnectOptions {
        let options = SqliteConnectOptions::new().filename(&self.path).busy_timeout(BUSY_TIMEOUT).read_only(self.read_only);
        options.disable_statement_logging()
    }

    /// `trusted_schema` off and `cell_size_check` on: the file may be damaged or hostile. Foreign keys off: every write is
    /// made by one function that keeps them, and checking them would cost a lookup per row.
    fn common(&self) -> SqliteConnectOptions {
        self.plain()
            .foreign_keys(false)
            .pragma("trusted_schema", "OFF")
            .pragma("cell_size_check", "ON")
            .pragma("temp_store", "MEMORY")
            .statement_cache_capacity(128)
            .row_buffer_size(ROWS_AHEAD)
    }

    fn writing(&self) -> SqliteConnectOptions {
        let options = self
            .common()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("secure_delete", "ON")
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("cache_size", "-32768");
        match self.max_pages {
            Some(pages) => options.pragma("max_page_count", pages.to_string()),
            None => options,
        }
    }

    fn reading(&self) -> SqliteConnectOptions {
        self.common().pragma("query_only", "ON").pragma("cache_size", "-8192")
    }
}

/// Makes the file where there is none, readable by its owner only, and refuses one that is not Claviger's. One that is only
/// read must have the schema of this program.
pub(crate) async fn prepare_file(options: &SqliteOptions) -> Result<(), StoreError> {
    if !options.read_only {
        create_file(&options.path)?;
    }
    let mut conn = options.plain().connect().await.map_err(|e| at_path(&options.path, &e))?;
    let claimed = if options.read_only { recognise(&mut conn, &options.path).await } else { claim(&mut conn, &options.path).await };
    // Closing can only fail to tidy up; what matters was written or refused above.
    let _ = conn.close().await;
    claimed
}

fn create_file(path: &Path) -> Result<(), StoreError> {
    // An existing file is left to SQLite: closing a second descriptor on it would drop the process's locks on it.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            file.sync_all().map_err(|e| unavailable(path, &e))?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| unavailable(path, &e))
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(unavailable(path, &e)),
    }
}

/// Marks an empty database as ours and checks the mark of any other. It runs before any setting is applied, because
/// switching a foreign file to write-ahead logging would change it.
async fn claim(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let mark = number(conn, "PRAGMA application_id").await.map_err(|e| foreign(path, e))?;
    if mark == APPLICATION_ID {
        return Ok(());
    }
    let tables = number(conn, "SELECT count(*) FROM sqlite_schema").await.map_err(|e| foreign(path, e))?;
    if mark != 0 || tables != 0 {
        return Err(StoreError::Damaged(format!("`{}` is a database, but not Claviger's", path.display())));
    }
    // Safe: the text is made of a constant. Pragmas take no parameters.
    let set_mark = AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}"));
    conn.execute(set_mark).await.map_err(|e| classify(&e))?;
    Ok(())
}

/// Checks mark and schema version of a database that is only read.
async fn recognise(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    if number(conn, "PRAGMA application_id").await.map_err(|e| foreign(path, e))? != APPLICATION_ID {
        return Err(StoreError::Damaged(format!("`{}` is not Claviger's database", path.display())));
    }
    match number(conn, SCHEMA_VERSION).await? {
        NEWEST => Ok(()),
        found if found > NEWEST => Err(StoreError::TooNew { found, known: NEWEST }),
        found => {
            let why = format!(
                "its schema {found} is older than this program's {NEWEST}; start this program's server once, which brings it up to date"
            );
            Err(StoreError::Unavailable(why))
        }
    }
}

fn foreign(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged(text) => StoreError::Damaged(format!("`{}` is no Claviger database: {text}", path.display())),
        other => other,
    }
}

/// Opens the writer and brings the schema up to date.
///
/// Its first act is a small commit. That proves that the file can be written, and it settles a commit whose fsync failed:
/// such a commit is not visible, but its frames may be in the log, and a crash would bring them to life. The new frames
/// overwrite them.
pub(crate) async fn connect_writer(options: &SqliteOptions) -> Result<Connection, StoreError> {
    let mut conn = options.writing().connect().await.map_err(|e| at_path(&options.path, &e))?;
    let mode: String = text(&mut conn, "PRAGMA journal_mode").await?;
    if mode != "wal" {
        return Err(StoreError::Unavailable(format!("`{}` stands where write-ahead logs cannot", options.path.display())));
    }
    let mut tx = conn.begin_with(BEGIN_WRITE).await.map_err(|e| at_path(&options.path, &e))?;
    let version = migrate(&mut tx).await?;
    sqlx::query(SET_SCHEMA_VERSION).bind(version).execute(&mut *tx).await.map_err(|e| at_path(&options.path, &e))?;
    tx.commit().await.map_err(|e| match classify_commit(&e) {
        // Nobody waits for this commit's outcome.
        StoreError::Unknown(text) => StoreError::Unavailable(text),
        other => other,
    })?;
    Ok(conn)
}

/// Whether what the readers see has the schema of this program.
pub(crate) async fn is_current(readers: &SqlitePool) -> bool {
    let Ok(mut conn) = readers.acquire().await else { return false };
    number(&mut conn, SCHEMA_VERSION).await == Ok(NEWEST)
}

async fn migrate(conn: &mut Connection) -> Result<i64, StoreError> {
    let has_schema = number(conn, "SELECT count(*) FROM sqlite_schema WHERE name = 'schema_version'").await? > 0;
    let found = if has_schema { number(conn, SCHEMA_VERSION).await? } else { 0 };
    if found > NEWEST {
        return Err(StoreError::TooNew { found, known: NEWEST });
    }
    let done = usize::try_from(found).map_err(|_| StoreError::Damaged(format!("schema version {found}")))?;
    for step in &MIGRATIONS[done..] {
        sqlx::raw_sql(*step).execute(&mut *conn).await.map_err(|e| classify(&e))?;
    }
    Ok(NEWEST)
}

/// The pool of readers. It opens connections when they are needed.
pub(crate) fn readers(options: &SqliteOptions) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(BUSY_TIMEOUT)
        .max_lifetime(None)
        .idle_timeout(Duration::from_secs(60))
        .test_before_acquire(false)
        .connect_lazy_with(options.reading())
}

async fn number(conn: &mut Connection, sql: impl SqlSafeStr) -> Result<i64, StoreError> {
    let row = sqlx::query(sql).fetch_one(conn).await.map_err(|e| classify(&e))?;
    row.try_get(0).map_err(|e| classify(&e))
}

async fn text(conn: &mut Connection, sql: impl SqlSafeStr) -> Result<String, StoreError> {
    let row = sqlx::query(sql).fetch_one(conn).await.map_err(|e| classify(&e))?;
    row.try_get(0).map_err(|e| classify(&e))
}

fn unavailable(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("`{}`: {error}", path.display()))
}

fn at_path(path: &Path, error: &sqlx::Error) -> StoreError {
    let named = |text: String| format!("`{}`: {text}", path.display());
    match classify(error) {
        StoreError::Unavailable(text) => StoreError::Unavailable(named(text)),
        StoreError::Damaged(text) => StoreError::Damaged(named(text)),
        StoreError::Full(text) => StoreError::Full(named(text)),
        other => other,
    }
}
