//! The one transaction that writes: read what stands under the lock, decide in memory, write in bulk, replace the head.

use crate::dialect::{BEGIN_WRITE, Bulk, Connection, Db, Query, classify, classify_commit, statements};
use crate::plan::{Plan, Standing};
use crate::rows;
use claviger_domain::{ApprovalId, KeyId, Prefix, Revision};
use claviger_ports::{BarrierRow, CHANGES_KEPT, CommitOutcome, HeadRow, HeadSealer, StoreError, Target, VersionRow, Write};
use sqlx::Connection as _;
use std::collections::HashSet;

/// One statement carries at most about this many bytes, unless a single row has more.
const MOST_BYTES: usize = 1 << 20;

/// A row's size beside its data, roughly.
const ROW_BYTES: usize = 1 << 10;

/// Old changes are deleted when the revision passes a multiple of this: rarely, so that it costs little.
const PRUNE_EVERY: u64 = 256;

/// The most that are deleted then: more than come, so that a backlog goes, and few enough to delay nobody.
const PRUNED: u64 = 1024;

/// Commits a batch; see the guarantees of [`claviger_ports::Store::commit`].
pub(crate) async fn commit(conn: &mut Connection, batch: &[Write], sealer: &dyn HeadSealer) -> Result<Vec<CommitOutcome>, StoreError> {
    let mut tx = conn.begin_with(BEGIN_WRITE).await.map_err(|e| classify(&e))?;
    match write_batch(&mut tx, batch, sealer).await {
        Ok(Some(plan)) => {
            tx.commit().await.map_err(|e| classify_commit(&e))?;
            Ok(plan.outcomes)
        }
        Ok(None) => {
            tx.rollback().await.map_err(|e| classify(&e))?;
            Ok(vec![CommitOutcome::Conflict; batch.len()])
        }
        Err(e) => {
            // It may fail where SQLite has rolled back by itself; the connection is given up in any case.
            let _ = tx.rollback().await;
            Err(e)
        }
    }
}

/// Writes the first head and barrier rows where there is no head.
pub(crate) async fn initialise(conn: &mut Connection, head: &HeadRow, barriers: &[BarrierRow]) -> Result<(), StoreError> {
    let mut tx = conn.begin_with(BEGIN_WRITE).await.map_err(|e| classify(&e))?;
    if read_head(&mut tx).await?.is_some() {
        return Err(StoreError::already_initialised());
    }
    insert_barriers(&mut tx, barriers).await?;
    run(&mut tx, rows::bind_head(sqlx::query(statements::INSERT_HEAD), head)).await?;
    tx.commit().await.map_err(|e| classify_commit(&e))
}

/// Replaces the head by what the sealer makes of it.
pub(crate) async fn reseal(conn: &mut Connection, sealer: &dyn HeadSealer) -> Result<(), StoreError> {
    let mut tx = conn.begin_with(BEGIN_WRITE).await.map_err(|e| classify(&e))?;
    let head = read_head(&mut tx).await?.ok_or_else(StoreError::not_initialised)?;
    let next = sealer.advance(&head, &[])?;
    head.check_next(&next, 0, sealer.epoch(head.revision))?;
    run(&mut tx, rows::bind_head(sqlx::query(statements::UPDATE_HEAD), &next)).await?;
    tx.commit().await.map_err(|e| classify_commit(&e))
}

/// Adds barrier rows that are not there yet, all or none.
pub(crate) async fn add_barriers(conn: &mut Connection, barriers: &[BarrierRow]) -> Result<(), StoreError> {
    let mut tx = conn.begin_with(BEGIN_WRITE).await.map_err(|e| classify(&e))?;
    insert_barriers(&mut tx, barriers).await?;
    tx.commit().await.map_err(|e| classify_commit(&e))
}

/// The head.
pub(crate) async fn read_head(conn: &mut Connection) -> Result<Option<HeadRow>, StoreError> {
    let row = sqlx::query(statements::HEAD).fetch_optional(conn).await.map_err(|e| classify(&e))?;
    row.as_ref().map(rows::head).transpose()
}

async fn insert_barriers(conn: &mut Connection, barriers: &[BarrierRow]) -> Result<(), StoreError> {
    for row in barriers {
        let name = sqlx::query(statements::BARRIER_EXISTS).bind(i64::from(row.version)).bind(row.root.clone());
        if name.fetch_optional(&mut *conn).await.map_err(|e| classify(&e))?.is_some() {
            return Err(StoreError::barrier_exists(row));
        }
        run(conn, rows::bind_barrier(sqlx::query(statements::INSERT_BARRIER), row)).await?;
    }
    Ok(())
}

