//! Exchanges, queues and bindings that go, come back, or belong to others, on a real RabbitMQ.

use std::sync::Arc;
use std::time::Duration;

use backstitch::broker::conformance::{bodies, take_acked, to};
use backstitch::broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use backstitch::broker::{Binding, Broker, Consumer, Outgoing, Published, Queue, Topology};
use backstitch::message::EVENT_EXCHANGE;
use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use serde_json::json;
use tempfile::TempDir;

use crate::fixture::{Backends, Node, PATIENCE, Sent, VirtualHost, Wire, eventually, get, post};

/// How often the brokers of these tests look again: soon, so that the tests need not wait.
const LOOK_EVERY: Duration = Duration::from_millis(200);

const SHOP: &str = "shop";
const KEY: &str = "order.placed";

/// A saga that an order of the shop starts, and that needs no participant.
const BILL: &str = "saga: bill
version: 1
key: ${ input.id }
start: { on: { exchange: shop, routing_key: order.placed } }
timeout: 1h
steps:
  - { sleep: nap, for: 1s }
";

/// Another one, without a domain event.
const NAP: &str = "saga: nap
version: 1
key: ${ input.id }
timeout: 1h
steps:
  - { sleep: nap, for: 1s }
";

/// A broker that has declared a queue bound to the shop's exchange, and the queue's consumer.
struct Bound {
    broker: Arc<RabbitMqBroker>,
    consumer: Consumer,
}

async fn connect(url: &str) -> RabbitMqBroker {
    let options = RabbitMqOptions {
        look_every: LOOK_EVERY,
        ..RabbitMqOptions::default()
    };
    RabbitMqBroker::connect(url, options).await.unwrap()
}

fn shop() -> Topology {
    Topology {
        queues: vec![Queue {
            name: "q".to_owned(),
            dead_letter_to: None,
        }],
        topic_exchanges: vec![SHOP.to_owned()],
        bindings: vec![Binding {
            exchange: SHOP.to_owned(),
            queue: "q".to_owned(),
            routing_key: KEY.to_owned(),
        }],
        ..Topology::default()
    }
}

async fn bound(url: &str) -> Bound {
    let broker = Arc::new(connect(url).await);
    broker.declare(&shop()).await.unwrap();
    let consumer = broker.consume("q", 10).await.unwrap();
    Bound { broker, consumer }
}

fn event(number: usize) -> Outgoing {
    let mut event = to(KEY, number);
    SHOP.clone_into(&mut event.destination.exchange);
    event.mandatory = false;
    event
}

impl Bound {
    /// Publishes an event as a relay does: again, until it is taken; and sees it arrive.
    async fn round_trip(&mut self, number: usize) {
        let mut event = event(number);
        event.mandatory = true;
        while self.broker.publish(vec![event.clone()]).await != [Published::Confirmed] {}
        assert_eq!(
            bodies(&take_acked(&mut self.consumer, 1).await),
            [number.to_string()]
        );
    }

    /// Waits until nothing is missing any more.
    async fn mended(&self) {
        let wait = async {
            while !self.broker.troubles().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok());
    }
}

fn durable() -> ExchangeDeclareOptions {
    ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    }
}

