//! Connections to the server, and a time limit around everything that is asked of it.
//!
//! A connection may fall silent without being closed: the network forgot it, the machine behind
//! it lost power, its address moved. So silence is looked into ([`liveness`](super::liveness)), and a
//! connection is used again only if its last call was answered to the end: one whose call was
//! given up, or dropped half-way, is closed. After a silence all connections opened before it are
//! replaced when next wanted.
//!
//! The library's own pool is not used because it asks each connection that comes back for a sign
//! of life, without a limit: a silent one then keeps its place for ever. It is also a round trip
//! saved for each call.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use sqlx::postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Connection, Either, Execute, Executor, PgConnection, Postgres, SqlStr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::PostgresOptions;
use super::errors::Distrust;
use super::liveness::{Identity, Liveness};
use crate::store::schema::AccessMode;

/// Longest time that it may take to open a connection.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Connections that were idle for longer are tried before they are used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// Longest time that such a try may take.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(1);
/// Longest time that a roll-back, or a farewell, may take; after it the connection is just closed.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);
/// Longest time that closing waits for calls under way.
const CLOSING_TIME_MAX: Duration = Duration::from_secs(3);
/// Connections older than this are replaced, so that none outlives a change of the server's roles.
const AGE_MAX: Duration = Duration::from_mins(30);
/// Pause between attempts to reach a server that is just starting.
const STARTING_PAUSE: Duration = Duration::from_millis(200);

/// How each session is set up. The time-outs end what a frozen node, or one that the network has
/// forgotten, would hold; a role's own limit for statements is kept if it is shorter.
const SESSION: &str = "
    SET application_name = 'backstitch';
    SET search_path = backstitch;
    SET idle_in_transaction_session_timeout = '5s';
    SET lock_timeout = '10s';
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '20s';
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SELECT set_config('statement_timeout', '30s', false) FROM pg_settings
    WHERE name = 'statement_timeout' AND (setting = '0' OR setting::bigint > 30000)";

/// What keeps a session that is opened to read from writing, whatever its role may do.
const READ_ONLY: &str = "SET default_transaction_read_only = on";

/// Ends a statement whose client has gone. Not every server knows it, or can do it.
const NOTICE_LOSS: &str = "
    SELECT set_config('client_connection_check_interval', '2s', false) FROM pg_settings
    WHERE name = 'client_connection_check_interval'";

/// How a transaction is begun; in one round trip, whatever it sets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin {
    /// A batch of many sagas: it is taken apart rather than that it waits for a lock.
    Batch,
    /// A participant's: it waits for its turn with a row that many want, and its handlers may take
    /// their time between reading and writing.
    Participant,
    /// Anything else.
    Plain,
}

impl Begin {
    fn sql(self) -> &'static str {
        match self {
            Self::Batch => "BEGIN; SET LOCAL lock_timeout = '150ms'",
            Self::Participant => {
                "BEGIN; SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '15s'"
            }
            Self::Plain => "BEGIN",
        }
    }
}

/// A bounded number of connections, opened as they are needed. Clones share them.
#[derive(Clone)]
pub(super) struct Connections(Arc<Shared>);

struct Shared {
    server: PgConnectOptions,
    acquire_timeout: Duration,
    access: AccessMode,
    most: u32,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    distrust: Arc<Distrust>,
    liveness: Liveness,
    closed: AtomicBool,
}

struct Idle {
    session: Session,
    since: Instant,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Connections {
    /// None is opened yet.
    pub(super) fn new(
        server: PgConnectOptions,
        options: &PostgresOptions,
        distrust: Arc<Distrust>,
    ) -> Self {
        Self(Arc::new(Shared {
            liveness: Liveness::new(server.clone()),
            server,
            acquire_timeout: options.acquire_timeout,
            access: options.access,
            most: options.connections_max,
            free: Arc::new(Semaphore::new(options.connections_max as usize)),
            idle: Mutex::default(),
            distrust,
            closed: AtomicBool::new(false),
        }))
    }

    /// A connection, waiting for a free one.
    pub(super) async fn acquire(&self) -> Result<Lease, sqlx::Error> {
        let shared = &self.0;
        let free = Arc::clone(&shared.free).acquire_owned();
        let permit = match timeout(shared.acquire_timeout, free).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(sqlx::Error::PoolClosed),
            Err(_) => return Err(sqlx::Error::PoolTimedOut),
        };
        if shared.closed.load(Ordering::Acquire) {
            return Err(sqlx::Error::PoolClosed);
        }
        let session = match shared.idle_session().await {
            Some(session) => session,
            None => Session::open(shared).await?,
        };
        Ok(Lease {
            session: Some(session),
            permit: Some(permit),
            shared: Arc::clone(shared),
        })
    }

