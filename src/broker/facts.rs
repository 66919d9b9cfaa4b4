//! What can be seen of a queue without taking a message from it.
//!
//! Over AMQP that is little: how many messages and consumers it has, and the arguments it was declared
//! with. What a policy adds (a dead-letter exchange, a delivery limit) is seen by nobody but the
//! management API, which is deliberately not used; nor is which queues are bound to an exchange.

/// Deliveries after which RabbitMQ 4 gives a message of a quorum queue up when nothing else is said.
const DELIVERY_LIMIT_DEFAULT: u64 = 20;

/// What can be seen of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// Messages that wait and were given to no one.
    pub waiting: u64,
    /// Consumers, ours among them, if known.
    pub consumers: Option<u64>,
    /// What it was declared with; `None` if the broker does not let us see that.
    pub arguments: Option<QueueArguments>,
}

/// What a queue was declared with, as far as it matters to messages that nobody can handle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueArguments {
    /// Where what is refused goes; empty is the default exchange.
    pub dead_letter_exchange: Option<String>,
    /// With which key; with its own if nothing is said.
    pub dead_letter_routing_key: Option<String>,
    /// How often a message may be given back.
    pub delivery_limit: Option<u64>,
    /// Whether it counts how often a message was given back, as quorum queues do.
    pub counts_deliveries: bool,
}

impl QueueFacts {
    /// How often a message may be given back before the broker gives it up; `None` if as often as one
    /// likes. If nothing is said it may be that often or oftener.
    pub fn delivery_limit(&self) -> Option<u64> {
        let arguments = self.arguments.as_ref()?;
        let limit = arguments.delivery_limit;
        arguments
            .counts_deliveries
            .then(|| limit.unwrap_or(DELIVERY_LIMIT_DEFAULT))
    }
}
