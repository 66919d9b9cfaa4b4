//! The simulator: the real engine, relay, timers and participants over a simulated world.
//!
//! One run is one seed: two nodes and a process of participants work off a handful of orders
//! while messages get lost, doubled and overtaken, confirms and commits are reported wrongly, and
//! processes crash at whatever await they stand. Then everything heals, and the run demands what
//! Backstitch promises: every saga ends, all or nothing, and the totals add up. A run that fails
//! is repeated by its seed.
//!
//! The simulator is itself tested: with a known bug switched on ([`Bug`]), it must complain.
//! Deliberately absent: real threads, real time, real sockets; those are for the end-to-end tests.

mod bundles;
#[cfg(test)]
mod ends_tests;
pub mod network;
pub mod scheduler;
#[cfg(test)]
mod schedules_tests;
mod shop;
pub mod stage;
#[cfg(test)]
mod starts_tests;
mod times;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use crate::broker::memory::MemoryBroker;
use crate::environment::{Environment, Shutdown};
use crate::participant::{ParticipantOptions, run_all};
use crate::saga::{Flaw, Sabotage};
use crate::store::memory::MemoryStore;
use crate::store::{Outbox, Store};
use crate::{aggregates, definition, engine};

use network::{FaultRates, Faults, SimBroker, SimStore};
use scheduler::{Ended, NodeName, Scheduler};
use shop::Shop;

/// The processes that can crash.
const NODES: [NodeName; 2] = ["node-a", "node-b"];
/// The process that runs the participants.
const PARTICIPANTS: NodeName = "participants";
/// Where the test itself runs; never crashes.
const DRIVER: NodeName = "driver";

/// How long faults and crashes go on, in virtual time.
const CHAOS: Duration = Duration::from_secs(40);
/// How likely an outage follows a crash, in scenarios that have them.
const OUTAGE: f64 = 0.2;
/// How far a clock may be wrong, in scenarios that have that.
const CLOCK_WRONG_MICROS: i64 = 7_200_000_000;
/// How long a healed world may take to bring everything to its end, in virtual time.
const PATIENCE: Duration = Duration::from_hours(2);

/// What to run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How many orders are placed.
    pub orders: usize,
    /// How they are placed.
    pub workload: Workload,
    /// How bad the network is.
    pub rates: FaultRates,
    /// Longest time, now and then, in which no node runs.
    pub outage_max: Duration,
    /// Whether nodes' clocks are wrong now and then.
    pub wrong_clocks: bool,
    /// A known bug to switch on.
    pub bug: Option<Bug>,
}

impl Scenario {
    /// Ten orders, the usual faults, no bug.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            orders: 10,
            workload: Workload::Orders,
            rates: FaultRates::default(),
            outage_max: Duration::ZERO,
            wrong_clocks: false,
            bug: None,
        }
    }

    /// Ten orders whose reservations lapse, with outages that outlast some of them.
    pub fn lapses(seed: u64) -> Self {
        let rates = FaultRates {
            lease: 0.5,
            ..FaultRates::default()
        };
        Self {
            rates,
            outage_max: Duration::from_secs(30),
            ..Self::new(seed)
        }
    }

    /// The same, and now and then a node's clock is wrong.
    pub fn wrong_clocks(seed: u64) -> Self {
        Self {
            wrong_clocks: true,
            ..Self::lapses(seed)
        }
    }

    /// Nine orders in bundles of three, which are sold together or not at all.
    pub fn bundles(seed: u64) -> Self {
        Self {
            orders: 3 * bundles::ORDERS_EACH,
            workload: Workload::Bundles,
            ..Self::new(seed)
        }
    }
}

/// How orders are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Each is a saga by itself.
    Orders,
    /// Some at a time, as sub-sagas of one saga.
    Bundles,
}

/// Known bugs. Each must be noticed, or the simulator is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The engine acknowledges a message before what follows from it is committed.
    AckBeforeCommit,
    /// Participants handle a duplicate as if it were new.
    NoDedupe,
    /// Roll-back leaves out steps whose outcome nobody knows.
    UnknownNotCompensated,
    /// A saga that another one runs does not wait for that one at its pivot.
    ChildrenRush,
    /// The pivot is passed although a reservation has lapsed, or the deadline has passed.
    LapsedConfirmed,
    /// A node believes its own clock.
    OwnClock,
}

impl Bug {
    /// What it is to the engine; nothing, if it is the participants'.
    fn sabotage(self) -> Sabotage {
        match self {
            Self::AckBeforeCommit => Sabotage::with(Flaw::AckBeforeCommit),
            Self::UnknownNotCompensated => Sabotage::with(Flaw::ForgetUnknown),
            Self::ChildrenRush => Sabotage::with(Flaw::RushChildren),
            Self::LapsedConfirmed => Sabotage::with(Flaw::ConfirmLapsed),
            Self::OwnClock => Sabotage::with(Flaw::OwnClock),
            Self::NoDedupe => Sabotage::default(),
        }
    }
}

