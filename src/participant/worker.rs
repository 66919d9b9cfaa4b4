//! The loop around the batches: receive, try until committed, acknowledge, hand over the replies.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::batch::{self, BatchOptions, Intake};
use super::service::{BATCH_COMMANDS_MAX, PREFETCH, Participant, ParticipantOptions};
use crate::broker::{Broker, BrokerError, Consumer, Delivery, DeliveryTag, Session};
use crate::engine::limit::within;
use crate::engine::relay::{Relay, RelayOptions};
use crate::environment::{Environment, Shutdown, Task};
use crate::error::Class;
use crate::store::participant::ParticipantStore;
use crate::store::{Outbox, OutboxMessage, StoreError};

/// Shortest and longest wait after a store or broker could not be used.
const UNAVAILABLE_PAUSE: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(5));
/// Shortest and longest wait after a conflict: the winner has committed, so hardly any.
const CONFLICT_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));
/// How long a batch may fail before its commands are given back, for other instances.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(5);
/// Shortest and longest wait before commands are taken again: giving back counts as a delivery of
/// each, and they have only so many.
const GIVEN_BACK_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// Wait before a worker that panicked is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// What a participant needs from outside.
#[derive(Clone)]
pub struct Connections {
    /// Clock, sleep, tasks.
    pub environment: Arc<dyn Environment>,
    /// Where barriers, aggregates and replies are kept.
    pub store: Arc<dyn ParticipantStore>,
    /// Where commands come from.
    pub broker: Arc<dyn Broker>,
    /// Publishes the replies; works on the same store and broker.
    pub relay: Arc<Relay>,
}

/// Why a participant stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ParticipantError {
    /// Its queue can't be had.
    #[error("participant `{participant}` can't use its queue: {source}")]
    Broker {
        /// Which participant.
        participant: String,
        /// What the broker said.
        source: BrokerError,
    },
    /// Its state can't be read or written; nothing of the batch was acknowledged.
    #[error("participant `{participant}` can't use its store: {source}")]
    Store {
        /// Which participant.
        participant: String,
        /// What the store said.
        source: StoreError,
    },
}

/// Runs participants that share a store, with one relay for all, until the shutdown or until one
/// of them can't go on; then all stop. The first error is returned.
pub async fn run_all(
    participants: Vec<Participant>,
    environment: Arc<dyn Environment>,
    store: Arc<dyn ParticipantStore>,
    broker: Arc<dyn Broker>,
    options: ParticipantOptions,
    shutdown: Shutdown,
) -> Result<(), ParticipantError> {
    let outbox: Arc<dyn Outbox> = Arc::<dyn ParticipantStore>::clone(&store);
    let relay = Relay::start(
        Arc::clone(&environment),
        Arc::clone(&broker),
        outbox,
        RelayOptions {
            grace: options.reply_grace,
            ..RelayOptions::default()
        },
        None,
    );
    let connections = Connections {
        environment,
        store,
        broker,
        relay,
    };
    let stop = Shutdown::default();
    let all = join_all(participants.into_iter().map(|participant| {
        let (connections, options, stop) = (connections.clone(), options.clone(), stop.clone());
        async move {
            let result = Arc::new(participant)
                .run(connections, options, stop.clone())
                .await;
            // One that can't go on takes the others with it: half a shop helps nobody.
            stop.request();
            result
        }
    }));
    let results = stopping_with(&shutdown, &stop, all).await;
    connections.relay.stop().await;
    results.into_iter().collect()
}

impl Participant {
    /// Handles commands until the shutdown, then finishes the batch at hand. Ends earlier only
    /// with an error that no retry cures; what was not committed goes back to the queue.
    pub async fn run(
        self: Arc<Self>,
        connections: Connections,
        options: ParticipantOptions,
        shutdown: Shutdown,
    ) -> Result<(), ParticipantError> {
        let environment = Arc::clone(&connections.environment);
        let stop = Shutdown::default();
        let workers = options.workers.max(1);
        let worker = Arc::new(Worker {
            participant: self,
            connections,
            options,
            stop: stop.clone(),
            error: Mutex::default(),
        });
        let all = join_all((0..workers).map(|_| {
            let (worker, environment) = (Arc::clone(&worker), Arc::clone(&environment));
            async move {
                loop {
                    let task = Arc::clone(&worker).work_until_stopped();
                    Task::start(&environment, "participant", task).ended().await;
                    if worker.stop.is_requested() {
                        return;
                    }
                    tracing::error!(
                        participant = worker.participant.name(),
                        "a worker panicked; starting it again"
                    );
                    environment.sleep(RESTART_PAUSE).await;
                }
            }
        }));
        stopping_with(&shutdown, &stop, all).await;
        let error = lock(&worker.error).take();
        error.map_or(Ok(()), Err)
    }
}