/// The plan that was written, or `None` when no write of the batch takes place.
async fn write_batch<'a>(conn: &mut Connection, batch: &'a [Write], sealer: &dyn HeadSealer) -> Result<Option<Plan<'a>>, StoreError> {
    let head = read_head(conn).await?.ok_or_else(StoreError::not_initialised)?;
    let standing = read_standing(conn, batch).await?;
    let epoch = sealer.epoch(head.revision);
    let plan = Plan::new(standing, batch, head.revision.in_epoch(epoch));
    if plan.gained.is_empty() {
        return Ok(None);
    }
    let next = sealer.advance(&head, &plan.gained)?;
    head.check_next(&next, plan.gained.len(), epoch)?;
    remove(conn, &plan).await?;
    insert(conn, &plan).await?;
    if head.revision.number / PRUNE_EVERY != next.revision.number / PRUNE_EVERY {
        prune_changes(conn, next.revision).await?;
    }
    run(conn, rows::bind_head(sqlx::query(statements::UPDATE_HEAD), &next)).await?;
    Ok(Some(plan))
}

/// Deletes some of the changes that no start asks about any more, whatever epochs they are of.
async fn prune_changes(conn: &mut Connection, last: Revision) -> Result<(), StoreError> {
    let Some(oldest) = nth_change(conn, 0).await? else { return Ok(()) };
    let unwanted = (last.number.saturating_sub(CHANGES_KEPT) + 1).saturating_sub(oldest.number);
    let Some(most) = unwanted.min(PRUNED).checked_sub(1) else { return Ok(()) };
    // None where there are fewer, which no server makes: then nothing is deleted.
    let Some(newest) = nth_change(conn, most).await? else { return Ok(()) };
    run(conn, rows::bind_revision(sqlx::query(statements::PRUNE_CHANGES), newest)).await
}

/// The revision of the oldest change but so many.
async fn nth_change(conn: &mut Connection, older: u64) -> Result<Option<Revision>, StoreError> {
    let query = sqlx::query(statements::NTH_CHANGE).bind(older.cast_signed());
    let row = query.fetch_optional(&mut *conn).await.map_err(|e| classify(&e))?;
    row.map(|row| rows::revision(&row, 0)).transpose()
}

async fn read_standing(conn: &mut Connection, batch: &[Write]) -> Result<Standing, StoreError> {
    let (mut keys, mut prefixes, mut approvals) = (HashSet::new(), HashSet::new(), HashSet::new());
    for write in batch {
        approvals.extend(write.uses.as_ref().map(|row| row.id));
        match &write.target {
            Target::Key(id) => keys.insert(id.as_str()),
            Target::Prefix(prefix) => prefixes.insert(prefix.as_str()),
            Target::Approval(id) => approvals.insert(*id),
        };
    }
    let mut standing = Standing::default();
    let names = |all: HashSet<&str>| all.into_iter().map(str::to_owned).collect();
    for row in read_named::<String>(conn, &statements::KEYS_BY_ID, names(keys)).await? {
        // A damaged row can be deleted; what is expected of it was read in the same way.
        let key = rows::key_as_it_stands(&row)?;
        standing.keys.insert(KeyId::clone(&key.id), key);
    }
    for row in read_named::<String>(conn, &statements::GRANTS_BY_PREFIX, names(prefixes)).await? {
        let (prefix, stored): (Prefix, _) = rows::grant_standing(&row)?;
        standing.grants.insert(prefix, stored);
    }
    let approvals = approvals.into_iter().map(|ApprovalId(id)| id.cast_signed()).collect();
    for row in read_named::<i64>(conn, &statements::APPROVALS_BY_ID, approvals).await? {
        let (id, stored) = rows::approval_standing(&row)?;
        standing.approvals.insert(id, stored);
    }
    Ok(standing)
}

/// Reads the rows of some names. The last piece is filled up with its first name, which finds no row twice.
async fn read_named<T>(conn: &mut Connection, bulk: &Bulk, names: Vec<T>) -> Result<Vec<crate::dialect::Row>, StoreError>
where
    T: Clone + Send + sqlx::Encode<'static, Db> + sqlx::Type<Db> + 'static,
{
    let mut found = Vec::with_capacity(names.len());
    for part in names.chunks(Bulk::MOST) {
        let places = part.len().next_power_of_two();
        let filled = part.iter().chain(std::iter::repeat(&part[0])).take(places);
        let query = filled.fold(sqlx::query(bulk.text(places)), |query, name| query.bind(name.clone()));
        found.extend(query.fetch_all(&mut *conn).await.map_err(|e| classify(&e))?);
    }
    Ok(found)
}

