//! The simulated world: its processes, and what befalls them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::network::{Faults, SimBroker, SimStore};
use super::now::now;
use super::releases::Releases;
use super::scenario::{Bug, Scenario, Workload};
use super::scheduler::{Ended, NodeName, Scheduler};
use super::{account, bundles, shop, strangers};
use crate::broker::memory::MemoryBroker;
use crate::environment::{Environment, Shutdown};
use crate::message::{DEAD_LETTER_QUEUE, REPLY_QUEUE, SIGNAL_QUEUE, START_QUEUE};
use crate::participant::{ParticipantOptions, run_all};
use crate::store::dead_letters::{DeadLetterStore, LetterStatus};
use crate::store::memory::MemoryStore;
use crate::store::{Outbox, Store};
use crate::{aggregates, dead_letters, definition, engine};

/// The processes that can crash.
pub(super) const NODES: [NodeName; 2] = ["node-a", "node-b"];
/// The process that runs the participants.
const PARTICIPANTS: NodeName = "participants";
/// The process that drains, edits, replays and discards dead letters, if somebody makes some.
const DESK: NodeName = "desk";
/// Where the test itself runs; never crashes.
pub(super) const DRIVER: NodeName = "driver";

/// How long faults and crashes go on, in virtual time.
const CHAOS: Duration = Duration::from_secs(40);
/// How likely an outage follows a crash, in scenarios that have them.
const OUTAGE: f64 = 0.2;
/// How far a clock may be wrong, in scenarios that have that.
const CLOCK_WRONG_MICROS: i64 = 7_200_000_000;
pub(super) struct World {
    scheduler: Scheduler,
    pub(super) faults: Arc<Faults>,
    pub(super) store: MemoryStore,
    pub(super) shop_store: MemoryStore,
    broker: MemoryBroker,
    bug: Option<Bug>,
    /// Which releases the nodes are of, if not all of ours.
    releases: Option<Releases>,
    workload: Workload,
    strangers_done: Arc<AtomicBool>,
}

impl World {
    pub(super) fn new(scheduler: &Scheduler, scenario: &Scenario) -> Self {
        Self {
            faults: Faults::new(scheduler, scenario.rates),
            scheduler: scheduler.clone(),
            store: MemoryStore::default(),
            shop_store: MemoryStore::default(),
            broker: MemoryBroker::default(),
            bug: scenario.bug,
            releases: scenario.releases.then(Releases::default),
            workload: scenario.workload,
            strangers_done: Arc::default(),
        }
    }

    pub(super) fn driver(&self) -> Arc<dyn Environment> {
        self.scheduler.environment(DRIVER, Duration::ZERO)
    }

    pub(super) fn broker(&self) -> Arc<SimBroker<MemoryBroker>> {
        Arc::new(SimBroker {
            inner: self.broker.clone(),
            faults: Arc::clone(&self.faults),
        })
    }

    pub(super) fn drive(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.scheduler.spawn(DRIVER, Box::pin(task));
    }

    pub(super) fn start_all(&self) {
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
    pub(super) fn let_strangers_in(&self) {
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
    pub(super) fn wreak_havoc(&self, scenario: &Scenario) -> u64 {
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
    pub(super) fn is_quiet(&self, saga: &str, asked_for: u64) -> bool {
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

    pub(super) fn letter_count(&self) -> u64 {
        let counts = [&self.store, &self.shop_store].map(|store| now(store.letter_counts()));
        counts.iter().flatten().map(|of| of.count).sum()
    }

    pub(super) fn ended(&self, saga: &str) -> (u64, u64) {
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

    pub(super) fn describe_unfinished(&self, ended: Ended) -> Vec<String> {
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
    pub(super) fn unexpected_letters(&self) -> Vec<String> {
        if self.workload == Workload::Letters {
            return Vec::new();
        }
        [&self.store, &self.shop_store]
            .into_iter()
            .flat_map(|store| now(store.dead_letters(10)))
            .map(|letter| format!("dead letter on {}: {}", letter.queue, letter.reason))
            .collect()
    }

    /// How a node that starts now behaves.
    fn release(&self, node: NodeName) -> engine::EngineOptions {
        let drawn = self.releases.as_ref();
        let drawn = drawn.map(|releases| releases.options(node, &self.scheduler));
        drawn.unwrap_or_default()
    }

    /// One node is of the oldest release, and the other of the newest.
    pub(super) fn settle_releases(&self) {
        let Some(releases) = &self.releases else {
            return;
        };
        releases.settle(NODES);
        for node in NODES {
            self.scheduler.crash(node);
            self.start(node);
        }
    }
}