/// How a good run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Sagas that completed.
    pub completed: u64,
    /// Sagas that were compensated.
    pub compensated: u64,
    /// Crashes that were survived.
    pub crashes: u64,
    /// Polls: how much happened.
    pub polls: u64,
}

/// What a bad run did wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Repeats it.
    pub seed: u64,
    /// What does not hold.
    pub wrong: Vec<String>,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} fails:", self.seed)?;
        for wrong in &self.wrong {
            writeln!(f, "  - {wrong}")?;
        }
        write!(
            f,
            "repeat with: BACKSTITCH_SIM_SEED={} ./test sim",
            self.seed
        )
    }
}

/// Runs a scenario to its end.
///
/// # Errors
/// A [`Failure`] that names everything that does not hold.
pub fn run(scenario: &Scenario) -> Result<Report, Failure> {
    let scheduler = Scheduler::new(scenario.seed);
    let world = World {
        faults: Faults::new(&scheduler, scenario.rates),
        scheduler: scheduler.clone(),
        store: MemoryStore::default(),
        shop_store: MemoryStore::default(),
        broker: MemoryBroker::default(),
        bug: scenario.bug,
        workload: scenario.workload,
    };
    let shop = Shop::draw(&scheduler, scenario.orders, scenario.workload);
    let (saga, sagas) = shop.asked_for();
    let fail = |wrong: Vec<String>| {
        Err(Failure {
            seed: scenario.seed,
            wrong,
        })
    };

    world.start_all();
    world.drive(
        shop.clone()
            .open(world.driver(), world.shop_store.clone(), world.broker()),
    );
    let crashes = world.wreak_havoc(scenario);
    world.faults.heal();
    for node in NODES {
        scheduler.set_clock(node, 0);
    }
    let ended = scheduler.run_until(PATIENCE, || world.is_quiet(saga, sagas));
    if ended != Ended::Met {
        return fail(world.describe_unfinished(ended));
    }
    let mut wrong = shop.wrong(&world.store, &world.shop_store);
    wrong.extend(world.unexpected_letters());
    wrong.extend(times::wrong(&world.store, &world.faults.stored));
    if !wrong.is_empty() {
        return fail(wrong);
    }
    let (completed, compensated) = world.ended(saga);
    Ok(Report {
        completed,
        compensated,
        crashes,
        polls: scheduler.polls(),
    })
}

struct World {
    scheduler: Scheduler,
    faults: Arc<Faults>,
    store: MemoryStore,
    shop_store: MemoryStore,
    broker: MemoryBroker,
    bug: Option<Bug>,
    workload: Workload,
}

impl World {
    fn driver(&self) -> Arc<dyn Environment> {
        self.scheduler.environment(DRIVER, Duration::ZERO)
    }

    fn broker(&self) -> Arc<SimBroker<MemoryBroker>> {
        Arc::new(SimBroker {
            inner: self.broker.clone(),
            faults: Arc::clone(&self.faults),
        })
    }

    fn drive(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.scheduler.spawn(DRIVER, Box::pin(task));
    }

    fn start_all(&self) {
        for node in NODES {
            self.start(node);
        }
        self.start(PARTICIPANTS);
    }

    fn start(&self, node: NodeName) {
        if node == PARTICIPANTS {
            self.start_participants();
        } else {
            self.start_node(node);
        }
    }

    fn start_node(&self, node: NodeName) {
        // Clocks differ a little between machines.
        let skew = Duration::from_millis(if node == NODES[0] { 0 } else { 30 });
        let parts = engine::EngineParts {
            environment: self.scheduler.environment(node, skew),
            store: Arc::new(SimStore {
                inner: self.store.clone(),
                faults: Arc::clone(&self.faults),
            }),
            broker: self.broker(),
            definitions: self.definitions(),
            options: engine::EngineOptions {
                look_every: Duration::from_millis(500),
                sabotage: self.bug.map(Bug::sabotage).unwrap_or_default(),
                ..engine::EngineOptions::default()
            },
        };
        let start = async move {
            let engine = engine::Engine::start(parts).await;
            // A node that could not start, or runs until it crashes.
            let _running = engine;
            std::future::pending::<()>().await;
        };
        self.scheduler.spawn(node, Box::pin(start));
    }

    fn definitions(&self) -> Vec<Arc<definition::Definition>> {
        let order = [("impatient-order.yaml", shop::DEFINITION)].into_iter();
        let more = bundles::DEFINITIONS.into_iter();
        let more = more.filter(|_| self.workload == Workload::Bundles);
        let files: Vec<_> = order.chain(more).collect();
        // With a broken one no node starts, and nothing ends.
        let parsed = definition::parse_all(&files).unwrap_or_default();
        parsed.into_iter().map(Arc::new).collect()
    }

