//! Where the demo runs: database, broker, one node, and the shop's participants, of which one
//! can be crashed.
//!
//! The participants are services with tasks of their own: `payments`, which crashes, a second
//! instance of `inventory`, so that one can hang, and the rest. A crash drops all of a service's tasks at whatever await they stand, as the end of a
//! process would; what was committed stays, what was not acknowledged comes back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use uuid::Uuid;

use super::super::backends::{BrokerArguments, Database, DatabaseArguments, OpenBroker, OpenStore};
use super::super::definitions;
use super::super::dev::Ephemeral;
use super::super::exit::Failure;
use super::faults::{FaultPlan, FaultyBroker};
use super::progress::Progress;
use super::workload::Workload;
use crate::aggregates::{Inventory, Payments, inventory, participants, payments, seed};
use crate::broker::Broker;
use crate::engine::{Engine, EngineOptions, EngineParts};
use crate::environment::{Environment, Shutdown, TokioEnvironment};
use crate::id::Timestamp;
use crate::participant::{Participant, ParticipantError, ParticipantOptions, run_all};
use crate::store::participant::ParticipantStore;
use crate::store::{Store, StoreError};

/// How far the run is, in percent of the sagas, when `inventory` hangs.
const HANG_AT_PERCENT: usize = 15;
/// How far it is when `payments` crashes.
const CRASH_AT_PERCENT: usize = 30;
/// How long `payments` stays away.
pub(super) const DOWN_TIME: Duration = Duration::from_millis(300);
/// Age at which a reply that a crash left behind is published by whoever finds it.
const REPLY_GRACE: Duration = Duration::from_secs(2);
/// Ended tasks are forgotten when a service has started so many.
const TASKS_TIDY_AT: usize = 256;

/// The databases and the broker.
pub(super) struct DemoWorld {
    /// The server, if it is one: a service that crashes has connections of its own, which the
    /// server must find broken. A connection given back by a task that was dropped in the middle
    /// of a statement would spoil it for others.
    server: Option<Database>,
    sagas: OpenStore,
    participants: OpenStore,
    broker: OpenBroker,
    /// In words, for the report.
    pub(super) backends: String,
    /// The database files of an embedded run, removed with it.
    _files: Option<Ephemeral>,
}

impl DemoWorld {
    /// Opens what is configured; without any configuration, files that are thrown away and a
    /// broker inside the process.
    pub(super) async fn open(
        database: &DatabaseArguments,
        broker: &BrokerArguments,
        attach: bool,
    ) -> Result<Self, Failure> {
        match (database.is_named()?, broker.url()?.as_deref()) {
            (true, Some(url)) => Self::connect(&database.database()?, url).await,
            (true, None) => Err(Failure::problems(
                "DATABASE_URL is set and AMQP_URL is not; set both, or neither for a run that needs nothing",
            )),
            (false, Some(_)) => Err(Failure::problems(
                "AMQP_URL is set and DATABASE_URL is not; set both, or neither for a run that needs nothing",
            )),
            (false, None) if attach => Err(Failure::problems(
                "--attach needs the DATABASE_URL and AMQP_URL of the nodes to attach to",
            )),
            (false, None) => Self::embed().await,
        }
    }

    async fn connect(database: &Database, url: &str) -> Result<Self, Failure> {
        let kind = match database {
            Database::Postgres(_) => "PostgreSQL",
            Database::Sqlite(_) => "SQLite (synchronous=FULL)",
        };
        Ok(Self {
            server: matches!(database, Database::Postgres(_)).then(|| database.clone()),
            sagas: database.open().await?,
            participants: database.open().await?,
            broker: OpenBroker::open(Some(url), "backstitch demo").await?,
            backends: format!("{kind} + RabbitMQ"),
            _files: None,
        })
    }

