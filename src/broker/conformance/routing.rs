//! Promises about publishing: who gets what, unchanged, and what is said when nobody does; and
//! about the queues, exchanges and bindings that decide it.

use futures_util::future::join_all;
use serde_json::json;

use super::{Bundle, PREFETCH, bodies, body, numbers, plain, take, take_acked, to};
use crate::broker::{Binding, BrokerError, Outgoing, Published, Queue, Topology};
use crate::id::Timestamp;
use crate::message::{Destination, Message};

pub(super) async fn mandatory_messages_nobody_takes_are_unroutable(bundle: Bundle) {
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

pub(super) async fn unroutable_messages_are_told_from_the_others_of_a_batch(bundle: Bundle) {
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

pub(super) async fn events_wait_for_a_missing_exchange_and_nothing_else_does(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    let mut lost = to("key", 0);
    lost.destination.exchange = format!("{}.no-such-exchange", bundle.prefix);
    let mut event = lost.clone();
    event.mandatory = false;
    let batch = vec![to(&queue, 1), lost, event, to(&queue, 2)];
    let published = bundle.broker.publish(batch).await;
    assert_eq!(published[0], Published::Confirmed);
    assert_eq!(published[1], Published::Unroutable);
    assert!(
        matches!(published[2], Published::NotYet(_)),
        "{published:?}"
    );
    assert_eq!(published[3], Published::Confirmed);
}

pub(super) async fn what_a_broker_cannot_carry_spares_the_others(bundle: Bundle) {
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

pub(super) async fn messages_arrive_unchanged(bundle: Bundle) {
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

pub(super) async fn messages_from_many_publishers_all_arrive(bundle: Bundle) {
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

pub(super) async fn topic_bindings_route_by_pattern_and_once_to_each_queue(bundle: Bundle) {
    let exchange = format!("{}.events", bundle.prefix);
    let [all, completed, both] = ["all", "completed", "both"].map(|name| bundle.name(name));
    let bind = |queue: &String, routing_key: &str| Binding {
        exchange: exchange.clone(),
        queue: queue.clone(),
        routing_key: routing_key.to_owned(),
    };
    bundle
        .declare(&Topology {
            queues: [&all, &completed, &both].map(|name| plain(name)).to_vec(),
            queues_in_order: Vec::new(),
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
        for (delivery, key) in taken.iter().zip(&expected) {
            assert_eq!(delivery.published_to.exchange, exchange);
            assert_eq!(delivery.published_to.routing_key, *key);
        }
        bundle.expect_empty(consumer, &queue).await;
    }
}

pub(super) async fn declaring_again_changes_nothing(bundle: Bundle) {
    let topology = Topology {
        queues: vec![
            plain(&bundle.name("dead")),
            Queue {
                name: bundle.name("q"),
                dead_letter_to: Some(bundle.name("dead")),
            },
        ],
        queues_in_order: Vec::new(),
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

pub(super) async fn a_queue_declared_otherwise_is_a_clash(bundle: Bundle) {
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
