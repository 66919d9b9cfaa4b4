//! Promises about deliveries: order, prefetch, acknowledgement, redelivery, batches.

use futures_util::FutureExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

use super::{
    Bundle, PREFETCH, WAIT_MAX, bodies, next_batch, numbers, plain, sorted, tags, take, take_acked,
    to,
};
use crate::broker::{BrokerError, Consumer, DELIVERY_LIMIT, DeliveryTag, Queue, Topology};

pub(super) async fn messages_come_in_the_order_they_were_published(bundle: Bundle) {
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

pub(super) async fn prefetch_bounds_what_a_consumer_holds(bundle: Bundle) {
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

pub(super) async fn acked_messages_are_gone_and_make_room(bundle: Bundle) {
    let queue = bundle.queue("q").await;
    bundle.publish_numbers(&queue, 0..10).await;
    let mut consumer = bundle.consume(&queue, 2).await;
    let acked = take_acked(&mut consumer, 8).await;
    assert_eq!(bodies(&acked), numbers(0..8));
    let Consumer { deliveries, acks } = consumer;
    deliveries.close().await;
    drop(acks);
    // What was given to somebody before comes back in no order that a broker promises.
    let mut next = bundle.consume(&queue, PREFETCH).await;
    let left = sorted(bodies(&take(&mut next, 2).await));
    assert_eq!(left, numbers(8..10));
}

pub(super) async fn acks_out_of_order_settle_just_what_they_name(bundle: Bundle) {
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

pub(super) async fn requeued_messages_come_again_marked_redelivered(bundle: Bundle) {
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

pub(super) async fn dropping_a_consumer_gives_back_what_is_unacked(bundle: Bundle) {
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

pub(super) async fn acks_of_a_dropped_consumer_change_nothing(bundle: Bundle) {
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

pub(super) async fn a_batch_is_what_waits_up_to_the_bound(bundle: Bundle) {
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

pub(super) async fn next_batch_loses_nothing_when_it_is_dropped(bundle: Bundle) {
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

pub(super) async fn messages_delivered_too_often_become_dead_letters(bundle: Bundle) {
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

pub(super) async fn consuming_from_a_missing_queue_is_an_error(bundle: Bundle) {
    let missing = bundle.name("missing");
    match bundle.broker.consume(&missing, PREFETCH).await {
        Err(BrokerError::NoQueue(queue)) => assert_eq!(queue, missing),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("consuming from a queue that isn't there"),
    }
}

pub(super) async fn a_queue_in_order_has_one_consumer_at_a_time(bundle: Bundle) {
    const ALL: usize = 60;
    let queue = bundle.name("q");
    let topology = Topology {
        queues_in_order: vec![plain(&queue)],
        ..Topology::default()
    };
    bundle.declare(&topology).await;
    bundle.declare(&topology).await;
    let mut first = bundle.consume(&queue, PREFETCH).await;
    let mut second = bundle.consume(&queue, PREFETCH).await;
    bundle.publish_numbers(&queue, 0..ALL).await;
    assert_eq!(bodies(&take(&mut first, ALL).await), numbers(0..ALL));
    drop(first);
    assert_eq!(bodies(&take_acked(&mut second, ALL).await), numbers(0..ALL));
    bundle.expect_empty(second, &queue).await;
}
