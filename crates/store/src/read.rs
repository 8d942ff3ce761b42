//! What is read: the whole store at a start, and single rows after it.

use crate::dialect::{Connection, Query, Row, classify, statements};
use crate::rows::{self, Place};
use crate::write::read_head;
use claviger_domain::{KeyRef, Revision, VersionId};
use claviger_ports::{BarrierRow, ChangeRow, DamagedRow, HISTORY_LIMIT, HeadRow, KeyRow, Loaded, Sealed, StoreError};
use futures::StreamExt;
use futures::stream::BoxStream;
use futures::task::noop_waker_ref;
use sqlx::Connection as _;
use std::task::{Context, Poll};
use std::time::Duration;

/// Rows that are read, and given to a visitor, at once.
pub(crate) const PAGE: usize = 1024;

/// The same where the rows come with all their data, which may have 10 MiB each.
const HEAVY_PAGE: usize = 16;

/// Data up to this many bytes does not make a page heavy.
const LIGHT: u64 = 1 << 20;

/// How long a load sleeps when the driver has not read a page yet. The runtime's timer is ten times coarser, which would
/// double a start's time; so the thread itself sleeps, for less than a visitor keeps it busy with each page.
const NAP: Duration = Duration::from_micros(100);

/// A visitor of [`claviger_ports::Store::load`].
pub(crate) type Visit<'a> = &'a mut (dyn FnMut(Vec<Loaded>) -> Result<(), StoreError> + Send);

/// Delivers everything, in one read transaction, which is one state.
pub(crate) async fn load(conn: &mut Connection, inline_limit: u64, visit: Visit<'_>) -> Result<HeadRow, StoreError> {
    let mut tx = conn.begin().await.map_err(|e| classify(&e))?;
    let head = read_head(&mut tx).await?.ok_or_else(StoreError::not_initialised)?;
    let limit = i64::try_from(inline_limit).unwrap_or(i64::MAX);
    let key = |row: &Row| {
        let read = rows::key_at(row).map(|(row, at)| Loaded::Key(row, at));
        rows::or_damaged(read, "a key", |why| Some(DamagedRow::Key(rows::key_as_it_stands(row).ok()?, why)))
    };
    let version = |row: &Row| {
        let read = rows::loaded_version(row, inline_limit).map(Loaded::Version);
        rows::or_damaged(read, "a version", |why| Some(DamagedRow::Version(rows::key_ref(row).ok()?, why)))
    };
    let tombstone = |row: &Row| {
        let read = rows::tombstone_at(row).map(|(row, at)| Loaded::Tombstone(row, at));
        rows::or_damaged(read, "a tombstone", |why| Some(DamagedRow::Tombstone(rows::tombstone(row).ok()?, why)))
    };
    let grant = |row: &Row| {
        let read = rows::grant_at(row).map(|(row, at)| Loaded::Grant(row, at));
        rows::or_damaged(read, "a prefix's grants", |why| Some(DamagedRow::Grant(rows::grant(row).ok()?, why)))
    };
    let approval = |row: &Row| {
        let read = rows::approval_at(row).map(|(row, at)| Loaded::Approval(row, at));
        rows::or_damaged(read, "a request for approval", |why| Some(DamagedRow::Approval(rows::approval(row).ok()?, why)))
    };
    let versions = |last: Option<&Place>| rows::bind_version_after(sqlx::query(statements::LOAD_VERSIONS).bind(limit), last);
    let keys = |last: Option<&Place>| rows::bind_id_after(sqlx::query(statements::LOAD_KEYS), last);
    let tombstones = |last: Option<&Place>| rows::bind_key_ref_after(sqlx::query(statements::LOAD_TOMBSTONES), last);
    let page = if inline_limit > LIGHT { HEAVY_PAGE } else { PAGE };
    deliver(&mut tx, PAGE, keys, rows::id_place, key, visit).await?;
    deliver(&mut tx, page, versions, rows::version_place, version, visit).await?;
    deliver(&mut tx, PAGE, tombstones, rows::key_ref_place, tombstone, visit).await?;
    // Few, and the empty prefix has no name before it: read at once.
    let grants = all(&mut tx, sqlx::query(statements::LOAD_GRANTS), grant).await?;
    in_chunks(grants, visit)?;
    let approvals = all(&mut tx, sqlx::query(statements::LOAD_APPROVALS), approval).await?;
    in_chunks(approvals, visit)?;
    tx.rollback().await.map_err(|e| classify(&e))?;
    Ok(head)
}

