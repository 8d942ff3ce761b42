//! Rows between Rust and SQL. Outside data: whatever does not fit is [`StoreError::Damaged`], naming table and column.
//!
//! Unsigned numbers are stored as the signed number of the same bits, which loses nothing; those whose order matters
//! (revisions, generations) stay below 2^63 for longer than anyone will count.

use crate::dialect::{Db, Query, Row, classify};
use claviger_domain::{ApprovalId, Generation, Incarnation, KeyId, KeyRef, Prefix, RequestId, Revision, Timestamp, VersionId};
use claviger_ports::{
    ApprovalRow, BarrierRow, ChangeRow, DamagedRow, GrantRow, HeadRow, KeyRow, Loaded, LoadedVersion, Sealed, StoreError, TombstoneRow,
    VersionRow, Write,
};
use sqlx::Row as _;

const TAG: usize = 16;

/// Reads one column.
pub(crate) fn column<'r, T>(row: &'r Row, index: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Db> + sqlx::Type<Db>,
{
    row.try_get(index).map_err(|e| classify(&e))
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("{what} is not what was written"))
}

fn bytes(row: &Row, index: usize) -> Result<Box<[u8]>, StoreError> {
    column::<&[u8]>(row, index).map(Box::from)
}

fn unsigned(row: &Row, index: usize) -> Result<u64, StoreError> {
    column::<i64>(row, index).map(i64::cast_unsigned)
}

fn small<T: TryFrom<i64>>(row: &Row, index: usize, what: &str) -> Result<T, StoreError> {
    T::try_from(column::<i64>(row, index)?).map_err(|_| damaged(what))
}

fn key_id(row: &Row, index: usize) -> Result<KeyId, StoreError> {
    KeyId::parse(column(row, index)?).map_err(|_| damaged("a key id"))
}

fn prefix(row: &Row, index: usize) -> Result<Prefix, StoreError> {
    Prefix::parse(column(row, index)?).map_err(|_| damaged("a prefix"))
}

fn version_id(row: &Row, index: usize) -> Result<VersionId, StoreError> {
    VersionId::new(unsigned(row, index)?).ok_or_else(|| damaged("a version id"))
}

/// Two columns, epoch and number, from `index`.
pub(crate) fn revision(row: &Row, index: usize) -> Result<Revision, StoreError> {
    Ok(Revision { epoch: small(row, index, "an epoch")?, number: unsigned(row, index + 1)? })
}

pub(crate) fn key_ref(row: &Row) -> Result<KeyRef, StoreError> {
    Ok(KeyRef { id: key_id(row, 0)?, incarnation: Incarnation(unsigned(row, 1)?) })
}

pub(crate) fn head(row: &Row) -> Result<HeadRow, StoreError> {
    let commit_id = column::<&[u8]>(row, 2)?.try_into().map_err(|_| damaged("the head's commit id"))?;
    Ok(HeadRow { revision: revision(row, 0)?, commit_id, sealed: Sealed(bytes(row, 3)?) })
}

pub(crate) fn barrier(row: &Row) -> Result<BarrierRow, StoreError> {
    Ok(BarrierRow {
        version: small(row, 0, "a barrier version")?,
        root: column(row, 1)?,
        wrapped: Sealed(bytes(row, 2)?),
        created: Timestamp(column(row, 3)?),
    })
}

pub(crate) fn key(row: &Row) -> Result<KeyRow, StoreError> {
    let kind = small(row, 3, "a key's kind")?;
    Ok(KeyRow { kind, ..key_as_it_stands(row)? })
}

/// A key's row that may be damaged: a kind that is none is a code that no kind has.
pub(crate) fn key_as_it_stands(row: &Row) -> Result<KeyRow, StoreError> {
    Ok(KeyRow {
        id: key_id(row, 0)?,
        incarnation: Incarnation(unsigned(row, 1)?),
        generation: Generation(unsigned(row, 2)?),
        kind: small(row, 3, "a key's kind").unwrap_or(u8::MAX),
        meta: bytes(row, 4)?,
        mac: bytes(row, 5)?,
    })
}

