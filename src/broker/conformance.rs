//! What every broker must do, as one suite that runs against each implementation.
//!
//! Callers give a connected broker and a prefix for names that nobody else uses; each case
//! declares queues of its own under it, so the server may hold other things.
//! A case panics at the first broken promise. Nothing sleeps: cases wait for what must come, and
//! show that something did *not* happen by what comes instead.

mod consuming;
mod routing;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::{Broker, Consumer, Delivery, DeliveryTag, Outgoing, Published, Queue, Topology};
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
    ($($group:ident :: $name:ident),* $(,)?) => {
        /// Every promise.
        pub const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            check: |bundle| $group::$name(bundle).boxed(),
        }),*];
    };
}

cases![
    consuming::messages_come_in_the_order_they_were_published,
    consuming::prefetch_bounds_what_a_consumer_holds,
    consuming::acked_messages_are_gone_and_make_room,
    consuming::acks_out_of_order_settle_just_what_they_name,
    consuming::requeued_messages_come_again_marked_redelivered,
    consuming::dropping_a_consumer_gives_back_what_is_unacked,
    consuming::acks_of_a_dropped_consumer_change_nothing,
    consuming::a_batch_is_what_waits_up_to_the_bound,
    consuming::next_batch_loses_nothing_when_it_is_dropped,
    consuming::messages_delivered_too_often_become_dead_letters,
    consuming::consuming_from_a_missing_queue_is_an_error,
    consuming::a_queue_in_order_has_one_consumer_at_a_time,
    routing::mandatory_messages_nobody_takes_are_unroutable,
    routing::unroutable_messages_are_told_from_the_others_of_a_batch,
    routing::events_wait_for_a_missing_exchange_and_nothing_else_does,
    routing::what_a_broker_cannot_carry_spares_the_others,
    routing::messages_arrive_unchanged,
    routing::messages_from_many_publishers_all_arrive,
    routing::topic_bindings_route_by_pattern_and_once_to_each_queue,
    routing::declaring_again_changes_nothing,
    routing::a_queue_declared_otherwise_is_a_clash,
];

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
        Err(late) => panic!("no delivery came: {late}"),
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

fn plain(name: &str) -> Queue {
    Queue {
        name: name.to_owned(),
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
