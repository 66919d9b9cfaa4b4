//! The envelope: what a message is, before and after it is bytes on a wire.
//!
//! Separate from `broker` because the store keeps messages too (outbox, dead letters), and from
//! `saga` because the core decides *what* to say, not how it is addressed and signed.
//! Deliberately absent: any AMQP library type.

pub mod address;
pub mod child;
pub mod correlation;
pub mod mask;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::Timestamp;
use crate::limits::Extent;

/// The queue on which sagas are started.
pub const START_QUEUE: &str = "backstitch.start";
/// The queue on which participants answer.
pub const REPLY_QUEUE: &str = "backstitch.replies";
/// The queue on which sagas are sent signals.
pub const SIGNAL_QUEUE: &str = "backstitch.signals";
/// The queue that is bound to the exchanges whose domain events definitions name.
pub const DOMAIN_EVENT_QUEUE: &str = "backstitch.domain-events";
/// Where the broker puts what could not be handled.
pub const DEAD_LETTER_QUEUE: &str = "backstitch.dead-letters";
/// Exchanges that lead to the queues of the same names and to nothing else. Who publishes by one needs
/// the right to write to it alone; by the default exchange, the right to write to every queue.
pub const DOORS: [&str; 3] = [START_QUEUE, REPLY_QUEUE, SIGNAL_QUEUE];
/// The topic exchange on which life-cycle events are published.
pub const EVENT_EXCHANGE: &str = "backstitch.events";

/// The topic exchange on which events of aggregates are published, where that is asked for.
pub const AGGREGATE_EVENT_EXCHANGE: &str = "backstitch.aggregate-events";

/// Header that carries a reply's outcome; absent means `succeeded`.
pub const HEADER_OUTCOME: &str = "outcome";
/// Header with the reason of a `rejected` or `failed` outcome, or of a refused start.
pub const HEADER_REASON: &str = "reason";
/// Header with the saga's name on commands; on signals too, beside the key, or else its id.
pub const HEADER_SAGA: &str = "saga";
/// Header with the saga's key on commands, and on signals that name their saga by its key.
pub const HEADER_SAGA_KEY: &str = "saga-key";
/// Header with what belongs together, on commands of sagas whose definition has `correlate`.
pub const HEADER_CORRELATION: &str = "correlation";
/// Header with the time (RFC 3339) before which such a command is not handled.
pub const HEADER_NOT_BEFORE: &str = "not-before";
/// Header with an aggregate event's position among all.
pub const HEADER_POSITION: &str = "position";
/// Header that is true on a command that an aggregate has asked for itself.
pub const HEADER_FOLLOW_UP: &str = "follow-up";
/// Header with the attempt's number on commands, from 1.
pub const HEADER_ATTEMPT: &str = "attempt";
/// Header with the time (RFC 3339) after which the orchestrator no longer waits.
pub const HEADER_DEADLINE: &str = "deadline";
/// Header on a start with the saga that it replaces; only ever set by Backstitch itself.
pub const HEADER_REPLACES: &str = "replaces";
/// Header with the phase on commands to a sub-saga, for people; the correlation id has it too.
pub const HEADER_PHASE: &str = "phase";
/// Header with the number of sagas above the one that a command to a sub-saga is for.
pub const HEADER_CHILD_DEPTH: &str = "child-depth";
/// Header with the seal that only the orchestrator can put on a command to a sub-saga.
pub const HEADER_CHILD_SEAL: &str = "child-seal";
/// Header with the W3C trace context.
pub const HEADER_TRACEPARENT: &str = "traceparent";

/// Headers with the exchange and routing key that a domain event was published to, on one that became
/// a dead letter: so it can be replayed to the queue alone.
pub const HEADER_EVENT_EXCHANGE: &str = "event-exchange";
/// See [`HEADER_EVENT_EXCHANGE`].
pub const HEADER_EVENT_ROUTING_KEY: &str = "event-routing-key";
/// Header with the only definition that a domain event is for, on one that means something to several
/// and that one of them could not use: a replay is for that one alone.
pub const HEADER_EVENT_FOR: &str = "event-for";

/// Header that is never sent as it is: the routing keys, beside its destination's, that a message is
/// published with (AMQP's `CC`). A broker that dead-letters by routing key takes these too.
pub const HEADER_COPIES: &str = "backstitch-cc";

/// The content type of every body we write.
pub const CONTENT_TYPE_JSON: &str = "application/json";

/// Header values by name, in name order so that equal messages have equal bytes.
pub type Headers = BTreeMap<String, Value>;

