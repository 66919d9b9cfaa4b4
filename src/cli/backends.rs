//! The database and the broker that the configuration names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::exit::Failure;
use super::secret;
use crate::address;
use crate::broker::Broker;
use crate::broker::memory::MemoryBroker;
use crate::broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use crate::store::dead_letters::DeadLetterStore;
use crate::store::participant::ParticipantStore;
use crate::store::postgres::{self, PostgresOptions, PostgresStore};
use crate::store::projections::ReadModels;
use crate::store::schema::SchemaError;
use crate::store::sqlite::{self, SqliteStore};
use crate::store::{
    AccessMode, CensusStore, InspectStore, JobStore, RequestStore, SagaSearch, Store, StoreError,
    TokenStore,
};

/// The database file when nothing else is said.
pub(super) const FILE_DEFAULT: &str = "backstitch.db";

/// Which database.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct DatabaseArguments {
    /// `postgres://…`, `sqlite:FILE` or FILE; `backstitch.db` if nothing is said.
    // The value may hold a password, so help doesn't show it.
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        global = true,
        value_name = "URL"
    )]
    database_url: Option<String>,
    /// A file with what --database-url would say.
    #[arg(long, env = "DATABASE_URL_FILE", global = true, value_name = "FILE")]
    database_url_file: Option<PathBuf>,
}

/// Which broker.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct BrokerArguments {
    /// `amqp://…` or `amqps://…`; a broker inside this process if nothing is said.
    #[arg(
        long,
        env = "AMQP_URL",
        hide_env_values = true,
        global = true,
        value_name = "URL"
    )]
    amqp_url: Option<String>,
    /// A file with what --amqp-url would say.
    #[arg(long, env = "AMQP_URL_FILE", global = true, value_name = "FILE")]
    amqp_url_file: Option<PathBuf>,
}

/// Where sagas are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Database {
    /// A server.
    Postgres(String),
    /// A file.
    Sqlite(PathBuf),
}

impl DatabaseArguments {
    #[cfg(test)]
    pub(super) fn of(url: Option<&str>) -> Self {
        Self {
            database_url: url.map(str::to_owned),
            database_url_file: None,
        }
    }

    /// Whether one was named.
    pub(super) fn is_named(&self) -> Result<bool, Failure> {
        Ok(self.text()?.is_some())
    }

    fn text(&self) -> Result<Option<String>, Failure> {
        let (said, file) = (&self.database_url, &self.database_url_file);
        secret::either(said.as_deref(), file.as_deref(), "DATABASE_URL")
    }

    /// What they say.
    pub(super) fn database(&self) -> Result<Database, Failure> {
        let Some(text) = self.text()? else {
            return Ok(Database::Sqlite(FILE_DEFAULT.into()));
        };
        let text = text.as_str();
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        match scheme {
            Some("postgres" | "postgresql") => match address::trouble(text) {
                None => Ok(Database::Postgres(text.to_owned())),
                Some(why) => Err(Failure::problems(format!(
                    "DATABASE_URL is not like postgres://user:password@host:5432/database ({why})"
                ))),
            },
            Some("sqlite" | "file") => {
                let path = text.split_once(':').map_or("", |(_, path)| path);
                let path = path.strip_prefix("//").unwrap_or(path);
                let path = path.split('?').next().unwrap_or_default();
                if path.is_empty() || path == ":memory:" {
                    return Err(Failure::problems(
                        "DATABASE_URL names no file; write sqlite:FILE, or use `dev --ephemeral` for a database that is thrown away",
                    ));
                }
                Ok(Database::Sqlite(path.into()))
            }
            Some(scheme) if text.contains("://") => Err(Failure::problems(format!(
                "DATABASE_URL begins with `{scheme}:`; Backstitch keeps sagas in PostgreSQL (postgres://user@host/database) or SQLite (sqlite:FILE)"
            ))),
            // A name or password would become the name of a file.
            _ if text.contains(['=', '@']) || text.starts_with("//") => Err(Failure::problems(
                "DATABASE_URL is neither a URL nor the plain name of a file; write postgres://user:password@host:5432/database instead of `host=… password=…`, or sqlite:FILE for a file with such a name",
            )),
            _ => Ok(Database::Sqlite(text.into())),
        }
    }
}

