//! One message end to end: receive → decode → load → decide → commit → acknowledge → relay.
//!
//! Read the files in that order: [`receive`] takes messages from the queues and [`intake`] wake-ups from the
//! clock, [`decode`] says what they mean and makes [`work`] of them, [`worker`] loads, has the
//! batch decided ([`batch`]), commits and acknowledges, [`encode`] turns decisions into messages,
//! [`relay`] publishes what was committed. [`cache`] spares the loading.
//!
//! What a work is about has a file of its own, which the batch asks: [`starts`], and
//! [`succession`] if a start replaces a saga; [`tells`] for what one saga is told; [`signals`];
//! [`children`] for what one saga wants of another. [`events`] makes starts and signals of domain
//! events ([`shared_ack`] acknowledges one when all of them are stored), [`schedule`] makes starts
//! of ticks, and [`clock`] says what time it is. [`catalogue`] has the definitions, [`news`] are
//! those that other nodes have stored meanwhile, and [`plan`] says beforehand what the catalogue
//! would make of new ones. [`settle`] knows what to do about a database that can't, or won't,
//! [`newer`] about a saga that a newer release has written, [`shift`] about a panic; [`presence`]
//! whether there is a database, [`hearing`] whether answers wait that a time-out must not come
//! before, [`unsent`] whether what is overdue was asked at all, [`room`] how much may be read at
//! once, and [`latency`] how long participants take.
//!
//! Invariants:
//! * a message is acknowledged only after what follows from it is committed;
//! * only what is committed is published;
//! * nodes share nothing but the database and the queues: any node may handle any message;
//! * everything that waits is bounded, so pressure travels back to the queues.
//!
//! The clock, tasks and ids come from an [`Environment`], so this very code runs under the simulator. Deliberately
//! absent: what a saga does next (that is [`crate::saga`]) and any knowledge of a particular database or broker.

mod batch;
mod buried;
mod cache;
pub mod catalogue;
mod children;
pub mod clock;
mod damage;
pub mod decode;
mod encode;
mod events;
mod found;
mod hearing;
mod intake;
mod latency;
#[cfg(test)]
mod letters_tests;
pub mod limit;
mod newer;
mod news;
pub mod plan;
mod presence;
mod receipt;
mod receive;
mod rejection;
pub mod relay;
mod room;
pub mod schedule;
mod settle;
mod shared_ack;
mod shift;
mod signals;
mod starts;
pub mod succession;
mod tally;
mod tells;
mod topology;
mod trial;
mod unsent;
mod work;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::broker::{Broker, BrokerError, Health};
use crate::definition::Definition;
use crate::environment::{Environment, Shutdown, Task};
use crate::id::{SagaId, Timestamp};
use crate::limits::{CACHE_BYTES, kept_share};
use crate::message::correlation::Secret;
use crate::saga::format::Formats;
use crate::saga::{Input, OperatorAction, PlantedBug, Sabotage};
use crate::store::{Store, StoreError};

use cache::Cache;
use catalogue::{Catalogue, CatalogueError};
use clock::SharedClock;
use damage::Damage;
use decode::{StartRequest, check_start};
use events::EventRules;
use hearing::Hearing;
use intake::{QUEUES, Workers};
pub use latency::{StepOutcome, StepTimes};
use newer::Newer;
use news::LOOK_HOLDS;
use presence::Presence;
use receive::{CAREFUL_PREFETCH, careful_at_first};
use relay::{Relay, RelayOptions};
pub use room::{Room, Space};
pub use signals::{Addressee, SIGNAL_ID_BYTES_MAX, SignalAnswer, SignalError};
use signals::{SignalRequest, What, by_key, check_signal};
pub use topology::TopologyTrouble;
use topology::topology;
use work::{Job, Origin, Work};
pub use work::{OperateError, StartAnswer, StartError};
use worker::{BATCH_MAX, Shared};

/// Commands that no queue took, until their sagas are told; more of them wait in the outbox,
/// for the next sweep.
const REPORTS_MAX: usize = 2_000;
/// Entries after which a snapshot is written.
const SNAPSHOT_ENTRIES: u64 = 128;