/// The wire blocks its thread.
async fn stranger<T: Send + 'static>(url: &str, work: fn(&Wire) -> T) -> T {
    let url = url.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&Wire::connect(&url)));
    done.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchange_binding_and_queue_come_back_whichever_is_deleted() {
    let host = VirtualHost::create();
    let mut bound = bound(&host.url).await;
    bound.round_trip(1).await;
    stranger(&host.url, |wire| wire.delete_exchange(SHOP)).await;
    bound.round_trip(2).await;
    stranger(&host.url, |wire| {
        wire.delete_exchange(SHOP);
        wire.declare_exchange(SHOP, ExchangeKind::Topic, durable(), &[]);
    })
    .await;
    bound.round_trip(3).await;
    stranger(&host.url, |wire| wire.unbind("q", SHOP, KEY)).await;
    bound.round_trip(4).await;
    stranger(&host.url, |wire| wire.delete_queue("q")).await;
    bound.round_trip(5).await;
    assert_eq!(bound.broker.troubles(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_exchange_costs_no_other_message_anything() {
    let host = VirtualHost::create();
    // A user who can't make the exchange again.
    let url = host.user("^q$");
    stranger(&host.url, |wire| {
        wire.declare_exchange(SHOP, ExchangeKind::Topic, durable(), &[]);
    })
    .await;
    let mut bound = bound(&url).await;
    bound.round_trip(0).await;
    stranger(&host.url, |wire| wire.delete_exchange(SHOP)).await;
    for round in 0..3 {
        // It was there when last looked at: the first event closes the channel.
        let batch = (0..100).map(|n| if n % 7 == 3 { event(n) } else { to("q", n) });
        let words = bound.broker.publish(batch.collect()).await;
        for (n, word) in words.iter().enumerate() {
            let waits = matches!(word, Published::NotYet(_));
            assert_eq!(waits, n % 7 == 3, "{round}, {n}: {word:?}");
            assert!(waits || *word == Published::Confirmed, "{n}: {word:?}");
        }
    }
    let told = async {
        while bound.broker.troubles().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    let why = &bound.broker.troubles()[0].why;
    assert!(why.contains("may not make it"), "{why}");
    take_at_least(&mut bound.consumer, 3 * 85).await;
    stranger(&host.url, |wire| {
        wire.declare_exchange(SHOP, ExchangeKind::Topic, durable(), &[]);
    })
    .await;
    bound.mended().await;
    bound.round_trip(1_000).await;
    host.forget_user();
}

/// Takes what waits; what was on its way when the channel closed may come twice.
async fn take_at_least(consumer: &mut Consumer, count: usize) {
    let mut taken = 0;
    while taken < count {
        let batch = backstitch::broker::conformance::next_batch(consumer, 100).await;
        consumer
            .acks
            .ack(&backstitch::broker::conformance::tags(&batch));
        taken += batch.len();
    }
    // And what came twice.
    loop {
        let next = consumer.deliveries.next_batch(100);
        let Ok(batch) = tokio::time::timeout(Duration::from_millis(500), next).await else {
            return;
        };
        consumer
            .acks
            .ack(&backstitch::broker::conformance::tags(&batch));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_until_their_listeners_have_bound_to_the_new_exchange() {
    let host = VirtualHost::create();
    let broker = connect(&host.url).await;
    let own = Topology {
        topic_exchanges: vec![SHOP.to_owned()],
        ..Topology::default()
    };
    broker.declare(&own).await.unwrap();
    // At first, nobody listens, and that is that.
    assert_eq!(broker.publish(vec![event(1)]).await, [Published::Confirmed]);
    stranger(&host.url, |wire| {
        wire.declare("listener");
        wire.delete_exchange(SHOP);
    })
    .await;
    for _ in 0..3 {
        let word = broker.publish(vec![event(2)]).await;
        assert!(matches!(word[..], [Published::NotYet(_)]), "{word:?}");
    }
    let url = host.url.clone();
    let bind = move || {
        let wire = Wire::connect(&url);
        wire.declare_exchange(SHOP, ExchangeKind::Topic, durable(), &[]);
        wire.bind("listener", SHOP, "#");
    };
    tokio::task::spawn_blocking(bind).await.unwrap();
    let published =
        async { while broker.publish(vec![event(3)]).await != [Published::Confirmed] {} };
    tokio::time::timeout(PATIENCE, published).await.unwrap();
    let body = stranger(&host.url, |wire| wire.wait_for("listener").body).await;
    assert_eq!(body, b"3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_of_others_is_used_as_it_is() {
    let transient = ExchangeDeclareOptions::default();
    let auto_delete = ExchangeDeclareOptions {
        auto_delete: true,
        ..durable()
    };
    let alternate = [("alternate-exchange", "unrouted")];
    for (kind, options, arguments) in [
        (ExchangeKind::Topic, durable(), &alternate[..]),
        (ExchangeKind::Fanout, durable(), &[]),
        (ExchangeKind::Direct, durable(), &[]),
        (ExchangeKind::Topic, transient, &[]),
        (ExchangeKind::Topic, auto_delete, &[]),
    ] {
        let host = VirtualHost::create();
        let (url, arguments) = (host.url.clone(), arguments.to_vec());
        let declare = move || Wire::connect(&url).declare_exchange(SHOP, kind, options, &arguments);
        tokio::task::spawn_blocking(declare).await.unwrap();
        let mut bound = bound(&host.url).await;
        assert_eq!(bound.broker.troubles(), []);
        bound.round_trip(1).await;
    }
}

fn sagas(sources: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (number, source) in sources.iter().enumerate() {
        std::fs::write(directory.path().join(format!("{number}.yaml")), source).unwrap();
    }
    directory
}

#[test]
fn events_of_sagas_come_out_although_their_exchange_was_deleted_meanwhile() {
    let mut backends = Backends::create();
    let wire = Wire::connect(&backends.virtual_host.url);
    wire.declare_exchange(EVENT_EXCHANGE, ExchangeKind::Topic, durable(), &[]);
    // The node can't make it anew, so that it is certain to miss it.
    backends.virtual_host.url = backends.virtual_host.user("^(?!backstitch\\.events$)");
    let sagas = sagas(&[NAP]);
    let node = Node::serve(&backends, sagas.path());
    wire.delete_exchange(EVENT_EXCHANGE);
    let (status, _) = post(&format!("{}/sagas/nap", node.url), &json!({ "id": "1" })).unwrap();
    assert_eq!(status, 201);
    eventually("the node misses it", PATIENCE, || {
        let (status, ready) = get(&format!("{}/readyz", node.url)).unwrap();
        (status == 503 && ready.to_string().contains("BST-0076")).then_some(())
    });
    wire.declare_exchange(EVENT_EXCHANGE, ExchangeKind::Topic, durable(), &[]);
    let queue = wire.own_queue();
    wire.bind(&queue, EVENT_EXCHANGE, "#");
    let mut missing = vec!["nap.started", "nap.completed"];
    while !missing.is_empty() {
        let kind = wire.wait_for(&queue).kind;
        missing.retain(|wanted| kind.as_deref() != Some(*wanted));
    }
    backends.virtual_host.forget_user();
}

#[test]
fn an_event_that_came_by_an_exchange_bound_to_the_shops_starts_its_saga() {
    let backends = Backends::create();
    let sagas = sagas(&[BILL]);
    let _node = Node::serve(&backends, sagas.path());
    let wire = Wire::connect(&backends.virtual_host.url);
    wire.declare_exchange("orders", ExchangeKind::Topic, durable(), &[]);
    wire.bind_exchange(SHOP, "orders", "#");
    let order = Sent {
        body: br#"{"id":"1"}"#,
        ..Sent::default()
    };
    wire.publish("orders", KEY, &order);
    eventually("the saga ends", PATIENCE, || {
        (backends.database.ended_sagas() == 1).then_some(())
    });
}

#[test]
fn a_definition_whose_exchange_can_not_be_had_is_the_only_one_in_trouble() {
    let mut backends = Backends::create();
    backends.virtual_host.url = backends.virtual_host.user("^backstitch\\.");
    let sagas = sagas(&[BILL, NAP]);
    let node = Node::serve(&backends, sagas.path());
    let (status, ready) = get(&format!("{}/readyz", node.url)).unwrap();
    assert_eq!(status, 200);
    let why = ready["warnings"][0]["reason"].as_str().unwrap();
    assert!(why.contains("BST-0076") && why.contains("`bill`"), "{why}");
    let (_, metrics) = get(&format!("{}/metrics", node.url)).unwrap();
    let metrics = metrics.as_str().unwrap();
    assert!(
        metrics.contains("backstitch_topology_trouble{name=\"shop\"} 1"),
        "{metrics}"
    );
    let (status, _) = post(&format!("{}/sagas/nap", node.url), &json!({ "id": "1" })).unwrap();
    assert_eq!(status, 201);
    eventually("the other saga ends", PATIENCE, || {
        (backends.database.ended_sagas() == 1).then_some(())
    });
    backends.virtual_host.forget_user();
}
