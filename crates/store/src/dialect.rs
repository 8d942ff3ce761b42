//! Everything that differs between SQL engines: the driver's types, the statements, and what its errors mean.
//!
//! The SQL is plain: no JSON functions, no RETURNING, no triggers. An engine's own words are in [`statements`] only.

use claviger_ports::StoreError;
use sqlx::AssertSqlSafe;
use std::sync::{Arc, OnceLock};

/// The driver.
pub(crate) type Db = sqlx::Sqlite;
/// One connection.
pub(crate) type Connection = sqlx::SqliteConnection;
/// One row.
pub(crate) type Row = sqlx::sqlite::SqliteRow;
/// A statement with its arguments, which own their values.
pub(crate) type Query = sqlx::query::Query<'static, Db, sqlx::sqlite::SqliteArguments>;

/// Starts a transaction that holds the write lock from its first moment. Where rows are locked instead, the lock is the
/// head row's (`SELECT … FOR UPDATE`), which every commit reads first.
pub(crate) const BEGIN_WRITE: &str = "BEGIN IMMEDIATE";

/// A statement that takes a list of rows.
///
/// Lists are cut into pieces of 1, 2, 4, … 128, so that each piece's statement is prepared once per connection.
pub(crate) struct Bulk {
    open: &'static str,
    row: &'static str,
    close: &'static str,
    texts: [OnceLock<Arc<str>>; Self::SIZES],
}

impl Bulk {
    const SIZES: usize = 8;
    /// The most rows in one statement.
    pub(crate) const MOST: usize = 1 << (Self::SIZES - 1);

    const fn new(open: &'static str, row: &'static str, close: &'static str) -> Self {
        Self { open, row, close, texts: [const { OnceLock::new() }; Self::SIZES] }
    }

    /// The statement for `rows` rows, a power of two up to [`Bulk::MOST`].
    pub(crate) fn text(&self, rows: usize) -> AssertSqlSafe<Arc<str>> {
        debug_assert!(rows.is_power_of_two() && rows <= Self::MOST);
        let make = || format!("{}{}{}", self.open, vec![self.row; rows].join(","), self.close).into();
        // Safe: it is made of constants of this file; values are bound.
        AssertSqlSafe(Arc::clone(self.texts[rows.ilog2() as usize].get_or_init(make)))
    }
}

/// The statements.
pub(crate) mod statements {
    use super::Bulk;

    pub(crate) const HEAD: &str = "SELECT epoch, revision, commit_id, sealed FROM head WHERE id = 1";
    pub(crate) const INSERT_HEAD: &str = "INSERT INTO head (id, epoch, revision, commit_id, sealed) VALUES (1, ?, ?, ?, ?)";
    pub(crate) const UPDATE_HEAD: &str = "UPDATE head SET epoch = ?, revision = ?, commit_id = ?, sealed = ? WHERE id = 1";

    pub(crate) const BARRIERS: &str = "SELECT version, root, wrapped, created FROM barrier ORDER BY version, root";
    pub(crate) const BARRIER_EXISTS: &str = "SELECT 1 FROM barrier WHERE version = ? AND root = ?";
    pub(crate) const INSERT_BARRIER: &str = "INSERT INTO barrier (version, root, wrapped, created) VALUES (?, ?, ?, ?)";

    pub(crate) static KEYS_BY_ID: Bulk =
        Bulk::new("SELECT id, incarnation, generation, kind, meta, mac FROM \"keys\" WHERE id IN (", "?", ")");
    pub(crate) static GRANTS_BY_PREFIX: Bulk =
        Bulk::new("SELECT prefix, incarnation, generation FROM \"grants\" WHERE prefix IN (", "?", ")");

    pub(crate) static APPROVALS_BY_ID: Bulk = Bulk::new("SELECT id, generation FROM approvals WHERE id IN (", "?", ")");

