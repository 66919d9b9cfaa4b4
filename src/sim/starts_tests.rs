//! Schedules and restarts: the real engine, on several nodes, under virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::network::{FaultRates, Faults, SimBroker, SimStore};
use super::now::now;
use super::scheduler::{Ended, NodeName, Scheduler};
use super::world::{DRIVER, NODES};
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Outgoing, Queue, Topology};
use crate::error::code;
use crate::id::{SagaId, Timestamp};
use crate::message::{Destination, Message, Properties, START_QUEUE};
use crate::saga::Status;
use crate::store::memory::MemoryStore;
use crate::store::{ListFilter, Outbox, SagaHead, Store};
use crate::view::{SagaView, read_history};
use crate::{definition, engine};

pub(super) const HOUR: Duration = Duration::from_hours(1);

/// A world whose nodes run one definition, and a participant `p` that says yes to everything.
pub(super) struct Stage {
    pub(super) scheduler: Scheduler,
    pub(super) faults: Arc<Faults>,
    pub(super) store: MemoryStore,
    broker: MemoryBroker,
    source: String,
    pub(super) loses_messages: bool,
}

impl Stage {
    pub(super) fn new(seed: u64, source: &str) -> Self {
        let scheduler = Scheduler::new(seed);
        let faults = Faults::new(&scheduler, FaultRates::default());
        let stage = Self {
            faults,
            store: MemoryStore::new(),
            broker: MemoryBroker::default(),
            source: source.to_owned(),
            loses_messages: false,
            scheduler,
        };
        let clock = stage.scheduler.environment(DRIVER, Duration::ZERO);
        stage.drive(async move {
            loop {
                clock.sleep(Duration::from_secs(1)).await;
            }
        });
        stage.drive(say_yes(stage.broker.clone()));
        stage
    }

    fn drive(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.scheduler.spawn(DRIVER, Box::pin(task));
    }

    /// What the nodes speak through: loses, doubles and delays messages if this world is a bad one.
    fn network(&self) -> Arc<dyn Broker> {
        if !self.loses_messages {
            return Arc::new(self.broker.clone());
        }
        Arc::new(SimBroker {
            inner: self.broker.clone(),
            faults: Arc::clone(&self.faults),
        })
    }

    pub(super) fn start(&self, node: NodeName) {
        self.start_with(node, &self.source);
    }

    /// Starts a node that has other definitions than the rest.
    pub(super) fn start_with(&self, node: NodeName, source: &str) {
        let skew = Duration::from_secs(if node == NODES[0] { 0 } else { 2 });
        let parts = engine::EngineParts {
            environment: self.scheduler.environment(node, skew),
            store: Arc::new(SimStore {
                inner: self.store.clone(),
                faults: Arc::clone(&self.faults),
            }),
            broker: self.network(),
            definitions: source.split("---\n").map(parsed).collect(),
            options: engine::EngineOptions {
                look_every: Duration::from_secs(1),
                ..engine::EngineOptions::default()
            },
        };
        let start = async move {
            let _running = engine::Engine::start(parts).await;
            std::future::pending::<()>().await;
        };
        self.scheduler.spawn(node, Box::pin(start));
    }

    pub(super) fn start_all(&self) {
        for node in NODES {
            self.start(node);
        }
    }

    pub(super) fn run(&self, time: Duration) {
        self.scheduler.run_until(time, || false);
    }

    /// Runs until it holds; a story that does not get there in a day has failed.
    #[track_caller]
    pub(super) fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let ended = self.scheduler.run_until(24 * HOUR, || condition(self));
        let told = || (self.sagas(), self.letters(), now(self.store.outbox_len()));
        assert_eq!(ended, Ended::Met, "{what}: {:?}", told());
    }

    /// All sagas, oldest first.
    pub(super) fn sagas(&self) -> Vec<SagaHead> {
        let filter = ListFilter {
            limit: 1_000,
            ..ListFilter::default()
        };
        let mut sagas = now(self.store.list(&filter));
        sagas.reverse();
        sagas
    }

    pub(super) fn letters(&self) -> Vec<crate::store::DeadLetter> {
        now(self.store.dead_letters(1_000))
    }

    fn view(&self, id: SagaId) -> SagaView {
        let history = now(read_history(&self.store, id)).expect("it is there");
        SagaView::new(&history, None)
    }

    /// Sends a start as a client does, and lets it be handled.
    pub(super) fn place(&self, message_id: Option<&str>, input: &Value) {
        self.place_a("job", message_id, input);
    }

    pub(super) fn place_a(&self, saga: &str, message_id: Option<&str>, input: &Value) {
        let broker = self.broker.clone();
        let start = message(saga, message_id, input);
        self.drive(async move {
            broker.publish(vec![start]).await;
        });
        self.run(Duration::from_secs(1));
    }
}

