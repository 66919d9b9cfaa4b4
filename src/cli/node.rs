//! Running one process of the system: a node, participants, HTTP, until a signal asks for the end.
//!
//! `serve`, `dev` and `participants` differ only in which parts they run. The end comes in order:
//! no longer ready, batches at hand finished and acknowledged, requests answered, connections
//! closed. Whatever hangs, the process ends within [`STOP_TIME_MAX`]; a second signal ends it at
//! once. What was in work is then done again by another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::backends::{OpenBroker, OpenStore};
use super::door::{Door, DoorArguments};
use super::drains::Drains;
use super::exit::Failure;
use super::followers::Followers;
use super::gauges;
use crate::definition::Definition;
use crate::engine::{Engine, EngineError, EngineOptions, EngineParts};
use crate::environment::{Environment, Shutdown, Task, TokioEnvironment};
use crate::http::{self, Aggregates, Api, Limits};
use crate::jobs::Jobs;
use crate::metric;
use crate::page;
use crate::participant::{Participant, ParticipantOptions, run_all};

/// How often the broker's health goes into the metrics.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// How often to ask for the oldest snapshot in the database, and how old it may be without a word.
const SNAPSHOT_EVERY: Duration = Duration::from_mins(1);
const SNAPSHOT_AGE_MAX: Duration = Duration::from_mins(10);
/// How long requests under way may take once everything else has stopped.
const LAST_REQUESTS_MAX: Duration = Duration::from_secs(5);
/// Longest time that stopping in order may take, whatever hangs.
const STOP_TIME_MAX: Duration = Duration::from_secs(9);
/// Exit code of a process that could not stop in order within its time.
const ENDED_LATE: i32 = 1;
/// Exit code of a process that a second signal ended: 128 + SIGINT.
const ENDED_AT_ONCE: i32 = 130;

/// How a node runs.
#[derive(Debug, Clone, Args)]
pub(super) struct NodeArguments {
    #[command(flatten)]
    door: DoorArguments,
    /// Workers side by side, each with a batch of its own.
    #[arg(long, env = "BACKSTITCH_WORKERS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Unacknowledged messages that a queue gives this node at most.
    #[arg(long, env = "BACKSTITCH_PREFETCH", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..))]
    prefetch: u16,
    /// Memory for open sagas, in MiB; three eighths of it are for those that are kept between two messages. What
    /// does not fit is loaded from the database when it is needed.
    #[arg(long, env = "BACKSTITCH_CACHE_MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    cache_mib: u32,
    /// A queue whose messages become dead letters, besides `backstitch.dead-letters`; may be given
    /// several times.
    #[arg(
        long,
        env = "BACKSTITCH_DEAD_LETTER_QUEUES",
        value_name = "QUEUE",
        value_delimiter = ','
    )]
    dead_letter_queue: Vec<String>,
    /// A queue, or EXCHANGE/KEY, that a replay over HTTP may name; may be given several times. Without,
    /// letters only go back to where they died.
    #[arg(
        long,
        env = "BACKSTITCH_ALLOW_REPLAY_TO",
        value_name = "QUEUE|EXCHANGE/KEY",
        value_delimiter = ','
    )]
    allow_replay_to: Vec<String>,
}

/// What to run.
pub(super) struct RunPlan {
    pub(super) store: OpenStore,
    pub(super) broker: OpenBroker,
    /// The orchestrator and its API, if this process has them.
    pub(super) node: Option<NodePlan>,
    /// Participants, if this process has some.
    pub(super) participants: Vec<Participant>,
    /// How those run.
    pub(super) participant_options: ParticipantOptions,
    /// What else follows events in this process.
    pub(super) followers: Followers,
}

/// An orchestrator.
pub(super) struct NodePlan {
    pub(super) definitions: Vec<Definition>,
    pub(super) arguments: NodeArguments,
}