    pub(crate) static PUT_KEYS: Bulk = Bulk::new(
        "INSERT INTO \"keys\" (id, incarnation, generation, kind, meta, mac, epoch, revision) VALUES ",
        "(?,?,?,?,?,?,?,?)",
        " ON CONFLICT (id) DO UPDATE SET incarnation = excluded.incarnation, generation = excluded.generation, kind = excluded.kind, \
         meta = excluded.meta, mac = excluded.mac, epoch = excluded.epoch, revision = excluded.revision",
    );
    pub(crate) static ADD_VERSIONS: Bulk = Bulk::new(
        "INSERT INTO versions (key_id, incarnation, version_id, wrapped_key, data_len, data_tag, data) VALUES ",
        "(?,?,?,?,?,?,?)",
        "",
    );
    pub(crate) static ADD_HISTORY: Bulk = Bulk::new(
        "INSERT INTO history (key_id, incarnation, epoch, revision, generation, kind, meta, mac) VALUES ",
        "(?,?,?,?,?,?,?,?)",
        "",
    );
    pub(crate) static ADD_TOMBSTONES: Bulk =
        Bulk::new("INSERT INTO tombstones (key_id, incarnation, body, mac, epoch, revision) VALUES ", "(?,?,?,?,?,?)", "");
    pub(crate) static PUT_GRANTS: Bulk = Bulk::new(
        "INSERT INTO \"grants\" (prefix, incarnation, generation, body, mac, epoch, revision) VALUES ",
        "(?,?,?,?,?,?,?)",
        " ON CONFLICT (prefix) DO UPDATE SET incarnation = excluded.incarnation, generation = excluded.generation, body = excluded.body, mac = excluded.mac, \
         epoch = excluded.epoch, revision = excluded.revision",
    );
    pub(crate) static PUT_APPROVALS: Bulk = Bulk::new(
        "INSERT INTO approvals (id, generation, body, mac, epoch, revision) VALUES ",
        "(?,?,?,?,?,?)",
        " ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, body = excluded.body, mac = excluded.mac, \
         epoch = excluded.epoch, revision = excluded.revision",
    );
    pub(crate) static ADD_CHANGES: Bulk =
        Bulk::new("INSERT INTO changes (epoch, revision, target, what, actor, request_id, made) VALUES ", "(?,?,?,?,?,?,?)", "");

    pub(crate) const NTH_CHANGE: &str = "SELECT epoch, revision FROM changes ORDER BY epoch, revision LIMIT 1 OFFSET ?";
    pub(crate) const PRUNE_CHANGES: &str = "DELETE FROM changes WHERE (epoch, revision) <= (?, ?)";

    pub(crate) const DROP_KEY: &str = "DELETE FROM \"keys\" WHERE id = ?";
    pub(crate) const DROP_GRANT: &str = "DELETE FROM \"grants\" WHERE prefix = ?";
    pub(crate) const DROP_APPROVAL: &str = "DELETE FROM approvals WHERE id = ?";
    pub(crate) const PURGE_VERSIONS: &str = "DELETE FROM versions WHERE key_id = ? AND incarnation = ?";
    pub(crate) const PURGE_HISTORY: &str = "DELETE FROM history WHERE key_id = ? AND incarnation = ?";
    pub(crate) const DESTROY_VERSION: &str = "DELETE FROM versions WHERE key_id = ? AND incarnation = ? AND version_id = ?";
    pub(crate) const TRIM_HISTORY: &str = "DELETE FROM history WHERE key_id = ? AND incarnation = ? AND generation < ?";

    pub(crate) const VERSION: &str = "SELECT wrapped_key, data FROM versions WHERE key_id = ? AND incarnation = ? AND version_id = ?";
    pub(crate) const HISTORY: &str = "SELECT key_id, incarnation, generation, kind, meta, mac, epoch, revision FROM history \
         WHERE key_id = ? AND incarnation = ? ORDER BY epoch DESC, revision DESC LIMIT ?";
    pub(crate) const CHANGES: &str = "SELECT epoch, revision, target, what, actor, request_id, made FROM changes \
         WHERE (epoch, revision) > (?, ?) ORDER BY epoch, revision LIMIT ?";

    pub(crate) const LOAD_KEYS: &str = "SELECT id, incarnation, generation, kind, meta, mac, epoch, revision FROM \"keys\" \
         WHERE id > CAST(? AS TEXT) ORDER BY id LIMIT ?";
    pub(crate) const LOAD_VERSIONS: &str = "SELECT key_id, incarnation, version_id, wrapped_key, data_len, \
         CASE WHEN data_len <= ? THEN data ELSE data_tag END FROM versions \
         WHERE (key_id, incarnation, version_id) > (CAST(? AS TEXT), ?, ?) ORDER BY key_id, incarnation, version_id LIMIT ?";
    pub(crate) const LOAD_TOMBSTONES: &str = "SELECT key_id, incarnation, body, mac, epoch, revision FROM tombstones \
         WHERE (key_id, incarnation) > (CAST(? AS TEXT), ?) ORDER BY key_id, incarnation LIMIT ?";
    pub(crate) const LOAD_GRANTS: &str =
        "SELECT prefix, incarnation, generation, body, mac, epoch, revision FROM \"grants\" ORDER BY prefix";
    // The signed numbers of the ids, so that the order is that of the unsigned ones.
    pub(crate) const LOAD_APPROVALS: &str = "SELECT id, generation, body, mac, epoch, revision FROM approvals ORDER BY id < 0, id";
}

