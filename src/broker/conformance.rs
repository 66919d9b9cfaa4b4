//! What every broker must do, as one suite that runs against each implementation.
//!
//! Callers give a connected broker and a prefix for names that nobody else uses; each case
//! declares queues of its own under it, so the server may hold other things.
//! A case panics at the first broken promise. Nothing sleeps: cases wait for what must come, and
//! show that something did *not* happen by what comes instead.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use serde_json::json;
use tokio::time::timeout;

use super::{
    Binding, Broker, BrokerError, Consumer, DELIVERY_LIMIT, Delivery, DeliveryTag, Outgoing,
    Published, Queue, Topology,
};
use crate::id::Timestamp;
use crate::message::{Destination, Message};

/// Longest wait for something that must come.
pub const WAIT_MAX: Duration = Duration::from_secs(20);

/// Any prefetch that is not what a case is about.
const PREFETCH: u16 = 200;

/// One promise.
pub struct Case {
    /// What is promised.
    pub name: &'static str,
    /// Panics if it isn't kept.
    pub check: fn(Bundle) -> BoxFuture<'static, ()>,
}

/// A broker under test, and where its queues go.
#[derive(Clone)]
pub struct Bundle {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Starts all names of queues and exchanges.
    pub prefix: String,
}

/// Checks all promises, one after the other, each under a prefix of its own.
///
/// # Panics
/// When one is broken; its name is printed before it is checked.
pub async fn check_all(bundle: Bundle) {
    for case in CASES {
        println!("conformance: {}", case.name);
        let prefix = format!("{}.{}", bundle.prefix, case.name);
        let broker = Arc::clone(&bundle.broker);
        (case.check)(Bundle { broker, prefix }).await;
    }
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every promise.
        pub const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            check: |bundle| $name(bundle).boxed(),
        }),*];
    };
}

cases![
    messages_come_in_the_order_they_were_published,
    prefetch_bounds_what_a_consumer_holds,
    acked_messages_are_gone_and_make_room,
    acks_out_of_order_settle_just_what_they_name,
    requeued_messages_come_again_marked_redelivered,
    dropping_a_consumer_gives_back_what_is_unacked,
    acks_of_a_dropped_consumer_change_nothing,
    mandatory_messages_nobody_takes_are_unroutable,
    unroutable_messages_are_told_from_the_others_of_a_batch,
    a_missing_exchange_is_unroutable_and_spares_the_others,
    what_a_broker_cannot_carry_spares_the_others,
    topic_bindings_route_by_pattern_and_once_to_each_queue,
    messages_delivered_too_often_become_dead_letters,
    messages_arrive_unchanged,
    messages_from_many_publishers_all_arrive,
    a_batch_is_what_waits_up_to_the_bound,
    next_batch_loses_nothing_when_it_is_dropped,
    declaring_again_changes_nothing,
    a_queue_declared_otherwise_is_a_clash,
    consuming_from_a_missing_queue_is_an_error,
];

async fn messages_come_in_the_order_they_were_published(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    for start in [0, 300, 600] {
        let batch = (start..start + 300).map(|n| to(&queue, n)).collect();
        bundle.publish_all(batch).await;
    }
    let mut consumer = bundle.consume(&queue, PREFETCH).await;
    assert_eq!(
        bodies(&take_acked(&mut consumer, 900).await),
        numbers(0..900)
    );
}

async fn prefetch_bounds_what_a_consumer_holds(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    bundle.publish_numbers(&queue, 0..10).await;
    let mut bounded = bundle.consume(&queue, 3).await;
    let held = take(&mut bounded, 3).await;
    assert_eq!(bodies(&held), numbers(0..3));
    assert!(bounded.deliveries.next_batch(10).now_or_never().is_none());
    // Had the first one got more, the second would wait for them in vain.
    let mut other = bundle.consume(&queue, PREFETCH).await;
    assert_eq!(bodies(&take(&mut other, 7).await), numbers(3..10));
}

