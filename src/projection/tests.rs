//! Projections over the memory store: live, on demand, fresh, rebuilt, raised, and several at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::document::Of;
use super::live::Projector;
use super::*;
use crate::environment::{Environment, TokioEnvironment};
use crate::id::Timestamp;
use crate::store::memory::MemoryStore;
use crate::store::participant::{
    AggregateEvent, AggregateKey, Origin, ParticipantStore, ParticipantWrites,
};
use crate::store::projections::ReadModels;

/// What was said to whom, by correlation: order matters.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Said {
    words: Vec<String>,
}

struct Talk;

impl Projection for Talk {
    type Document = Said;

    const NAME: &'static str = "talk";
    const KINDS: &'static [&'static str] = &["ann", "bob"];

    fn apply(said: &mut Said, event: &Recorded<'_>) {
        let word = event.text("word").unwrap_or("?");
        said.words.push(format!("{} {word}", event.kind()));
    }
}

/// The same in its next version, which shouts.
struct Shouting;

impl Projection for Shouting {
    type Document = Said;

    const NAME: &'static str = "talk";
    const VERSION: u32 = 2;
    const KINDS: &'static [&'static str] = &["ann", "bob"];

    fn apply(said: &mut Said, event: &Recorded<'_>) {
        said.words
            .push(event.text("word").unwrap_or("?").to_uppercase());
    }
}

/// By the first letter of the word.
struct Letters;

impl Projection for Letters {
    type Document = Said;

    const NAME: &'static str = "letters";
    const KINDS: &'static [&'static str] = &["ann", "bob", "cid"];
    const KEY: Key = Key::Event(|event| Some(event.text("word")?.get(..1)?.to_owned()));

    fn apply(said: &mut Said, event: &Recorded<'_>) {
        said.words
            .push(event.text("word").unwrap_or("?").to_owned());
    }
}

struct Bundle {
    environment: Arc<dyn Environment>,
    memory: MemoryStore,
    store: Arc<dyn ReadModels>,
    said: u64,
}

impl Bundle {
    fn new() -> Self {
        let memory = MemoryStore::new();
        Self {
            environment: Arc::new(TokioEnvironment),
            store: Arc::new(memory.clone()),
            memory,
            said: 0,
        }
    }

    /// An event of a kind, with what it belongs to.
    async fn say(&mut self, kind: &str, belongs_to: &str, word: &str) {
        self.record(kind, belongs_to, json!({ "word": word }).to_string())
            .await;
    }

    async fn record(&mut self, kind: &str, belongs_to: &str, body: String) {
        self.said += 1;
        let event = AggregateEvent {
            key: AggregateKey {
                kind: kind.to_owned(),
                id: "x".to_owned(),
            },
            seq: self.said,
            at: Timestamp::from_micros(1),
            valid_from: None,
            origin: Origin {
                correlation: Some(belongs_to.to_owned()),
                ..Origin::default()
            },
            body: body.into(),
        };
        let writes = ParticipantWrites {
            events: vec![event],
            ..ParticipantWrites::default()
        };
        let transaction = self.memory.begin().await.unwrap();
        transaction.commit(writes).await.unwrap();
    }

    fn projections() -> Projections {
        Projections::new()
            .live::<Talk>()
            .on_demand::<Talk>(Duration::from_mins(1))
            .live::<Letters>()
    }

    fn model(&self) -> ReadModel {
        ReadModel::new(
            Arc::clone(&self.environment),
            Arc::clone(&self.store),
            Self::projections(),
        )
    }

    async fn read(&self, name: &str, key: &str, freshness: Freshness) -> Option<Value> {
        let read = self.model().read(name, key, freshness).await.unwrap();
        read.map(|read| read.document["words"].clone())
    }

    /// A projector of the generation that serves.
    async fn projector<P: Projection>(&self) -> Projector {
        let found = self.store.generations(Some(P::NAME)).await.unwrap();
        let generation = match found.into_iter().find(|it| it.serving) {
            Some(serving) => serving,
            None => self
                .store
                .add_generation(P::NAME, P::VERSION)
                .await
                .unwrap(),
        };
        Projector::new(
            Arc::clone(&self.environment),
            Arc::clone(&self.store),
            Arc::new(Of::<P>::new()),
            generation,
        )
    }

    async fn catch_up<P: Projection>(&self) {
        let mut projector = self.projector::<P>().await;
        while !projector.step().await.unwrap().caught_up {}
    }
}