/// A row of a load, `read`; where a column holds what was never written, what `damaged` makes of it, if anything.
pub(crate) fn or_damaged(
    read: Result<Loaded, StoreError>,
    kind: &str,
    damaged: impl FnOnce(String) -> Option<DamagedRow>,
) -> Result<Loaded, StoreError> {
    let why = match read {
        Err(StoreError::Damaged(why)) => why,
        other => return other,
    };
    Ok(Loaded::Damaged(damaged(why.clone()).unwrap_or_else(|| DamagedRow::Other(kind.to_owned(), why))))
}

pub(crate) fn key_at(row: &Row) -> Result<(KeyRow, Revision), StoreError> {
    Ok((key(row)?, revision(row, 6)?))
}

pub(crate) fn grant_standing(row: &Row) -> Result<(Prefix, (Incarnation, Generation)), StoreError> {
    Ok((prefix(row, 0)?, (Incarnation(unsigned(row, 1)?), Generation(unsigned(row, 2)?))))
}

pub(crate) fn grant_at(row: &Row) -> Result<(GrantRow, Revision), StoreError> {
    Ok((grant(row)?, revision(row, 5)?))
}

/// A prefix's grants without the columns that count in no sum.
pub(crate) fn grant(row: &Row) -> Result<GrantRow, StoreError> {
    let (prefix, (incarnation, generation)) = grant_standing(row)?;
    Ok(GrantRow { prefix, incarnation, generation, body: bytes(row, 3)?, mac: bytes(row, 4)? })
}

pub(crate) fn tombstone_at(row: &Row) -> Result<(TombstoneRow, Revision), StoreError> {
    Ok((tombstone(row)?, revision(row, 4)?))
}

/// A tombstone without the columns that count in no sum.
pub(crate) fn tombstone(row: &Row) -> Result<TombstoneRow, StoreError> {
    Ok(TombstoneRow { key: key_ref(row)?, body: bytes(row, 2)?, mac: bytes(row, 3)? })
}

pub(crate) fn approval_standing(row: &Row) -> Result<(ApprovalId, (Incarnation, Generation)), StoreError> {
    let id = unsigned(row, 0)?;
    Ok((ApprovalId(id), (Incarnation(id), Generation(unsigned(row, 1)?))))
}

pub(crate) fn approval_at(row: &Row) -> Result<(ApprovalRow, Revision), StoreError> {
    Ok((approval(row)?, revision(row, 4)?))
}

/// A request for approval without the columns that count in no sum.
pub(crate) fn approval(row: &Row) -> Result<ApprovalRow, StoreError> {
    let (id, (_, generation)) = approval_standing(row)?;
    Ok(ApprovalRow { id, generation, body: bytes(row, 2)?, mac: bytes(row, 3)? })
}

/// The sixth column is the data, or its tag alone where the data is longer than `inline_limit`: a column less per row is
/// a tenth of a start's time.
pub(crate) fn loaded_version(row: &Row, inline_limit: u64) -> Result<LoadedVersion, StoreError> {
    let data_len = unsigned(row, 4)?;
    let data_or_tag = bytes(row, 5)?;
    let is_inline = data_len <= inline_limit;
    if is_inline && data_or_tag.len() as u64 != data_len {
        return Err(damaged("a version's length"));
    }
    Ok(LoadedVersion {
        key: key_ref(row)?,
        version: version_id(row, 2)?,
        wrapped_key: Sealed(bytes(row, 3)?),
        data_len,
        data_tag: tag(&data_or_tag).into(),
        data: is_inline.then_some(Sealed(data_or_tag)),
    })
}

pub(crate) fn sealed_pair(row: &Row) -> Result<(Sealed, Sealed), StoreError> {
    Ok((Sealed(bytes(row, 0)?), Sealed(bytes(row, 1)?)))
}

pub(crate) fn change(row: &Row) -> Result<ChangeRow, StoreError> {
    let request_id = column::<&[u8]>(row, 5)?.try_into().map_err(|_| damaged("a request id"))?;
    Ok(ChangeRow {
        revision: revision(row, 0)?,
        target: column(row, 2)?,
        what: column(row, 3)?,
        actor: column(row, 4)?,
        request_id: RequestId(u128::from_be_bytes(request_id)),
        at: Timestamp(column(row, 6)?),
    })
}

fn tag(data: &[u8]) -> &[u8] {
    &data[data.len().saturating_sub(TAG)..]
}

pub(crate) fn bind_revision(query: Query, at: Revision) -> Query {
    query.bind(at.epoch.cast_signed()).bind(at.number.cast_signed())
}

