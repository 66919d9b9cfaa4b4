//! Sagas that a newer release has written, met by an older one.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Acks, Broker, DeliveryTag, Outgoing};
use crate::definition::{hash_of, parse};
use crate::engine::decode::Undecodable;

use crate::engine::{Addressee, Engine, EngineOptions, EngineParts, StartAnswer};
use crate::environment::{Environment, TokioEnvironment};
use crate::message::{
    DOMAIN_EVENT_QUEUE, HEADER_EVENT_EXCHANGE, HEADER_EVENT_ROUTING_KEY, Message, REPLY_QUEUE,
    START_QUEUE,
};
use crate::saga::format::{Formats, READS};
use crate::saga::{Input, OperatorAction, OperatorKind, Signal, Status};
use crate::store::dead_letters::Sighting;
use crate::store::memory::MemoryStore;
use crate::store::{
    Commit, DefinitionRow, JournalEntry, LoadRequest, Outbox, SagaWrite, Snapshot, Store,
};

const JOB: &str = "
saga: job
version: 1
key: ${ input.id }
input: { type: object, required: [id], properties: { id: { type: string } } }
timeout: 30d
steps:
  - wait: said
";
const NEXT: Formats = Formats {
    writes: READS + 1,
    reads: READS + 1,
};

async fn engine(store: &MemoryStore, formats: Formats) -> Arc<Engine> {
    engine_with(store, &MemoryBroker::new(), formats).await
}

async fn engine_with(store: &MemoryStore, broker: &MemoryBroker, formats: Formats) -> Arc<Engine> {
    let parts = EngineParts {
        environment: Arc::new(TokioEnvironment),
        store: Arc::new(store.clone()),
        broker: Arc::new(broker.clone()),
        definitions: vec![parse(JOB, "job.yaml").unwrap().into()],
        options: EngineOptions {
            formats,
            snapshot_entries: 1,
            ..EngineOptions::default()
        },
    };
    Engine::start(parts).await.unwrap()
}

async fn started(engine: &Engine) -> SagaId {
    match engine.start_saga("job", json!({ "id": "k" })).await {
        Ok(StartAnswer::Started(saga)) => saga,
        other => panic!("{other:?}"),
    }
}

async fn loaded(store: &MemoryStore, id: SagaId) -> LoadedSaga {
    let found = store.load(&[LoadRequest { id, after: 0 }]).await.unwrap();
    found.into_iter().flatten().next().unwrap()
}

fn pause(id: &str) -> OperatorAction {
    OperatorAction {
        id: id.to_owned(),
        by: "ann".to_owned(),
        why: "to see whether it can".to_owned(),
        kind: OperatorKind::Pause,
    }
}

