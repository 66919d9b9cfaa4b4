//! Signals and domain events end to end, on the brokers and stores of this process: early, late,
//! twice, by id, by key, by event, on one node and on two.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Consumer, Outgoing, Published, Queue, Topology};
use crate::definition::parse;
use crate::engine::{
    Addressee, Engine, EngineOptions, EngineParts, SignalAnswer, SignalError, StartAnswer,
};
use crate::environment::TokioEnvironment;
use crate::id::SagaId;
use crate::message::{DOMAIN_EVENT_QUEUE, Destination, Message, Properties, SIGNAL_QUEUE};
use crate::saga::Status;
use crate::store::memory::MemoryStore;
use crate::store::{ListFilter, SagaKey, Store};

/// Waits for one signal at once, and for another after it.
const PARCEL: &str = "
saga: parcel
version: 1
key: ${ input.order }
input: { type: object, required: [order], properties: { order: { type: string } } }
timeout: 30d
start:
  on: { exchange: shop, routing_key: order.placed, with: { order: '${ event.id }' } }
steps:
  - wait: packed
    on:
      exchange: depot
      routing_key: 'parcel.*'
      key: ${ event.order }
      with: { by: '${ event.worker }' }
  - wait: arrived
output: { packed: '${ steps.packed }', arrived: '${ steps.arrived }' }
";

/// Where answers to senders go.
const ANSWERS: &str = "shop.answers";

struct Shop {
    nodes: Vec<Arc<Engine>>,
    broker: MemoryBroker,
    store: MemoryStore,
    answers: Consumer,
}

impl Shop {
    async fn open(nodes: usize) -> Self {
        let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
        let mut running = Vec::new();
        for _ in 0..nodes {
            running.push(node(&broker, &store, PARCEL).await);
        }
        let queues = vec![Queue {
            name: ANSWERS.to_owned(),
            dead_letter_to: None,
        }];
        let topology = Topology {
            queues,
            ..Topology::default()
        };
        broker.declare(&topology).await.unwrap();
        let answers = broker.consume(ANSWERS, 10).await.unwrap();
        Self {
            nodes: running,
            broker,
            store,
            answers,
        }
    }