async fn acked_messages_are_gone_and_make_room(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    bundle.publish_numbers(&queue, 0..10).await;
    let mut consumer = bundle.consume(&queue, 2).await;
    let acked = take_acked(&mut consumer, 8).await;
    assert_eq!(bodies(&acked), numbers(0..8));
    drop(consumer);
    let mut next = bundle.consume(&queue, PREFETCH).await;
    assert_eq!(bodies(&take(&mut next, 2).await), numbers(8..10));
}

async fn acks_out_of_order_settle_just_what_they_name(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    bundle.publish_numbers(&queue, 0..6).await;
    let mut consumer = bundle.consume(&queue, PREFETCH).await;
    let held = take(&mut consumer, 6).await;
    consumer.acks.ack(&tags(&held[4..5]));
    consumer.acks.ack(&tags(&held[1..2]));
    consumer.acks.ack(&tags(&held[0..2])); // one of them again
    drop(consumer);
    let mut next = bundle.consume(&queue, PREFETCH).await;
    let back = take(&mut next, 3).await;
    assert_eq!(sorted(bodies(&back)), ["2", "3", "5"]);
    assert!(back.iter().all(|delivery| delivery.redelivered));
}

async fn requeued_messages_come_again_marked_redelivered(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    bundle.publish_numbers(&queue, 0..4).await;
    let mut consumer = bundle.consume(&queue, PREFETCH).await;
    let held = take(&mut consumer, 4).await;
    assert!(held.iter().all(|delivery| !delivery.redelivered));
    consumer.acks.requeue(&tags(&held[1..3]));
    let again = take(&mut consumer, 2).await;
    assert_eq!(sorted(bodies(&again)), ["1", "2"]);
    assert!(again.iter().all(|delivery| delivery.redelivered));
    assert!(again[0].tag > held[3].tag && again[1].tag > again[0].tag);
    consumer.acks.ack(&tags(&held));
    consumer.acks.ack(&tags(&again));
    bundle.expect_empty(consumer, &queue).await;
}

async fn dropping_a_consumer_gives_back_what_is_unacked(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    bundle.publish_numbers(&queue, 0..20).await;
    let mut consumer = bundle.consume(&queue, 10).await;
    let held = take(&mut consumer, 5).await; // others are on their way, unseen
    consumer.acks.ack(&tags(&held[..2]));
    drop(consumer);
    let mut next = bundle.consume(&queue, PREFETCH).await;
    let back = take_acked(&mut next, 18).await;
    assert_eq!(sorted(bodies(&back)), sorted(numbers(2..20)));
    for delivery in &back {
        if held[2..]
            .iter()
            .any(|held| held.message == delivery.message)
        {
            assert!(delivery.redelivered);
        }
    }
    bundle.expect_empty(next, &queue).await;
}

async fn acks_of_a_dropped_consumer_change_nothing(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    bundle.publish_numbers(&queue, 0..2).await;
    let mut consumer = bundle.consume(&queue, PREFETCH).await;
    let held = take(&mut consumer, 2).await;
    let acks = Arc::clone(&consumer.acks);
    drop(consumer);
    let mut next = bundle.consume(&queue, PREFETCH).await;
    let back = take(&mut next, 2).await;
    acks.ack(&tags(&held));
    acks.requeue(&tags(&held));
    let unknown = DeliveryTag {
        epoch: u64::MAX,
        tag: 1,
    };
    next.acks.ack(&[unknown]);
    next.acks.ack(&tags(&back[..1]));
    drop(next);
    let mut last = bundle.consume(&queue, PREFETCH).await;
    assert_eq!(bodies(&take(&mut last, 1).await), ["1"]);
}