#[tokio::test]
async fn a_document_reads_the_same_however_it_is_made() {
    let mut bundle = Bundle::new();
    assert_eq!(bundle.read("talk", "t1", Freshness::Kept).await, None);
    for (kind, to, word) in [
        ("ann", "t1", "hello"),
        ("bob", "t2", "not for you"),
        ("cid", "t1", "nobody hears"),
        ("bob", "t1", "well"),
    ] {
        bundle.say(kind, to, word).await;
    }
    let expected = Some(json!(["ann hello", "bob well"]));
    assert_eq!(bundle.read("talk", "t1", Freshness::Kept).await, None);
    for freshness in [Freshness::OnDemand, Freshness::Now] {
        assert_eq!(bundle.read("talk", "t1", freshness).await, expected);
    }
    bundle.catch_up::<Talk>().await;
    for freshness in [Freshness::Kept, Freshness::OnDemand, Freshness::Now] {
        assert_eq!(bundle.read("talk", "t1", freshness).await, expected);
        assert_eq!(bundle.read("talk", "t9", freshness).await, None);
    }
    // What came since: the kept one lags, the others don't.
    bundle.say("ann", "t1", "so").await;
    let newest = Some(json!(["ann hello", "bob well", "ann so"]));
    assert_eq!(bundle.read("talk", "t1", Freshness::Kept).await, expected);
    for freshness in [Freshness::OnDemand, Freshness::Now] {
        assert_eq!(bundle.read("talk", "t1", freshness).await, newest);
    }
    bundle.catch_up::<Letters>().await;
    assert_eq!(
        bundle.read("letters", "n", Freshness::Kept).await,
        Some(json!(["not for you", "nobody hears"]))
    );
    let refused = bundle
        .model()
        .read("letters", "n", Freshness::OnDemand)
        .await;
    assert!(
        matches!(refused, Err(ReadError::NotOnDemand(_))),
        "{refused:?}"
    );
    let unknown = bundle.model().read("walk", "n", Freshness::Kept).await;
    assert!(matches!(unknown, Err(ReadError::Unknown(_))), "{unknown:?}");
}

#[tokio::test]
async fn what_was_made_on_demand_is_gone_on_with_and_cleared_away_in_time() {
    let mut bundle = Bundle::new();
    bundle.say("ann", "t1", "hello").await;
    bundle.read("talk", "t1", Freshness::OnDemand).await;
    let kept = bundle.store.cached("talk", 1, "t1").await.unwrap().unwrap();
    assert_eq!(kept.position, bundle.store.settled().await.unwrap());
    // Its events are not read again: what is kept is taken at its word.
    let row = crate::store::projections::DocumentRow {
        body: json!({ "words": ["kept"] }).to_string().into(),
        ..kept
    };
    let later = bundle.environment.now().after(Duration::from_secs(9));
    bundle.store.cache("talk", 1, row, later).await.unwrap();
    bundle.say("bob", "t1", "well").await;
    let read = bundle.read("talk", "t1", Freshness::OnDemand).await;
    assert_eq!(read, Some(json!(["kept", "bob well"])));
    let in_time = bundle.environment.now().after(Duration::from_secs(61));
    assert_eq!(bundle.store.sweep_cache(in_time, 9).await.unwrap(), 1);
    let read = bundle.read("talk", "t1", Freshness::OnDemand).await;
    assert_eq!(read, Some(json!(["ann hello", "bob well"])));
}

#[tokio::test]
async fn of_two_projectors_each_event_is_folded_by_one() {
    let mut bundle = Bundle::new();
    let (mut first, mut second) = (
        bundle.projector::<Talk>().await,
        bundle.projector::<Talk>().await,
    );
    for word in ["a", "b", "c", "d"] {
        bundle.say("ann", "t1", word).await;
        first.step().await.unwrap();
        let overtaken = second.step().await;
        assert!(
            matches!(
                overtaken,
                Err(ProjectionError::Store(crate::store::StoreError::Conflict))
            ),
            "{overtaken:?}"
        );
        second = bundle.projector::<Talk>().await;
        std::mem::swap(&mut first, &mut second);
        first = bundle.projector::<Talk>().await;
    }
    let read = bundle.read("talk", "t1", Freshness::Kept).await;
    assert_eq!(read, Some(json!(["ann a", "ann b", "ann c", "ann d"])));
}