    /// The same, for a program that starts: perhaps the server does, too.
    pub(super) async fn first(&self) -> Result<Lease, sqlx::Error> {
        let give_up_at = Instant::now() + self.0.acquire_timeout;
        loop {
            match self.acquire().await {
                Err(error) if may_be_starting(&error) && Instant::now() < give_up_at => {
                    sleep(STARTING_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// Begins a transaction. Dropping it rolls it back.
    pub(super) async fn begin(&self, how: Begin) -> Result<Transaction, sqlx::Error> {
        let mut lease = self.acquire().await?;
        lease.in_transaction = true;
        sqlx::raw_sql(how.sql()).execute(&mut *lease).await?;
        Ok(Transaction(lease))
    }

    /// Closes the connections; those at work first end what they do, within a bound.
    pub(super) async fn close(&self) {
        let shared = &self.0;
        shared.closed.store(true, Ordering::Release);
        let all = shared.free.acquire_many(shared.most);
        let _ = timeout(CLOSING_TIME_MAX, all).await;
        shared.free.close();
        let idle = std::mem::take(&mut *shared.lock());
        let farewells = idle.into_iter().map(|idle| idle.session.connection.close());
        let _ = timeout(FAREWELL_TIME_MAX, join_all(farewells)).await;
    }
}

fn may_be_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code == "57P03"),
        _ => false,
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open connection that can be relied on; others are closed.
    async fn idle_session(&self) -> Option<Session> {
        loop {
            let Idle { mut session, since } = self.lock().pop()?;
            let age = session.opened_at.elapsed();
            if age > AGE_MAX || self.distrust.has_met(age) {
                continue;
            }
            if since.elapsed() <= TRUSTED_IDLE {
                return Some(session);
            }
            match timeout(TRIAL_TIME_MAX, session.connection.ping()).await {
                Ok(Ok(())) => return Some(session),
                // Then the others will hardly be better.
                _ => self.distrust.meet(),
            }
        }
    }

    fn take_back(&self, session: Session) {
        if !self.closed.load(Ordering::Acquire) {
            let since = Instant::now();
            self.lock().push(Idle { session, since });
        }
    }
}

/// One connection. What is run on it is answered within a bounded time, or the connection is lost.
pub(super) struct Session {
    connection: PgConnection,
    identity: Identity,
    opened_at: Instant,
    /// A call was begun and its answer did not come to its end.
    unanswered: bool,
    in_transaction: bool,
    shared: std::sync::Weak<Shared>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    async fn open(shared: &Arc<Shared>) -> Result<Self, sqlx::Error> {
        let opening = async {
            let mut connection = PgConnection::connect_with(&shared.server).await?;
            sqlx::raw_sql(SESSION).execute(&mut connection).await?;
            if shared.access == AccessMode::Read {
                sqlx::raw_sql(READ_ONLY).execute(&mut connection).await?;
            }
            match sqlx::raw_sql(NOTICE_LOSS).execute(&mut connection).await {
                Err(sqlx::Error::Database(_)) | Ok(_) => {}
                Err(error) => return Err(error),
            }
            let identity = Identity::of(&mut connection).await?;
            Ok(Self {
                connection,
                identity,
                opened_at: Instant::now(),
                unanswered: false,
                in_transaction: false,
                shared: Arc::downgrade(shared),
            })
        };
        timeout(CONNECT_TIME_MAX, opening)
            .await
            .unwrap_or_else(|_| {
                let why = "the server did not answer while a connection was opened";
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, why).into())
            })
    }
}

type Found<'e> = BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>;

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Found<'e>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let found = self.run_query(query);
        found
            .map_ok(|items| stream::iter(items.into_iter().map(Ok)))
            .try_flatten_stream()
            .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.run_query(query).map_ok(first_row).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        self.connection.prepare_with(sql, parameters)
    }
}

impl Session {
    /// Has a call done and watches over its time. Rows are taken in as they come: a call that is
    /// answered in part was not answered.
    fn run_query<'e, 'q: 'e>(
        &'e mut self,
        query: impl Execute<'q, Postgres> + 'q,
    ) -> BoxFuture<'e, Result<Vec<Either<PgQueryResult, PgRow>>, sqlx::Error>> {
        async move {
            let Some(shared) = self.shared.upgrade() else {
                return Err(sqlx::Error::PoolClosed);
            };
            if self.unanswered {
                let why = "an earlier call on this connection was given up";
                return Err(io::Error::new(io::ErrorKind::NotConnected, why).into());
            }
            self.unanswered = true;
            let call = self.connection.fetch_many(query).try_collect();
            let result = shared.liveness.answer(&self.identity, call).await;
            match &result {
                Ok(_) | Err(sqlx::Error::Database(_)) => self.unanswered = false,
                Err(sqlx::Error::Io(_)) => shared.distrust.meet(),
                Err(_) => {}
            }
            result
        }
        .boxed()
    }
}

fn first_row(items: Vec<Either<PgQueryResult, PgRow>>) -> Option<PgRow> {
    items.into_iter().find_map(Either::right)
}

/// Each query on a connection of its own.
impl<'c> Executor<'c> for &'c Connections {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Found<'e>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let found = async move { self.acquire().await?.run_query(query).await };
        found
            .map_ok(|items| stream::iter(items.into_iter().map(Ok)))
            .try_flatten_stream()
            .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        async move { Ok(first_row(self.acquire().await?.run_query(query).await?)) }.boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        async move {
            let mut lease = self.acquire().await?;
            lease.connection.prepare_with(sql, parameters).await
        }
        .boxed()
    }
}

/// A connection in somebody's hands. Dropping it gives it back, if it can be used again.
pub(super) struct Lease {
    /// There until this is dropped.
    session: Option<Session>,
    permit: Option<OwnedSemaphorePermit>,
    shared: Arc<Shared>,
}

impl Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        // Taken by `drop` alone.
        self.session.as_ref().expect("the lease is not dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Session {
        // As above.
        self.session.as_mut().expect("the lease is not dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        if session.unanswered {
            return;
        }
        if !session.in_transaction {
            self.shared.take_back(session);
            return;
        }
        let (shared, permit) = (Arc::clone(&self.shared), self.permit.take());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let rollback = sqlx::raw_sql("ROLLBACK").execute(&mut session.connection);
                if let Ok(Ok(_)) = timeout(FAREWELL_TIME_MAX, rollback).await {
                    session.in_transaction = false;
                    shared.take_back(session);
                }
                drop(permit);
            });
        }
    }
}

/// A transaction. Dropping it rolls it back.
pub(super) struct Transaction(Lease);

impl Transaction {
    /// Makes it last.
    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("COMMIT").execute(&mut *self.0).await?;
        self.0.in_transaction = false;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}