fn in_chunks(mut rows: Vec<Loaded>, visit: Visit<'_>) -> Result<(), StoreError> {
    while !rows.is_empty() {
        let rest = rows.split_off(rows.len().min(PAGE));
        visit(std::mem::replace(&mut rows, rest))?;
    }
    Ok(())
}

/// Delivers a table page by page. While the visitor has one page, the driver's thread reads the next.
///
/// The driver hands over row by row, and a hand-over to a sleeping thread, either way, costs more than reading the row.
/// So a page fits into the driver's buffer whole, and is taken out of it when it is there.
async fn deliver(
    conn: &mut Connection,
    rows: usize,
    after: impl Fn(Option<&Place>) -> Query,
    place: fn(&Row) -> Result<Place, StoreError>,
    read: impl Fn(&Row) -> Result<Loaded, StoreError>,
    visit: Visit<'_>,
) -> Result<(), StoreError> {
    let query = |last: Option<&Place>| after(last).bind(rows as i64);
    let mut page = finish(start(conn, query(None))?).await?;
    let mut last = None;
    while let Some(row) = page.last() {
        // In a damaged table rows may be out of order, and a load that went back would never end. So this table's walk does.
        let end = Some(place(row)?);
        if end <= last {
            let why = "rows are out of order; those after them are not read".to_owned();
            return visit(vec![Loaded::Damaged(DamagedRow::Other("a table".to_owned(), why))]);
        }
        last = end;
        let next = if page.len() == rows { Some(start(conn, query(last.as_ref()))?) } else { None };
        visit(page.iter().map(&read).collect::<Result<_, _>>()?)?;
        let Some(next) = next else { break };
        page = finish(next).await?;
    }
    Ok(())
}

/// A page that is being read.
struct Reading<'c> {
    stream: BoxStream<'c, Result<Row, sqlx::Error>>,
    rows: Vec<Row>,
    ended: bool,
}

/// Sends a query to the driver's thread.
fn start(conn: &mut Connection, query: Query) -> Result<Reading<'_>, StoreError> {
    let mut reading = Reading { stream: query.fetch(conn), rows: Vec::with_capacity(PAGE), ended: false };
    reading.take()?;
    Ok(reading)
}

impl Reading<'_> {
    /// Takes what is there, and asks not to be woken for more.
    fn take(&mut self) -> Result<(), StoreError> {
        let mut context = Context::from_waker(noop_waker_ref());
        while !self.ended {
            match self.stream.poll_next_unpin(&mut context) {
                Poll::Ready(Some(row)) => self.rows.push(row.map_err(|e| classify(&e))?),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}

async fn finish(mut reading: Reading<'_>) -> Result<Vec<Row>, StoreError> {
    reading.take()?;
    while !reading.ended {
        std::thread::sleep(NAP);
        tokio::task::yield_now().await;
        reading.take()?;
    }
    Ok(reading.rows)
}

/// One version's wrapped key and data.
pub(crate) async fn version(conn: &mut Connection, key: &KeyRef, version: VersionId) -> Result<Option<(Sealed, Sealed)>, StoreError> {
    let query = rows::bind_key_ref(sqlx::query(statements::VERSION), key).bind(version.get().cast_signed());
    let row = query.fetch_optional(conn).await.map_err(|e| classify(&e))?;
    row.as_ref().map(rows::sealed_pair).transpose()
}

/// Earlier rows, newest first.
pub(crate) async fn history(conn: &mut Connection, key: &KeyRef, limit: u32) -> Result<Vec<(KeyRow, Revision)>, StoreError> {
    let query = rows::bind_key_ref(sqlx::query(statements::HISTORY), key).bind(i64::from(limit.min(HISTORY_LIMIT)));
    all(conn, query, rows::key_at).await
}

/// Changes after a revision.
pub(crate) async fn changes(conn: &mut Connection, after: Revision, limit: u32) -> Result<Vec<ChangeRow>, StoreError> {
    let query = rows::bind_revision(sqlx::query(statements::CHANGES), after).bind(i64::from(limit));
    all(conn, query, rows::change).await
}

/// All barrier rows.
pub(crate) async fn barriers(conn: &mut Connection) -> Result<Vec<BarrierRow>, StoreError> {
    all(conn, sqlx::query(statements::BARRIERS), rows::barrier).await
}

async fn all<T>(conn: &mut Connection, query: Query, read: impl Fn(&Row) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
    let rows = query.fetch_all(conn).await.map_err(|e| classify(&e))?;
    rows.iter().map(read).collect()
}
