//! An entry point for fuzzers: rows as a database gives them that somebody else has written to.

use crate::dialect::{Connection, Query};
use crate::rows;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::runtime::Runtime;

/// As many columns as the widest row that is read.
const COLUMNS: usize = 7;

/// A database in memory that gives back what it is told.
pub struct Rows {
    runtime: Runtime,
    connection: Connection,
}

impl Rows {
    /// An open database.
    ///
    /// # Errors
    /// When the system gives no runtime or the engine no database.
    pub fn open() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connection = runtime.block_on(Connection::connect("sqlite::memory:")).map_err(std::io::Error::other)?;
        Ok(Self { runtime, connection })
    }

    /// Makes a row out of `bytes` and reads it as every kind of row.
    ///
    /// # Panics
    /// When the database does not give the row back.
    pub fn decode(&mut self, bytes: &[u8]) {
        let (sql, values) = columns(bytes);
        let query: Query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        let query = values.into_iter().fold(query, |query, value| match value {
            Value::Nothing => query.bind(None::<i64>),
            Value::Whole(number) => query.bind(number),
            Value::Real(number) => query.bind(number),
            Value::Bytes(bytes) => query.bind(bytes),
        });
        let row = self.runtime.block_on(query.fetch_one(&mut self.connection)).expect("a row of what was bound");
        let _ = (rows::head(&row), rows::barrier(&row), rows::key_at(&row), rows::sealed_pair(&row), rows::change(&row));
        let _ = (rows::grant_standing(&row), rows::grant_at(&row), rows::tombstone_at(&row));
        let _ = (rows::loaded_version(&row, 0), rows::loaded_version(&row, 16), rows::loaded_version(&row, u64::MAX));
        let _ = (rows::id_place(&row), rows::key_ref_place(&row), rows::version_place(&row));
    }
}

enum Value {
    Nothing,
    Whole(i64),
    Real(f64),
    Bytes(Vec<u8>),
}

/// The statement and the values of a row: each column is a byte that says its type, and what that type takes. Text is made
/// of bytes by the database, since nothing there keeps it from being no UTF-8.
fn columns(mut bytes: &[u8]) -> (String, Vec<Value>) {
    let (mut terms, mut values) = (Vec::new(), Vec::new());
    for column in 1..=COLUMNS {
        let (kind, rest) = bytes.split_first().map_or((0, bytes), |(kind, rest)| (kind % 5, rest));
        let length = match kind {
            0 => 0,
            1 | 2 => 8,
            _ => rest.first().map_or(0, |length| usize::from(*length) + 1),
        };
        let (taken, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        let number = taken.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        values.push(match kind {
            0 => Value::Nothing,
            1 => Value::Whole(number.cast_signed()),
            2 => Value::Real(f64::from_bits(number)),
            _ => Value::Bytes(taken.get(1..).unwrap_or_default().to_vec()),
        });
        terms.push(if kind == 4 { format!("CAST(?{column} AS TEXT)") } else { format!("?{column}") });
    }
    (format!("SELECT {}", terms.join(", ")), values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn any_column() -> impl Strategy<Value = Vec<u8>> {
        let sized = |kind: u8, bytes: Vec<u8>| [&[kind, bytes.len() as u8][..], &bytes].concat();
        prop_oneof![
            Just(vec![0]),
            prop::sample::select(vec![0_i64, 1, 16, -1, i64::MAX, i64::MIN]).prop_map(|n| [&[1][..], &n.to_be_bytes()].concat()),
            any::<u64>().prop_map(|n| [&[2][..], &n.to_be_bytes()].concat()),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(move |bytes| sized(3, bytes)),
            "(team/db|a|\\PC{0,6}|)".prop_map(move |text| sized(4, text.into_bytes())),
            prop::collection::vec(any::<u8>(), 0..6).prop_map(move |bytes| sized(4, bytes)),
        ]
    }

    #[test]
    fn rows_of_any_form_are_read_or_refused_without_panic() {
        let rows = std::cell::RefCell::new(Rows::open().unwrap());
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(500));
        let any_row = prop::collection::vec(any_column(), 0..=COLUMNS);
        runner
            .run(&any_row, |columns| {
                rows.borrow_mut().decode(&columns.concat());
                Ok(())
            })
            .unwrap();
        rows.borrow_mut().decode(&[4, 255, b'x']);
    }
}
