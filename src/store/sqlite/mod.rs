//! The embedded store: one SQLite file, for `dev`, `demo` and small installations.
//!
//! One connection writes, and whoever holds it is alone: a batch or a participant's transaction
//! needs no other lock. Others read beside it (WAL), so a load never waits for a commit.
//! `synchronous=FULL`: what was committed outlives a power cut.
//!
//! Each statement is a round trip to the connection's thread, so rows travel many at a time: see
//! [`bulk`]. One file may hold the tables of the orchestrator and of participants; then they share
//! the outbox, and whoever sweeps first publishes either's rows.
//!
//! Deliberately absent: several nodes on one file. It would be correct, but each would wait for
//! the other's commits; PostgreSQL is for that.

mod bulk;
mod commit;
mod letters;
mod messages;
mod participant;
mod sagas;
mod schedules;

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqlSafeStr, SqlitePool, SqliteTransaction};

use super::{BoxedError, StoreError, rows};

/// How long a statement waits for another program that uses the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that read.
const READERS_MAX: u32 = 4;

/// Prepared statements kept for each connection: all of ours, in all their sizes.
const STATEMENTS_MAX: usize = 200;

/// Pages (of 4 KiB) in the write-ahead log before they are copied into the database file.
const CHECKPOINT_PAGES: &str = "4000";

/// Cache of each connection, in KiB (negative by SQLite's convention).
const CACHE_KIB: &str = "-32768";

/// Keeps sagas in a SQLite file. Clones share the connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    /// One connection: taking it is taking one's turn.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens a file (a path, or a `sqlite:` URL), creating it if need be, and applies the
    /// migrations that are missing. `:memory:` and `sqlite::memory:` are [`Self::open_in_memory`].
    pub async fn open(path_or_url: &str) -> Result<Self, StoreError> {
        let Some(options) = options(path_or_url)? else {
            return Self::open_in_memory().await;
        };
        let (writer, _) = open_writer(options.clone()).await?;
        let readers = pool(READERS_MAX)
            .connect_with(options.read_only(true))
            .await
            .map_err(open_failed)?;
        Ok(Self { writer, readers })
    }

    /// A database that is gone with its last handle.
    pub async fn open_in_memory() -> Result<Self, StoreError> {
        let options = tuned(SqliteConnectOptions::new()).in_memory(true);
        let (writer, _) = open_writer(options).await?;
        // A second connection would be another database.
        let readers = writer.clone();
        Ok(Self { writer, readers })
    }

    /// Closes the connections; what is under way ends first.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Waits for the writer and starts a transaction on it; dropping it rolls back.
    async fn transaction(&self) -> Result<SqliteTransaction<'static>, StoreError> {
        // IMMEDIATE, so that another program's write is waited for here and not met half way.
        self.writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed)
    }
}

/// Every migration: its number, name and text.
const MIGRATIONS: [(i64, &str, &str); 3] = [
    (
        1,
        "foundation",
        include_str!("../../../migrations/sqlite/0001_foundation.sql"),
    ),
    (
        2,
        "dead letters",
        include_str!("../../../migrations/sqlite/0002_dead_letters.sql"),
    ),
    (
        4,
        "schedules",
        include_str!("../../../migrations/sqlite/0004_schedules.sql"),
    ),
];

fn migration((number, name, sql): (i64, &'static str, &'static str)) -> Migration {
    let sql = sql.into_sql_str();
    Migration::new(number, name.into(), MigrationType::Simple, sql, false)
}

/// Applies the migrations that are missing, for those who do it apart from starting a node, and
/// returns their names.
pub async fn migrate(path_or_url: &str) -> Result<Vec<String>, StoreError> {
    let Some(options) = options(path_or_url)? else {
        return Ok(Vec::new());
    };
    let (writer, applied) = open_writer(options).await?;
    writer.close().await;
    Ok(applied)
}

/// How to open the file; `None` for a database in memory.
fn options(path_or_url: &str) -> Result<Option<SqliteConnectOptions>, StoreError> {
    if matches!(path_or_url, ":memory:" | "sqlite::memory:") {
        return Ok(None);
    }
    let options = if path_or_url.starts_with("sqlite:") {
        path_or_url.parse().map_err(open_failed)?
    } else {
        SqliteConnectOptions::new().filename(Path::new(path_or_url))
    };
    Ok(Some(tuned(options).create_if_missing(true)))
}

fn tuned(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS_MAX)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("cache_size", CACHE_KIB)
        .pragma("temp_store", "memory")
}

fn pool(connections_max: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections_max)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

/// Opens the file for writing, and returns the names of the migrations that were missing.
async fn open_writer(
    options: SqliteConnectOptions,
) -> Result<(SqlitePool, Vec<String>), StoreError> {
    let writer = pool(1).connect_with(options).await.map_err(open_failed)?;
    let migrator = Migrator::with_migrations(MIGRATIONS.map(migration).to_vec());
    let mut connection = writer.acquire().await.map_err(open_failed)?;
    // Fails on a new database, where the table of migrations is missing like all others.
    let before = connection
        .list_applied_migrations(&migrator.table_name)
        .await
        .unwrap_or_default();
    migrator
        .run(&mut *connection)
        .await
        .map_err(|error| StoreError::Open(error.to_string()))?;
    drop(connection);
    Ok((writer, rows::newly_applied(&migrator, &before)))
}

fn open_failed(error: sqlx::Error) -> StoreError {
    StoreError::Open(error.to_string())
}

/// Sorts an error of a statement.
fn failed(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) if is_passing(database.code().as_deref()) => {
            StoreError::Unavailable(error.into())
        }
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => StoreError::Unavailable(error.into()),
        sqlx::Error::ColumnDecode { index, source } => StoreError::Corrupt {
            what: format!("column {index}"),
            why: source.to_string(),
        },
        _ => StoreError::Refused(BoxedError::from(error)),
    }
}

/// Whether the same batch may succeed later: busy (5), locked (6), no memory (7), I/O (10) and
/// disk full (13), in any of their extended forms.
fn is_passing(code: Option<&str>) -> bool {
    let code = code.and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xFF, 5 | 6 | 7 | 10 | 13))
}

#[cfg(test)]
mod tests;
