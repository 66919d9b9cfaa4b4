//! Whole batches on a store that refuses, and on nodes that know of different versions.

use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Queue, Topology};
use crate::definition::{BlockKind, Definition, parse};
use crate::engine::decode::check_start;
use crate::engine::signals::{Addressee, Correlated, SignalRequest, What};
use crate::engine::{Engine, EngineParts, StartError};
use crate::environment::TokioEnvironment;
use crate::id::Timestamp;
use crate::saga::journal::JournalEntry;
use crate::saga::{Sabotage, Starter};
use crate::store::dead_letters::ReturnedReplay;
use crate::store::memory::MemoryStore;
use crate::store::{
    Commit, CommitOutcome, DeadLetter, DefinitionRow, ListFilter, LiveCount, Moved, Outbox,
    OutboxMessage, SagaCount, SagaHead, SagaTable, ScheduleKey, ScheduleRow, Schedules, Trials,
};

const JOB: &str = "
saga: job
version: 1
key: ${ input.id }
input: { type: object, required: [id], properties: { id: { type: string } } }
timeout: 30d
steps:
  - wait: said
    on: { exchange: depot, routing_key: said, key: '${ event.id }', with: { by: '${ event.by }' } }
";

/// Refuses for good what is about the key `poison`; is away once for what is about `slow` alone;
/// takes too long over `dawdle`, panics over `panic`, and ends the node over `deadly`.
#[derive(Clone)]
struct Picky {
    inner: MemoryStore,
    was_away: Arc<Mutex<bool>>,
    died: Arc<Notify>,
    looks: Arc<Looks>,
}

impl Picky {
    fn new(inner: MemoryStore) -> Self {
        Self {
            inner,
            was_away: Arc::default(),
            died: Arc::default(),
            looks: Arc::default(),
        }
    }
}

/// How often the definitions were asked for, and how often from now on that is not possible.
#[derive(Default)]
struct Looks {
    count: AtomicU32,
    refused: AtomicU32,
}

#[async_trait]
impl Outbox for Picky {
    async fn sweep_outbox(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxMessage>, StoreError> {
        self.inner.sweep_outbox(now, until, limit).await
    }

    async fn unsent(&self, rows: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        self.inner.unsent(rows).await
    }

    async fn remove_sent(&self, sent: &[Uuid]) -> Result<(), StoreError> {
        self.inner.remove_sent(sent).await
    }

    async fn return_replays(
        &self,
        at: Timestamp,
        returned: Vec<ReturnedReplay>,
    ) -> Result<(), StoreError> {
        self.inner.return_replays(at, returned).await
    }

    async fn set_aside(&self, letters: Vec<DeadLetter>, rows: Vec<Uuid>) -> Result<(), StoreError> {
        self.inner.set_aside(letters, rows).await
    }

    async fn outbox_len(&self) -> Result<u64, StoreError> {
        self.inner.outbox_len().await
    }
}

#[async_trait]
impl Schedules for Picky {
    async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        self.inner.schedules().await
    }

    async fn settle(
        &self,
        schedule: &ScheduleKey,
        expected: Option<Timestamp>,
        settled: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        self.inner.settle(schedule, expected, settled).await
    }

    async fn mark_absent(
        &self,
        schedule: &ScheduleKey,
        since: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.inner.mark_absent(schedule, since).await
    }

    async fn move_schedule(
        &self,
        schedule: &ScheduleKey,
        to: Timestamp,
        moved: &Moved,
    ) -> Result<bool, StoreError> {
        self.inner.move_schedule(schedule, to, moved).await
    }
}

#[async_trait]
impl Trials for Picky {
    async fn begin_trial(&self, message: Uuid, at: Timestamp) -> Result<u32, StoreError> {
        self.inner.begin_trial(message, at).await
    }

    async fn end_trial(&self, message: Uuid) -> Result<(), StoreError> {
        self.inner.end_trial(message).await
    }
}

#[async_trait]
impl Store for Picky {
    async fn load(&self, requests: &[LoadRequest]) -> Result<Vec<Option<LoadedSaga>>, StoreError> {
        self.inner.load(requests).await
    }

    async fn find(&self, keys: &[SagaKey]) -> Result<Vec<Option<KeyMatch>>, StoreError> {
        self.inner.find(keys).await
    }

