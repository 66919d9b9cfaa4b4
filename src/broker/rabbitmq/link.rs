//! One connection that is always there again: supervised, rebuilt for ever, watched for blocking.
//!
//! Separate from those who use it (publisher, consumers, declarations) because only one may
//! decide that a connection is gone and replace it. They ask for the connection of the moment,
//! open channels of their own on it, and report when it fails them.
//! Deliberately absent: the library's own recovery, under which pending confirms hang for as long
//! as the outage lasts.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_rs::Runtime;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};

use super::address;
use super::wire::{self, Gate, Kept};
use crate::broker::pace::Pace;
use crate::broker::{BrokerError, Health};

/// Longest time that a connection attempt may take.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// Longest time that the server may take over one request (open a channel, declare, consume).
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest time that a caller waits for the connection (or, to publish, for the broker to unblock it).
pub const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(30);

/// While a lost connection is not back, a new attempt begins this often beside those that have not ended: one
/// that began when nothing got through may stay silent although the way is free by now.
const ATTEMPT_EVERY: Duration = Duration::from_secs(2);

/// Attempts at a time.
const ATTEMPTS_MAX: usize = 8;

/// Longest pause after an attempt that was refused.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);

/// How often a connection's own state is looked at; the library does not report every loss.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// How often a little is read although much waits: often enough that heartbeats are seen.
const TRICKLE_EVERY: Duration = Duration::from_secs(1);

/// A connection that lasted this long was a good one: the next attempt comes soon again.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Reports that wait to be looked at; more say nothing new.
const REPORTS_MAX: usize = 16;

/// A supervised connection.
pub(super) struct Link {
    states: watch::Receiver<State>,
    reports: mpsc::Sender<Report>,
    supervisor: AbortHandle,
}

/// A connection of the moment.
#[derive(Clone)]
pub(super) struct Live {
    connection: Arc<Connection>,
    /// What the library could not take of what came by it.
    kept: Arc<Kept>,
    /// Shut while too much waits of what came by it.
    gate: Arc<Gate>,
    epoch: u64,
}

#[derive(Clone)]
enum State {
    Up(Live),
    Blocked(Live, String),
    Down(String),
}

/// Somebody found a connection unusable.
struct Report {
    epoch: u64,
    why: String,
}

impl Link {
    /// Connects, trying again for `patience` while the server can't be reached, and keeps the
    /// connection up from then on.
    pub(super) async fn connect(
        uri: AMQPUri,
        name: String,
        patience: Duration,
    ) -> Result<Self, BrokerError> {
        let give_up_at = Instant::now() + patience;
        let mut pace = Pace::new();
        let first = loop {
            let error = match open(&uri, &name, 1).await {
                Ok(live) => break live,
                Err(error) => error,
            };
            if let Failure::Library(error) = &error
                && let Some(refusal) = address::refusal(&uri, error)
            {
                return Err(BrokerError::Connect(refusal));
            }
            let delay = pace.next_delay();
            if Instant::now() + delay >= give_up_at {
                let server = address::public(&uri);
                return Err(BrokerError::Connect(format!("{server}: {error}")));
            }
            sleep(delay).await;
        };
        let (states, watched) = watch::channel(State::Down("not connected yet".to_owned()));
        let (reports, reported) = mpsc::channel(REPORTS_MAX);
        // The state must be right when `connect` returns, before the supervisor has run.
        states.send_replace(State::Up(first.clone()));
        let supervisor = Supervisor {
            uri,
            name,
            states,
            reports: reported,
        };
        Ok(Self {
            states: watched,
            reports,
            supervisor: tokio::spawn(supervisor.run(first)).abort_handle(),
        })
    }

    /// The connection, waiting for it until `deadline`; else why there is none.
    pub(super) async fn up(&self, deadline: Instant) -> Result<Live, String> {
        self.wait(deadline, |state| match state {
            State::Up(live) | State::Blocked(live, _) => Ok(live.clone()),
            State::Down(why) => Err(why.clone()),
        })
        .await
    }

