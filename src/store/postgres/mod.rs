//! The store for production: PostgreSQL, shared by all nodes.
//!
//! A batch is a transaction with a fixed number of statements, whatever its size: each table's
//! rows travel as arrays. Coordination between nodes is row locks, taken in id order, and unique
//! keys; nothing is leased. One database may hold the tables of the orchestrator and of
//! participants; then they share the outbox, and whoever sweeps first publishes either's rows.
//!
//! Invariants: statements name their columns, and reach rows by index only (the session forbids
//! other plans, because a plan made while a table was small would be kept while it grows).
//! Everything lives in a schema of its own, so the database may be another program's too: the
//! session looks for tables there and nowhere else.
//! Deliberately absent: `NOTIFY`, advisory locks, reads from a replica by nodes. A pooler in front
//! must pool sessions, not transactions.

mod census;
mod commit;
mod connections;
mod errors;
mod feed;
mod floor;
mod inspect;
mod jobs;
mod letters;
mod liveness;
mod messages;
mod participant;
mod projections;
mod requests;
mod sagas;
mod schedules;
mod search;
mod tokens;
mod trials;

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, SqlSafeStr};

use self::connections::{Begin, Connections, Session, Transaction};
use self::errors::{Distrust, open_failed};
use self::floor::Floor;
use super::StoreError;
use super::schema::{self, AccessMode, SchemaError, Tables};

/// The schema that everything lives in.
const SCHEMA: &str = "backstitch";

/// Where statements find their tables.
const SEARCH_PATH: &str = "SET search_path = backstitch";

/// Settings whose `off` means that a committed saga may be lost with the machine's power.
const DURABILITY: &str = "
    SELECT name FROM pg_settings
    WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'
    ORDER BY name";

/// How a node uses its database.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Most connections of this node.
    pub connections_max: u32,
    /// How long a call waits for a connection before it fails as unavailable.
    pub acquire_timeout: Duration,
    /// What may be done to the database.
    pub access: AccessMode,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            connections_max: 10,
            acquire_timeout: Duration::from_secs(10),
            access: AccessMode::Migrate,
        }
    }
}

/// Keeps sagas in PostgreSQL. Clones share the connections.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: Connections,
    distrust: Arc<Distrust>,
    polls: Arc<Polls>,
    horizon: Arc<feed::Horizon>,
}

/// Where the next polls begin.
#[derive(Debug, Default)]
struct Polls {
    due: Floor,
    outbox: Floor,
}

impl PostgresStore {
    /// Connects, and sees to it that the tables are those that this program knows.
    pub async fn open(url: &str, options: PostgresOptions) -> Result<Self, StoreError> {
        let connect: PgConnectOptions = url.parse().map_err(open_failed)?;
        let distrust = Arc::new(Distrust::default());
        let access = options.access;
        let pool = Connections::new(connect.clone(), &options, Arc::clone(&distrust));
        drop(pool.first().await.map_err(open_failed)?);
        // On a connection without our time limits: a migration may take as long as it needs.
        let mut plain = PgConnection::connect_with(&connect)
            .await
            .map_err(open_failed)?;
        let path = sqlx::raw_sql(SEARCH_PATH).execute(&mut plain).await;
        path.map_err(open_failed)?;
        prepare_tables(&mut plain, access).await?;
        plain.close().await.map_err(open_failed)?;
        if access == AccessMode::Migrate {
            let mut session = pool.acquire().await.map_err(open_failed)?;
            warn_if_not_durable(&mut session).await?;
        }
        Ok(Self {
            pool,
            distrust,
            polls: Arc::default(),
            horizon: Arc::default(),
        })
    }

    /// Closes the connections; what is under way ends first, within a bound.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn transaction(&self) -> Result<Transaction, StoreError> {
        self.begin_as(Begin::Plain).await
    }

    async fn begin_as(&self, how: Begin) -> Result<Transaction, StoreError> {
        self.pool
            .begin(how)
            .await
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        errors::failed(&self.distrust, error)
    }
}