    async fn commit(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let has = |key: &str| commit.sagas.iter().any(|write| write.head.key == key);
        if has("poison") {
            return Err(StoreError::Refused("poison".into()));
        }
        if has("dawdle") {
            return Err(StoreError::TooSlow("dawdle".into()));
        }
        assert!(!has("panic"), "the store panics");
        if has("deadly") {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
        if has("slow") {
            let mut was_away = self.was_away.lock().unwrap();
            if !std::mem::replace(&mut *was_away, true) {
                return Err(StoreError::Unavailable("away".into()));
            }
        }
        self.inner.commit(commit).await
    }

    async fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        self.inner.clock().await
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SagaId>, StoreError> {
        self.inner.claim_due(now, until, limit).await
    }

    async fn put_definition(&self, row: DefinitionRow) -> Result<DefinitionRow, StoreError> {
        self.inner.put_definition(row).await
    }

    async fn definitions(&self) -> Result<Vec<DefinitionRow>, StoreError> {
        let less = |left: u32| left.checked_sub(1);
        self.looks.count.fetch_add(1, Ordering::Relaxed);
        let refused = &self.looks.refused;
        match refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Err(StoreError::Unavailable("it is away".into())),
            Err(_) => self.inner.definitions().await,
        }
    }

    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StoreError> {
        self.inner.secret(candidate).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<SagaHead>, StoreError> {
        self.inner.list(filter).await
    }

    async fn journal(
        &self,
        saga: SagaId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        self.inner.journal(saga, after, limit).await
    }

    async fn sagas_in(
        &self,
        table: SagaTable,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<(SagaId, bool)>, StoreError> {
        self.inner.sagas_in(table, after, limit).await
    }

    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError> {
        self.inner.counts().await
    }

    async fn live(&self) -> Result<Vec<LiveCount>, StoreError> {
        self.inner.live().await
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        self.inner.check_writable().await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.inner.dead_letters(limit).await
    }
}

async fn engine(store: Arc<dyn Store>, broker: &MemoryBroker, source: &str) -> Arc<Engine> {
    sabotaged(store, broker, source, Sabotage::default()).await
}

async fn sabotaged(
    store: Arc<dyn Store>,
    broker: &MemoryBroker,
    source: &str,
    sabotage: Sabotage,
) -> Arc<Engine> {
    let definition = parse(source, "job.yaml").unwrap_or_else(|why| panic!("{why}"));
    let parts = EngineParts {
        environment: Arc::new(TokioEnvironment),
        store,
        broker: Arc::new(broker.clone()),
        definitions: vec![definition.into()],
        options: EngineOptions {
            sabotage,
            ..EngineOptions::default()
        },
    };
    Engine::start(parts).await.unwrap()
}

type Heard = oneshot::Receiver<Result<StartAnswer, StartError>>;

fn start(engine: &Engine, input: Value, starter: Option<Starter>) -> (Work, Heard) {
    let request = check_start(&engine.node.catalogue, "job", input, starter).unwrap();
    let (caller, heard) = oneshot::channel();
    let job = Job::Start {
        request,
        key_taken: false,
    };
    let origin = Origin::Caller(Some(caller));
    (Work { job, origin }, heard)
}

fn event(definition: &Arc<Definition>, event: Value) -> Work {
    let wait = |kind: &BlockKind| matches!(kind, BlockKind::Wait(_));
    let block = definition.blocks.iter().find(|node| wait(&node.kind));
    let key = SagaKey {
        name: definition.name.clone(),
        key: event["id"].as_str().unwrap().to_owned(),
    };
    let what = What::Event(Correlated {
        definition: Arc::clone(definition),
        block: block.unwrap().id,
        event: Arc::new(event),
        id: "e".to_owned(),
    });
    let request = SignalRequest {
        to: Addressee::Key(key),
        what,
        sender: None,
        by_content: false,
        uncertain: AtomicBool::default(),
    };
    Work {
        job: Job::Signal(Arc::new(request)),
        origin: Origin::Timer,
    }
}

#[tokio::test]
async fn of_a_refused_batch_every_other_work_is_answered() {
    let store = Picky::new(MemoryStore::new());
    let engine = engine(Arc::new(store), &MemoryBroker::new(), JOB).await;
    let known = json!({ "id": "known" });
    let begun = engine.start_saga("job", known.clone()).await.unwrap();
    let StartAnswer::Started(known_id) = begun else {
        panic!("{begun:?}");
    };
    let (poison, poisoned) = start(&engine, json!({ "id": "poison" }), None);
    let (again, existing) = start(&engine, known, None);
    let (slow, started) = start(&engine, json!({ "id": "slow" }), None);
    engine.node.settle(vec![poison, again, slow]).await;
    let poisoned = poisoned.await.unwrap();
    assert!(
        matches!(poisoned, Err(StartError::Unavailable(_))),
        "{poisoned:?}"
    );
    let existing = existing.await.expect("it is answered");
    let Ok(StartAnswer::Existing(id, _)) = existing else {
        panic!("{existing:?}");
    };
    assert_eq!(id, known_id);
    let started = started.await.unwrap();
    assert!(
        matches!(started, Ok(StartAnswer::Started(_))),
        "{started:?}"
    );
    engine.stop().await;
}

#[tokio::test]
async fn a_restart_is_answered_once_though_another_node_changes_the_holder_first() {
    let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
    let topology = Topology {
        queues: vec![Queue {
            name: "starter".to_owned(),
            dead_letter_to: None,
        }],
        ..Topology::default()
    };
    broker.declare(&topology).await.unwrap();
    let source = JOB
        .replace("timeout: 30d", "start: { conflict: restart }\ntimeout: 30d")
        .replace("steps:", "steps:\n  - wait: first\n    timeout: none");
    let nodes = [
        engine(Arc::new(store.clone()), &broker, &source).await,
        engine(Arc::new(store.clone()), &broker, &source).await,
    ];
    nodes[0]
        .start_saga("job", json!({ "id": "k" }))
        .await
        .unwrap();
    let key = crate::engine::Addressee::Key(SagaKey {
        name: "job".to_owned(),
        key: "k".to_owned(),
    });
    // The first node's copy is behind now.
    nodes[1]
        .signal(key, "first", "s-1".to_owned(), json!(1))
        .await
        .unwrap();
    let starter = Starter {
        reply_to: "starter".to_owned(),
        correlation_id: None,
    };
    let input = json!({ "id": "k", "other": true });
    let (restart, heard) = start(&nodes[0], input, Some(starter));
    nodes[0].node.settle(vec![restart]).await;
    let Ok(StartAnswer::Restarting { saga, .. }) = heard.await.unwrap() else {
        panic!("it restarts");
    };
    for node in nodes {
        node.stop().await;
    }
    let mut consumer = broker.consume("starter", 10).await.unwrap();
    let mut restarting = Vec::new();
    while broker.queue_len("starter") > 0 || restarting.is_empty() {
        for delivery in consumer.deliveries.next_batch(10).await {
            consumer.acks.ack(&[delivery.tag]);
            let message = delivery.message;
            if message.properties.kind.as_deref() == Some("restarting") {
                let body: Value = serde_json::from_slice(&message.body).unwrap();
                restarting.push(body["saga_id"].clone());
            }
        }
    }
    assert_eq!(restarting, [json!(saga)]);
}

#[tokio::test]
async fn an_event_reaches_the_saga_of_an_older_version_though_it_also_starts_one() {
    // What another version's rule makes of the event must neither be believed nor be a dead letter.
    for newer in ["event.by", "event.nobody"] {
        let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
        let old = engine(Arc::new(store.clone()), &broker, JOB).await;
        let begun = old.start_saga("job", json!({ "id": "k" })).await.unwrap();
        let StartAnswer::Started(id) = begun else {
            panic!("{begun:?}");
        };
        old.stop().await;
        let newer = JOB
            .replace("version: 1", "version: 2")
            .replace("event.by", newer);
        let node = engine(Arc::new(store.clone()), &broker, &newer).await;
        let (again, _heard) = start(&node, json!({ "id": "k" }), None);
        let mut works = vec![again];
        for version in [1, 2] {
            let definition = node.catalogue().version(&store, "job", version).await;
            works.push(event(
                &definition.unwrap().unwrap().unwrap(),
                json!({ "id": "k", "by": "ann" }),
            ));
        }
        node.node.settle(works).await;
        let loaded = store.load(&[LoadRequest { id, after: 0 }]).await.unwrap();
        let head = loaded[0].as_ref().unwrap().head.clone();
        assert_eq!(head.status, crate::saga::Status::Completed);
        assert!(store.dead_letters(10).await.unwrap().is_empty());
        node.stop().await;
    }
}

mod culprits;
mod illegal;
mod loading;
mod rollout;