impl BrokerArguments {
    /// The server's URL; none for the broker inside the process.
    pub(super) fn url(&self) -> Result<Option<String>, Failure> {
        let (said, file) = (&self.amqp_url, &self.amqp_url_file);
        secret::either(said.as_deref(), file.as_deref(), "AMQP_URL")
    }
}

impl Database {
    /// For messages: without a password.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Postgres(url) => address::shown(url),
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
        }
    }

    /// Opens it and brings its tables up to date.
    pub(super) async fn open(&self) -> Result<OpenStore, Failure> {
        self.open_for(AccessMode::Migrate).await
    }

    async fn open_for(&self, access: AccessMode) -> Result<OpenStore, Failure> {
        let opened = self.opened(access).await;
        opened.map_err(|error| self.failed(&error))
    }

    async fn opened(&self, access: AccessMode) -> Result<OpenStore, StoreError> {
        match self {
            Self::Postgres(url) => {
                let options = PostgresOptions {
                    access,
                    ..PostgresOptions::default()
                };
                let opened = PostgresStore::open(url, options).await;
                opened.map(OpenStore::Postgres)
            }
            Self::Sqlite(path) => open_file(path, access).await.map(OpenStore::Sqlite),
        }
    }

    /// Brings its tables up to date; returns what was missing.
    pub(super) async fn migrate(&self) -> Result<Vec<String>, Failure> {
        let applied = match self {
            Self::Postgres(url) => postgres::migrate(url).await,
            Self::Sqlite(path) => match file_name(path) {
                Ok(path) => sqlite::migrate(path).await,
                Err(error) => Err(error),
            },
        };
        applied.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &StoreError) -> Failure {
        let shown = self.shown();
        Failure::new(match error {
            StoreError::Unavailable(_) => {
                format!(
                    "{error} ({shown}). Check that the server runs and that DATABASE_URL names it"
                )
            }
            // The others say what to do.
            _ => format!("{error} ({shown})"),
        })
    }

    /// Opens it to look at: nothing is made or changed, and rights to read are enough.
    pub(super) async fn open_to_read(&self) -> Result<OpenStore, Failure> {
        self.open_existing(AccessMode::Read).await
    }

    /// As [`Self::open_to_read`]; `None` if nothing was ever stored in it: there is no such file, or there
    /// are no tables.
    pub(super) async fn open_if_any(&self) -> Result<Option<OpenStore>, Failure> {
        if matches!(self, Self::Sqlite(path) if !path.exists()) {
            return Ok(None);
        }
        match self.opened(AccessMode::Read).await {
            Ok(store) => Ok(Some(store)),
            Err(StoreError::Schema(SchemaError::Missing)) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Opens it to change rows, but no tables.
    pub(super) async fn open_to_write(&self) -> Result<OpenStore, Failure> {
        self.open_existing(AccessMode::Write).await
    }

    async fn open_existing(&self, access: AccessMode) -> Result<OpenStore, Failure> {
        if let Self::Sqlite(path) = self
            && !path.exists()
        {
            return Err(Failure::new(format!(
                "there is no database at {}; set DATABASE_URL to that of your nodes, or run `backstitch dev` to have one",
                path.display()
            )));
        }
        self.open_for(access).await
    }
}

fn file_name(path: &Path) -> Result<&str, StoreError> {
    path.to_str()
        .ok_or_else(|| StoreError::Open("the file's name is not UTF-8".to_owned()))
}

async fn open_file(path: &Path, access: AccessMode) -> Result<SqliteStore, StoreError> {
    SqliteStore::open_for(file_name(path)?, access).await
}

/// An open database.
pub(super) enum OpenStore {
    /// A server.
    Postgres(PostgresStore),
    /// A file.
    Sqlite(SqliteStore),
}

impl OpenStore {
    /// For the orchestrator.
    pub(super) fn sagas(&self) -> Arc<dyn Store> {
        match self {
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
        }
    }

    /// For participants.
    pub(super) fn participants(&self) -> Arc<dyn ParticipantStore> {
        match self {
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
        }
    }

    /// For reading back.
    pub(super) fn read_models(&self) -> Arc<dyn ReadModels> {
        match self {
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
        }
    }

    /// For searches.
    pub(super) fn search(&self) -> Arc<dyn SagaSearch> {
        match self {
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
        }
    }

    /// For actions on many sagas.
    pub(super) fn jobs(&self) -> Arc<dyn JobStore> {
        match self {
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
        }
    }

    /// For what is kept of requests.
    pub(super) fn requests(&self) -> Arc<dyn RequestStore> {
        match self {
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
        }
    }

    /// For dead letters.
    pub(super) fn letters(&self) -> Arc<dyn DeadLetterStore> {
        match self {
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
        }
    }

    /// What it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgresql",
            Self::Sqlite(_) => "sqlite",
        }
    }

    /// To count in.
    pub(super) fn census(&self) -> Arc<dyn CensusStore> {
        match self {
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
        }
    }

    /// To say what it is like.
    pub(super) fn inspect(&self) -> Arc<dyn InspectStore> {
        match self {
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
        }
    }

    /// For tokens.
    pub(super) fn tokens(&self) -> Arc<dyn TokenStore> {
        match self {
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
        }
    }

    /// Closes it once what is under way has ended.
    pub(super) async fn close(&self) {
        match self {
            Self::Postgres(store) => store.close().await,
            Self::Sqlite(store) => store.close().await,
        }
    }
}

