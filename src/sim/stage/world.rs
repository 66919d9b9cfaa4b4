//! The processes of a play: one node or two, participants, and what befalls them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::super::network::{FaultRates, Faults, SimBroker, SimStore};
use super::super::now::now;
use super::super::scheduler::{DAY, EPOCH, Ended, NodeName, Scheduler};
use super::cast::{self, Cast};
use super::improvise::{Improviser, Usher};
use super::outside::{self, Outside, lock};
use super::play::Play;
use super::setup::Stage;
use crate::broker::Broker;
use crate::broker::memory::MemoryBroker;
use crate::definition::{BlockKind, Definition};
use crate::engine::relay::RelayOptions;
use crate::engine::{Engine, EngineOptions, EngineParts};
use crate::environment::{Environment, Shutdown};
use crate::participant::{Participant, ParticipantOptions, run_all};
use crate::saga::{OperatorKind, Status, Waiting};
use crate::store::memory::MemoryStore;
use crate::store::{Outbox, SagaHead, Store};
use crate::view;

const NODES: [NodeName; 2] = ["node-a", "node-b"];
const STAND_INS: NodeName = "stand-ins";
const PARTICIPANTS: NodeName = "participants";
/// Where the script runs; never crashes.
const DRIVER: NodeName = "driver";

/// How long faults and crashes go on, in virtual time.
const CHAOS: Duration = Duration::from_secs(40);
/// How long a play may take, in virtual time: longer than any wait that the language allows, some
/// times over.
const PATIENCE: Duration = Duration::from_hours(200 * 366 * 24);
/// How much may happen in a play before it counts as one that never ends.
const POLLS_MAX: u64 = 20_000_000;
/// What is under way when the last saga ends may still arrive.
const EPILOGUE: Duration = DAY;
/// How often a person looks after what waits before the play is given up.
const VISITS_MAX: u32 = 200;
/// Visits after which the person calls a saga off, and after which it is ended by force.
const VISITS_UNTIL: (u32, u32) = (20, 40);

impl Stage {
    /// Plays it to the end.
    pub fn play(self) -> Play {
        play(self)
    }
}

fn play(mut stage: Stage) -> Play {
    let scheduler = Scheduler::new(stage.seed);
    let mut entrances = std::mem::take(&mut stage.entrances);
    let usher = stage
        .improvise
        .then(|| Arc::new(Usher::new(&scheduler, &stage.definitions)));
    if let Some(usher) = &usher {
        entrances.extend(usher.before_starts(&entrances));
    }
    let props = std::mem::take(&mut stage.props);
    let world = StageWorld::new(&scheduler, stage);
    for prop in props {
        prop(&world.shop);
    }
    world.open();
    let (outside, script) = (Arc::clone(&world.outside), entrances);
    *lock(&outside.ahead) = script.len();
    scheduler.spawn(DRIVER, Box::pin(Arc::clone(&outside).hear_answers()));
    if let Some(usher) = usher {
        scheduler.spawn(DRIVER, Box::pin(Arc::clone(&outside).usher(usher)));
    }
    scheduler.spawn(DRIVER, Box::pin(outside.enter_all(script)));
    let crashes = world.wreak_havoc();
    let ended = world.run();
    world.close(ended, crashes)
}

struct StageWorld {
    scheduler: Scheduler,
    stage: Stage,
    served: BTreeSet<String>,
    faults: Arc<Faults>,
    broker: MemoryBroker,
    store: MemoryStore,
    /// Of participants that bring their own.
    shop: MemoryStore,
    cast: Arc<Cast>,
    outside: Arc<Outside>,
}

impl StageWorld {
    fn new(scheduler: &Scheduler, stage: Stage) -> Self {
        let rates = stage.faults.unwrap_or_else(FaultRates::none);
        let faults = Faults::new(scheduler, rates);
        let (broker, store) = (MemoryBroker::default(), MemoryStore::default());
        let improviser = stage.improvise.then(|| Improviser::new(scheduler));
        let cast = Cast::new(
            stage.definitions.clone(),
            stage.rules.clone(),
            improviser,
            stage.latency,
        );
        let outside = Arc::new(Outside {
            environment: scheduler.environment(DRIVER, Duration::ZERO),
            broker: Arc::new(broker.clone()),
            store: store.clone(),
            engine: Mutex::default(),
            refused: Mutex::default(),
            ahead: Mutex::default(),
        });
        Self {
            scheduler: scheduler.clone(),
            served: stage.served(),
            stage,
            faults,
            broker,
            store,
            shop: MemoryStore::default(),
            cast,
            outside,
        }
    }

    /// Declares what is there before anybody comes, and starts all processes.
    fn open(&self) {
        let destinations = self.cast.destinations(&self.served);
        for topology in [cast::topology(&destinations), outside::topology()] {
            // Fresh queues in an empty broker can't clash.
            now(self.broker.declare(&topology));
        }
        for node in self.nodes() {
            self.start(node);
        }
        self.start(STAND_INS);
        self.start(PARTICIPANTS);
    }

