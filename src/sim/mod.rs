//! The simulator: the real engine, relay, timers and participants over a simulated world.
//!
//! One run is one seed: two nodes and a process of participants work off a handful of orders
//! while messages get lost, doubled and overtaken, confirms and commits are reported wrongly, and
//! processes crash at whatever await they stand. Then everything heals, and the run demands what
//! Backstitch promises: every saga ends, all or nothing, the totals add up, and nothing that was
//! acknowledged is gone. A run that fails is repeated by its seed.
//!
//! The simulator is itself tested: with a known bug switched on ([`Bug`]), it must complain.
//! Deliberately absent: real threads, real time, real sockets; those are for the end-to-end tests.

mod account;
mod books;
mod bundles;
#[cfg(test)]
mod ends_tests;
pub mod network;
mod releases;
#[cfg(test)]
mod rollout_tests;
mod scenario;
pub mod scheduler;
#[cfg(test)]
mod schedules_tests;
mod shop;
pub mod stage;
#[cfg(test)]
mod starts_tests;
mod strangers;
mod times;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;

use crate::broker::memory::MemoryBroker;
use crate::environment::{Environment, Shutdown};
use crate::message::{DEAD_LETTER_QUEUE, REPLY_QUEUE, SIGNAL_QUEUE, START_QUEUE};
use crate::participant::{ParticipantOptions, run_all};
use crate::store::dead_letters::{DeadLetterStore, LetterStatus};
use crate::store::memory::MemoryStore;
use crate::store::{Outbox, Store};
use crate::{aggregates, dead_letters, definition, engine};

use network::{Faults, SimBroker, SimStore};
use releases::Releases;
pub use scenario::{Bug, FailedRun, RunReport, Scenario, Workload};
use scheduler::{Ended, NodeName, Scheduler};
use shop::Shop;

/// The processes that can crash.
const NODES: [NodeName; 2] = ["node-a", "node-b"];
/// The process that runs the participants.
const PARTICIPANTS: NodeName = "participants";
/// The process that drains, edits, replays and discards dead letters, if somebody makes some.
const DESK: NodeName = "desk";
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

/// Runs a scenario to its end.
///
/// # Errors
/// A [`FailedRun`] that names everything that does not hold.
pub fn run(scenario: &Scenario) -> Result<RunReport, FailedRun> {
    let scheduler = Scheduler::new(scenario.seed);
    let world = World {
        faults: Faults::new(&scheduler, scenario.rates),
        scheduler: scheduler.clone(),
        store: MemoryStore::default(),
        shop_store: MemoryStore::default(),
        broker: MemoryBroker::default(),
        bug: scenario.bug,
        releases: scenario.releases.then(Releases::default),
        workload: scenario.workload,
        strangers_done: Arc::default(),
    };
    let shop = Shop::draw(&scheduler, scenario.orders, scenario.workload);
    let (saga, sagas) = shop.asked_for();
    let fail = |wrong: Vec<String>| {
        Err(FailedRun {
            seed: scenario.seed,
            wrong,
        })
    };

    world.start_all();
    world.drive(
        shop.clone()
            .open(world.driver(), world.shop_store.clone(), world.broker()),
    );
    world.let_strangers_in();
    let crashes = world.wreak_havoc(scenario);
    world.faults.heal();
    for node in NODES {
        scheduler.set_clock(node, 0);
    }
    world.settle_releases();
    let ended = scheduler.run_until(PATIENCE, || world.is_quiet(saga, sagas));
    if ended != Ended::Met {
        return fail(world.describe_unfinished(ended));
    }
    let mut wrong = shop.wrong(&world.store, &world.shop_store);
    wrong.extend(world.unexpected_letters());
    wrong.extend(releases::wrong(&world.store));
    wrong.extend(times::wrong(&world.store, &world.faults.stored));
    let books = &world.faults.books;
    wrong.extend(account::wrong(books, &world.store, &world.shop_store));
    if !wrong.is_empty() {
        return fail(wrong);
    }
    let (completed, compensated) = world.ended(saga);
    Ok(RunReport {
        completed,
        compensated,
        crashes,
        letters: world.letter_count(),
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
    /// Which releases the nodes are of, if not all of ours.
    releases: Option<Releases>,
    workload: Workload,
    strangers_done: Arc<AtomicBool>,
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
        if self.workload == Workload::Letters {
            self.start(DESK);
        }
    }

    fn start(&self, node: NodeName) {
        match node {
            PARTICIPANTS => self.start_participants(),
            DESK => self.start_desk(),
            _ => self.start_node(node),
        }
    }

    /// Somebody sends nonsense from now on, if this world has such people.
    fn let_strangers_in(&self) {
        if self.workload == Workload::Letters {
            self.drive(strangers::pester(
                self.scheduler.clone(),
                self.driver(),
                self.broker(),
                Arc::clone(&self.strangers_done),
            ));
        } else {
            self.strangers_done.store(true, Ordering::Relaxed);
        }
    }

    fn start_desk(&self) {
        let store = Arc::new(SimStore {
            inner: self.store.clone(),
            faults: Arc::clone(&self.faults),
        });
        let office = strangers::Office {
            scheduler: self.scheduler.clone(),
            desk: dead_letters::Desk {
                environment: self.scheduler.environment(DESK, Duration::ZERO),
                letters: Arc::<SimStore<MemoryStore>>::clone(&store),
                sagas: store,
            },
            broker: self.broker(),
        };
        self.scheduler.spawn(DESK, Box::pin(office.clone().drain()));
        self.scheduler.spawn(DESK, Box::pin(office.work()));
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
                ..self.release(node)
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
            let processes = if self.workload == Workload::Letters {
                4
            } else {
                3
            };
            let victim = self
                .scheduler
                .random(|random| match random.u8(..processes) {
                    0 => NODES[0],
                    1 => NODES[1],
                    2 => PARTICIPANTS,
                    _ => DESK,
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
            && (self.workload != Workload::Letters || self.letters_are_quiet())
    }

    /// Nothing more is to come, and nothing is on its way.
    fn letters_are_quiet(&self) -> bool {
        let counts = now(self.store.letter_counts());
        self.strangers_done.load(Ordering::Relaxed)
            && !counts.iter().any(|of| of.status == LetterStatus::Replaying)
            && [
                START_QUEUE,
                REPLY_QUEUE,
                SIGNAL_QUEUE,
                DEAD_LETTER_QUEUE,
                "inventory",
            ]
            .iter()
            .all(|queue| self.broker.queue_len(queue) + self.broker.unacked(queue) == 0)
    }

    fn letter_count(&self) -> u64 {
        let counts = [&self.store, &self.shop_store].map(|store| now(store.letter_counts()));
        counts.iter().flatten().map(|of| of.count).sum()
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
        let books = &self.faults.books;
        wrong.extend(account::wrong(books, &self.store, &self.shop_store));
        wrong.extend(account::undecided(&self.store));
        wrong
    }

    /// Unless somebody sends nonsense, there must be no dead letters.
    fn unexpected_letters(&self) -> Vec<String> {
        if self.workload == Workload::Letters {
            return Vec::new();
        }
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