fn parsed(source: &str) -> Arc<definition::Definition> {
    let definition = definition::parse(source, "x.yaml");
    definition.unwrap_or_else(|why| panic!("{why}")).into()
}

fn message(saga: &str, message_id: Option<&str>, input: &Value) -> Outgoing {
    Outgoing {
        destination: Destination::queue(START_QUEUE),
        message: Message {
            properties: Properties {
                message_id: message_id.map(str::to_owned),
                kind: Some(saga.to_owned()),
                reply_to: Some("starter".to_owned()),
                correlation_id: message_id.map(str::to_owned),
                ..Properties::default()
            },
            body: Bytes::from(input.to_string()),
        },
        mandatory: true,
    }
}

async fn say_yes(broker: MemoryBroker) {
    let queue = |name: &str| Queue {
        name: name.to_owned(),
        dead_letter_to: None,
    };
    let topology = Topology {
        queues: vec![queue("p"), queue("starter")],
        ..Topology::default()
    };
    broker.declare(&topology).await.unwrap();
    let mut consumer = broker.consume("p", 100).await.unwrap();
    loop {
        for delivery in consumer.deliveries.next_batch(100).await {
            consumer.acks.ack(&[delivery.tag]);
            let asked = delivery.message.properties;
            let reply = Outgoing {
                destination: Destination::queue(asked.reply_to.unwrap()),
                message: Message {
                    properties: Properties {
                        correlation_id: asked.correlation_id,
                        ..Properties::default()
                    },
                    body: Bytes::from_static(b"{}"),
                },
                mandatory: true,
            };
            broker.publish(vec![reply]).await;
        }
    }
}

/// What the starter has heard: of each start by its correlation id, in order.
pub(super) fn heard(stage: &Stage) -> BTreeMap<String, Vec<String>> {
    let (told, heard) = std::sync::mpsc::channel();
    let broker = stage.broker.clone();
    stage.drive(async move {
        let mut consumer = broker.consume("starter", 100).await.unwrap();
        loop {
            for delivery in consumer.deliveries.next_batch(100).await {
                consumer.acks.ack(&[delivery.tag]);
                let properties = delivery.message.properties;
                let id = properties.correlation_id.unwrap_or_default();
                told.send((id, properties.kind.unwrap())).unwrap();
            }
        }
    });
    stage.run(Duration::from_secs(1));
    let mut answers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, kind) in heard.try_iter() {
        answers.entry(id).or_default().push(kind);
    }
    answers
}

pub(super) fn scheduled(start: &str) -> String {
    format!(
        "saga: job\nversion: 1\nkey: job-${{ input.tick }}\nstart: {{ every: \"0 * * * *\", {start} }}\nsteps:\n  - {{ sleep: nap, for: 1s }}\n"
    )
}

/// `job-2026-01-01T05:00:00Z` is `5`.
pub(super) fn hours(stage: &Stage) -> Vec<u32> {
    let mut hours: Vec<u32> = stage
        .sagas()
        .iter()
        .map(|head| {
            let at: Timestamp = head.key.strip_prefix("job-").unwrap().parse().unwrap();
            let since = at.since("2026-01-01T00:00:00Z".parse().unwrap());
            u32::try_from(since.as_secs() / 3_600).unwrap()
        })
        .collect();
    hours.sort_unstable();
    hours
}

#[test]
fn each_tick_starts_one_saga_though_nodes_crash_and_the_database_lies() {
    for seed in 1..=8 {
        let stage = Stage::new(seed, &scheduled("catch_up: all"));
        stage.start_all();
        stage.run(Duration::from_mins(1));
        for _ in 0..12 {
            let victim = NODES[stage.scheduler.random(|random| random.usize(..2))];
            // Some of the crashes come while a tick is being started.
            let pause = stage.scheduler.random(|random| random.u64(..1_000));
            stage.run(Duration::from_mins(29));
            stage.run(Duration::from_millis(pause));
            stage.scheduler.crash(victim);
            stage.run(Duration::from_mins(1));
            stage.start(victim);
        }
        stage.faults.heal();
        stage.until("six ticks", |stage| {
            stage
                .sagas()
                .iter()
                .filter(|it| it.status == Status::Completed)
                .count()
                >= 6
        });
        assert_eq!(hours(&stage), [1, 2, 3, 4, 5, 6], "seed {seed}");
        assert!(stage.letters().is_empty(), "{:?}", stage.letters());
    }
}

#[test]
fn ticks_that_nobody_was_there_for_are_caught_up_as_the_definition_says() {
    let cases: [(&str, &[u32]); 3] = [
        ("catch_up: all", &[1, 2, 3, 4, 5]),
        ("catch_up: last", &[1, 4, 5]),
        ("catch_up: none", &[1, 5]),
    ];
    for (catch_up, expected) in cases {
        let stage = Stage::new(1, &scheduled(catch_up));
        stage.faults.heal();
        stage.start(NODES[0]);
        stage.run(HOUR + Duration::from_mins(30));
        stage.scheduler.crash(NODES[0]);
        stage.run(3 * HOUR);
        stage.start(NODES[0]);
        stage.run(HOUR);
        assert_eq!(hours(&stage), expected, "{catch_up}");
    }
}