    fn nodes(&self) -> &'static [NodeName] {
        if self.stage.faults.is_some() {
            &NODES
        } else {
            &NODES[..1]
        }
    }

    fn start(&self, name: NodeName) {
        match name {
            STAND_INS => self.start_stand_ins(),
            PARTICIPANTS => self.start_participants(),
            node => self.start_node(node),
        }
    }

    /// A node's environment: time jumps over what it would only sleep through.
    fn environment(&self, node: NodeName, store: &MemoryStore) -> Arc<dyn Environment> {
        let store = store.clone();
        self.scheduler
            .patient_environment(node, Arc::new(move || store.next_due()))
    }

    fn flaky_broker(&self) -> Arc<dyn Broker> {
        Arc::new(SimBroker {
            inner: self.broker.clone(),
            faults: Arc::clone(&self.faults),
        })
    }

    fn start_node(&self, node: NodeName) {
        let calm = self.stage.faults.is_none();
        let relay = RelayOptions {
            publishers: if calm { 1 } else { 2 },
            ..RelayOptions::default()
        };
        let parts = EngineParts {
            environment: self.environment(node, &self.store),
            store: Arc::new(SimStore {
                inner: self.store.clone(),
                faults: Arc::clone(&self.faults),
            }),
            broker: self.flaky_broker(),
            definitions: self.stage.definitions.clone(),
            options: EngineOptions {
                workers: 1,
                sabotage: self.stage.sabotage,
                look_every: Duration::from_millis(1),
                // Nobody sets the virtual clock.
                read_clock_every: PATIENCE,
                relay,
                ..EngineOptions::default()
            },
        };
        let outside = Arc::clone(&self.outside);
        let start = async move {
            match Engine::start(parts).await {
                Ok(engine) => *lock(&outside.engine) = Some(engine),
                Err(error) => lock(&outside.refused).push(error.to_string()),
            }
            // It runs until it crashes.
            std::future::pending::<()>().await;
        };
        self.scheduler.spawn(node, Box::pin(start));
    }

    fn start_stand_ins(&self) {
        let environment = self.scheduler.environment(STAND_INS, Duration::ZERO);
        for destination in self.cast.destinations(&self.served) {
            let queue = cast::queue_of(&destination);
            let play =
                Arc::clone(&self.cast).play(Arc::clone(&environment), self.flaky_broker(), queue);
            self.scheduler.spawn(STAND_INS, Box::pin(play));
        }
    }

    fn start_participants(&self) {
        let troupe = self.stage.troupe.iter();
        let participants: Vec<Participant> =
            troupe.flat_map(|participants| participants()).collect();
        if participants.is_empty() {
            return;
        }
        let environment = self.environment(PARTICIPANTS, &self.shop);
        let store = Arc::new(SimStore {
            inner: self.shop.clone(),
            faults: Arc::clone(&self.faults),
        });
        let options = ParticipantOptions {
            workers: 1,
            ..ParticipantOptions::default()
        };
        let broker = self.flaky_broker();
        let run = async move {
            let stop = Shutdown::default();
            let ended = run_all(participants, environment, store, broker, options, stop).await;
            drop(ended);
        };
        self.scheduler.spawn(PARTICIPANTS, Box::pin(run));
    }

    /// Lets processes crash and come back until the chaos is over. Returns how many did.
    fn wreak_havoc(&self) -> u64 {
        if self.stage.faults.is_none() {
            return 0;
        }
        let end = self.scheduler.now().after(CHAOS);
        let mut crashes = 0;
        while self.scheduler.now() < end {
            let pause = self.scheduler.random(|random| random.u64(100..6_000));
            self.pass(Duration::from_millis(pause));
            let all = [NODES[0], NODES[1], STAND_INS, PARTICIPANTS];
            let victim = self
                .scheduler
                .random(|random| all[random.usize(..all.len())]);
            self.scheduler.crash(victim);
            crashes += 1;
            let away = self.scheduler.random(|random| random.u64(..3_000));
            self.pass(Duration::from_millis(away));
            self.start(victim);
        }
        self.faults.heal();
        crashes
    }

    /// Lets time pass, also if nothing happens in it.
    fn pass(&self, duration: Duration) {
        let until = self.scheduler.now().after(duration);
        self.scheduler.run_until(duration, || false);
        self.scheduler.skip_to(until);
    }

    /// Runs until every saga has ended and nothing is left to come.
    fn run(&self) -> Ended {
        let mut visits = 0;
        if let Some(duration) = self.stage.run_for {
            let gone = self.scheduler.now().since(EPOCH);
            self.pass(duration.saturating_sub(gone));
        }
        loop {
            let ended = self
                .scheduler
                .run_until(PATIENCE, || self.is_over() || self.is_tired());
            if self.is_tired() {
                return Ended::TimedOut;
            }
            if ended == Ended::Met {
                // Late answers, duplicates: none of them may change anything.
                if !self.has_schedules() {
                    self.pass(EPILOGUE);
                }
                return Ended::Met;
            }
            if !self.stage.person || visits >= VISITS_MAX {
                return ended;
            }
            visits += 1;
            self.see_to_what_waits(visits);
        }
    }

    fn is_tired(&self) -> bool {
        self.scheduler.polls() > POLLS_MAX
    }

    fn has_schedules(&self) -> bool {
        let mut definitions = self.stage.definitions.iter();
        definitions.any(|definition| definition.start.every.is_some())
    }

    fn is_over(&self) -> bool {
        *lock(&self.outside.ahead) == 0
            && now(self.store.outbox_len()) == 0
            && now(self.shop.outbox_len()) == 0
            && self.broker_is_quiet()
            && now(self.store.counts())
                .iter()
                .all(|count| count.status.is_ended())
    }

    /// Starts, signals and events that nobody has taken yet may begin something.
    fn broker_is_quiet(&self) -> bool {
        let queues = self.broker.queue_names();
        let busy = queues
            .iter()
            .filter(|queue| queue.starts_with("backstitch.") && !queue.ends_with("dead-letters"));
        busy.into_iter()
            .all(|queue| self.broker.queue_len(queue) == 0 && self.broker.unacked(queue) == 0)
    }

    /// What a patient person would do about the sagas that nothing else moves any more.
    fn see_to_what_waits(&self, visit: u32) {
        for head in self.heads() {
            if head.status.is_ended() {
                continue;
            }
            let outside = Arc::clone(&self.outside);
            let definition = self.definition_of(&head).cloned();
            let id = format!("visit-{visit}");
            let see =
                async move { see_to(&outside, &head, definition.as_deref(), visit, id).await };
            self.scheduler.spawn(DRIVER, Box::pin(see));
        }
        // Time must pass, or a saga that waits for nothing but this would look stuck at once.
        self.scheduler.run_until(Duration::from_secs(1), || false);
    }

    fn heads(&self) -> Vec<SagaHead> {
        let filter = crate::store::ListFilter {
            limit: crate::store::LIST_ROWS_MAX,
            ..crate::store::ListFilter::default()
        };
        now(self.store.list(&filter))
    }

    fn definition_of(&self, head: &SagaHead) -> Option<&Arc<Definition>> {
        let mut definitions = self.stage.definitions.iter();
        definitions.find(|it| it.name == head.name && it.version == head.version)
    }

    fn close(self, ended: Ended, crashes: u64) -> Play {
        let mut ledger = self.cast.ledger();
        ledger.add_barriers(&self.shop);
        let mut sagas: Vec<_> = self.heads();
        sagas.reverse();
        let histories_end = sagas.iter().filter_map(|head| head.ended_at).max();
        let histories = sagas.into_iter().filter_map(|head| {
            let history = now(view::read_history(&self.store, head.id))?;
            let definition = self.definition_of(&history.head).cloned();
            Some((history, definition))
        });
        Play::new(super::play::Facts {
            seed: self.stage.seed,
            histories: histories.collect(),
            ledger,
            refused: std::mem::take(&mut *lock(&self.outside.refused)),
            letters: now(self.store.dead_letters(crate::store::LIST_ROWS_MAX))
                .into_iter()
                .chain(now(self.shop.dead_letters(crate::store::LIST_ROWS_MAX)))
                .collect(),
            ended,
            crashes,
            polls: self.scheduler.polls(),
            lasted: histories_end.unwrap_or(self.scheduler.now()).since(EPOCH),
            participants: self.shop.clone(),
        })
    }
}