/// SQLite's result codes (sqlite.org/rescode.html) that mean something special here.
mod code {
    pub(super) const ERROR: i32 = 1;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const MISMATCH: i32 = 20;
    pub(super) const FORMAT: i32 = 24;
    pub(super) const NOT_A_DATABASE: i32 = 26;
    /// The write-ahead log's index could not grow: the disk is full.
    pub(super) const IO_SHARED_MEMORY_SIZE: i32 = 10 | (19 << 8);
}

/// What an error of any statement but COMMIT means.
pub(crate) fn classify(error: &sqlx::Error) -> StoreError {
    let text = error.to_string();
    match result_code(error) {
        Some(code::IO_SHARED_MEMORY_SIZE) => return StoreError::Full(text),
        Some(extended) => match extended & 0xff {
            code::FULL => return StoreError::Full(text),
            code::ERROR | code::CORRUPT | code::CONSTRAINT | code::MISMATCH | code::FORMAT | code::NOT_A_DATABASE => {
                return StoreError::Damaged(text);
            }
            _ => {}
        },
        None => {}
    }
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnIndexOutOfBounds { .. } => StoreError::Damaged(text),
        _ => StoreError::Unavailable(text),
    }
}

/// What an error of COMMIT means. Only a lock that was not had and a full disk say that nothing was written: after a
/// failed fsync the commit may be on the disk, and after a crash it may stand.
pub(crate) fn classify_commit(error: &sqlx::Error) -> StoreError {
    let text = error.to_string();
    match result_code(error).map(|extended| extended & 0xff) {
        Some(code::BUSY | code::LOCKED) => StoreError::Unavailable(text),
        Some(code::FULL) => StoreError::Full(text),
        _ => StoreError::Unknown(text),
    }
}

fn result_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use sqlx::error::{DatabaseError, ErrorKind};
    use std::borrow::Cow;

    #[derive(Debug)]
    struct Coded(i32);

    impl std::fmt::Display for Coded {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "code {}", self.0)
        }
    }

    impl std::error::Error for Coded {}

    impl DatabaseError for Coded {
        fn message(&self) -> &str {
            "coded"
        }
        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.to_string().into())
        }
        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }
        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn kinds(code: i32) -> (&'static str, &'static str) {
        let error = sqlx::Error::Database(Box::new(Coded(code)));
        let name = |error| match error {
            StoreError::Full(_) => "full",
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Damaged(_) => "damaged",
            StoreError::Unknown(_) => "unknown",
            StoreError::TooNew { .. } | StoreError::Head(_) => "other",
        };
        (name(classify(&error)), name(classify_commit(&error)))
    }

    #[test]
    fn errors_say_whether_anything_can_have_been_written() {
        let table = [
            (5, ("unavailable", "unavailable")),         // BUSY
            (8, ("unavailable", "unknown")),             // READONLY
            (10, ("unavailable", "unknown")),            // IOERR
            (10 | (3 << 8), ("unavailable", "unknown")), // IOERR_WRITE
            (10 | (4 << 8), ("unavailable", "unknown")), // IOERR_FSYNC
            (10 | (19 << 8), ("full", "unknown")),       // IOERR_SHMSIZE
            (11, ("damaged", "unknown")),                // CORRUPT
            (13, ("full", "full")),                      // FULL
            (14, ("unavailable", "unknown")),            // CANTOPEN
            (26, ("damaged", "unknown")),                // NOTADB
            (19 | (6 << 8), ("damaged", "unknown")),     // CONSTRAINT_PRIMARYKEY
        ];
        for (code, expected) in table {
            assert_eq!(kinds(code), expected, "{code}");
        }
        assert!(matches!(classify_commit(&sqlx::Error::WorkerCrashed), StoreError::Unknown(_)));
        assert!(matches!(classify(&sqlx::Error::WorkerCrashed), StoreError::Unavailable(_)));
    }

    #[test]
    fn bulk_statements_repeat_their_row() {
        let bulk = Bulk::new("INSERT INTO t VALUES ", "(?)", " END");
        assert_eq!(&*bulk.text(1).0, "INSERT INTO t VALUES (?) END");
        assert_eq!(&*bulk.text(4).0, "INSERT INTO t VALUES (?),(?),(?),(?) END");
        assert!(Arc::ptr_eq(&bulk.text(128).0, &bulk.text(128).0));
    }
}