#[test]
fn a_tick_without_an_input_is_a_dead_letter_and_the_schedule_goes_on() {
    let source = scheduled("with: { tick: \"${ int(tick) }\" }");
    let stage = Stage::new(1, &source);
    stage.faults.heal();
    stage.start_all();
    stage.run(2 * HOUR + Duration::from_mins(5));
    let letters = stage.letters();
    let codes: Vec<_> = letters.iter().map(|letter| letter.code).collect();
    assert_eq!(codes, [code::TICK_FAILED; 2]);
    assert!(
        letters[0].reason.contains("2026-01-01T02:00:00Z"),
        "{letters:?}"
    );
    assert_eq!(letters[0].message.properties.kind.as_deref(), Some("job"));
}

#[test]
fn a_schedule_can_restart_one_saga() {
    let source = "saga: job\nversion: 1\nkey: ${ input.name }\nstart:\n  every: \"0 * * * *\"\n  conflict: restart\n  with: { name: \"the one\", at: \"${ tick }\" }\ntimeout: 30d\nsteps:\n  - { step: a, reserve: p.r, confirm: p.c, compensate: p.u }\n  - { sleep: long, for: 20d }\n";
    let stage = Stage::new(3, source);
    stage.start_all();
    stage.run(4 * HOUR + Duration::from_mins(20));
    stage.faults.heal();
    stage.run(Duration::from_mins(10));
    let sagas = stage.sagas();
    let live: Vec<_> = sagas.iter().filter(|it| it.ended_at.is_none()).collect();
    assert_eq!((sagas.len(), live.len()), (4, 1), "{sagas:#?}");
    assert_eq!(live[0].id, sagas[3].id);
    assert!(sagas[..3].iter().all(|it| it.superseded));
}

pub(super) fn job(conflict: &str) -> String {
    format!(
        "saga: job\nversion: 1\nkey: ${{ input.id }}\nstart: {{ conflict: {conflict} }}\ntimeout: 30d\nsteps:\n  - {{ step: a, reserve: p.r, confirm: p.c, compensate: p.u }}\n  - {{ sleep: long, for: \"${{ input.seconds }}\" }}\n"
    )
}

pub(super) fn input(seconds: u64) -> Value {
    json!({ "id": "k", "seconds": seconds })
}

#[test]
fn a_restart_rolls_the_live_saga_back_first_and_starts_under_the_same_key() {
    for (seed, loses_messages) in (1..=24).zip([true, true, false].into_iter().cycle()) {
        let stage = Stage {
            loses_messages,
            ..Stage::new(seed, &job("restart"))
        };
        stage.start_all();
        stage.run(Duration::from_secs(5));
        stage.place(Some("m1"), &input(100_000));
        stage.until("the first one begins", |stage| !stage.sagas().is_empty());
        stage.place(Some("m2"), &input(50));
        stage.until("the second one ends", |stage| {
            stage
                .sagas()
                .iter()
                .any(|it| it.status == Status::Completed)
        });
        stage.faults.heal();
        // Late duplicates of both.
        stage.place(Some("m1"), &input(100_000));
        stage.place(Some("m2"), &input(50));
        stage.run(Duration::from_mins(5));
        let sagas = stage.sagas();
        assert_eq!(sagas.len(), 2, "seed {seed}: {sagas:#?}");
        // Not by their ids: the nodes' clocks differ by more than lies between the starts.
        let (mut gone, mut there): (Vec<_>, Vec<_>) =
            sagas.iter().partition(|saga| saga.superseded);
        let (first, second) = (gone.remove(0), there.remove(0));
        assert_eq!(
            (first.status, first.superseded),
            (Status::Compensated, true)
        );
        assert_eq!(
            (second.status, second.superseded),
            (Status::Completed, false)
        );
        let (before, after) = (stage.view(first.id), stage.view(second.id));
        assert_eq!(before.replaced_by.unwrap().saga_id, second.id);
        assert_eq!(after.replaces, Some(first.id));
        assert!(before.journal.verified && after.journal.verified);
        assert!(stage.letters().is_empty(), "{:?}", stage.letters());
        if !loses_messages {
            let mut heard = heard(&stage);
            // A commit that was stored, but reported as failed, is decided and answered once more.
            heard.values_mut().for_each(Vec::dedup);
            assert_eq!(heard["m1"][..2], ["accepted", "compensated"], "{heard:?}");
            assert!(heard["m2"].contains(&"completed".to_owned()), "{heard:?}");
        }
    }
}