    /// The connection, waited for within the usual bound.
    pub(super) async fn awaited(&self) -> Result<Live, BrokerError> {
        self.up(Instant::now() + CONNECTION_WAIT_MAX)
            .await
            .map_err(|why| BrokerError::Unavailable(why.into()))
    }

    /// As [`Self::up`], but only a connection on which the server takes messages.
    pub(super) async fn flowing(&self, deadline: Instant) -> Result<Live, String> {
        self.wait(deadline, |state| match state {
            State::Up(live) => Ok(live.clone()),
            State::Blocked(_, why) => Err(format!("the broker has blocked publishers: {why}")),
            State::Down(why) => Err(why.clone()),
        })
        .await
    }

    async fn wait(
        &self,
        deadline: Instant,
        mut pick: impl FnMut(&State) -> Result<Live, String>,
    ) -> Result<Live, String> {
        let mut states = self.states.clone();
        let mut why = String::new();
        let picked = async {
            loop {
                match pick(&states.borrow_and_update()) {
                    Ok(live) => return Ok(live),
                    Err(reason) => why = reason,
                }
                if states.changed().await.is_err() {
                    return Err("the connection was given up".to_owned());
                }
            }
        };
        match timeout_at(deadline, picked).await {
            Ok(result) => result,
            Err(_) => Err(why),
        }
    }

    /// Says that a connection is unusable: it will be replaced, unless it was already.
    pub(super) fn report(&self, live: &Live, why: impl Into<String>) {
        // A full queue already holds a report about this connection or a newer one.
        let _ = self.reports.try_send(Report {
            epoch: live.epoch,
            why: why.into(),
        });
    }

    pub(super) fn health(&self) -> Health {
        match &*self.states.borrow() {
            State::Up(_) => Health::Up,
            State::Blocked(_, why) => Health::Blocked(why.clone()),
            State::Down(why) => Health::Down(why.clone()),
        }
    }

    /// Closes the connection, politely if it answers.
    pub(super) async fn close(&self) {
        self.supervisor.abort();
        let state = self.states.borrow().clone();
        if let State::Up(live) | State::Blocked(live, _) = state {
            let closed = live.connection.close(200, "OK".into());
            // Whether it worked or not, there is nothing left to do.
            let _ = timeout(REQUEST_TIME_MAX, closed).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The connection closes itself when the last channel and the supervisor are gone.
        self.supervisor.abort();
    }
}

impl Live {
    /// Whether both are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.epoch == other.epoch
    }

    /// What the library could not take of what came by this connection.
    pub(super) fn kept(&self) -> &Arc<Kept> {
        &self.kept
    }

    /// Shut while too much waits of what came by this connection.
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// A channel of the caller's own.
    pub(super) async fn channel(&self, link: &Link) -> Result<Channel, Failure> {
        let channel = within(REQUEST_TIME_MAX, self.connection.create_channel()).await;
        if let Err(failure) = &channel {
            link.report(self, format!("no channel could be opened: {failure}"));
        }
        channel
    }
}

/// Why a request to the server failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The library, or the server through it.
    #[error("{0}")]
    Library(#[from] lapin::Error),
    /// No answer.
    #[error("no answer within {0:?}")]
    TimeOut(Duration),
}

/// Waits for the library, but not for ever.
pub(super) async fn within<T>(
    time_max: Duration,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Failure> {
    match timeout(time_max, request).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::TimeOut(time_max)),
    }
}

async fn open(uri: &AMQPUri, name: &str, epoch: u64) -> Result<Live, Failure> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let kept = Arc::new(Kept::default());
    let gate = Arc::new(Gate::default());
    let tokio = Runtime::tokio_current();
    let for_stream = (Arc::clone(&kept), Arc::clone(&gate));
    let connect = async move |uri: AMQPUri, _| {
        let (kept, gate) = for_stream.clone();
        let connecting = wire::connect(&uri, &tokio, kept, gate);
        let connected = timeout(CONNECT_TIME_MAX, connecting).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(lapin::Error::from)
    };
    let abandoned = Abandoned(Some(Arc::clone(&gate)));
    let opened = Connection::connector(uri.clone(), wire::runtime(), connect, properties);
    let connection = within(CONNECT_TIME_MAX, opened).await?;
    abandoned.kept();
    Ok(Live {
        connection: Arc::new(connection),
        kept,
        gate,
        epoch,
    })
}