/// Hears what becomes of a delivery.
#[derive(Default)]
struct Words(Mutex<Vec<&'static str>>);

impl Acks for Words {
    fn ack(&self, _tags: &[DeliveryTag]) {
        self.0.lock().unwrap().push("ack");
    }

    fn requeue(&self, _tags: &[DeliveryTag]) {
        self.0.lock().unwrap().push("requeue");
    }
}

fn signalled(engine: &Engine, saga: SagaId, message: &Message, words: &Arc<Words>) -> Work {
    let letter = engine
        .node
        .letter(REPLY_QUEUE, message.clone(), Sighting::default());
    let signal = Signal {
        name: "said".to_owned(),
        id: "1".to_owned(),
        body: Arc::new(Value::Null),
        at: None,
    };
    Work {
        job: Job::Tell {
            saga,
            input: Input::Signal(signal),
        },
        origin: Origin::Delivery {
            space: super::super::room::Space::default(),
            acks: Arc::clone(words) as Arc<dyn Acks>,
            tag: DeliveryTag { epoch: 1, tag: 1 },
            letter,
        },
    }
}

#[tokio::test]
async fn a_message_about_a_newer_saga_is_kept_in_the_outbox_for_another_node() {
    let store = MemoryStore::new();
    let (older, newer) = (
        engine(&store, Formats::OURS).await,
        engine(&store, NEXT).await,
    );
    let saga = started(&newer).await;
    assert_eq!(older.newer(), None);
    let words = Arc::new(Words::default());
    let message = Message {
        body: "unchanged".into(),
        ..Message::default()
    };
    let work = signalled(&older, saga, &message, &words);
    let before = older.now();
    older.node.settle(vec![work]).await;
    assert_eq!(*words.0.lock().unwrap(), ["ack"]);
    assert!(store.dead_letters(10).await.unwrap().is_empty());
    assert_eq!(loaded(&store, saga).await.head.revision, 1);
    let early = before.after(PAUSE / 2);
    assert_eq!(store.sweep_outbox(early, early, 10).await.unwrap(), []);
    let due = older.now().after(PAUSE);
    let rows = store.sweep_outbox(due, due, 10).await.unwrap();
    let [row] = &rows[..] else {
        panic!("{rows:?}");
    };
    assert_eq!(row.destination, Destination::queue(REPLY_QUEUE));
    assert_eq!(row.message, message);
    let said = older.newer().unwrap();
    assert!(said.contains("BST-0086"), "{said}");
    assert_eq!(newer.newer(), None);
    older.stop().await;
    newer.stop().await;
}

#[tokio::test]
async fn callers_are_told_to_ask_a_newer_node_and_that_one_does_it() {
    let store = MemoryStore::new();
    let (older, newer) = (
        engine(&store, Formats::OURS).await,
        engine(&store, NEXT).await,
    );
    let saga = started(&newer).await;
    let told = older.operate(saga, pause("1")).await;
    assert!(
        matches!(&told, Err(OperateError::Unavailable(why)) if why.contains("BST-0086")),
        "{told:?}"
    );
    let to = || Addressee::Saga(saga);
    let told = older.signal(to(), "said", "1".to_owned(), json!({})).await;
    assert!(matches!(told, Err(SignalError::Unavailable(_))), "{told:?}");
    assert!(
        older
            .signal(to(), "said", "1".to_owned(), json!({}))
            .await
            .is_err()
    );
    let told = newer.signal(to(), "said", "1".to_owned(), json!({})).await;
    assert!(told.is_ok(), "{told:?}");
    assert_eq!(loaded(&store, saga).await.head.status, Status::Completed);
    older.stop().await;
    newer.stop().await;
}

#[tokio::test]
async fn a_saga_of_a_newer_format_stays_in_it_also_when_the_switch_is_rolled_back() {
    let store = MemoryStore::new();
    let newer = engine(&store, NEXT).await;
    let saga = started(&newer).await;
    newer.stop().await;
    let bridge = engine(
        &store,
        Formats {
            reads: READS + 1,
            ..Formats::OURS
        },
    )
    .await;
    bridge.operate(saga, pause("1")).await.unwrap();
    let LoadedSaga { snapshot, .. } = loaded(&store, saga).await;
    let snapshot = snapshot.unwrap();
    assert_eq!(snapshot.revision, 2);
    assert!(Formats::OURS.read(&snapshot.body).is_err());
    let entries = store.journal(saga, 0, 10).await.unwrap();
    assert!(
        entries
            .iter()
            .all(|entry| Formats::OURS.read(&entry.body).is_err())
    );
    // What is new is written as everybody reads it.
    let again = json!({ "id": "another" });
    let Ok(StartAnswer::Started(other)) = bridge.start_saga("job", again).await else {
        panic!("it starts");
    };
    let snapshot = loaded(&store, other).await.snapshot.unwrap();
    assert!(Formats::OURS.read(&snapshot.body).is_ok());
    bridge.stop().await;
}

/// Stores an entry and a snapshot that this release would not have written.
async fn tamper(store: &MemoryStore, saga: SagaId, entry: &str, snapshot: Option<&str>) {
    let LoadedSaga { mut head, .. } = loaded(store, saga).await;
    let expected = head.revision;
    head.revision += 1;
    let entry = JournalEntry {
        seq: head.revision,
        at: head.updated_at,
        hash: [7; 32],
        body: entry.to_owned().into(),
    };
    head.head_hash = entry.hash;
    let snapshot = snapshot.map(|body| Snapshot {
        revision: head.revision,
        body: body.to_owned().into(),
    });
    let write = SagaWrite {
        expected,
        head,
        entries: vec![entry],
        snapshot,
        outbox: Vec::new(),
        labels: Vec::new(),
    };
    let commit = Commit {
        sagas: vec![write],
        ..Commit::default()
    };
    assert!(store.commit(commit).await.unwrap().conflicts.is_empty());
}

/// What an operator hears of a saga whose entry and snapshot another program wrote.
async fn heard_of(entry: &str, snapshot: Option<fn(String) -> String>) -> OperateError {
    let store = MemoryStore::new();
    let engine = engine(&store, Formats::OURS).await;
    let saga = started(&engine).await;
    let kept = loaded(&store, saga).await.snapshot.unwrap().body;
    let kept = String::from_utf8(kept.to_vec()).unwrap();
    tamper(
        &store,
        saga,
        entry,
        snapshot.map(|change| change(kept)).as_deref(),
    )
    .await;
    let told = engine.operate(saga, pause("1")).await.unwrap_err();
    engine.stop().await;
    told
}

#[tokio::test]
async fn what_nobody_here_knows_is_a_newer_releases_though_its_number_was_not_raised() {
    let known = r#"{"cause":"timer","events":[{"event":"pivot_passed"}]}"#;
    let unknown = r#"{"cause":"timer","events":[{"event":"teleported"}]}"#;
    let more: fn(String) -> String = |body| body.replacen('{', r#"{"mood":"good","#, 1);
    let deeper: fn(String) -> String =
        |body| body.replacen(r#""held":{"#, r#""held":{"mood":1,"#, 1);
    for (entry, snapshot) in [(unknown, None), (known, Some(more)), (known, Some(deeper))] {
        let told = heard_of(entry, snapshot).await;
        assert!(
            matches!(&told, OperateError::Unavailable(why) if why.contains("BST-0086")),
            "{told:?}"
        );
    }
    // Damage is no release.
    let cut: fn(String) -> String = |body| body[..10].to_owned();
    for (entry, snapshot) in [("{", None), (known, Some(cut))] {
        let told = heard_of(entry, snapshot).await;
        assert!(
            matches!(&told, OperateError::Refused(Undecodable { code, .. }) if code.0 == 25),
            "{told:?}"
        );
    }
}

/// A saga whose definition this release can't read; the stored one is whole, or has another hash.
async fn of_an_unreadable_definition(
    engine: &Engine,
    store: &MemoryStore,
    is_whole: bool,
) -> SagaId {
    let saga = started(engine).await;
    let LoadedSaga { mut head, .. } = loaded(store, saga).await;
    let source = "saga: job\nversion: 2\nteleport: yes\n".to_owned();
    let row = DefinitionRow {
        name: "job".to_owned(),
        version: 2,
        hash: if is_whole { hash_of(&source) } else { [2; 32] },
        source,
        stored_at: TokioEnvironment.now(),
    };
    store.put_definition(row).await.unwrap();
    head.id = SagaId(engine.new_id());
    (head.version, head.key) = (2, "other".to_owned());
    let other = head.id;
    let write = SagaWrite {
        expected: 0,
        head,
        entries: store.journal(saga, 0, 1).await.unwrap(),
        snapshot: None,
        outbox: Vec::new(),
        labels: Vec::new(),
    };
    let commit = Commit {
        sagas: vec![write],
        ..Commit::default()
    };
    assert!(store.commit(commit).await.unwrap().conflicts.is_empty());
    other
}

#[tokio::test]
async fn a_definition_that_only_a_newer_release_reads_leaves_its_sagas_to_that() {
    let store = MemoryStore::new();
    let engine = engine(&store, Formats::OURS).await;
    let saga = of_an_unreadable_definition(&engine, &store, true).await;
    let told = engine.operate(saga, pause("1")).await;
    assert!(
        matches!(&told, Err(OperateError::Unavailable(why)) if why.contains("teleport")),
        "{told:?}"
    );
    assert_eq!(engine.damage(), []);
    engine.stop().await;
}

#[tokio::test]
async fn what_a_newer_releases_definition_may_want_goes_back_to_its_queue() {
    let (store, broker) = (MemoryStore::new(), MemoryBroker::new());
    let engine = engine_with(&store, &broker, Formats::OURS).await;
    let source = "saga: parcel\nversion: 1\nteleport: yes\n".to_owned();
    let row = DefinitionRow {
        name: "parcel".to_owned(),
        version: 1,
        hash: hash_of(&source),
        source,
        stored_at: TokioEnvironment.now(),
    };
    store.put_definition(row).await.unwrap();
    let told = engine.start_saga("parcel", json!({})).await;
    assert!(
        matches!(&told, Err(StartError::Unavailable(why)) if why.contains("teleport")),
        "{told:?}"
    );
    let unknown = engine.start_saga("letter", json!({})).await;
    assert!(matches!(unknown, Err(StartError::Refused(wrong)) if wrong.code.0 == 13));

    let message = |kind: &str, exchange: &str| {
        let mut message = Message {
            body: "{}".into(),
            ..Message::default()
        };
        message.properties.kind = Some(kind.to_owned());
        if !exchange.is_empty() {
            let headers = &mut message.properties.headers;
            headers.insert(HEADER_EVENT_EXCHANGE.to_owned(), Value::from(exchange));
            headers.insert(
                HEADER_EVENT_ROUTING_KEY.to_owned(),
                Value::from("parcel.lost"),
            );
        }
        message
    };
    for (queue, message) in [
        (START_QUEUE, message("parcel", "")),
        (START_QUEUE, message("letter", "")),
        (DOMAIN_EVENT_QUEUE, message("lost", "post")),
    ] {
        let outgoing = Outgoing {
            destination: Destination::queue(queue),
            message,
            mandatory: true,
        };
        broker.publish(vec![outgoing]).await;
    }
    let is_done = async {
        while store.outbox_len().await.unwrap() < 2 {
            tokio::task::yield_now().await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(20), is_done).await;
    assert!(done.is_ok(), "{:?}", store.dead_letters(9).await);
    let letters = store.dead_letters(10).await.unwrap();
    assert_eq!(letters.iter().map(|it| it.code.0).collect::<Vec<_>>(), [13]);
    assert!(engine.newer().unwrap().contains("`parcel` version 1"));
    engine.stop().await;
    // To a node that begins after it was stored it is history: that rolls back.
    let later = engine_with(&store, &MemoryBroker::new(), Formats::OURS).await;
    let unknown = later.start_saga("parcel", json!({})).await;
    assert!(
        matches!(unknown, Err(StartError::Refused(_))),
        "{unknown:?}"
    );
    later.stop().await;
}

#[tokio::test]
async fn a_damaged_definition_is_left_to_nobody() {
    let store = MemoryStore::new();
    let engine = engine(&store, Formats::OURS).await;
    let saga = of_an_unreadable_definition(&engine, &store, false).await;
    let told = engine.operate(saga, pause("1")).await;
    assert!(
        matches!(&told, Err(OperateError::Refused(Undecodable { code, .. })) if code.0 == 97),
        "{told:?}"
    );
    let words = Arc::new(Words::default());
    let work = signalled(&engine, saga, &Message::default(), &words);
    engine.node.settle(vec![work]).await;
    let letters = store.dead_letters(10).await.unwrap();
    assert_eq!(letters.iter().map(|it| it.code.0).collect::<Vec<_>>(), [97]);
    assert_eq!(store.outbox_len().await.unwrap(), 0, "it does not go round");
    let damage = engine.damage();
    let [("definitions", said)] = &damage[..] else {
        panic!("{damage:?}");
    };
    assert!(said.contains("`job` version 2"), "{said}");
    engine.stop().await;
}