    async fn embed() -> Result<Self, Failure> {
        let files = Ephemeral::new()?;
        Ok(Self {
            server: None,
            // Two files, so that the node and the participants don't wait for each other's turn.
            sagas: Database::Sqlite(files.file("sagas.db")).open().await?,
            participants: Database::Sqlite(files.file("shop.db")).open().await?,
            broker: OpenBroker::open(None, "backstitch demo").await?,
            backends: "SQLite (synchronous=FULL) + in-process broker".to_owned(),
            _files: Some(files),
        })
    }

    /// The orchestrator's store.
    pub(super) fn sagas(&self) -> Arc<dyn Store> {
        self.sagas.sagas()
    }

    /// The participants' store.
    pub(super) fn participants(&self) -> Arc<dyn ParticipantStore> {
        self.participants.participants()
    }

    /// The broker, as it is.
    pub(super) fn broker(&self) -> Arc<dyn Broker> {
        self.broker.handle()
    }

    /// Whether the database and the broker run in processes of their own.
    pub(super) fn has_servers(&self) -> bool {
        matches!(self.broker, OpenBroker::RabbitMq(..))
    }

    /// Fills the shelves and the accounts.
    pub(super) async fn stock_up(
        &self,
        workload: &Workload,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let store = self.participants();
        let failed =
            |error: StoreError| Failure::new(format!("can't store the initial stock: {error}"));
        let stock = workload.expected.stock.iter().map(|(sku, quantity)| {
            let quantity = *quantity;
            (sku.clone(), inventory::Event::Received { quantity })
        });
        seed::<Inventory>(&*store, now, stock)
            .await
            .map_err(failed)?;
        let balances = workload.expected.balances.iter().map(|(account, amount)| {
            let amount = *amount;
            (account.clone(), payments::Event::Deposited { amount })
        });
        seed::<Payments>(&*store, now, balances)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Starts the node and the participants.
    pub(super) async fn start(&self, plan: &Arc<FaultPlan>) -> Result<Shop, Failure> {
        let engine = Engine::start(EngineParts {
            environment: Arc::new(TokioEnvironment),
            store: self.sagas(),
            broker: self.broker(),
            definitions: definitions::shipped()?.into_iter().map(Arc::new).collect(),
            options: EngineOptions {
                workers: if self.server.is_some() {
                    EngineOptions::default().workers
                } else {
                    1 // a file has one writer: a second worker would only make batches smaller
                },
                ..EngineOptions::default()
            },
        })
        .await
        .map_err(|error| Failure::new(format!("the node can't start: {error}")))?;
        let (ended, ends) = mpsc::unbounded_channel();
        let recipe = Recipe {
            server: self.server.clone(),
            store: self.participants(),
            broker: Arc::new(FaultyBroker {
                inner: self.broker(),
                plan: Arc::clone(plan),
            }),
            ended,
        };
        Ok(Shop {
            engine,
            payments: Mutex::new(recipe.start_payments().await?),
            second_inventory: recipe.start(self.participants(), |name| name == Inventory::NAME),
            others: recipe.start(self.participants(), |name| name != Payments::NAME),
            recipe,
            ends: tokio::sync::Mutex::new(ends),
        })
    }

    /// Leaves the databases and the broker.
    pub(super) async fn close(self) {
        self.broker.close().await;
        self.participants.close().await;
        self.sagas.close().await;
    }
}

/// The node and the participants, running.
pub(super) struct Shop {
    engine: Arc<Engine>,
    payments: Mutex<Service>,
    second_inventory: Service,
    others: Service,
    recipe: Recipe,
    /// Errors of services that ended by themselves.
    ends: tokio::sync::Mutex<mpsc::UnboundedReceiver<ParticipantError>>,
}

impl Shop {
    /// Hangs one participant and crashes another, each at its time, then waits for ever; ends
    /// only with what stopped a participant that should run.
    pub(super) async fn make_trouble(&self, progress: &Progress, plan: &FaultPlan) -> Failure {
        let trouble = async {
            progress.reaches(HANG_AT_PERCENT).await;
            plan.hang_once();
            progress.reaches(CRASH_AT_PERCENT).await;
            self.payments().crash();
            plan.crashed();
            tokio::time::sleep(DOWN_TIME).await;
            match self.recipe.start_payments().await {
                Ok(again) => *self.payments() = again,
                Err(failure) => return failure,
            }
            std::future::pending::<Failure>().await
        };
        tokio::select! {
            failure = trouble => failure,
            failure = self.failed() => failure,
        }
    }