/// Runs until SIGTERM or SIGINT, then stops in order.
pub(super) async fn run(plan: RunPlan) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
    let stopping = Shutdown::default();
    let RunPlan {
        store,
        broker,
        node,
        participants,
        participant_options,
        followers,
    } = plan;
    let node = match node {
        None => None,
        Some(node) => {
            let starting = RunningNode::start(node, &store, &broker, &environment, &stopping);
            tokio::select! {
                started = starting => Some(started?),
                () = signals.next() => {
                    tracing::info!("stopped while starting");
                    return Ok(());
                }
            }
        }
    };
    let participants = Participants::start(
        participants,
        participant_options,
        &store,
        &broker,
        &environment,
    );
    let following = followers.start(&store, &broker, &environment);
    let failed = tokio::select! {
        () = signals.next() => None,
        error = participants.failed() => Some(error),
        error = failed(node.as_ref()) => Some(error),
    };
    tracing::info!("stopping: finishing what is in work; a second signal ends at once");
    tokio::spawn(async move {
        signals.next().await;
        tracing::warn!("ended at once; what was in work will be done again");
        std::process::exit(ENDED_AT_ONCE);
    });
    end_within(STOP_TIME_MAX);
    stopping.request();
    if let Some(node) = node {
        node.stop().await;
    }
    participants.stop().await;
    following.stop().await;
    broker.close().await;
    store.close().await;
    tracing::info!("stopped");
    failed.map_or(Ok(()), Err)
}

/// Ends the process when its time is up. On a thread of its own: nothing else need be able to run.
fn end_within(time_max: Duration) {
    let spawned = std::thread::Builder::new().spawn(move || {
        std::thread::sleep(time_max);
        tracing::error!("did not stop in order in time; what was in work will be done again");
        std::process::exit(ENDED_LATE);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the end has no time limit");
    }
}

async fn failed(node: Option<&RunningNode>) -> Failure {
    match node {
        Some(node) => node.failed().await,
        None => std::future::pending().await,
    }
}

/// A running orchestrator.
struct RunningNode {
    engine: Arc<Engine>,
    jobs: Task,
    stop_jobs: Shutdown,
    drains: Drains,
    serving: tokio::sync::watch::Receiver<Option<String>>,
    last_request: Shutdown,
}

impl RunningNode {
    async fn start(
        plan: NodePlan,
        store: &OpenStore,
        broker: &OpenBroker,
        environment: &Arc<dyn Environment>,
        stopping: &Shutdown,
    ) -> Result<Self, Failure> {
        let NodePlan {
            definitions,
            arguments,
        } = plan;
        let metrics = http::metrics::install()
            .map_err(|error| Failure::new(format!("can't collect metrics: {error}")))?;
        // First of all, so that a taken port is found out before anything is begun.
        let Door {
            listener,
            tls,
            access,
        } = arguments.door.open(environment, store.tokens()).await?;
        for definition in &definitions {
            let (saga, version) = (&definition.name, definition.version);
            tracing::info!(saga, version, "definition loaded");
        }
        let engine = Engine::start(EngineParts {
            environment: Arc::clone(environment),
            store: store.sagas(),
            broker: broker.handle(),
            definitions: definitions.into_iter().map(Arc::new).collect(),
            options: EngineOptions {
                workers: usize::from(arguments.workers),
                prefetch: arguments.prefetch,
                cache_bytes: arguments.cache_mib as usize * 1024 * 1024,
                ..EngineOptions::default()
            },
        })
        .await
        .map_err(|error| match &error {
            EngineError::Catalogue(wrong) if wrong.is_about_files() => Failure::problems(error),
            _ => Failure::new(error),
        })?;
        let named = &arguments.dead_letter_queue;
        let drains = Drains::start(named, store, broker, environment).await?;
        let router = page::router(http::router(Api {
            engine: Arc::clone(&engine),
            access,
            aggregates: Aggregates::shipped(environment, store.read_models()),
            search: store.search(),
            database: store.kind(),
            census: store.census(),
            jobs: store.jobs(),
            requests: store.requests(),
            letters: store.letters(),
            environment: Arc::clone(environment),
            metrics: Some(metrics),
            stopping: stopping.clone(),
            limits: Limits {
                replay_to: arguments.allow_replay_to.clone(),
                ..Limits::default()
            },
        }));
        let jobs = Jobs {
            environment: Arc::clone(environment),
            engine: Arc::clone(&engine),
            search: store.search(),
            jobs: store.jobs(),
        };
        let stop_jobs = Shutdown::default();
        let jobs = jobs.start(stop_jobs.clone());
        let last_request = Shutdown::default();
        let (ended, serving) = tokio::sync::watch::channel(None);
        let stop = last_request.clone();
        tokio::spawn(async move {
            let result = http::serve(listener, tls, router, stop).await;
            ended.send_replace(Some(match result {
                Ok(()) => "it has ended".to_owned(),
                Err(error) => error.to_string(),
            }));
        });
        tokio::spawn(show_health(Arc::clone(&engine), last_request.clone()));
        let (watched, stop) = (Arc::clone(&engine), last_request.clone());
        let census = store.census();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.requested() => {}
                () = watch_snapshots(&watched) => {}
                () = gauges::keep(&watched, &census) => {}
            }
        });
        Ok(Self {
            engine,
            jobs,
            stop_jobs,
            drains,
            serving,
            last_request,
        })
    }

    /// Completes when the API can't be served any more.
    async fn failed(&self) -> Failure {
        let mut serving = self.serving.clone();
        let why = match serving.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "it panicked".to_owned(),
        };
        Failure::new(format!("the HTTP server stopped: {why}"))
    }

    async fn stop(self) {
        // What it has begun is written down, and another node goes on with it.
        self.stop_jobs.request();
        self.jobs.ended().await;
        self.engine.stop().await;
        self.drains.stop().await;
        self.last_request.request();
        let mut serving = self.serving;
        let ended = serving.wait_for(Option::is_some);
        if tokio::time::timeout(LAST_REQUESTS_MAX, ended)
            .await
            .is_err()
        {
            tracing::warn!("requests were still open; they are cut off");
        }
    }
}