pub(crate) fn bind_key_ref(query: Query, key: &KeyRef) -> Query {
    query.bind(key.id.as_str().to_owned()).bind(key.incarnation.0.cast_signed())
}

/// A row's place in its table: id, incarnation, version, as they are stored, so that the order is the database's. An id
/// that is damaged has its place, too, so it is bytes.
pub(crate) type Place = (Vec<u8>, i64, i64);

pub(crate) fn id_place(row: &Row) -> Result<Place, StoreError> {
    Ok((column(row, 0)?, 0, 0))
}

pub(crate) fn key_ref_place(row: &Row) -> Result<Place, StoreError> {
    Ok((column(row, 0)?, column(row, 1)?, 0))
}

pub(crate) fn version_place(row: &Row) -> Result<Place, StoreError> {
    Ok((column(row, 0)?, column(row, 1)?, column(row, 2)?))
}

/// Where a page starts: after a place, or before every id.
pub(crate) fn bind_id_after(query: Query, last: Option<&Place>) -> Query {
    query.bind(last.map_or_else(Vec::new, |(id, ..)| id.clone()))
}

pub(crate) fn bind_key_ref_after(query: Query, last: Option<&Place>) -> Query {
    bind_id_after(query, last).bind(last.map_or(i64::MIN, |(_, incarnation, _)| *incarnation))
}

pub(crate) fn bind_version_after(query: Query, last: Option<&Place>) -> Query {
    bind_key_ref_after(query, last).bind(last.map_or(i64::MIN, |(.., version)| *version))
}

pub(crate) fn bind_head(query: Query, head: &HeadRow) -> Query {
    bind_revision(query, head.revision).bind(head.commit_id.to_vec()).bind(head.sealed.0.to_vec())
}

pub(crate) fn bind_barrier(query: Query, row: &BarrierRow) -> Query {
    query.bind(i64::from(row.version)).bind(row.root.clone()).bind(row.wrapped.0.to_vec()).bind(row.created.0)
}

pub(crate) fn bind_key(query: Query, row: &KeyRow, at: Revision) -> Query {
    let query = query
        .bind(row.id.as_str().to_owned())
        .bind(row.incarnation.0.cast_signed())
        .bind(row.generation.0.cast_signed())
        .bind(i64::from(row.kind))
        .bind(row.meta.to_vec())
        .bind(row.mac.to_vec());
    bind_revision(query, at)
}

pub(crate) fn bind_history(query: Query, row: &KeyRow, at: Revision) -> Query {
    let query = query.bind(row.id.as_str().to_owned()).bind(row.incarnation.0.cast_signed());
    bind_revision(query, at).bind(row.generation.0.cast_signed()).bind(i64::from(row.kind)).bind(row.meta.to_vec()).bind(row.mac.to_vec())
}

pub(crate) fn bind_version(query: Query, row: &VersionRow) -> Query {
    let data = &row.data.0;
    bind_key_ref(query, &row.key)
        .bind(row.version.get().cast_signed())
        .bind(row.wrapped_key.0.to_vec())
        .bind((data.len() as u64).cast_signed())
        .bind(tag(data).to_vec())
        .bind(data.to_vec())
}

pub(crate) fn bind_grant(query: Query, row: &GrantRow, at: Revision) -> Query {
    let query = query
        .bind(row.prefix.as_str().to_owned())
        .bind(row.incarnation.0.cast_signed())
        .bind(row.generation.0.cast_signed())
        .bind(row.body.to_vec())
        .bind(row.mac.to_vec());
    bind_revision(query, at)
}

pub(crate) fn bind_tombstone(query: Query, row: &TombstoneRow, at: Revision) -> Query {
    let query = bind_key_ref(query, &row.key).bind(row.body.to_vec()).bind(row.mac.to_vec());
    bind_revision(query, at)
}

pub(crate) fn bind_approval(query: Query, row: &ApprovalRow, at: Revision) -> Query {
    let query = query.bind(row.id.0.cast_signed()).bind(row.generation.0.cast_signed()).bind(row.body.to_vec()).bind(row.mac.to_vec());
    bind_revision(query, at)
}

pub(crate) fn bind_change(query: Query, write: &Write, at: Revision) -> Query {
    let row = write.change_row(at);
    bind_revision(query, at).bind(row.target).bind(row.what).bind(row.actor).bind(row.request_id.0.to_be_bytes().to_vec()).bind(row.at.0)
}