/// An open broker.
pub(super) enum OpenBroker {
    /// A server, and its URL.
    RabbitMq(Arc<RabbitMqBroker>, String),
    /// Inside this process.
    Memory(MemoryBroker),
}

impl OpenBroker {
    /// Connects to the server, or makes a broker.
    pub(super) async fn open(url: Option<&str>, name: &str) -> Result<Self, Failure> {
        let Some(url) = url else {
            return Ok(Self::Memory(MemoryBroker::new()));
        };
        if let Some(why) = address::trouble(url) {
            return Err(Failure::problems(format!(
                "AMQP_URL is not like amqp://user:password@host:5672/vhost ({why})"
            )));
        }
        let options = RabbitMqOptions {
            name: name.to_owned(),
            ..RabbitMqOptions::default()
        };
        let broker = RabbitMqBroker::connect(url, options)
            .await
            .map_err(|error| {
                Failure::new(format!(
                    "{error} ({}). Check AMQP_URL, and that the server runs and lets this user in",
                    address::shown(url)
                ))
            })?;
        Ok(Self::RabbitMq(Arc::new(broker), url.to_owned()))
    }

    /// To use.
    pub(super) fn handle(&self) -> Arc<dyn Broker> {
        match self {
            Self::RabbitMq(broker, _) => Arc::<RabbitMqBroker>::clone(broker),
            Self::Memory(broker) => Arc::new(broker.clone()),
        }
    }

    /// The same broker over connections of their own: what breaks these leaves the others alone.
    pub(super) async fn another(&self, name: &str) -> Result<Self, Failure> {
        match self {
            Self::RabbitMq(_, url) => Self::open(Some(url), name).await,
            Self::Memory(broker) => Ok(Self::Memory(broker.clone())),
        }
    }

    /// Tells the server the last acknowledgements and leaves.
    pub(super) async fn close(&self) {
        if let Self::RabbitMq(broker, _) = self {
            broker.close().await;
        }
    }
}