async fn mandatory_messages_nobody_takes_are_unroutable(bundle: Bundle) {
    let exchange = format!("{}.events", bundle.prefix);
    bundle
        .declare(&Topology {
            topic_exchanges: vec![exchange.clone()],
            ..Topology::default()
        })
        .await;
    let nowhere = to(&format!("{}.nobody", bundle.prefix), 0);
    let unbound = Outgoing {
        destination: Destination {
            exchange,
            routing_key: "a.b".to_owned(),
        },
        ..nowhere.clone()
    };
    for message in [nowhere, unbound] {
        for (mandatory, expected) in [(true, Published::Unroutable), (false, Published::Confirmed)]
        {
            let message = Outgoing {
                mandatory,
                ..message.clone()
            };
            assert_eq!(bundle.broker.publish(vec![message]).await, [expected]);
        }
    }
}

async fn unroutable_messages_are_told_from_the_others_of_a_batch(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    let nobody = format!("{}.nobody", bundle.prefix);
    let with_id = |mut outgoing: Outgoing, id: Option<&str>| {
        outgoing.message.properties.message_id = id.map(str::to_owned);
        outgoing
    };
    for round in 0..20 {
        let mut batch = Vec::new();
        let mut expected = Vec::new();
        for n in 0..60 {
            // Ids repeat (retries do that) and are missing (foreign messages).
            let id = [None, Some("same"), Some("other")][n % 3];
            let lost = (n * 7 + round) % 5 == 0;
            let target = if lost { &nobody } else { &queue };
            batch.push(with_id(to(target, n), id));
            expected.push(if lost {
                Published::Unroutable
            } else {
                Published::Confirmed
            });
        }
        let (half, rest) = (batch.split_off(30), batch);
        let (rest, half) =
            futures_util::join!(bundle.broker.publish(rest), bundle.broker.publish(half));
        assert_eq!([rest, half].concat(), expected);
    }
}

async fn a_missing_exchange_is_unroutable_and_spares_the_others(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    let mut lost = to("key", 0);
    lost.destination.exchange = format!("{}.no-such-exchange", bundle.prefix);
    let batch = vec![to(&queue, 1), lost, to(&queue, 2)];
    let published = bundle.broker.publish(batch).await;
    let expected = [
        Published::Confirmed,
        Published::Unroutable,
        Published::Confirmed,
    ];
    assert_eq!(published, expected);
}

async fn what_a_broker_cannot_carry_spares_the_others(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    let mut strange = to(&queue, 0);
    strange.message.properties.correlation_id = Some("x".repeat(1_000));
    let headers = &mut strange.message.properties.headers;
    headers.insert("x".repeat(1_000), json!(1));
    headers.insert("huge".to_owned(), json!("x".repeat(1_000_000)));
    let batch = vec![to(&queue, 1), strange, to(&queue, 2)];
    let published = bundle.broker.publish(batch).await;
    assert_eq!(published[0], Published::Confirmed);
    assert_eq!(published[2], Published::Confirmed);
}

async fn topic_bindings_route_by_pattern_and_once_to_each_queue(bundle: Bundle) {
    let exchange = format!("{}.events", bundle.prefix);
    let [all, completed, both] = ["all", "completed", "both"].map(|name| bundle.name(name));
    let bind = |queue: &String, routing_key: &str| Binding {
        exchange: exchange.clone(),
        queue: queue.clone(),
        routing_key: routing_key.to_owned(),
    };
    bundle
        .declare(&Topology {
            queues: [&all, &completed, &both].map(plain).to_vec(),
            topic_exchanges: vec![exchange.clone()],
            bindings: vec![
                bind(&all, "#"),
                bind(&completed, "*.completed"),
                bind(&both, "order.#"),
                bind(&both, "*.completed"),
            ],
        })
        .await;
    let keys = ["order.completed", "order.started", "refund.completed"];
    let events = keys.iter().map(|key| Outgoing {
        destination: Destination {
            exchange: exchange.clone(),
            routing_key: (*key).to_owned(),
        },
        message: body(key),
        mandatory: true,
    });
    bundle.publish_all(events.collect()).await;
    for (queue, expected) in [
        (all, vec![keys[0], keys[1], keys[2]]),
        (completed, vec![keys[0], keys[2]]),
        (both, vec![keys[0], keys[1], keys[2]]),
    ] {
        let mut consumer = bundle.consume(&queue, PREFETCH).await;
        let taken = take_acked(&mut consumer, expected.len()).await;
        assert_eq!(bodies(&taken), expected);
        bundle.expect_empty(consumer, &queue).await;
    }
}