    fn start_participants(&self) {
        let environment = self.scheduler.environment(PARTICIPANTS, Duration::ZERO);
        let store = Arc::new(SimStore {
            inner: self.shop_store.clone(),
            faults: Arc::clone(&self.faults),
        });
        let options = ParticipantOptions {
            dedupe: self.bug != Some(Bug::NoDedupe),
            ..ParticipantOptions::default()
        };
        let broker = self.broker();
        let run = async move {
            let participants = aggregates::participants();
            let stop = Shutdown::default();
            let ended = run_all(participants, environment, store, broker, options, stop).await;
            drop(ended);
        };
        self.scheduler.spawn(PARTICIPANTS, Box::pin(run));
    }

    /// Lets processes crash and come back until the chaos is over. Returns how many did.
    fn wreak_havoc(&self, scenario: &Scenario) -> u64 {
        let outage_max = scenario.outage_max;
        let end = self.scheduler.now().after(CHAOS);
        let mut crashes = 0;
        while self.scheduler.now() < end {
            let pause = self.scheduler.random(|random| random.u64(100..6_000));
            self.scheduler
                .run_until(Duration::from_millis(pause), || false);
            let victim = self.scheduler.random(|random| match random.u8(..3) {
                0 => NODES[0],
                1 => NODES[1],
                _ => PARTICIPANTS,
            });
            self.scheduler.crash(victim);
            crashes += 1;
            let away = self.scheduler.random(|random| random.u64(..3_000));
            self.scheduler
                .run_until(Duration::from_millis(away), || false);
            self.start(victim);
            if scenario.wrong_clocks {
                self.set_a_clock();
            }
            if !outage_max.is_zero() && self.scheduler.chance(OUTAGE) {
                self.suffer_outage(outage_max);
                crashes += NODES.len() as u64;
            }
        }
        crashes
    }

    /// Sets the clock of a node wrong, or right again.
    fn set_a_clock(&self) {
        let (node, ahead) = self.scheduler.random(|random| {
            let wrong = random.i64(-CLOCK_WRONG_MICROS..CLOCK_WRONG_MICROS);
            (
                NODES[random.usize(..NODES.len())],
                wrong * i64::from(random.bool()),
            )
        });
        self.scheduler.set_clock(node, ahead);
    }

    /// No node runs for a while; participants do, so answers wait in the queue.
    fn suffer_outage(&self, outage_max: Duration) {
        for node in NODES {
            self.scheduler.crash(node);
        }
        let most = u64::try_from(outage_max.as_millis()).unwrap_or(u64::MAX);
        let away = self.scheduler.random(|random| random.u64(..=most));
        self.scheduler
            .run_until(Duration::from_millis(away), || false);
        for node in NODES {
            self.start(node);
        }
    }

    /// All sagas have ended, those that were asked for are among them, and nothing is left to be
    /// said.
    fn is_quiet(&self, saga: &str, asked_for: u64) -> bool {
        let (completed, compensated) = self.ended(saga);
        completed + compensated >= asked_for
            && now(self.store.counts())
                .iter()
                .all(|count| count.status.is_ended())
            && now(self.store.outbox_len()) == 0
            && now(self.shop_store.outbox_len()) == 0
    }

    fn ended(&self, saga: &str) -> (u64, u64) {
        let counts = now(self.store.counts());
        let of = |status| {
            counts
                .iter()
                .filter(|c| c.status == status && c.name == saga)
                .map(|c| c.count)
                .sum()
        };
        (
            of(crate::saga::Status::Completed),
            of(crate::saga::Status::Compensated),
        )
    }

    fn describe_unfinished(&self, ended: Ended) -> Vec<String> {
        let mut wrong = vec![format!("not everything ended ({ended:?})")];
        for count in now(self.store.counts()) {
            wrong.push(format!("{} {}: {}", count.name, count.status, count.count));
        }
        for (name, store) in [
            ("orchestrator", &self.store),
            ("participants", &self.shop_store),
        ] {
            wrong.push(format!("outbox of the {name}: {}", now(store.outbox_len())));
        }
        wrong.extend(self.unexpected_letters());
        wrong
    }

    /// Nobody in this world sends nonsense, so there must be no dead letters.
    fn unexpected_letters(&self) -> Vec<String> {
        [&self.store, &self.shop_store]
            .into_iter()
            .flat_map(|store| now(store.dead_letters(10)))
            .map(|letter| format!("dead letter on {}: {}", letter.queue, letter.reason))
            .collect()
    }
}

/// The memory store answers at once.
fn now<T: Default, E>(answer: impl Future<Output = Result<T, E>>) -> T {
    answer
        .now_or_never()
        .and_then(Result::ok)
        .unwrap_or_default()
}