/// How a node behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Workers side by side; two fill two cores.
    pub workers: usize,
    /// Unacknowledged messages a queue gives this node.
    pub prefetch: u16,
    /// How often to ask which sagas are due: how late a time-out may come.
    pub look_every: Duration,
    /// Longest sleep of a schedule: after it the clock is read again, which somebody may have set.
    pub read_clock_every: Duration,
    /// How long a due saga is this node's before another one may look after it.
    pub claim: Duration,
    /// How the relay paces itself.
    pub relay: RelayOptions,
    /// Memory for open sagas, in bytes: those that are kept from one message to the next take three
    /// eighths at most, the rest is for those at work.
    pub cache_bytes: usize,
    /// Entries after which a snapshot of a saga is written, or as many as the saga has steps, if
    /// that is more: so a snapshot's cost is spread over as many decisions as it has parts.
    pub snapshot_entries: u64,
    /// What is written and read; others' only in tests, to play another release.
    #[doc(hidden)]
    pub formats: Formats,
    /// Known bugs, for the simulator.
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            workers: 2,
            prefetch: 500,
            look_every: Duration::from_millis(100),
            read_clock_every: Duration::from_mins(1),
            claim: Duration::from_secs(10),
            relay: RelayOptions::default(),
            cache_bytes: CACHE_BYTES,
            snapshot_entries: SNAPSHOT_ENTRIES,
            formats: Formats::OURS,
            sabotage: Sabotage::default(),
        }
    }
}

/// What a node is made of.
pub struct EngineParts {
    /// Clock, tasks, ids.
    pub environment: Arc<dyn Environment>,
    /// The database.
    pub store: Arc<dyn Store>,
    /// The queues.
    pub broker: Arc<dyn Broker>,
    /// What can be started.
    pub definitions: Vec<Arc<Definition>>,
    /// How to behave.
    pub options: EngineOptions,
}

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The definitions and the database don't agree.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// A running node.
pub struct Engine {
    node: Arc<Shared>,
    broker: Arc<dyn Broker>,
    workers: Mutex<Option<Workers>>,
    working: Mutex<Vec<Task>>,
    receiving: Mutex<Vec<Task>>,
    drained: Shutdown,
}

impl Engine {
    /// Declares the topology, loads the definitions and starts to work.
    pub async fn start(parts: EngineParts) -> Result<Arc<Self>, EngineError> {
        let EngineParts {
            environment,
            store,
            broker,
            definitions,
            options,
        } = parts;
        let believes_itself = options.sabotage.has(PlantedBug::OwnClock);
        let clock = Arc::new(SharedClock::new(environment, believes_itself));
        clock.refresh(&*store).await?;
        let environment: Arc<dyn Environment> = Arc::clone(&clock) as _;
        // Before definitions are stored: a queue that clashes must not use up a version's number.
        broker.declare(&topology()).await?;
        let catalogue = Catalogue::open(&*store, definitions, environment.now()).await?;
        let known = catalogue.known();
        broker.declare(&events::topology(&known)).await?;
        let events = EventRules::of(known);
        for trouble in broker.troubles() {
            let TopologyTrouble { text, .. } = TopologyTrouble::of(&trouble, &events);
            tracing::warn!("{text}");
        }
        let events = Mutex::new(Arc::new(events));
        let secret = Secret::new(store.secret(fresh_secret(&*environment)).await?);
        let (to_sagas, reports) = mpsc::channel(REPORTS_MAX);
        let relay = Relay::start(
            Arc::clone(&environment),
            Arc::clone(&broker),
            Arc::clone(&store) as _,
            options.relay.clone(),
            Some(to_sagas),
        );
        let presence = Presence::new(options.workers.max(1), environment.now());
        let hearing = Hearing::new(Arc::clone(&broker), &*environment);
        let cache = Mutex::new(Cache::new(kept_share(options.cache_bytes)));
        let node = Arc::new(Shared {
            environment,
            clock,
            store,
            catalogue,
            events,
            strays: Mutex::default(),
            newer: Newer::default(),
            damage: Damage::default(),
            secret,
            options,
            relay,
            cache,
            last_look: tokio::sync::Mutex::default(),
            wary: AtomicU32::new(0),
            presence,
            hearing,
            room: Room::default(),
            latency: latency::Latency::default(),
            trials: tokio::sync::Mutex::default(),
            stop: Shutdown::default(),
        });
        let (workers, working) = start_workers(&node);
        let drained = Shutdown::default();
        let mut receiving = Vec::new();
        let environment = &node.environment;
        let task = Arc::clone(&node).watch_the_clock(workers.clone());
        receiving.push(Task::start(environment, "clock", task));
        let task = Arc::clone(&node).keep_schedules(workers.clone());
        receiving.push(Task::start(environment, "schedules", task));
        let task = Arc::clone(&node).hear_of_commands(reports, workers.clone());
        receiving.push(Task::start(environment, "reports", task));
        for queue in QUEUES {
            let prefetch = if careful_at_first(queue) {
                CAREFUL_PREFETCH
            } else {
                node.options.prefetch
            };
            let consumer = broker.consume(queue, prefetch).await?;
            let (workers, drained) = (workers.clone(), drained.clone());
            let broker = Arc::clone(&broker);
            let task = Arc::clone(&node).receive(queue, broker, consumer, workers, drained);
            receiving.push(Task::start(environment, "receive", task));
        }
        Ok(Arc::new(Self {
            node,
            broker,
            workers: Mutex::new(Some(workers)),
            working: Mutex::new(working),
            receiving: Mutex::new(receiving),
            drained,
        }))
    }