/// Every migration: its number, name and text.
const MIGRATIONS: [(i64, &str, &str); 12] = [
    (
        1,
        "foundation",
        include_str!("../../../migrations/postgres/0001_foundation.sql"),
    ),
    (
        2,
        "dead letters",
        include_str!("../../../migrations/postgres/0002_dead_letters.sql"),
    ),
    (
        4,
        "schedules",
        include_str!("../../../migrations/postgres/0004_schedules.sql"),
    ),
    (
        5,
        "letter occurrences",
        include_str!("../../../migrations/postgres/0005_letter_occurrences.sql"),
    ),
    (
        9,
        "trials",
        include_str!("../../../migrations/postgres/0009_trials.sql"),
    ),
    (
        10,
        "sagas by name",
        include_str!("../../../migrations/postgres/0010_sagas_by_name.sql"),
    ),
    (
        11,
        "tokens",
        include_str!("../../../migrations/postgres/0011_tokens.sql"),
    ),
    (
        15,
        "reading back",
        include_str!("../../../migrations/postgres/0015_reading_back.sql"),
    ),
    (
        20,
        "search",
        include_str!("../../../migrations/postgres/0020_search.sql"),
    ),
    (
        21,
        "jobs",
        include_str!("../../../migrations/postgres/0021_jobs.sql"),
    ),
    (
        22,
        "endings",
        include_str!("../../../migrations/postgres/0022_endings.sql"),
    ),
    (
        23,
        "answers",
        include_str!("../../../migrations/postgres/0023_answers.sql"),
    ),
];

fn migration((number, name, sql): (i64, &'static str, &'static str)) -> Migration {
    let sql = sql.into_sql_str();
    Migration::new(number, name.into(), MigrationType::Simple, sql, false)
}

/// Applies the migrations that are missing, for those who do it apart from starting a node, and
/// returns their names.
pub async fn migrate(url: &str) -> Result<Vec<String>, StoreError> {
    let mut connection = PgConnection::connect(url).await.map_err(open_failed)?;
    sqlx::raw_sql(SEARCH_PATH)
        .execute(&mut connection)
        .await
        .map_err(open_failed)?;
    let applied = prepare_tables(&mut connection, AccessMode::Migrate).await?;
    connection.close().await.map_err(open_failed)?;
    Ok(applied)
}

/// Sees to it that the tables are there; returns the names of the migrations that were applied.
/// Writes nothing if none is missing, so that who works with the tables need not own them.
async fn prepare_tables(
    connection: &mut PgConnection,
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
    if !exists(connection, SCHEMA_EXISTS).await? {
        // Not asked for when it is there: even then it takes the right to create schemas.
        migrator.create_schema(SCHEMA);
    }
    // `run` takes an advisory lock, so nodes that start together do it once.
    migrator
        .run(connection)
        .await
        .map_err(SchemaError::Refused)?;
    Ok(missing)
}

const SCHEMA_EXISTS: &str =
    "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'backstitch')";

const BOOKKEEPING_EXISTS: &str = "
    SELECT EXISTS (
        SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
        WHERE nspname = 'backstitch' AND relname = '_sqlx_migrations'
    )";

/// The tables as they are; `None` if there are none.
async fn look(
    connection: &mut PgConnection,
    migrator: &Migrator,
) -> Result<Option<Tables>, StoreError> {
    if !exists(connection, BOOKKEEPING_EXISTS).await? {
        return Ok(None);
    }
    let applied = connection
        .list_applied_migrations(&migrator.table_name)
        .await;
    let applied = applied.map_err(|error| match error {
        MigrateError::Execute(error) => open_failed(error),
        error => SchemaError::Refused(error).into(),
    })?;
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

async fn exists(connection: &mut PgConnection, query: &'static str) -> Result<bool, StoreError> {
    let there = sqlx::query_scalar(query).fetch_one(connection).await;
    there.map_err(open_failed)
}

async fn warn_if_not_durable(connection: &mut Session) -> Result<(), StoreError> {
    let off: Vec<String> = sqlx::query_scalar(DURABILITY)
        .fetch_all(connection)
        .await
        .map_err(open_failed)?;
    for setting in off {
        tracing::warn!(
            setting,
            "PostgreSQL runs with {setting} = off: committed sagas may be lost in a crash"
        );
    }
    Ok(())
}

/// One column of many rows, as the arrays of `UNNEST` need it.
fn column<'a, R: 'a, T>(rows: &'a [R], value: impl FnMut(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