/// Runs `work` to its end, passing a shutdown on to it.
async fn stopping_with<T>(
    shutdown: &Shutdown,
    stop: &Shutdown,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = shutdown.requested() => stop.request(),
    }
    work.await
}

/// What became of a batch.
enum Tried {
    /// It is done, with these replies.
    Committed(Vec<OutboxMessage>),
    /// The shutdown came first.
    Stopped,
    /// The store can't be used; others may do it.
    GivenUp,
}

struct Worker {
    participant: Arc<Participant>,
    connections: Connections,
    options: ParticipantOptions,
    stop: Shutdown,
    error: Mutex<Option<ParticipantError>>,
}

impl Worker {
    async fn work_until_stopped(self: Arc<Self>) {
        if let Err(error) = self.work().await {
            tracing::error!(%error, "participant stops");
            lock(&self.error).get_or_insert(error);
        }
        // Also after a worker's error: the others would only meet the same one.
        self.stop.request();
    }

    async fn work(&self) -> Result<(), ParticipantError> {
        let Some(mut consumer) = self.consume(PREFETCH).await? else {
            return Ok(());
        };
        let mut given_back = 0;
        let mut session = Session::default();
        loop {
            let deliveries = tokio::select! {
                biased;
                () = self.stop.requested() => return Ok(()),
                deliveries = consumer.deliveries.next_batch(BATCH_COMMANDS_MAX) => deliveries,
            };
            if deliveries.is_empty() {
                match self.consume(PREFETCH).await? {
                    Some(again) => (consumer, session) = (again, Session::default()),
                    None => return Ok(()),
                }
                continue;
            }
            let replies = match self.commit(&mut session, &deliveries).await? {
                Tried::Committed(replies) => replies,
                Tried::Stopped => return Ok(()),
                Tried::GivenUp => {
                    // Gives back what was delivered, also what waits.
                    drop(consumer);
                    given_back += 1;
                    match self.come_back(given_back).await? {
                        Some(again) => (consumer, session) = (again, Session::default()),
                        None => return Ok(()),
                    }
                    continue;
                }
            };
            let recovered = std::mem::take(&mut given_back) > 0;
            let tags: Vec<DeliveryTag> = deliveries.iter().map(|delivery| delivery.tag).collect();
            consumer.acks.ack(&tags);
            self.hand_over(replies).await;
            if recovered {
                drop(consumer);
                match self.consume(PREFETCH).await? {
                    Some(again) => (consumer, session) = (again, Session::default()),
                    None => return Ok(()),
                }
            }
        }
    }

    /// Waits until the store can be used, and takes commands again; `None` if the shutdown comes
    /// first.
    async fn come_back(&self, given_back: u32) -> Result<Option<Consumer>, ParticipantError> {
        let Connections {
            environment, store, ..
        } = &self.connections;
        tracing::error!(
            participant = self.participant.name(),
            "the database is lost: commands are given back until it can be used again"
        );
        let tries = given_back - 1;
        loop {
            if !self.pause(tries, GIVEN_BACK_PAUSE).await {
                return Ok(None);
            }
            match within(&**environment, store.begin()).await {
                // One at a time at first: perhaps it was one command that the store takes too long over.
                Ok(_) => return self.consume(1).await,
                Err(error) => {
                    tracing::debug!(%error, "the database is still lost");
                }
            }
        }
    }