/// First what it waits for; then a way back; then the end.
async fn see_to(
    outside: &Outside,
    head: &SagaHead,
    definition: Option<&Definition>,
    visit: u32,
    id: String,
) {
    if visit > VISITS_UNTIL.1 {
        return outside
            .operate(head.id, id, OperatorKind::ForceCompensated)
            .await;
    }
    if visit > VISITS_UNTIL.0 && head.status == Status::Running {
        return outside.operate(head.id, id, OperatorKind::Cancel).await;
    }
    let Ok(Some(history)) = view::read_history(&outside.store, head.id).await else {
        return;
    };
    let saga = view::folded(&history);
    for (number, (path, state)) in saga.steps.iter().enumerate() {
        let id = format!("{id}-{number}");
        match state.waiting {
            Waiting::Person => {
                let step = path.clone();
                outside
                    .operate(head.id, id, OperatorKind::Skip { step, reply: None })
                    .await;
            }
            Waiting::Signal(None) => {
                let kind = definition.and_then(|it| it.named(&path.name));
                let Some(BlockKind::Wait(wait)) = kind.map(|node| &node.kind) else {
                    continue;
                };
                let (saga, key) = (&head.name, &head.key);
                outside
                    .signal(id, saga, key, &wait.signal, &json!({}))
                    .await;
            }
            _ => {}
        }
    }
}