    /// Starts a saga and answers once that is committed.
    ///
    /// # Errors
    /// [`StartError`] says whether the request is wrong or the node can't.
    pub async fn start_saga(
        &self,
        name: &str,
        input: impl Into<Arc<Value>>,
    ) -> Result<StartAnswer, StartError> {
        let request = self.check_start(name, input.into()).await?;
        let (caller, answer) = oneshot::channel();
        let job = Job::Start {
            request,
            key_taken: false,
        };
        self.give(job, Origin::Caller(Some(caller))).await;
        let stopping = |_| Err(StartError::Unavailable("it is stopping".to_owned()));
        answer.await.unwrap_or_else(stopping)
    }

    /// Checks a start by the newest definition that there is.
    async fn check_start(&self, name: &str, input: Arc<Value>) -> Result<StartRequest, StartError> {
        let node = &self.node;
        match check_start(&node.catalogue, name, Arc::clone(&input), None) {
            Err(wrong) if wrong.hangs_on_definitions() => {
                if let Err(error) = node.look_for_news(LOOK_HOLDS).await {
                    node.presence.failed(node.environment.now(), &error);
                    return Err(StartError::Unavailable(error.to_string()));
                }
                check_start(&node.catalogue, name, input, None).map_err(|wrong| {
                    let known = node.catalogue.known();
                    match known.beyond(Some(name)) {
                        Some(why) if wrong.hangs_on_definitions() => StartError::Unavailable(
                            format!("ask a node of the newer release: {why}"),
                        ),
                        _ => wrong.into(),
                    }
                })
            }
            checked => Ok(checked?),
        }
    }

    /// Does to a saga what a person decided, and answers once that is committed. The same action
    /// id again is the same action.
    ///
    /// # Errors
    /// [`OperateError`] says whether it is not possible or the node can't.
    pub async fn operate(&self, saga: SagaId, action: OperatorAction) -> Result<(), OperateError> {
        let (operator, answer) = oneshot::channel();
        let input = Input::Operator(action);
        self.give(Job::Tell { saga, input }, Origin::Operator(operator))
            .await;
        let stopping = |_| Err(OperateError::Unavailable("it is stopping".to_owned()));
        answer.await.unwrap_or_else(stopping)
    }