    /// Completes when a participant can't go on.
    pub(super) async fn failed(&self) -> Failure {
        match self.ends.lock().await.recv().await {
            Some(error) => Failure::new(error),
            // `self.recipe` holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Lets everybody finish what they hold.
    pub(super) async fn stop(self) {
        self.engine.stop().await;
        let payments = self.payments.into_inner();
        payments
            .unwrap_or_else(PoisonError::into_inner)
            .stop()
            .await;
        self.second_inventory.stop().await;
        self.others.stop().await;
    }

    fn payments(&self) -> MutexGuard<'_, Service> {
        self.payments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How to start a service.
struct Recipe {
    server: Option<Database>,
    store: Arc<dyn ParticipantStore>,
    broker: Arc<dyn Broker>,
    ended: mpsc::UnboundedSender<ParticipantError>,
}

impl Recipe {
    /// Starts the one that crashes.
    async fn start_payments(&self) -> Result<Service, Failure> {
        let store = match &self.server {
            Some(server) => server.open().await?.participants(),
            None => Arc::clone(&self.store),
        };
        Ok(self.start(store, |name| name == Payments::NAME))
    }

    /// Starts the shipped participants that `serves` picks.
    fn start(&self, store: Arc<dyn ParticipantStore>, serves: impl Fn(&str) -> bool) -> Service {
        let picked: Vec<Participant> = participants()
            .into_iter()
            .filter(|participant| serves(participant.name()))
            .collect();
        let tasks = Arc::new(CrashableEnvironment::default());
        let stop = Shutdown::default();
        let running = run_all(
            picked,
            Arc::clone(&tasks) as Arc<dyn Environment>,
            store,
            Arc::clone(&self.broker),
            ParticipantOptions {
                workers: 1,
                reply_grace: REPLY_GRACE,
                ..ParticipantOptions::default()
            },
            stop.clone(),
        );
        let ended = self.ended.clone();
        let main = tokio::spawn(async move {
            if let Err(error) = running.await {
                // Nobody listens any more when the run is over.
                let _ = ended.send(error);
            }
        });
        Service { tasks, stop, main }
    }
}

/// Some participants that live and die together.
struct Service {
    tasks: Arc<CrashableEnvironment>,
    stop: Shutdown,
    main: JoinHandle<()>,
}

impl Service {
    /// Drops all that runs, wherever it stands.
    fn crash(&self) {
        self.main.abort();
        self.tasks.crash();
    }

    async fn stop(self) {
        self.stop.request();
        // An error was reported when it came; a task that was aborted has nothing to say.
        let _ = self.main.await;
    }
}

/// The real world, with a list of what was started in it.
#[derive(Default)]
struct CrashableEnvironment {
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    running: Vec<AbortHandle>,
    /// A task that was being polled when the crash came must not start others.
    crashed: bool,
}

impl CrashableEnvironment {
    fn crash(&self) {
        let mut tasks = self.tasks();
        tasks.crashed = true;
        tasks.running.drain(..).for_each(|task| task.abort());
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Environment for CrashableEnvironment {
    fn now(&self) -> Timestamp {
        TokioEnvironment.now()
    }

    fn elapsed(&self) -> Duration {
        TokioEnvironment.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        TokioEnvironment.sleep(duration)
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        let mut tasks = self.tasks();
        if tasks.crashed {
            return;
        }
        if tasks.running.len() >= TASKS_TIDY_AT {
            tasks.running.retain(|task| !task.is_finished());
        }
        tasks.running.push(tokio::spawn(task).abort_handle());
    }

    fn new_id(&self) -> Uuid {
        TokioEnvironment.new_id()
    }
}
