//! The message broker: declare, consume, publish.
//!
//! One trait, two implementations under one suite (`conformance`): RabbitMQ and in-process.
//! Everything is batch-shaped. An implementation reconnects by itself, for ever: consumers and
//! publishers live through outages, and what was in flight is delivered or reported again.
//!
//! Deliberately absent: retries of publishes (the outbox's job) and any delay (the database's).

pub mod conformance;
mod facts;
pub mod memory;
pub mod pace;
pub mod rabbitmq;
pub(crate) mod topic;

use async_trait::async_trait;
use uuid::Uuid;

use crate::error::Class;
use crate::message::{Destination, Message};
use crate::store::BoxedError;
use crate::store::dead_letters::{Earlier, Sighting};

pub use facts::{QueueArguments, QueueFacts};

/// Deliveries of one message after which the broker gives up and dead-letters it.
pub const DELIVERY_LIMIT: u32 = 50;

/// A message broker.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Creates what is missing, idempotently; an existing queue that differs is an error that
    /// says what differs. An existing exchange is used as it is: it may be somebody else's. One
    /// that can't be had, or not be bound to, is no error but one of the [`Broker::troubles`].
    ///
    /// What was declared is kept so: looked at again now and then, and mended.
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError>;

    /// Starts to take messages from a queue, at most `prefetch` unacknowledged ones at a time
    /// (0 counts as 1: there is no unlimited).
    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError>;

    /// The same for somebody who only looks at messages and holds them: that some came back often is
    /// no reason to take them one by one.
    async fn look(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        self.consume(queue, prefetch).await
    }

    /// Publishes and waits for the broker's word on each message, in the order given. While the
    /// connection is down it waits for it, within a bound.
    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Published>;

    /// Messages that wait in a queue and were given to no one yet; `None` if there is no such
    /// queue.
    async fn queue_len(&self, queue: &str) -> Result<Option<u64>, BrokerError>;

    /// What can be seen of a queue without taking anything from it; `None` if there is no such
    /// queue.
    async fn queue_facts(&self, queue: &str) -> Result<Option<QueueFacts>, BrokerError> {
        self.queue_counts(queue).await
    }

    /// The same at once, without what it was declared with.
    async fn queue_counts(&self, queue: &str) -> Result<Option<QueueFacts>, BrokerError> {
        let waiting = self.queue_len(queue).await?;
        Ok(waiting.map(|waiting| QueueFacts {
            waiting,
            ..QueueFacts::default()
        }))
    }

    /// Whether there is such an exchange; when in doubt, there is.
    async fn exchange_exists(&self, _exchange: &str) -> bool {
        true
    }

    /// Whether messages can flow right now.
    fn health(&self) -> Health;

    /// What was declared and can't be had at the moment. It is tried again and again.
    fn troubles(&self) -> Vec<Trouble> {
        Vec::new()
    }
}

/// The receiving end of a queue: deliveries in, acknowledgements out. Dropping it gives unacked
/// messages back to the queue.
pub struct Consumer {
    /// What was delivered.
    pub deliveries: Box<dyn Deliveries>,
    /// How to acknowledge; clones may go to other tasks.
    pub acks: std::sync::Arc<dyn Acks>,
}

/// A stream of batches.
#[async_trait]
pub trait Deliveries: Send {
    /// Waits for at least one delivery and takes what is waiting, at most `most`. Cancel-safe:
    /// dropping the future loses no delivery. Empty when the consumer has ended for good.
    async fn next_batch(&mut self, most: usize) -> Vec<Delivery>;

    /// Asks the broker to deliver no more. What it has delivered already, and what is on its way at
    /// this moment, can still be taken and acknowledged; then `next_batch` is empty.
    fn stop(&mut self);

    /// Ends the consumer: takes nothing any more, tells the broker what was acknowledged, gives
    /// the rest back, each message once, and returns when that is done.
    async fn close(self: Box<Self>) {}
}

/// Acknowledges deliveries. Never blocks; tags of a lost connection are ignored (the broker has
/// given those messages back already).
pub trait Acks: Send + Sync {
    /// The messages are handled.
    fn ack(&self, tags: &[DeliveryTag]);

    /// The messages are not handled: deliver them again, to anyone.
    fn requeue(&self, tags: &[DeliveryTag]);
}

/// Names a delivery to the consumer it came from. Tags of one consumer ascend in delivery order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryTag {
    /// Counts the consumer's connections.
    pub epoch: u64,
    /// The broker's tag on that connection.
    pub tag: u64,
}

/// A message that was delivered and waits for its acknowledgement.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What to acknowledge.
    pub tag: DeliveryTag,
    /// The message.
    pub message: Message,
    /// Where it was published to: its exchange and routing key, by which it came to this queue.
    pub published_to: Destination,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// How often it was delivered before, as far as the broker counts.
    pub returns: u32,
}