    /// Sends a saga a signal, and answers once that is committed. The same id again is the same
    /// signal.
    ///
    /// # Errors
    /// [`SignalError`] says whether it is not possible or the node can't.
    pub async fn signal(
        &self,
        to: Addressee,
        name: &str,
        id: String,
        payload: Value,
    ) -> Result<SignalAnswer, SignalError> {
        let to = match to {
            Addressee::Key(key) => Addressee::Key(by_key(&key.name, key.key)?),
            Addressee::Saga(id) => Addressee::Saga(id),
        };
        let signal = check_signal(name, Some(id), payload)?;
        let request = SignalRequest {
            to,
            what: What::Sent(signal),
            sender: None,
            by_content: false,
            uncertain: AtomicBool::new(false),
        };
        let (signaller, answer) = oneshot::channel();
        self.give(Job::Signal(Arc::new(request)), Origin::Signaller(signaller))
            .await;
        let stopping = |_| Err(SignalError::Unavailable("it is stopping".to_owned()));
        answer.await.unwrap_or_else(stopping)
    }

    /// Gives work to the workers; drops it, and with it whoever waits, when they are stopping.
    async fn give(&self, job: Job, origin: Origin) {
        let workers = lock(&self.workers).clone();
        if let Some(workers) = workers {
            workers.give(Work { job, origin }).await;
        }
    }

    /// A fresh id, for what has none.
    pub fn new_id(&self) -> Uuid {
        self.node.environment.new_id()
    }

    /// Whether messages can flow.
    pub fn broker_health(&self) -> Health {
        self.broker.health()
    }

    /// What of our queues, exchanges and bindings can't be had at the moment.
    pub fn troubles(&self) -> Vec<TopologyTrouble> {
        let rules = self.node.event_rules();
        let troubles = self.broker.troubles().into_iter();
        troubles
            .map(|trouble| TopologyTrouble::of(&trouble, &rules))
            .collect()
    }

    /// How far this machine's clock is from the database's, in words, if that is so far that the
    /// node leaves time to others.
    pub fn clock_off(&self) -> Option<String> {
        self.node.clock.off()
    }

    /// What this node lately left to nodes of a newer release, in words.
    pub fn newer(&self) -> Option<String> {
        self.node.newer.said(self.node.environment.now())
    }

    /// The database's time.
    pub fn now(&self) -> Timestamp {
        self.node.environment.now()
    }

    /// The broker, to look at.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// What keeps this node from getting on, in words; empty if nothing does.
    pub fn hindrances(&self) -> Vec<String> {
        let node = &self.node;
        let swept = node.relay.swept_at();
        node.presence.hindrances(node.environment.now(), swept)
    }

    /// What sagas need and is damaged: definitions and journals, as parts of the whole, and in words.
    pub fn damage(&self) -> Vec<(&'static str, String)> {
        self.node.damage.said(self.now())
    }

    /// Room for what is read from bodies.
    pub fn room(&self) -> &Room {
        &self.node.room
    }

    /// The database, for queries.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.node.store
    }

    /// The definitions.
    pub fn catalogue(&self) -> &Catalogue {
        &self.node.catalogue
    }

    /// Stops taking messages, finishes what is in work, acknowledges and publishes it.
    pub async fn stop(&self) {
        self.node.stop.request();
        drop(
            self.workers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let working = std::mem::take(&mut *lock(&self.working));
        join_all(working.into_iter().map(Task::ended)).await;
        self.drained.request();
        let receiving = std::mem::take(&mut *lock(&self.receiving));
        join_all(receiving.into_iter().map(Task::ended)).await;
        self.node.relay.stop().await;
    }
}

fn start_workers(node: &Arc<Shared>) -> (Workers, Vec<Task>) {
    let mut entrances = Vec::new();
    let mut tasks = Vec::new();
    for number in 0..node.options.workers.max(1) {
        let (entrance, waiting) = mpsc::channel(2 * BATCH_MAX);
        entrances.push(entrance);
        tasks.push(Task::start(
            &node.environment,
            "worker",
            Arc::clone(node).work(number, waiting),
        ));
    }
    (Workers(entrances.into()), tasks)
}

/// Two UUIDv7, so 148 random bits; used only if the database holds none yet.
fn fresh_secret(environment: &dyn Environment) -> [u8; 32] {
    let mut bytes = [0; 32];
    for half in bytes.chunks_exact_mut(16) {
        half.copy_from_slice(Uuid::as_bytes(&environment.new_id()));
    }
    bytes
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