async fn messages_delivered_too_often_become_dead_letters(bundle: Bundle) {
    let (queue, dead_letters) = (bundle.name("q"), bundle.name("dead"));
    bundle
        .declare(&Topology {
            queues: vec![
                plain(&dead_letters),
                Queue {
                    name: queue.clone(),
                    dead_letter_to: Some(dead_letters.clone()),
                },
            ],
            ..Topology::default()
        })
        .await;
    bundle.publish_numbers(&queue, 0..1).await;
    for _ in 0..DELIVERY_LIMIT {
        let mut consumer = bundle.consume(&queue, 1).await;
        assert_eq!(bodies(&take(&mut consumer, 1).await), ["0"]);
    }
    let mut letters = bundle.consume(&dead_letters, PREFETCH).await;
    assert_eq!(bodies(&take_acked(&mut letters, 1).await), ["0"]);
    let consumer = bundle.consume(&queue, PREFETCH).await;
    bundle.expect_empty(consumer, &queue).await;
}

async fn messages_arrive_unchanged(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    let mut full = body("{}");
    full.properties.message_id = Some("0d5f".to_owned());
    full.properties.kind = Some("inventory.reserve".to_owned());
    full.properties.correlation_id = Some("saga/stock[2]/reserve/mac".to_owned());
    full.properties.reply_to = Some("replies".to_owned());
    full.properties.content_type = Some("application/json".to_owned());
    full.properties.timestamp = Some(Timestamp::from_micros(1_700_000_000_000_000));
    full.properties.headers = [
        ("saga", json!("place-order")),
        ("ünïcode", json!("日本")),
        ("attempt", json!(3)),
        ("negative", json!(-1)),
        ("ratio", json!(0.25)),
        ("flag", json!(true)),
        ("nothing", json!(null)),
        ("nested", json!({ "list": [1, "two", { "three": 3 }] })),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let bare = |bytes: Vec<u8>| Message {
        body: bytes.into(),
        ..Message::default()
    };
    let sent = vec![
        full,
        Message::default(),
        bare((0..=255).collect()),
        bare(vec![0xab; 1024 * 1024]),
        bare(b"after".to_vec()),
    ];
    let batch = sent.iter().map(|message| Outgoing {
        destination: Destination::queue(&queue),
        message: message.clone(),
        mandatory: true,
    });
    bundle.publish_all(batch.collect()).await;
    let mut consumer = bundle.consume(&queue, PREFETCH).await;
    let taken = take_acked(&mut consumer, sent.len()).await;
    for (delivery, sent) in taken.iter().zip(&sent) {
        assert!(
            delivery.message == *sent,
            "{:?}",
            delivery.message.properties
        );
    }
}

async fn messages_from_many_publishers_all_arrive(bundle: Bundle) {
    const PUBLISHERS: usize = 8;
    const EACH: usize = 500;
    let queue = bundle.queue("q").await;
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let (bundle, queue) = (bundle.clone(), queue.clone());
        async move {
            let all: Vec<usize> = (publisher * EACH..(publisher + 1) * EACH).collect();
            for batch in all.chunks(37) {
                let batch = batch.iter().map(|n| to(&queue, *n)).collect();
                bundle.publish_all(batch).await;
            }
        }
    });
    let mut consumer = bundle.consume(&queue, PREFETCH).await;
    let all = PUBLISHERS * EACH;
    let (_, taken) = futures_util::join!(join_all(publishers), take_acked(&mut consumer, all));
    let taken: Vec<usize> = bodies(&taken)
        .iter()
        .map(|n| n.parse().unwrap_or(0))
        .collect();
    for publisher in 0..PUBLISHERS {
        let own = publisher * EACH..(publisher + 1) * EACH;
        let seen = taken.iter().copied().filter(|n| own.contains(n));
        assert!(
            seen.eq(own.clone()),
            "publisher {publisher}: lost, doubled or out of order"
        );
    }
}

