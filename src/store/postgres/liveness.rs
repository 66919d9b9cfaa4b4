//! Slow or dead? What tells a statement that takes its time from a connection that fell silent.
//!
//! A statement may rightly take long, so a short time limit would break it off for nothing, and a
//! long one would make a node wait as long for a connection that is gone. So after a moment of
//! silence the server is asked, over another connection, whether the session is still at work.
//! If it is, the server's own time limits for statements and locks will end it. If it is not (it
//! never got the statement, its answer is lost, the server is another one now), or if nobody
//! answers, the connection is given up.

use std::io;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// Silence after which the server is asked.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Longest time that the asking may take.
const ASKING_TIME_MAX: Duration = Duration::from_secs(2);
/// Longest time to wait for the answer over a connection that was kept from the last time.
const KEPT_TIME_MAX: Duration = Duration::from_millis(500);
/// An answer that was on its way while the server was asked has arrived by then.
const ARRIVAL_TIME_MAX: Duration = Duration::from_millis(250);
/// Longest time that a statement may take: a little more than the server allows.
pub const STATEMENT_TIME_MAX: Duration = Duration::from_secs(35);

/// A session of the server: process ids come again.
const IDENTITY: &str = "
    SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()";

/// Without rights to know, or if the server keeps no account of it, it counts as at work.
const IS_AT_WORK: &str = "
    SELECT coalesce(state NOT LIKE 'idle%', true) FROM pg_stat_activity
    WHERE pid = $1 AND backend_start::text = $2";

/// Which session of the server a connection leads to.
pub(super) struct Identity {
    pid: i32,
    began: String,
}

impl Identity {
    pub(super) async fn of(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let (pid, began) = sqlx::query_as(IDENTITY).fetch_one(connection).await?;
        Ok(Self { pid, began })
    }
}

/// Asks the server about sessions.
pub(super) struct Liveness {
    server: PgConnectOptions,
    kept: Mutex<Option<PgConnection>>,
}

impl Liveness {
    pub(super) fn new(server: PgConnectOptions) -> Self {
        let kept = Mutex::default();
        Self { server, kept }
    }

    /// Waits for the answer to a call for as long as the session is at work on it, up to a limit.
    /// If it gives up, what the connection would say next is unknown: it must be closed.
    pub(super) async fn answer<T>(
        &self,
        session: &Identity,
        call: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let mut call = std::pin::pin!(call);
        let began = Instant::now();
        loop {
            if let Ok(result) = timeout(SILENCE_MAX, &mut call).await {
                return result;
            }
            let at_work = tokio::select! {
                biased;
                result = &mut call => return result,
                at_work = self.is_at_work(session) => at_work,
            };
            if !at_work {
                if let Ok(result) = timeout(ARRIVAL_TIME_MAX, &mut call).await {
                    return result;
                }
                let why = "the connection to the server fell silent";
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why).into());
            }
            if began.elapsed() >= STATEMENT_TIME_MAX {
                let why = "the statement took too long";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why).into());
            }
        }
    }

    /// Whether the session is at work, as far as anybody answers.
    async fn is_at_work(&self, session: &Identity) -> bool {
        let asking = async {
            let mut kept = self.kept.lock().await;
            if let Some(mut connection) = kept.take()
                && let Ok(Ok(at_work)) = timeout(KEPT_TIME_MAX, ask(&mut connection, session)).await
            {
                *kept = Some(connection);
                return Ok(at_work);
            }
            let mut connection = PgConnection::connect_with(&self.server).await?;
            let at_work = ask(&mut connection, session).await?;
            *kept = Some(connection);
            Ok::<bool, sqlx::Error>(at_work)
        };
        matches!(timeout(ASKING_TIME_MAX, asking).await, Ok(Ok(true)))
    }
}

async fn ask(connection: &mut PgConnection, session: &Identity) -> Result<bool, sqlx::Error> {
    let query = sqlx::query_scalar(IS_AT_WORK).bind(session.pid);
    let found: Option<bool> = query
        .bind(&session.began)
        .fetch_optional(connection)
        .await?;
    Ok(found.unwrap_or(false))
}