#[test]
fn of_several_restarts_the_newest_counts_and_an_ended_saga_gives_way_at_once() {
    let stage = Stage::new(1, &job("restart"));
    stage.faults.heal();
    stage.start(NODES[0]);
    stage.run(Duration::from_secs(5));
    stage.place(Some("m1"), &input(10));
    stage.until("it ends", |stage| stage.sagas()[0].ended_at.is_some());
    stage.place(Some("m2"), &input(20));
    stage.until("the next one ends", |stage| {
        stage.sagas().get(1).is_some_and(|it| it.ended_at.is_some())
    });
    // Both at once: the second replaces the first, pending or begun.
    stage.place(Some("m3"), &input(30_000));
    stage.place(Some("m4"), &input(40));
    stage.run(Duration::from_mins(5));
    let sagas = stage.sagas();
    let completed = sagas.iter().filter(|it| it.status == Status::Completed);
    assert_eq!(completed.count(), 3, "{sagas:#?}");
    let holders: Vec<_> = sagas.iter().filter(|it| !it.superseded).collect();
    assert_eq!(holders.len(), 1);
    assert_eq!(heard(&stage)["m4"].last().unwrap(), "completed");
}

#[test]
fn a_held_key_refuses_another_start_as_the_definition_says() {
    let same = input(100_000);
    let other = input(5);
    for (conflict, id, input, letters) in [
        ("existing", Some("m2"), &same, 0),
        ("existing", Some("m2"), &other, 1),
        ("reject", Some("m1"), &same, 0),
        ("reject", None, &same, 0),
        ("reject", Some("m2"), &same, 1),
        ("reject", Some("m2"), &other, 1),
    ] {
        let stage = Stage::new(1, &job(conflict));
        stage.faults.heal();
        stage.start(NODES[0]);
        stage.run(Duration::from_secs(5));
        stage.place(Some("m1"), &same);
        stage.place(id, input);
        let case = format!("{conflict} {id:?} {input}");
        assert_eq!(stage.sagas().len(), 1, "{case}");
        let codes: Vec<_> = stage.letters().iter().map(|it| it.code).collect();
        assert_eq!(codes, vec![code::KEY_CONFLICT; letters], "{case}");
    }
}

#[test]
fn a_start_that_claims_to_replace_a_saga_is_not_believed() {
    let stage = Stage::new(1, &job("restart"));
    stage.faults.heal();
    stage.start(NODES[0]);
    stage.run(Duration::from_secs(5));
    stage.place(Some("m1"), &input(100_000));
    let live = stage.sagas()[0].id.to_string();
    let nobody = uuid::Uuid::nil().to_string();
    for (number, replaces) in [json!(live), json!(nobody), json!("x"), json!(7)]
        .into_iter()
        .enumerate()
    {
        let mut start = message("job", Some(&format!("forged-{number}")), &input(5));
        let headers = &mut start.message.properties.headers;
        headers.insert(crate::message::HEADER_REPLACES.to_owned(), replaces);
        let broker = stage.broker.clone();
        stage.drive(async move {
            broker.publish(vec![start]).await;
        });
        stage.run(Duration::from_secs(1));
    }
    let codes: Vec<_> = stage.letters().iter().map(|it| it.code).collect();
    assert_eq!(codes, [code::SUCCESSION_UNKNOWN; 4]);
    assert_eq!(stage.sagas().len(), 1);
}

#[test]
fn a_sub_saga_that_was_rolled_back_leaves_its_key_to_the_next_one() {
    let trip = "saga: trip\nversion: 1\nkey: ${ input.id }\nstart: { conflict: restart }\ntimeout: 30d\nsteps:\n  - { saga: leg, run: job, with: { id: k, seconds: 5 } }\n  - { sleep: long, for: \"${ input.seconds }\" }\n";
    let stage = Stage::new(1, &format!("{}---\n{trip}", job("existing")));
    stage.faults.heal();
    stage.start(NODES[0]);
    stage.run(Duration::from_secs(5));
    stage.place_a("trip", Some("m1"), &input(100_000));
    stage.run(Duration::from_secs(20));
    stage.place_a("trip", Some("m2"), &input(50));
    stage.run(Duration::from_mins(5));
    let mut legs = stage.sagas();
    legs.retain(|saga| saga.name == "job" && saga.key == "k");
    legs.sort_by_key(|leg| !leg.superseded);
    let ended: Vec<_> = legs
        .iter()
        .map(|leg| (leg.status, leg.superseded))
        .collect();
    let expected = [(Status::Compensated, true), (Status::Completed, false)];
    assert_eq!(ended, expected, "{:#?}", stage.sagas());
    // Nothing replaced it: its key was free.
    assert_eq!(stage.view(legs[0].id).replaced_by, None);
}
