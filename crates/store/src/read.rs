//! What is read: the whole store at a start, and single rows after it.

use crate::dialect::{Connection, Query, Row, classify, statements};
use crate::rows;
use crate::write::read_head;
use claviger_domain::{KeyRef, Revision, VersionId};
use claviger_ports::{BarrierRow, ChangeRow, HISTORY_LIMIT, HeadRow, KeyRow, Loaded, Sealed, StoreError};
use futures::TryStreamExt;
use sqlx::Connection as _;

/// Rows that a visitor gets at once.
const CHUNK: usize = 1024;

/// A visitor of [`claviger_ports::Store::load`].
pub(crate) type Visit<'a> = &'a mut (dyn FnMut(Vec<Loaded>) -> Result<(), StoreError> + Send);

/// Delivers everything, in one read transaction, which is one state.
pub(crate) async fn load(conn: &mut Connection, inline_limit: u64, visit: Visit<'_>) -> Result<HeadRow, StoreError> {
    let mut tx = conn.begin().await.map_err(|e| classify(&e))?;
    let head = read_head(&mut tx).await?.ok_or_else(StoreError::not_initialised)?;
    let limit = i64::try_from(inline_limit).unwrap_or(i64::MAX);
    let read_version = |row: &Row| rows::loaded_version(row, inline_limit).map(Loaded::Version);
    deliver(&mut tx, sqlx::query(statements::LOAD_KEYS), visit, |row| rows::key_at(row).map(|(row, at)| Loaded::Key(row, at))).await?;
    deliver(&mut tx, sqlx::query(statements::LOAD_VERSIONS).bind(limit), visit, read_version).await?;
    deliver(&mut tx, sqlx::query(statements::LOAD_GRANTS), visit, |row| rows::grant_at(row).map(|(row, at)| Loaded::Grant(row, at)))
        .await?;
    deliver(&mut tx, sqlx::query(statements::LOAD_TOMBSTONES), visit, |row| {
        rows::tombstone_at(row).map(|(row, at)| Loaded::Tombstone(row, at))
    })
    .await?;
    tx.rollback().await.map_err(|e| classify(&e))?;
    Ok(head)
}

async fn deliver(
    conn: &mut Connection,
    query: Query,
    visit: Visit<'_>,
    read: impl Fn(&Row) -> Result<Loaded, StoreError>,
) -> Result<(), StoreError> {
    let mut stream = query.fetch(conn);
    let mut chunk = Vec::with_capacity(CHUNK);
    while let Some(row) = stream.try_next().await.map_err(|e| classify(&e))? {
        chunk.push(read(&row)?);
        if chunk.len() == CHUNK {
            visit(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK)))?;
        }
    }
    if chunk.is_empty() { Ok(()) } else { visit(chunk) }
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

async fn all<T>(conn: &mut Connection, query: Query, read: fn(&Row) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
    let rows = query.fetch_all(conn).await.map_err(|e| classify(&e))?;
    rows.iter().map(read).collect()
}