async fn remove(conn: &mut Connection, plan: &Plan<'_>) -> Result<(), StoreError> {
    for key in &plan.purged {
        run(conn, rows::bind_key_ref(sqlx::query(statements::PURGE_VERSIONS), key)).await?;
        run(conn, rows::bind_key_ref(sqlx::query(statements::PURGE_HISTORY), key)).await?;
    }
    for id in &plan.dropped_keys {
        run(conn, sqlx::query(statements::DROP_KEY).bind(id.as_str().to_owned())).await?;
    }
    for prefix in &plan.dropped_grants {
        run(conn, sqlx::query(statements::DROP_GRANT).bind(prefix.as_str().to_owned())).await?;
    }
    for id in &plan.dropped_approvals {
        run(conn, sqlx::query(statements::DROP_APPROVAL).bind(id.0.cast_signed())).await?;
    }
    for (key, version) in &plan.destroyed {
        let query = rows::bind_key_ref(sqlx::query(statements::DESTROY_VERSION), key);
        run(conn, query.bind(version.get().cast_signed())).await?;
    }
    for (key, oldest_kept) in &plan.trimmed {
        let query = rows::bind_key_ref(sqlx::query(statements::TRIM_HISTORY), key);
        run(conn, query.bind(oldest_kept.0.cast_signed())).await?;
    }
    Ok(())
}

async fn insert(conn: &mut Connection, plan: &Plan<'_>) -> Result<(), StoreError> {
    let plain = |_: usize| ROW_BYTES;
    let data = |i: usize| ROW_BYTES + plan.added[i].data.0.len();
    insert_all(conn, &statements::PUT_KEYS, &plan.keys, plain, |query, (row, at)| rows::bind_key(query, row, *at)).await?;
    insert_all(conn, &statements::ADD_VERSIONS, &plan.added, data, |query, row: &&VersionRow| rows::bind_version(query, row)).await?;
    insert_all(conn, &statements::ADD_HISTORY, &plan.history, plain, |query, (row, at)| rows::bind_history(query, row, *at)).await?;
    insert_all(conn, &statements::ADD_TOMBSTONES, &plan.tombstones, plain, |query, (row, at)| rows::bind_tombstone(query, row, *at))
        .await?;
    insert_all(conn, &statements::PUT_GRANTS, &plan.grants, plain, |query, (row, at)| rows::bind_grant(query, row, *at)).await?;
    let approval = |i: usize| ROW_BYTES + plan.approvals[i].0.body.len();
    insert_all(conn, &statements::PUT_APPROVALS, &plan.approvals, approval, |query, (row, at)| rows::bind_approval(query, row, *at))
        .await?;
    insert_all(conn, &statements::ADD_CHANGES, &plan.changes, plain, |query, (write, at)| rows::bind_change(query, write, *at)).await
}

/// Inserts rows with as few statements as sizes allow. `size` says how many bytes the row at an index has.
async fn insert_all<T>(
    conn: &mut Connection,
    bulk: &Bulk,
    all: &[T],
    size: impl Fn(usize) -> usize,
    bind: impl Fn(Query, &T) -> Query,
) -> Result<(), StoreError> {
    let mut from = 0;
    while from < all.len() {
        let count = piece(all.len() - from, |i| size(from + i));
        let rows = &all[from..from + count];
        run(conn, rows.iter().fold(sqlx::query(bulk.text(count)), &bind)).await?;
        from += count;
    }
    Ok(())
}

/// How many of the next `left` rows go into one statement: a power of two, at least one.
fn piece(left: usize, size: impl Fn(usize) -> usize) -> usize {
    let most = left.min(Bulk::MOST);
    let mut bytes = 0;
    let fitting = (0..most).take_while(|i| {
        bytes += size(*i);
        bytes <= MOST_BYTES
    });
    1 << fitting.count().max(1).ilog2()
}

async fn run(conn: &mut Connection, query: Query) -> Result<(), StoreError> {
    query.execute(conn).await.map(drop).map_err(|e| classify(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_powers_of_two_bounded_in_rows_and_bytes() {
        assert_eq!(piece(1, |_| ROW_BYTES), 1);
        assert_eq!(piece(63, |_| ROW_BYTES), 32);
        assert_eq!(piece(64, |_| ROW_BYTES), 64);
        assert_eq!(piece(1000, |_| ROW_BYTES), Bulk::MOST);
        assert_eq!(piece(1000, |_| MOST_BYTES / 3), 2);
        assert_eq!(piece(1000, |_| MOST_BYTES * 10), 1);
        assert_eq!(piece(1000, |i| if i == 5 { MOST_BYTES } else { 1 }), 4);
    }
}
