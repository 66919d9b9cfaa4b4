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
mod census;
mod commit;
mod feed;
mod inspect;
mod jobs;
mod letters;
mod messages;
mod participant;
mod projections;
mod requests;
mod sagas;
mod schedules;
mod search;
mod tokens;
mod trials;

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqlSafeStr, SqliteConnection, SqlitePool, SqliteTransaction};

use super::schema::{self, AccessMode, SchemaError, Tables};
use super::{BoxedError, StoreError};

/// How long a statement waits for another program that uses the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Rights of a new database file: its owner reads and writes it.
#[cfg(unix)]
const FILE_MODE: u32 = 0o600;

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
        Self::open_for(path_or_url, AccessMode::Migrate).await
    }

    /// The same, for what is to be done with it.
    pub async fn open_for(path_or_url: &str, access: AccessMode) -> Result<Self, StoreError> {
        let Some(options) = options(path_or_url)? else {
            return Self::open_in_memory().await;
        };
        if access == AccessMode::Read {
            return Self::open_to_read(options).await;
        }
        if access == AccessMode::Migrate {
            create_private(options.get_filename());
        }
        let options = options.create_if_missing(access == AccessMode::Migrate);
        let (writer, _) = open_writer(options.clone(), access).await?;
        let readers = pool(READERS_MAX)
            .connect_with(options.read_only(true))
            .await
            .map_err(open_failed)?;
        Ok(Self { writer, readers })
    }

    async fn open_to_read(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let options = options.create_if_missing(false).read_only(true);
        let opened = pool(READERS_MAX).connect_with(options.clone()).await;
        let readers = match opened {
            Ok(readers) => readers,
            // Where the directory may not be written, the file can only be read as one that nobody
            // changes; with a log beside it, somebody may.
            Err(_) if !has_log(&options) => pool(READERS_MAX)
                .connect_with(options.immutable(true))
                .await
                .map_err(open_failed)?,
            Err(error) => return Err(open_failed(error)),
        };
        let mut connection = readers.acquire().await.map_err(open_failed)?;
        prepare_tables(&mut connection, AccessMode::Read).await?;
        drop(connection);
        // Whoever writes all the same is told by the file that it can't be.
        let writer = readers.clone();
        Ok(Self { writer, readers })
    }

    /// A database that is gone with its last handle.
    pub async fn open_in_memory() -> Result<Self, StoreError> {
        let options = tuned(SqliteConnectOptions::new()).in_memory(true);
        let (writer, _) = open_writer(options, AccessMode::Migrate).await?;
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
const MIGRATIONS: [(i64, &str, &str); 12] = [
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
    (
        5,
        "letter occurrences",
        include_str!("../../../migrations/sqlite/0005_letter_occurrences.sql"),
    ),
    (
        9,
        "trials",
        include_str!("../../../migrations/sqlite/0009_trials.sql"),
    ),
    (
        10,
        "sagas by name",
        include_str!("../../../migrations/sqlite/0010_sagas_by_name.sql"),
    ),
    (
        11,
        "tokens",
        include_str!("../../../migrations/sqlite/0011_tokens.sql"),
    ),
    (
        15,
        "reading back",
        include_str!("../../../migrations/sqlite/0015_reading_back.sql"),
    ),
    (
        20,
        "search",
        include_str!("../../../migrations/sqlite/0020_search.sql"),
    ),
    (
        21,
        "jobs",
        include_str!("../../../migrations/sqlite/0021_jobs.sql"),
    ),
    (
        22,
        "endings",
        include_str!("../../../migrations/sqlite/0022_endings.sql"),
    ),
    (
        23,
        "answers",
        include_str!("../../../migrations/sqlite/0023_answers.sql"),
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
    create_private(options.get_filename());
    let (writer, applied) = open_writer(options, AccessMode::Migrate).await?;
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

/// Creates the file if there is none, for its owner's eyes alone: it holds inputs, replies and the
/// key that signs correlation ids. SQLite gives the files beside it the same rights. What goes wrong
/// is said when the file is opened, in SQLite's words.
fn create_private(file: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, FILE_MODE);
    drop(options.open(file));
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

/// Opens the file for writing, and returns the names of the migrations that were applied.
async fn open_writer(
    options: SqliteConnectOptions,
    access: AccessMode,
) -> Result<(SqlitePool, Vec<String>), StoreError> {
    let writer = pool(1).connect_with(options).await.map_err(open_failed)?;
    let mut connection = writer.acquire().await.map_err(open_failed)?;
    let applied = prepare_tables(&mut connection, access).await?;
    drop(connection);
    Ok((writer, applied))
}

/// Sees to it that the tables are there; returns the names of the migrations that were applied.
async fn prepare_tables(
    connection: &mut SqliteConnection,
    access: AccessMode,
) -> Result<Vec<String>, StoreError> {
    let mut migrator = Migrator::with_migrations(MIGRATIONS.map(migration).to_vec());
    migrator.set_ignore_missing(true);
    let found = look(connection, &migrator).await?;
    let missing = schema::missing(found.as_ref(), &migrator)?;
    if missing.is_empty() {
        return Ok(missing);
    }
    if access != AccessMode::Migrate {
        return Err(schema::behind(found.as_ref(), missing).into());
    }
    migrator
        .run(connection)
        .await
        .map_err(SchemaError::Refused)?;
    Ok(missing)
}

const BOOKKEEPING_EXISTS: &str = "
    SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations')";

/// The tables as they are; `None` if there are none.
async fn look(
    connection: &mut SqliteConnection,
    migrator: &Migrator,
) -> Result<Option<Tables>, StoreError> {
    let there: bool = sqlx::query_scalar(BOOKKEEPING_EXISTS)
        .fetch_one(&mut *connection)
        .await
        .map_err(open_failed)?;
    if !there {
        return Ok(None);
    }
    let applied = connection
        .list_applied_migrations(&migrator.table_name)
        .await
        .map_err(SchemaError::Refused)?;
    if applied.is_empty() {
        return Ok(None);
    }
    let oldest = sqlx::query_scalar("SELECT oldest FROM compatibility")
        .fetch_optional(connection)
        .await
        .map_err(open_failed)?;
    Ok(Some(Tables {
        applied,
        oldest: oldest.unwrap_or(0),
    }))
}

/// Whether the file's write-ahead log has anything in it.
fn has_log(options: &SqliteConnectOptions) -> bool {
    let mut log = options.get_filename().as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// An error of opening, and what to do about it.
fn open_failed(error: sqlx::Error) -> StoreError {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    let advice = match primary(code.as_deref()) {
        Some(14) => "Check that DATABASE_URL names a file in a directory that this user may enter",
        Some(26) => "It is no SQLite database: check DATABASE_URL",
        Some(8) => "It may not be written by this user, or its directory may not",
        Some(5 | 6) => "Another program holds it; try again",
        Some(_) => "The database's own words say what to mend",
        None => "Check DATABASE_URL",
    };
    StoreError::Open(format!("{error}. {advice}"))
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
    matches!(primary(code), Some(5 | 6 | 7 | 10 | 13))
}

/// A result code without what extends it.
fn primary(code: Option<&str>) -> Option<u32> {
    let code = code?.parse::<u32>().ok()?;
    Some(code & 0xFF)
}

#[cfg(test)]
mod tests;
