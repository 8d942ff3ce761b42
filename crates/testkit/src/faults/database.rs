//! The hand of someone with write access to the database file: plain SQL, past the server.

use anyhow::Result;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use std::path::Path;
use tokio::runtime::Runtime;

/// An open SQLite file.
pub struct Database {
    runtime: Runtime,
    connection: SqliteConnection,
}

impl Database {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connection = runtime.block_on(SqliteConnectOptions::new().filename(path).connect())?;
        Ok(Self { runtime, connection })
    }

    /// Runs a statement; how many rows it changed.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn execute(&mut self, sql: &str) -> Result<u64> {
        let Self { runtime, connection } = self;
        let done = runtime.block_on(sqlx::query(AssertSqlSafe(sql.to_owned())).execute(connection))?;
        Ok(done.rows_affected())
    }

    /// The first column of a query's rows, as text.
    ///
    /// # Errors
    /// SQLite's own; when it is not text.
    pub fn texts(&mut self, sql: &str) -> Result<Vec<String>> {
        let Self { runtime, connection } = self;
        let rows = runtime.block_on(sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(connection))?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Closes the file; the last to do so moves the write-ahead log into the database.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn close(self) -> Result<()> {
        let Self { runtime, connection } = self;
        Ok(runtime.block_on(connection.close())?)
    }
}