/// Keeps the metrics about the broker up to date.
async fn show_health(engine: Arc<Engine>, stop: Shutdown) {
    let mut in_trouble = BTreeSet::new();
    loop {
        metric::broker_up(engine.broker_health() == crate::broker::Health::Up);
        let troubles = engine.troubles().into_iter();
        let now: BTreeSet<String> = troubles.map(|trouble| trouble.name).collect();
        for name in in_trouble.union(&now) {
            metric::topology_trouble(name, now.contains(name));
        }
        in_trouble.extend(now);
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(HEALTH_EVERY) => {}
        }
    }
}

/// Says when somebody keeps the database from clearing away what was deleted: polls then read
/// through it, and tables grow.
async fn watch_snapshots(engine: &Engine) {
    loop {
        if let Ok(Some(age)) = engine.store().oldest_snapshot().await {
            metric::oldest_snapshot(age);
            if age >= SNAPSHOT_AGE_MAX {
                tracing::warn!(
                    seconds = age.as_secs(),
                    "a session of the database holds an old snapshot: what was deleted since can't be cleared away, and the database gets slower; see pg_stat_activity"
                );
            }
        }
        tokio::time::sleep(SNAPSHOT_EVERY).await;
    }
}

/// Participants of this process.
struct Participants {
    any: bool,
    stop: Shutdown,
    result: tokio::sync::watch::Receiver<Option<Result<(), String>>>,
}

impl Participants {
    fn start(
        participants: Vec<Participant>,
        options: ParticipantOptions,
        store: &OpenStore,
        broker: &OpenBroker,
        environment: &Arc<dyn Environment>,
    ) -> Self {
        let stop = Shutdown::default();
        let (ended, result) = tokio::sync::watch::channel(None);
        let any = !participants.is_empty();
        if !any {
            return Self { any, stop, result };
        }
        let names: Vec<&str> = participants.iter().map(Participant::name).collect();
        tracing::info!("participants in this process: {}", names.join(", "));
        let running = run_all(
            participants,
            Arc::clone(environment),
            store.participants(),
            broker.handle(),
            options,
            stop.clone(),
        );
        tokio::spawn(async move {
            let result = running.await.map_err(|error| error.to_string());
            ended.send_replace(Some(result));
        });
        Self { any, stop, result }
    }

    /// Completes when one of them can't go on.
    async fn failed(&self) -> Failure {
        let mut result = self.result.clone();
        match result.wait_for(Option::is_some).await {
            Ok(result) => match result.as_ref() {
                Some(Err(error)) => Failure::new(error),
                _ => Failure::new("the participants have ended"),
            },
            Err(_) if self.any => Failure::new("the participants panicked"),
            Err(_) => std::future::pending().await,
        }
    }

    async fn stop(self) {
        self.stop.request();
        let mut result = self.result;
        // An error was logged when it came.
        let _ = result.wait_for(Option::is_some).await;
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(format!("can't wait for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