impl Delivery {
    /// What tells it from others that carry the same, should it become a dead letter.
    pub fn sighting(&self, session: Uuid) -> Sighting {
        let earlier = match self.returns {
            _ if !self.redelivered => Earlier::Never,
            0 => Earlier::Perhaps,
            returns => Earlier::Times(returns),
        };
        Sighting { session, earlier }
    }
}

/// Names the connections of one consumer, on each of which no delivery comes twice.
#[derive(Debug, Default)]
pub struct Session {
    epoch: u64,
    id: Uuid,
}

impl Session {
    /// The id of the connection that a delivery came by; `new_id` makes one if it is a new one.
    pub fn of(&mut self, delivery: &Delivery, new_id: impl FnOnce() -> Uuid) -> Uuid {
        if self.id.is_nil() || self.epoch != delivery.tag.epoch {
            self.epoch = delivery.tag.epoch;
            self.id = new_id();
        }
        self.id
    }
}

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where to.
    pub destination: Destination,
    /// What.
    pub message: Message,
    /// Whether it matters that a queue takes it: if none does, it is [`Published::Unroutable`].
    /// Commands and replies are; events are not (nobody may be listening).
    pub mandatory: bool,
}

/// The broker's word on a published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The broker has it, safely.
    Confirmed,
    /// It must arrive, and no queue takes it, or its exchange is missing; the broker has dropped it.
    Unroutable,
    /// The broker will never take this message, and says why: nothing is gained by sending it
    /// again.
    Refused(String),
    /// It need not arrive, but nobody can be given it yet: its exchange is missing, or was made anew a moment ago, so that
    /// whoever listened has not bound to it again. That is not the same as that nobody listens:
    /// publish it again later, and let nothing else wait for it.
    NotYet(String),
    /// Unknown or refused: it may or may not have arrived. Publish again later.
    Failed(String),
}

/// Something that was declared and can't be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What it is about.
    pub about: TroubleAbout,
    /// What the broker said.
    pub why: String,
}

/// What a [`Trouble`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TroubleAbout {
    /// A queue of this name.
    Queue(String),
    /// An exchange of this name: it is not there and can't be made.
    Exchange(String),
    /// A queue can't be bound to an exchange.
    Binding(Binding),
}

impl TroubleAbout {
    /// The exchange, if it is about one.
    pub fn exchange(&self) -> Option<&str> {
        match self {
            Self::Queue(_) => None,
            Self::Exchange(name) => Some(name),
            Self::Binding(binding) => Some(&binding.exchange),
        }
    }
}

impl std::fmt::Display for TroubleAbout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue `{name}`"),
            Self::Exchange(name) => write!(f, "exchange `{name}`"),
            Self::Binding(binding) => write!(
                f,
                "binding of `{}` to exchange `{}` by `{}`",
                binding.queue, binding.exchange, binding.routing_key
            ),
        }
    }
}

/// Queues, exchanges and bindings that must exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// Durable quorum queues.
    pub queues: Vec<Queue>,
    /// Durable quorum queues that one consumer at a time is given messages of, however many there
    /// are; the next one takes over when it goes. So their messages are handled in order.
    pub queues_in_order: Vec<Queue>,
    /// Exchanges; those that are not there are made, durable topic ones.
    pub topic_exchanges: Vec<String>,
    /// Bindings of queues to exchanges.
    pub bindings: Vec<Binding>,
}

/// A queue to declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Where messages go that were delivered too often; such queues have a delivery limit.
    pub dead_letter_to: Option<String>,
}

/// A binding to declare.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Binding {
    /// The exchange.
    pub exchange: String,
    /// The queue.
    pub queue: String,
    /// The pattern, with `*` and `#`.
    pub routing_key: String,
}

/// Whether messages can flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Yes.
    Up,
    /// The broker has blocked publishers (memory or disk alarm); the reason it gave.
    Blocked(String),
    /// Not connected; the last error.
    Down(String),
}

/// Why the broker could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No connection, or it broke.
    #[error("the message broker can't be used right now: {0}")]
    Unavailable(#[source] BoxedError),
    /// A queue exists with other properties.
    #[error(
        "{what} exists with other properties: {difference}. Delete it, or point Backstitch at another virtual host"
    )]
    Clash {
        /// Which one.
        what: String,
        /// What the broker said.
        difference: String,
    },
    /// The queue to consume from is not there.
    #[error("queue `{0}` does not exist")]
    NoQueue(String),
    /// Bad URL, refused login, unknown virtual host.
    #[error("can't connect to the message broker: {0}")]
    Connect(String),
    /// The broker said no: missing rights, or something named in the request is not there.
    #[error("the message broker refused: {0}")]
    Refused(String),
}

impl BrokerError {
    /// How to react.
    pub fn class(&self) -> Class {
        match self {
            Self::Unavailable(_) => Class::Retry,
            Self::Clash { .. } | Self::NoQueue(_) | Self::Connect(_) | Self::Refused(_) => {
                Class::Permanent
            }
        }
    }
}