    /// Tries a batch until it is committed, it has failed for too long, or the shutdown comes.
    /// Meanwhile its deliveries stay unacknowledged and the prefetch holds back more.
    async fn commit(
        &self,
        session: &mut Session,
        deliveries: &[Delivery],
    ) -> Result<Tried, ParticipantError> {
        let intakes = batch::read(
            &self.participant,
            &*self.connections.environment,
            session,
            deliveries,
        );
        let mut sent = Sent::take(&self.connections.relay);
        let began = self.connections.environment.now();
        for tries in 0.. {
            let error = match self.attempt(&intakes, &sent.ids).await {
                Ok(replies) => {
                    sent.ids.clear();
                    return Ok(Tried::Committed(replies));
                }
                Err(error) => error,
            };
            let bounds = match (&error, error.class()) {
                (StoreError::Conflict | StoreError::Locked(_), _) => CONFLICT_PAUSE,
                (_, Class::Retry) => UNAVAILABLE_PAUSE,
                (_, Class::Permanent) => {
                    return Err(ParticipantError::Store {
                        participant: self.participant.name().to_owned(),
                        source: error,
                    });
                }
            };
            tracing::debug!(participant = self.participant.name(), %error, tries, "batch not committed; trying again");
            if !self.pause(tries, bounds).await {
                return Ok(Tried::Stopped);
            }
            let lost = !matches!(error, StoreError::Conflict | StoreError::Locked(_));
            let failing = self.connections.environment.now().since(began);
            if lost && failing >= GIVE_BACK_AFTER {
                return Ok(Tried::GivenUp);
            }
        }
        Ok(Tried::Stopped)
    }

    async fn attempt(
        &self,
        intakes: &[Intake],
        sent: &[Uuid],
    ) -> Result<Vec<OutboxMessage>, StoreError> {
        let Connections {
            environment, store, ..
        } = &self.connections;
        let options = BatchOptions {
            replies_due_at: environment.now().after(self.options.reply_grace),
            dedupe: self.options.dedupe,
            reply_exchange: self.options.reply_exchange,
        };
        let (environment, store) = (&**environment, &**store);
        let attempt = batch::attempt(
            &self.participant,
            environment,
            store,
            intakes,
            sent,
            &options,
        );
        within(environment, attempt).await
    }

    /// Gives the replies to the relay; waits while it can't keep up, but not past a shutdown: the
    /// rows are committed, and another instance sweeps them.
    async fn hand_over(&self, replies: Vec<OutboxMessage>) {
        tokio::select! {
            biased;
            () = self.connections.relay.send(replies) => {}
            () = self.stop.requested() => {}
        }
    }

    /// Declares the queue and consumes from it, however long that takes; `None` if the shutdown
    /// comes first.
    async fn consume(&self, prefetch: u16) -> Result<Option<Consumer>, ParticipantError> {
        let name = self.participant.name();
        for tries in 0.. {
            let error = match self.declare_and_consume(name, prefetch).await {
                Ok(consumer) => return Ok(Some(consumer)),
                Err(error) => error,
            };
            if error.class() != Class::Retry {
                return Err(ParticipantError::Broker {
                    participant: name.to_owned(),
                    source: error,
                });
            }
            tracing::warn!(participant = name, %error, "can't consume yet; trying again");
            if !self.pause(tries, UNAVAILABLE_PAUSE).await {
                return Ok(None);
            }
        }
        Ok(None)
    }

    async fn declare_and_consume(
        &self,
        name: &str,
        prefetch: u16,
    ) -> Result<Consumer, BrokerError> {
        let broker = &self.connections.broker;
        broker.declare(&self.participant.topology()).await?;
        broker.consume(name, prefetch).await
    }

    /// Waits, longer each time; `false` if the shutdown comes first.
    async fn pause(&self, tries: u32, (shortest, longest): (Duration, Duration)) -> bool {
        let wait = shortest.saturating_mul(1 << tries.min(16)).min(longest);
        tokio::select! {
            biased;
            () = self.stop.requested() => false,
            () = self.connections.environment.sleep(wait) => true,
        }
    }
}

/// Confirmed outbox rows on loan from the relay: those not committed go back to it.
struct Sent<'a> {
    relay: &'a Relay,
    ids: Vec<Uuid>,
}

impl<'a> Sent<'a> {
    fn take(relay: &'a Relay) -> Self {
        Self {
            relay,
            ids: relay.take_sent(),
        }
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if !self.ids.is_empty() {
            self.relay.give_back(std::mem::take(&mut self.ids));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