async fn a_batch_is_what_waits_up_to_the_bound(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    bundle.publish_numbers(&queue, 0..1).await;
    let mut consumer = bundle.consume(&queue, PREFETCH).await;
    // One message is enough to return: no lingering for more.
    assert_eq!(take(&mut consumer, 1).await.len(), 1);
    bundle.publish_numbers(&queue, 1..100).await;
    let mut taken = Vec::new();
    while taken.len() < 99 {
        let batch = next_batch(&mut consumer, 10).await;
        assert!((1..=10).contains(&batch.len()), "{}", batch.len());
        taken.extend(batch);
    }
    assert_eq!(bodies(&taken), numbers(1..100));
    assert!(consumer.deliveries.next_batch(0).await.is_empty());
}

async fn next_batch_loses_nothing_when_it_is_dropped(bundle: Bundle) {
    const ALL: usize = 400;
    let queue = bundle.queue("q").await;
    let mut consumer = bundle.consume(&queue, 50).await;
    let mut taken = Vec::new();
    let impatient = async {
        while taken.len() < ALL {
            // Polled once or for a blink, then dropped, over and over.
            let once = consumer.deliveries.next_batch(7).now_or_never();
            let blink = Duration::from_micros(50);
            let batch = match once {
                Some(batch) => batch,
                None => timeout(blink, consumer.deliveries.next_batch(7))
                    .await
                    .unwrap_or_default(),
            };
            consumer.acks.ack(&tags(&batch));
            taken.extend(batch);
        }
    };
    let publish = async {
        for start in (0..ALL).step_by(20) {
            bundle.publish_numbers(&queue, start..start + 20).await;
        }
    };
    let both = timeout(WAIT_MAX, async { futures_util::join!(publish, impatient) });
    assert!(both.await.is_ok(), "messages are lost");
    assert_eq!(bodies(&taken), numbers(0..ALL));
}

async fn declaring_again_changes_nothing(bundle: Bundle) {
    let topology = Topology {
        queues: vec![
            plain(&bundle.name("dead")),
            Queue {
                name: bundle.name("q"),
                dead_letter_to: Some(bundle.name("dead")),
            },
        ],
        topic_exchanges: vec![bundle.name("events")],
        bindings: vec![Binding {
            exchange: bundle.name("events"),
            queue: bundle.name("q"),
            routing_key: "#".to_owned(),
        }],
    };
    bundle.declare(&topology).await;
    bundle.publish_numbers(&bundle.name("q"), 0..3).await;
    bundle.declare(&topology).await;
    let mut consumer = bundle.consume(&bundle.name("q"), PREFETCH).await;
    assert_eq!(bodies(&take(&mut consumer, 3).await), numbers(0..3));
}

async fn a_queue_declared_otherwise_is_a_clash(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    let otherwise = Topology {
        queues: vec![Queue {
            name: queue.clone(),
            dead_letter_to: Some(bundle.name("dead")),
        }],
        ..Topology::default()
    };
    match bundle.broker.declare(&otherwise).await {
        Err(BrokerError::Clash { what, difference }) => {
            assert!(what.contains(&queue), "{what}");
            assert!(!difference.is_empty());
        }
        other => panic!("{other:?}"),
    }
    // The clash breaks nothing else.
    bundle.publish_numbers(&queue, 0..1).await;
    let mut consumer = bundle.consume(&queue, PREFETCH).await;
    take(&mut consumer, 1).await;
}