/// A message without its destination: AMQP 0-9-1 basic properties and a body.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// Properties, as received or to be sent.
    pub properties: Properties,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// The AMQP properties, all of them, so that a message that was kept can be sent unchanged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Properties {
    /// AMQP `message_id`: what receivers dedupe by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// AMQP `type`: the command's, event's or saga's name.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub kind: Option<String>,
    /// AMQP `correlation_id`: copied by whoever replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// AMQP `reply_to`: the queue that replies go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// AMQP `content_type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// AMQP `timestamp` (whole seconds on the wire).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// AMQP `content_encoding`, such as `gzip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// AMQP `priority`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// AMQP `expiration`: milliseconds, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// AMQP `user_id`; kept, but never sent: RabbitMQ refuses any but the sender's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// AMQP `app_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// AMQP `cluster_id`, long deprecated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// AMQP `delivery_mode` when it is not 2 (persistent), which is what we send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_mode: Option<u8>,
    /// AMQP headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Headers,
    /// The headers that JSON can't hold exactly, as the broker's client wrote them down; used for
    /// sending as long as `headers` still says the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exact: Headers,
    /// Set if the message came with properties that can't be read, or not wholly: what stands above is
    /// then the best that could be made of them. Such a message is not handled, and not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Box<Unreadable>>,
}

/// Properties that can't be read, kept as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// What is wrong with them.
    pub why: String,
    /// AMQP's list of properties, byte for byte, in hexadecimal digits.
    pub bytes: String,
}

impl Message {
    /// The text of a header, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.properties.headers.get(name).and_then(Value::as_str)
    }

    /// Properties and body together, in bytes: what batches count.
    pub fn size(&self) -> usize {
        self.properties.size() + self.body.len()
    }
}

impl Properties {
    /// Bytes of all that has no fixed length; headers as JSON.
    fn size(&self) -> usize {
        let texts = [
            &self.message_id,
            &self.kind,
            &self.correlation_id,
            &self.reply_to,
            &self.content_type,
            &self.content_encoding,
            &self.expiration,
            &self.user_id,
            &self.app_id,
            &self.cluster_id,
        ];
        let texts = texts.into_iter().flatten().map(String::len);
        let headers = self.headers.iter().chain(&self.exact);
        let headers =
            headers.map(|(name, value)| Extent::bytes_of_name(name) + Extent::of(value).bytes);
        let unreadable = self.unreadable.iter();
        let unreadable = unreadable.map(|it| it.why.len() + it.bytes.len());
        texts.chain(headers).chain(unreadable).sum()
    }
}

/// Where a message is published to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Destination {
    /// The exchange; empty for the default exchange, which routes to the queue named by the key.
    #[serde(default)]
    pub exchange: String,
    /// The routing key; on the default exchange, the queue's name.
    pub routing_key: String,
}

impl Destination {
    /// A queue, by way of the default exchange.
    pub fn queue(name: impl Into<String>) -> Self {
        Self {
            exchange: String::new(),
            routing_key: name.into(),
        }
    }

    /// An event on the life-cycle exchange.
    pub fn event(routing_key: impl Into<String>) -> Self {
        Self {
            exchange: EVENT_EXCHANGE.to_owned(),
            routing_key: routing_key.into(),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exchange.is_empty() {
            write!(f, "queue `{}`", self.routing_key)
        } else {
            write!(
                f,
                "exchange `{}` with routing key `{}`",
                self.exchange, self.routing_key
            )
        }
    }
}

/// What a participant answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is done.
    Succeeded,
    /// A business no: never retried.
    Rejected,
    /// Something went wrong: try again.
    Failed,
}

impl Outcome {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }

    /// From the wire; `None` (no header) means `succeeded`, so a plain RPC server is a participant.
    pub fn from_header(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("succeeded") => Some(Self::Succeeded),
            Some("rejected") => Some(Self::Rejected),
            Some("failed") => Some(Self::Failed),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_size_of_a_message_is_that_of_its_properties_and_its_body() {
        let mut message = Message {
            body: Bytes::from_static(b"1234"),
            ..Message::default()
        };
        assert_eq!(message.size(), 4);
        message.properties.message_id = Some("m-1".to_owned());
        message.properties.cluster_id = Some("c".to_owned());
        assert_eq!(message.size(), 8);
        let headers = &mut message.properties.headers;
        headers.insert("tags".to_owned(), json!(["a", true]));
        let as_json = r#""tags":["a",true]"#.len();
        assert_eq!(message.size(), 8 + as_json);
        message.properties.unreadable = Some(Box::new(Unreadable {
            why: "cut".to_owned(),
            bytes: "ff00".to_owned(),
        }));
        assert_eq!(message.size(), 8 + as_json + 7);
    }
}