#[tokio::test]
async fn a_rebuild_replaces_what_is_wrong_while_readers_keep_it() {
    let mut bundle = Bundle::new();
    bundle.say("ann", "t1", "hello").await;
    bundle.say("ann", "t2", "other").await;
    bundle.catch_up::<Talk>().await;
    let damage = async |bundle: &Bundle| {
        let serving = &bundle.store.generations(Some("talk")).await.unwrap()[0];
        let row = crate::store::projections::DocumentRow {
            key: "t1".to_owned(),
            position: serving.position,
            body: json!({ "words": ["wrong"] }).to_string().into(),
        };
        let advance = crate::store::projections::Advance {
            name: "talk".to_owned(),
            generation: serving.generation,
            from: serving.position,
            to: serving.position,
            documents: vec![row],
            outbox: Vec::new(),
        };
        bundle.store.advance(advance).await.unwrap();
    };
    damage(&bundle).await;
    assert_eq!(
        bundle.read("talk", "t1", Freshness::Kept).await,
        Some(json!(["wrong"]))
    );
    let seen_meanwhile = std::sync::Mutex::new(None);
    let report = |_, _| {
        let read = bundle.read("talk", "t1", Freshness::Kept);
        *seen_meanwhile.lock().unwrap() = read.now_or_never();
    };
    let (environment, store) = (&bundle.environment, &bundle.store);
    let projections = Bundle::projections();
    let rebuilt = rebuild(&projections, "talk", environment, store, &report)
        .await
        .unwrap();
    assert_eq!(rebuilt.unwrap().generation, 2);
    assert_eq!(
        seen_meanwhile.into_inner().unwrap(),
        Some(Some(json!(["wrong"])))
    );
    assert_eq!(
        bundle.read("talk", "t1", Freshness::Kept).await,
        Some(json!(["ann hello"]))
    );

    damage(&bundle).await;
    rebuild_key(&projections, "talk", "t1", environment, store)
        .await
        .unwrap();
    assert_eq!(
        bundle.read("talk", "t1", Freshness::Kept).await,
        Some(json!(["ann hello"]))
    );
    assert_eq!(
        bundle.read("talk", "t2", Freshness::Kept).await,
        Some(json!(["ann other"]))
    );
    assert_eq!(
        rebuild(&projections, "walk", environment, store, &|_, _| {})
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn a_raised_version_makes_documents_anew_and_goes_on_with_them() {
    let mut bundle = Bundle::new();
    bundle.say("ann", "t1", "hello").await;
    bundle.catch_up::<Talk>().await;
    let following = Following {
        environment: Arc::clone(&bundle.environment),
        store: Arc::clone(&bundle.store),
    };
    let raised = Projections::new().live::<Shouting>();
    let shutdown = crate::environment::Shutdown::default();
    let running = tokio::spawn({
        let (following, shutdown) = (following.clone(), shutdown.clone());
        async move { run_all(&raised, following, shutdown).await }
    });
    let limit = Duration::from_secs(20);
    let shouted = tokio::time::timeout(limit, async {
        loop {
            let found = bundle.store.generations(Some("talk")).await.unwrap();
            if found.iter().any(|it| it.serving && it.version == 2) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    shouted.await.expect("the new version serves in time");
    bundle.say("bob", "t1", "well").await;
    let read = tokio::time::timeout(limit, async {
        loop {
            let found = bundle.read("talk", "t1", Freshness::Kept).await;
            if found == Some(json!(["HELLO", "WELL"])) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    read.await.expect("it is kept up to date");
    shutdown.request();
    running.await.unwrap();
}

#[tokio::test]
async fn an_event_that_cant_be_read_stops_the_projection_and_not_silently() {
    let mut bundle = Bundle::new();
    bundle.say("ann", "t1", "hello").await;
    bundle.record("ann", "t1", "not JSON".to_owned()).await;
    let mut projector = bundle.projector::<Talk>().await;
    let stopped = projector.step().await.unwrap_err();
    assert!(
        stopped.to_string().contains("event 2 of ann `x`"),
        "{stopped}"
    );
    assert_eq!(bundle.read("talk", "t1", Freshness::Kept).await, None);
    let found = bundle.store.generations(Some("talk")).await.unwrap();
    assert_eq!(found[0].position, crate::store::feed::Position::START);
}

#[tokio::test]
async fn events_are_published_once_each_with_what_led_to_them() {
    use crate::broker::memory::MemoryBroker;
    use crate::broker::{Binding, Broker, Queue, Topology};
    use crate::message::AGGREGATE_EVENT_EXCHANGE;

    let mut bundle = Bundle::new();
    bundle.say("ann", "t0", "before anybody listened").await;
    let broker = MemoryBroker::new();
    let topology = Topology {
        queues: vec![Queue {
            name: "ears".to_owned(),
            dead_letter_to: None,
        }],
        topic_exchanges: vec![AGGREGATE_EVENT_EXCHANGE.to_owned()],
        bindings: vec![Binding {
            exchange: AGGREGATE_EVENT_EXCHANGE.to_owned(),
            queue: "ears".to_owned(),
            routing_key: "ann.*".to_owned(),
        }],
        ..Topology::default()
    };
    broker.declare(&topology).await.unwrap();
    let shutdown = crate::environment::Shutdown::default();
    let publisher = Publisher {
        environment: Arc::clone(&bundle.environment),
        store: Arc::clone(&bundle.store),
        broker: Arc::new(broker.clone()),
    };
    let running = tokio::spawn(publisher.run(shutdown.clone()));
    let limit = Duration::from_secs(20);
    let begun = tokio::time::timeout(limit, async {
        while bundle
            .store
            .generations(Some(PUBLISHER))
            .await
            .unwrap()
            .first()
            .is_none_or(|it| it.position.0 == 0)
        {
            tokio::task::yield_now().await;
        }
    });
    begun.await.unwrap();
    bundle.say("bob", "t1", "not bound").await;
    bundle.say("ann", "t1", "hello").await;
    let mut ears = broker.consume("ears", 10).await.unwrap();
    let heard = tokio::time::timeout(limit, ears.deliveries.next_batch(10))
        .await
        .unwrap();
    assert_eq!(heard.len(), 1);
    let message = &heard[0].message;
    let body: Value = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(
        (&body["kind"], &body["correlation"], &body["position"]),
        (&json!("ann"), &json!("t1"), &json!(3))
    );
    assert_eq!(body["event"], json!({ "word": "hello" }));
    assert_eq!(message.header("correlation"), Some("t1"));
    assert!(message.properties.message_id.is_some());
    shutdown.request();
    running.await.unwrap();
}