async fn consuming_from_a_missing_queue_is_an_error(bundle: Bundle) {
    let missing = bundle.name("missing");
    match bundle.broker.consume(&missing, PREFETCH).await {
        Err(BrokerError::NoQueue(queue)) => assert_eq!(queue, missing),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("consuming from a queue that isn't there"),
    }
}

impl Bundle {
    /// A name under the prefix.
    pub fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Declares a queue under the prefix and returns its name.
    ///
    /// # Panics
    /// When the broker can't.
    pub async fn queue(&self, name: &str) -> String {
        let name = self.name(name);
        self.declare(&Topology {
            queues: vec![plain(&name)],
            ..Topology::default()
        })
        .await;
        name
    }

    async fn declare(&self, topology: &Topology) {
        if let Err(error) = self.broker.declare(topology).await {
            panic!("declare: {error}");
        }
    }

    /// Consumes from a queue.
    ///
    /// # Panics
    /// When the broker can't.
    pub async fn consume(&self, queue: &str, prefetch: u16) -> Consumer {
        match self.broker.consume(queue, prefetch).await {
            Ok(consumer) => consumer,
            Err(error) => panic!("consume: {error}"),
        }
    }

    /// Publishes messages that must all be confirmed.
    ///
    /// # Panics
    /// When one isn't.
    pub async fn publish_all(&self, messages: Vec<Outgoing>) {
        let count = messages.len();
        let published = self.broker.publish(messages).await;
        assert_eq!(published, vec![Published::Confirmed; count]);
    }

    async fn publish_numbers(&self, queue: &str, numbers: std::ops::Range<usize>) {
        self.publish_all(numbers.map(|n| to(queue, n)).collect())
            .await;
    }

    /// Nothing but what is published now comes out of the queue.
    async fn expect_empty(&self, mut consumer: Consumer, queue: &str) {
        let mut last = to(queue, 0);
        last.message = body("the last");
        self.publish_all(vec![last]).await;
        assert_eq!(bodies(&take_acked(&mut consumer, 1).await), ["the last"]);
    }
}

/// A mandatory message to a queue, with a number as its body.
pub fn to(queue: &str, number: usize) -> Outgoing {
    Outgoing {
        destination: Destination::queue(queue),
        message: body(&number.to_string()),
        mandatory: true,
    }
}

/// The tags of deliveries.
pub fn tags(deliveries: &[Delivery]) -> Vec<DeliveryTag> {
    deliveries.iter().map(|delivery| delivery.tag).collect()
}

/// Waits for the next batch, at most `most`.
///
/// # Panics
/// When none comes.
pub async fn next_batch(consumer: &mut Consumer, most: usize) -> Vec<Delivery> {
    match timeout(WAIT_MAX, consumer.deliveries.next_batch(most)).await {
        Ok(batch) if batch.is_empty() => panic!("the consumer has ended"),
        Ok(batch) => batch,
        Err(_) => panic!("no delivery came"),
    }
}

/// Takes exactly this many deliveries and leaves them unacked.
///
/// # Panics
/// When they don't come.
pub async fn take(consumer: &mut Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(next_batch(consumer, count - taken.len()).await);
    }
    taken
}

/// Takes exactly this many deliveries and acks them as they come.
///
/// # Panics
/// When they don't come.
pub async fn take_acked(consumer: &mut Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let batch = next_batch(consumer, count - taken.len()).await;
        consumer.acks.ack(&tags(&batch));
        taken.extend(batch);
    }
    taken
}

fn plain(name: &String) -> Queue {
    Queue {
        name: name.clone(),
        dead_letter_to: None,
    }
}

fn body(text: &str) -> Message {
    Message {
        body: text.to_owned().into(),
        ..Message::default()
    }
}

/// The bodies of deliveries, as text.
pub fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    let bodies = deliveries.iter().map(|delivery| &delivery.message.body);
    bodies
        .map(|body| String::from_utf8_lossy(body).into_owned())
        .collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}