/// An attempt that nobody waits for any more. The library's thread would wait for the server's answer
/// for ever.
struct Abandoned(Option<Arc<Gate>>);

impl Abandoned {
    fn kept(mut self) {
        self.0 = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.end();
        }
    }
}

/// Does it again if the connection breaks under it, within a bound. It is shared, and whoever
/// shares it may break it: RabbitMQ 3.10 ends a whole connection when one channel consumes from a
/// quorum queue that was declared a moment ago and has no leader yet.
pub(super) async fn undeterred<T, F: Future<Output = Result<T, BrokerError>>>(
    attempt: impl Fn() -> F,
) -> Result<T, BrokerError> {
    let begin = Instant::now();
    let mut pace = Pace::new();
    loop {
        match attempt().await {
            Err(BrokerError::Unavailable(why)) if begin.elapsed() < CONNECTION_WAIT_MAX => {
                tracing::debug!(why, "the connection broke; once more");
                sleep(pace.next_delay()).await;
            }
            result => return result,
        }
    }
}

struct Supervisor {
    uri: AMQPUri,
    name: String,
    states: watch::Sender<State>,
    reports: mpsc::Receiver<Report>,
}

impl Supervisor {
    async fn run(mut self, first: Live) {
        let mut epoch = first.epoch;
        let mut next = Some(first);
        let mut pace = Pace::new();
        loop {
            let opened = match next.take() {
                Some(live) => Ok(live),
                None => self.open_again(epoch).await,
            };
            let why = match opened {
                Ok(live) => {
                    tracing::debug!(connection = self.name, epoch, "connected to the broker");
                    let since = Instant::now();
                    let why = self.watch(live).await;
                    if since.elapsed() >= STABLE_AFTER {
                        pace.reset();
                    }
                    why
                }
                Err(failure) => failure.to_string(),
            };
            tracing::warn!(connection = self.name, why, "no connection to the broker");
            self.states.send_replace(State::Down(why));
            epoch += 1;
            sleep(pace.next_delay().min(RECONNECT_DELAY_MAX)).await;
        }
    }

    /// Attempts side by side until one succeeds, or none is left.
    async fn open_again(&self, epoch: u64) -> Result<Live, Failure> {
        let mut attempts = FuturesUnordered::new();
        loop {
            attempts.push(open(&self.uri, &self.name, epoch));
            let next = sleep(ATTEMPT_EVERY);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    Some(opened) = attempts.next() => match opened {
                        Err(_) if !attempts.is_empty() => {}
                        opened => return opened,
                    },
                    () = &mut next, if attempts.len() < ATTEMPTS_MAX => break,
                }
            }
        }
    }

    /// Publishes the connection's state until it is lost; returns why.
    async fn watch(&mut self, live: Live) -> String {
        let mut events = live.connection.events_listener();
        self.states.send_replace(State::Up(live.clone()));
        let mut checks = interval(CHECK_EVERY);
        let mut trickles = interval(TRICKLE_EVERY);
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(why) => {
                        tracing::warn!(connection = self.name, why, "the broker has blocked publishers");
                        self.states.send_replace(State::Blocked(live.clone(), why));
                    }
                    Event::ConnectionUnblocked => {
                        tracing::info!(connection = self.name, "the broker takes messages again");
                        self.states.send_replace(State::Up(live.clone()));
                    }
                    _ => {}
                },
                Some(report) = self.reports.recv() => if report.epoch == live.epoch {
                    return report.why;
                },
                _ = trickles.tick() => live.gate.let_one_through(),
                _ = checks.tick() => if !live.connection.status().connected() {
                    return "the connection was lost".to_owned();
                },
            }
        }
    }
}
