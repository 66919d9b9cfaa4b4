//! Commands that an aggregate asks for itself, at a time: so it can expire without anybody's help.
//!
//! A follow-up is asked for by an event and leaves through the outbox, in the transaction that
//! records the event, with the time as the row's `due_at`: no instance publishes it before. It comes
//! back through the participant's queue like any command, has a row of its own at the barrier (so it
//! takes effect once, however often it is delivered), and answers nobody. One that `failed` is tried
//! again later; there is no saga that would.
//!
//! It is a reminder, not a fact: it may come late, and what it is about may be over. Whoever handles
//! it decides by the state and the time, as for any command.
//!
//! Deliberately absent: taking one back. And replay: an event that is read back asks for nothing.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use crate::id::{MessageId, Phase, SagaId, StepPath, Timestamp};
use crate::message::correlation::Correlation;
use crate::message::{
    CONTENT_TYPE_JSON, Destination, HEADER_CORRELATION, HEADER_FOLLOW_UP, HEADER_NOT_BEFORE,
    Headers, Message, Properties,
};
use crate::store::OutboxMessage;
use crate::store::participant::AggregateKey;

/// Wait before a follow-up that failed is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The step that a follow-up stands for at the barrier, with the number of its event.
const STEP: &str = "follow-up";
/// Where a correlation id has its mac; nobody checks this one.
const UNSIGNED: &str = "unsigned";

/// A command to the aggregate itself.
#[derive(Debug, Clone, PartialEq)]
pub struct FollowUp {
    /// One of the aggregate's commands.
    pub command: &'static str,
    /// Its payload, by which the aggregate is found.
    pub payload: Value,
    /// Not before this time.
    pub at: Timestamp,
}

/// A follow-up and the event that asks for it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) key: AggregateKey,
    pub(crate) seq: u64,
    pub(crate) correlation: Option<String>,
    pub(crate) follow_up: FollowUp,
}

/// The outbox row of a follow-up.
pub(super) fn row(id: Uuid, participant: &str, asked: Asked) -> OutboxMessage {
    let Asked {
        key,
        seq,
        correlation,
        follow_up,
    } = asked;
    let itself = SagaId(Uuid::new_v5(
        &Uuid::NAMESPACE_OID,
        format!("{}/{}", key.kind, key.id).as_bytes(),
    ));
    // An index has 32 bits; an aggregate that has had more events than that begins anew with a
    // step's name of its own.
    let (round, index) = (
        seq >> 32,
        u32::try_from(seq & u64::from(u32::MAX)).unwrap_or(0),
    );
    let step = match round {
        0 => StepPath::at(STEP, &[index]),
        _ => StepPath::at(format!("{STEP}-{round}"), &[index]),
    };
    let message_id = MessageId::of_command(itself, &step, Phase::Action);
    let of = Correlation {
        saga: itself,
        step,
        phase: Phase::Action,
    };
    let mut headers = Headers::from([
        (HEADER_FOLLOW_UP.to_owned(), Value::Bool(true)),
        (
            HEADER_NOT_BEFORE.to_owned(),
            follow_up.at.to_string().into(),
        ),
    ]);
    if let Some(correlation) = correlation {
        headers.insert(HEADER_CORRELATION.to_owned(), correlation.into());
    }
    OutboxMessage {
        id,
        destination: Destination::queue(participant),
        message: Message {
            properties: Properties {
                message_id: Some(message_id.to_string()),
                kind: Some(follow_up.command.to_owned()),
                correlation_id: Some(format!("{}/{}/{}/{UNSIGNED}", of.saga, of.step, of.phase)),
                content_type: Some(CONTENT_TYPE_JSON.to_owned()),
                timestamp: Some(follow_up.at),
                headers,
                ..Properties::default()
            },
            body: Bytes::from(follow_up.payload.to_string()),
        },
        due_at: follow_up.at,
    }
}

/// When a follow-up is not to be handled before.
pub(super) fn not_before(message: &Message) -> Option<Timestamp> {
    message.header(HEADER_NOT_BEFORE)?.parse().ok()
}

/// Whether a message says that it is a follow-up.
pub(super) fn is_one(message: &Message) -> bool {
    message.properties.headers.get(HEADER_FOLLOW_UP) == Some(&Value::Bool(true))
        && message.properties.reply_to.is_none()
}