    async fn start(&self, order: &str) -> SagaId {
        let started = self.nodes[0].start_saga("parcel", json!({ "order": order }));
        match started.await {
            Ok(StartAnswer::Started(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    async fn signal(&self, to: Addressee, name: &str, id: &str) -> Result<SignalAnswer, String> {
        let payload = json!({ "said": id });
        let node = self.nodes.last().unwrap();
        let sent = node.signal(to, name, id.to_owned(), payload).await;
        sent.map_err(|error| match error {
            SignalError::Refused(wrong) => wrong.code.to_string(),
            SignalError::Unavailable(why) => why,
        })
    }

    async fn publish(&self, exchange: &str, routing_key: &str, properties: Properties, body: &str) {
        let outgoing = Outgoing {
            destination: Destination {
                exchange: exchange.to_owned(),
                routing_key: routing_key.to_owned(),
            },
            message: Message {
                properties,
                body: body.to_owned().into(),
            },
            mandatory: true,
        };
        let published = self.broker.publish(vec![outgoing]).await;
        assert_eq!(published, [Published::Confirmed]);
    }

    async fn event(&self, exchange: &str, routing_key: &str, body: &str) {
        self.publish(exchange, routing_key, Properties::default(), body)
            .await;
    }

    /// Sends a signal by message and gives the answer's kind and body.
    async fn send(&mut self, kind: Option<&str>, headers: Value, body: &str) -> (String, Value) {
        let headers = serde_json::from_value(headers).unwrap();
        let properties = Properties {
            kind: kind.map(str::to_owned),
            reply_to: Some(ANSWERS.to_owned()),
            correlation_id: Some("mine".to_owned()),
            headers,
            ..Properties::default()
        };
        self.publish("", SIGNAL_QUEUE, properties, body).await;
        let answer = self.answers.deliveries.next_batch(1).await.remove(0);
        self.answers.acks.ack(&[answer.tag]);
        let properties = answer.message.properties;
        assert_eq!(properties.correlation_id.as_deref(), Some("mine"));
        let body = serde_json::from_slice(&answer.message.body).unwrap();
        (properties.kind.unwrap(), body)
    }

    /// The saga with this key, once it has this status.
    async fn until(&self, key: &str, status: Status) -> SagaId {
        let filter = ListFilter {
            key: Some(key.to_owned()),
            status: Some(status),
            limit: 1,
            ..ListFilter::default()
        };
        loop {
            if let Some(head) = self.store.list(&filter).await.unwrap().first() {
                return head.id;
            }
            tokio::task::yield_now().await;
        }
    }

    /// What the waits of a completed saga were given.
    async fn output(&self, key: &str) -> Value {
        let id = self.until(key, Status::Completed).await;
        let history = crate::store::LoadRequest { id, after: 0 };
        let loaded = self
            .store
            .load(&[history])
            .await
            .unwrap()
            .remove(0)
            .unwrap();
        let records = loaded.entries.iter().map(|entry| entry.record().unwrap());
        let completed = records
            .flat_map(|record| record.events)
            .find_map(|event| match event {
                crate::saga::Event::Completed { output, .. } => Some(output),
                _ => None,
            });
        Value::clone(&completed.unwrap())
    }

    /// All that was sent has been dealt with.
    async fn until_quiet(&self) {
        for queue in [SIGNAL_QUEUE, DOMAIN_EVENT_QUEUE] {
            while self.broker.queue_len(queue) + self.broker.unacked(queue) > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn letters(&self) -> Vec<String> {
        let letters = self.store.dead_letters(10).await.unwrap();
        letters.iter().map(|it| it.code.to_string()).collect()
    }

    async fn close(self) {
        for node in self.nodes {
            node.stop().await;
        }
    }
}

async fn node(broker: &MemoryBroker, store: &MemoryStore, source: &str) -> Arc<Engine> {
    let definition = parse(source, "parcel.yaml").unwrap_or_else(|why| panic!("{why}"));
    let parts = EngineParts {
        environment: Arc::new(TokioEnvironment),
        store: Arc::new(store.clone()),
        broker: Arc::new(broker.clone()),
        definitions: vec![definition.into()],
        options: EngineOptions::default(),
    };
    Engine::start(parts).await.unwrap()
}

fn key(key: &str) -> Addressee {
    let name = "parcel".to_owned();
    let key = key.to_owned();
    Addressee::Key(SagaKey { name, key })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_may_come_early_and_twice_but_not_late() {
    for nodes in [1, 2] {
        let shop = Shop::open(nodes).await;
        let id = shop.start("7").await;
        let accepted = Ok(SignalAnswer::Accepted(id));
        let early = shop.signal(key("7"), "arrived", "a").await;
        assert_eq!(early, accepted);
        let again = shop.signal(Addressee::Saga(id), "arrived", "a").await;
        assert_eq!(again, Ok(SignalAnswer::Duplicate(id)));
        let in_time = shop.signal(Addressee::Saga(id), "packed", "p").await;
        assert_eq!(in_time, accepted);
        let expected = json!({ "packed": { "said": "p" }, "arrived": { "said": "a" } });
        assert_eq!(shop.output("7").await, expected);

        let again = shop.signal(key("7"), "packed", "p").await;
        assert_eq!(again, Ok(SignalAnswer::Duplicate(id)), "known though late");
        let late = shop.signal(key("7"), "packed", "q").await;
        assert_eq!(late, Err("BST-0062".to_owned()));
        shop.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_reaches_no_saga_is_refused_with_its_code() {
    let shop = Shop::open(1).await;
    let id = shop.start("7").await;
    for (to, name, expected) in [
        (Addressee::Saga(SagaId(Uuid::nil())), "packed", "BST-0061"),
        (key("8"), "packed", "BST-0061"),
        (key(""), "packed", "BST-0060"),
        (Addressee::Saga(id), "Not a name", "BST-0060"),
        (Addressee::Saga(id), "pakced", "BST-0063"),
    ] {
        let refused = shop.signal(to.clone(), name, "x").await;
        assert_eq!(refused, Err(expected.to_owned()), "{to:?} {name}");
    }
    for number in 0..crate::saga::SIGNALS_KEPT_MAX {
        let kept = shop.signal(key("7"), "arrived", &number.to_string()).await;
        assert_eq!(kept, Ok(SignalAnswer::Accepted(id)));
    }
    let full = shop.signal(key("7"), "arrived", "more").await;
    assert_eq!(full, Err("BST-0064".to_owned()));
    assert!(shop.letters().await.is_empty(), "who asks is told");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_by_message_is_answered_and_kept_if_it_is_wrong() {
    let mut shop = Shop::open(2).await;
    let id = shop.start("7").await;
    let (kind, body) = shop
        .send(Some("packed"), json!({ "saga": id }), r#"{"by":1}"#)
        .await;
    assert_eq!(
        (kind.as_str(), &body["duplicate"]),
        ("accepted", &json!(false))
    );
    // Without an id, the same name and payload is another signal.
    let by_key = json!({ "saga": "parcel", "saga-key": "7" });
    let (kind, body) = shop
        .send(Some("packed"), by_key.clone(), r#"{ "by": 1 }"#)
        .await;
    assert_eq!(
        (kind.as_str(), &body["duplicate"]),
        ("accepted", &json!(false))
    );
    assert!(body["id"].as_str().unwrap().ends_with("#2"), "{body}");

    let cases = [
        (None, by_key.clone(), "{}", "BST-0060"),
        (Some("packed"), json!({}), "{}", "BST-0060"),
        (
            Some("packed"),
            json!({ "saga": "parcel" }),
            "{}",
            "BST-0060",
        ),
        (
            Some("packed"),
            json!({ "saga": "parcel", "saga-key": true }),
            "{}",
            "BST-0060",
        ),
        (
            Some("packed"),
            json!({ "saga": "parcel", "saga-key": 8 }),
            "{}",
            "BST-0061",
        ),
        (
            Some("packed"),
            json!({ "saga": Uuid::nil() }),
            "{}",
            "BST-0061",
        ),
        (Some("paked"), by_key.clone(), "{}", "BST-0063"),
        (Some("packed"), by_key, "{", "BST-0010"),
    ];
    let mut kept = Vec::new();
    for (kind, headers, body, code) in cases {
        let (answer, said) = shop.send(kind, headers.clone(), body).await;
        assert_eq!(answer, "refused", "{headers} {body}");
        assert_eq!(said["code"], code, "{headers} {body}: {said}");
        kept.insert(0, code.to_owned());
    }
    shop.until_quiet().await;
    assert_eq!(shop.letters().await, kept);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_starts_a_saga_and_the_next_one_finds_it() {
    for nodes in [1, 2] {
        let shop = Shop::open(nodes).await;
        for order in 0..50 {
            let placed = json!({ "id": order.to_string() }).to_string();
            let packed = json!({ "order": order, "worker": "ann" }).to_string();
            // Delivered several times, in no time.
            for _ in 0..3 {
                shop.event("shop", "order.placed", &placed).await;
                shop.event("depot", "parcel.packed", &packed).await;
            }
        }
        for order in 0..50 {
            let name = order.to_string();
            shop.until(&name, Status::Running).await;
            shop.until_quiet().await;
            let arrived = shop.signal(key(&name), "arrived", "a").await;
            assert!(
                matches!(arrived, Ok(SignalAnswer::Accepted(_))),
                "{arrived:?}"
            );
            let expected = json!({ "packed": { "by": "ann" }, "arrived": { "said": "a" } });
            assert_eq!(shop.output(&name).await, expected);
        }
        let counts = shop.store.counts().await.unwrap();
        assert_eq!(counts.iter().map(|it| it.count).sum::<u64>(), 50);
        assert!(shop.letters().await.is_empty());
        shop.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn others_events_pass_by_and_broken_ones_are_kept() {
    let shop = Shop::open(1).await;
    let id = shop.start("7").await;
    for body in [
        r#"{"order":"8","worker":"ann"}"#,
        r#"{"worker":"ann"}"#,
        "{}",
    ] {
        shop.event("depot", "parcel.packed", body).await;
    }
    shop.until_quiet().await;
    assert!(shop.letters().await.is_empty());
    for (exchange, routing_key, body, code) in [
        ("depot", "parcel.packed", r#"{"order":"7"}"#, "BST-0065"),
        ("shop", "order.placed", r#"{"no":"id"}"#, "BST-0065"),
        ("shop", "order.placed", r#"{"id":9}"#, "BST-0065"),
        ("shop", "order.placed", "PK", "BST-0010"),
        ("", DOMAIN_EVENT_QUEUE, "{}", "BST-0065"),
    ] {
        shop.event(exchange, routing_key, body).await;
        shop.until_quiet().await;
        assert_eq!(shop.letters().await[0], code, "{body}");
    }
    assert_eq!(shop.letters().await.len(), 5);

    // A letter that is put right and replayed goes to the queue, and still says which event it is.
    let letters = shop.store.dead_letters(10).await.unwrap();
    let letter = letters
        .iter()
        .find(|it| it.reason.contains("waits for this event"))
        .unwrap();
    let properties = letter.message.properties.clone();
    let mended = r#"{"order":"7","worker":"bob"}"#;
    shop.publish("", DOMAIN_EVENT_QUEUE, properties, mended)
        .await;
    shop.signal(Addressee::Saga(id), "arrived", "a")
        .await
        .unwrap();
    assert_eq!(shop.output("7").await["packed"], json!({ "by": "bob" }));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_means_to_a_saga_what_its_own_version_says() {
    let shop = Shop::open(1).await;
    let old = shop.start("7").await;
    let newer = PARCEL
        .replace("version: 1", "version: 2")
        .replace("'parcel.*'", "packed")
        .replace("event.worker", "event.packer");
    let second = node(&shop.broker, &shop.store, &newer).await;
    // The old node goes; the new one knows what the old saga waits for.
    for node in &shop.nodes {
        node.stop().await;
    }
    let input = json!({ "order": "8" });
    second.start_saga("parcel", input).await.unwrap();
    shop.event("depot", "parcel.packed", r#"{"order":"7","worker":"ann"}"#)
        .await;
    shop.event("depot", "parcel.packed", r#"{"order":"8","worker":"ann"}"#)
        .await;
    shop.event("depot", "packed", r#"{"order":"8","packer":"bob"}"#)
        .await;
    for order in ["7", "8"] {
        let sent = second
            .signal(key(order), "arrived", "a".to_owned(), json!(1))
            .await;
        assert!(matches!(sent, Ok(SignalAnswer::Accepted(_))), "{sent:?}");
    }
    assert_eq!(shop.output("7").await["packed"], json!({ "by": "ann" }));
    assert_eq!(shop.output("8").await["packed"], json!({ "by": "bob" }));
    assert_eq!(shop.until("7", Status::Completed).await, old);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_node_loses_no_event_that_a_newer_one_knows() {
    let shop = Shop::open(1).await;
    let newer = PARCEL
        .replace("version: 1", "version: 2")
        .replace("order.placed", "order.made")
        .replace("'parcel.*'", "packed");
    let second = node(&shop.broker, &shop.store, &newer).await;
    second
        .start_saga("parcel", json!({ "order": "8" }))
        .await
        .unwrap();
    // The older one takes the events. It learns of sagas that are there, and of what starts others.
    shop.event("depot", "packed", r#"{"order":"8","worker":"ann"}"#)
        .await;
    shop.event("shop", "order.made", r#"{"id":"9"}"#).await;
    shop.until_quiet().await;
    assert!(shop.letters().await.is_empty());
    shop.until("9", Status::Running).await;
    let arrived = second
        .signal(key("8"), "arrived", "a".to_owned(), json!(1))
        .await;
    assert!(matches!(arrived, Ok(SignalAnswer::Accepted(_))));
    assert_eq!(shop.output("8").await["packed"], json!({ "by": "ann" }));
    second.stop().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_key_made_of_its_payload_is_one_saga() {
    let hook = "
saga: hook
version: 1
key: ${ hash(input) }
steps:
  - wait: done
    timeout: none
";
    let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
    let nodes = [
        node(&broker, &store, hook).await,
        node(&broker, &store, hook).await,
    ];
    let starts = (0..40).map(|number: usize| {
        let node = Arc::clone(&nodes[number % 2]);
        let input = json!({ "number": number / 20, "b": [1, 2], "a": 0.5 });
        tokio::spawn(async move { node.start_saga("hook", input).await })
    });
    let starts: Vec<_> = starts.collect();
    let mut ids = std::collections::BTreeMap::new();
    for start in starts {
        match start.await.unwrap().unwrap() {
            StartAnswer::Started(id) | StartAnswer::Existing(id, _) => {
                *ids.entry(id).or_insert(0) += 1;
            }
            StartAnswer::Restarting { .. } => panic!("nothing restarts here"),
        }
    }
    assert_eq!(ids.into_values().collect::<Vec<_>>(), [20, 20]);
    for node in nodes {
        node.stop().await;
    }
}
