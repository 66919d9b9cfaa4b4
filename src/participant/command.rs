//! Commands as a participant meets them: from a delivered message to something typed, or a reason
//! why not.
//!
//! Separate from the barrier and the handlers so that both may rely on what is checked here: the
//! correlation id parses, the body is JSON of bounded size, the command is one we handle, and no
//! text that becomes a database key holds control characters.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::follow_up;
use crate::definition::check_key;
use crate::error::{Code, code};
use crate::id::{Phase, SagaId, StepPath};
use crate::limits::{self, COMMAND};
use crate::message::address::check_reply_to;
use crate::message::correlation::Correlation;
use crate::message::{HEADER_CORRELATION, HEADER_SAGA_KEY, HEADER_TRACEPARENT, Message};
use crate::store::Hash;
use crate::store::participant::{BarrierKey, Origin};

/// Field of a `confirm` or `compensate` payload that repeats the reserve's reply.
pub const RESERVATION_FIELD: &str = "reservation";

/// Longest reason that is sent or stored, in characters.
const REASON_CHARS_MAX: usize = 500;

/// A command that a handler knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandSpec {
    /// Its name, such as `inventory.reserve`.
    pub name: &'static str,
    /// Whether it may come as a `confirm` without a reserve before it (a confirm-only step).
    pub standalone: bool,
}

impl CommandSpec {
    /// A command that belongs to a reservation.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            standalone: false,
        }
    }

    /// A command that stands for itself.
    pub const fn standalone(name: &'static str) -> Self {
        Self {
            name,
            standalone: true,
        }
    }
}

/// What a participant is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The command's name, such as `inventory.reserve`.
    pub name: String,
    /// The saga that asks.
    pub saga: SagaId,
    /// The step it asks for.
    pub step: StepPath,
    /// Which of the step's commands it is.
    pub phase: Phase,
    /// The body.
    pub payload: Value,
    /// SHA-256 of the payload, without what the orchestrator adds; see [`fingerprint`].
    pub fingerprint: Hash,
    /// The message's id, for handlers whose effects are outside the database.
    pub message_id: Option<String>,
    /// The saga's key, if the message says it.
    pub saga_key: Option<String>,
    /// What the saga's definition says that belongs together.
    pub correlation: Option<String>,
    /// Where the answer goes; nowhere, if the aggregate has asked itself.
    pub reply_address: Option<ReplyAddress>,
}

impl Command {
    /// The barrier row that this command belongs to.
    pub fn barrier_key(&self, participant: &str) -> BarrierKey {
        BarrierKey {
            participant: participant.to_owned(),
            saga: self.saga,
            step: self.step.clone(),
        }
    }

    /// As a saga's action would send it, for tests of aggregates.
    pub fn example(name: &str, payload: Value) -> Self {
        Self {
            name: name.to_owned(),
            saga: SagaId(uuid::Uuid::nil()),
            step: StepPath::plain("example"),
            phase: Phase::Action,
            fingerprint: fingerprint(Phase::Action, &payload),
            payload,
            message_id: None,
            saga_key: None,
            correlation: None,
            reply_address: None,
        }
    }

    /// Where events that it leads to come from.
    pub fn origin(&self) -> Origin {
        Origin {
            // A command to itself has no saga, only a row of its own at the barrier.
            saga: self.reply_address.as_ref().map(|_| self.saga),
            saga_key: self.saga_key.clone(),
            message_id: self.message_id.clone(),
            correlation: self.correlation.clone(),
        }
    }
}

/// What a reply must carry to find its saga.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyAddress {
    /// The queue.
    pub reply_to: String,
    /// The command's correlation id, unchanged.
    pub correlation_id: String,
    /// The trace that the command belongs to.
    pub traceparent: Option<Value>,
}

/// A message that is not a command for us.
#[derive(Debug, Clone, PartialEq)]
pub struct UnusableCommand {
    /// Which error.
    pub code: Code,
    /// What is wrong and what to do.
    pub reason: String,
    /// Where to say so, if the message told.
    pub reply_address: Option<ReplyAddress>,
}

/// Reads a command; `is_handled` says which names the participant knows.
pub fn decode(
    message: &Message,
    is_handled: impl FnOnce(&str) -> bool,
) -> Result<Command, UnusableCommand> {
    let properties = &message.properties;
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (name, correlation_id, reply_to) = (
        filled(&properties.kind),
        filled(&properties.correlation_id),
        filled(&properties.reply_to),
    );
    let unanswerable = reply_to.as_deref().map(check_reply_to);
    if let Some(Err(reason)) = unanswerable {
        return Err(UnusableCommand {
            code: code::ADDRESS_REFUSED,
            reason,
            reply_address: None,
        });
    }
    let reply_address = match (&reply_to, &correlation_id) {
        (Some(reply_to), Some(correlation_id)) => Some(ReplyAddress {
            reply_to: reply_to.clone(),
            correlation_id: correlation_id.clone(),
            traceparent: properties.headers.get(HEADER_TRACEPARENT).cloned(),
        }),
        _ => None,
    };
    let unusable = |code: Code, reason: String| UnusableCommand {
        code,
        reason: printable(&reason),
        reply_address: reply_address.clone(),
    };
    let lacks = |what: &str| {
        unusable(
            code::COMMAND_MALFORMED,
            format!("the command has no {what}; send it as the wire protocol says"),
        )
    };

    if let Some(unreadable) = &properties.unreadable {
        let why = format!("{}; send it as the wire protocol says", unreadable.why);
        return Err(unusable(code::PROPERTIES_UNREADABLE, why));
    }
    let name = name.ok_or_else(|| lacks("`type`"))?;
    let Some(correlation_id) = correlation_id else {
        return Err(lacks("`correlation_id`"));
    };
    if reply_address.is_none() && !follow_up::is_one(message) {
        return Err(lacks("`reply_to`"));
    }
    let correlation = Correlation::parse(&correlation_id)
        .map_err(|error| unusable(code::COMMAND_MALFORMED, error.to_string()))?;
    if correlation.step.name.chars().any(char::is_control) {
        return Err(unusable(
            code::COMMAND_MALFORMED,
            "the step's name in the correlation id holds control characters".to_owned(),
        ));
    }
    if !is_handled(&name) {
        return Err(unusable(
            code::COMMAND_UNKNOWN,
            format!(
                "this participant does not handle `{name}`; see `to:` in the saga's definition"
            ),
        ));
    }
    let belongs_to = header_key(message, HEADER_CORRELATION)
        .map_err(|why| unusable(code::COMMAND_MALFORMED, why))?;
    let payload = limits::read(&message.body, &COMMAND)
        .map_err(|error| unusable(error.code(), error.about("the command's body")))?;
    Ok(Command {
        fingerprint: fingerprint(correlation.phase, &payload),
        name,
        saga: correlation.saga,
        step: correlation.step,
        phase: correlation.phase,
        payload,
        message_id: properties.message_id.as_deref().map(printable),
        // For people; a saga is found by its id.
        saga_key: header_key(message, HEADER_SAGA_KEY).unwrap_or_default(),
        correlation: belongs_to,
        reply_address,
    })
}

/// A header whose text becomes a column that is searched.
fn header_key(message: &Message, name: &str) -> Result<Option<String>, String> {
    let Some(value) = message.properties.headers.get(name) else {
        return Ok(None);
    };
    let text = value.as_str().ok_or("it is not text");
    let text = text.map_err(str::to_owned);
    match text.and_then(|text| check_key(text).map(|()| text)) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(why) => Err(format!(
            "the header `{name}` must be text of 1 to 255 bytes without control characters: {why}"
        )),
    }
}

/// SHA-256 of a payload, whatever the order of its fields and its spaces.
///
/// A `confirm` or `compensate` is fingerprinted without its `reservation`: that is our own reply
/// handed back, and a compensation for an unknown outcome may be sent first without and, once the
/// late reply has come, again with it. It is the same command.
pub fn fingerprint(phase: Phase, payload: &Value) -> Hash {
    let bare = match (phase, payload) {
        (Phase::Confirm | Phase::Compensate, Value::Object(fields))
            if fields.contains_key(RESERVATION_FIELD) =>
        {
            let mut fields = fields.clone();
            fields.remove(RESERVATION_FIELD);
            Some(Value::Object(fields))
        }
        _ => None,
    };
    // `Display` writes object fields in key order: serde_json keeps them in a BTreeMap.
    let text = bare.as_ref().unwrap_or(payload).to_string();
    Sha256::digest(text.as_bytes()).into()
}

/// Text that any database column and any terminal takes: bounded, without control characters.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(REASON_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::json;

    const CORRELATION: &str = "00000000-0000-0000-0000-00000000002a/stock[2]/reserve/abc";

    fn message(change: impl FnOnce(&mut Message)) -> Message {
        let mut message = Message {
            body: Bytes::from_static(b"{\"sku\":\"a\"}"),
            ..Message::default()
        };
        message.properties.kind = Some("inventory.reserve".to_owned());
        message.properties.correlation_id = Some(CORRELATION.to_owned());
        message.properties.reply_to = Some("replies".to_owned());
        change(&mut message);
        message
    }

    fn decoded(message: &Message) -> Result<Command, UnusableCommand> {
        decode(message, |name| name.starts_with("inventory."))
    }

    #[test]
    fn a_command_is_what_its_correlation_id_says() {
        let command = decoded(&message(|_| ())).unwrap();
        assert_eq!(command.step, "stock[2]".parse().unwrap());
        assert_eq!(command.phase, Phase::Reserve);
        assert_eq!(command.payload, json!({"sku": "a"}));
        assert_eq!(command.reply_address.unwrap().correlation_id, CORRELATION);
    }

    #[test]
    fn what_is_not_a_command_says_why_and_answers_where_it_can() {
        type Change = fn(&mut Message);
        let cases: [(&str, Change, Code, bool); 10] = [
            (
                "no type",
                |m| m.properties.kind = None,
                code::COMMAND_MALFORMED,
                true,
            ),
            (
                "empty type",
                |m| m.properties.kind = Some(String::new()),
                code::COMMAND_MALFORMED,
                true,
            ),
            (
                "no correlation",
                |m| m.properties.correlation_id = None,
                code::COMMAND_MALFORMED,
                false,
            ),
            (
                "no reply_to",
                |m| m.properties.reply_to = None,
                code::COMMAND_MALFORMED,
                false,
            ),
            (
                "foreign correlation",
                |m| m.properties.correlation_id = Some("42".to_owned()),
                code::COMMAND_MALFORMED,
                true,
            ),
            (
                "control characters",
                |m| {
                    m.properties.correlation_id = Some(CORRELATION.replace("stock", "st\u{0}ck"));
                },
                code::COMMAND_MALFORMED,
                true,
            ),
            (
                "unknown",
                |m| m.properties.kind = Some("shop.\u{0}open".to_owned()),
                code::COMMAND_UNKNOWN,
                true,
            ),
            (
                "bad JSON",
                |m| m.body = Bytes::from_static(b"{"),
                code::BODY_NOT_JSON,
                true,
            ),
            (
                "too deep",
                |m| m.body = Bytes::from("[".repeat(100_000)),
                code::BODY_TOO_DEEP,
                true,
            ),
            (
                "too large",
                |m| m.body = Bytes::from(vec![b' '; COMMAND.bytes + 1]),
                code::BODY_TOO_LARGE,
                true,
            ),
        ];
        for (name, change, code, answerable) in cases {
            let unusable = decoded(&message(change)).unwrap_err();
            assert_eq!(unusable.code, code, "{name}");
            assert_eq!(unusable.reply_address.is_some(), answerable, "{name}");
            assert!(!unusable.reason.chars().any(char::is_control), "{name}");
        }
    }

    #[test]
    fn the_fingerprint_is_of_the_values_not_of_the_bytes() {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let of = |text: &str| fingerprint(Phase::Reserve, &parse(text));
        assert_eq!(
            of(r#"{"a":1,"b":{"c":2,"d":3}}"#),
            of(r#"{ "b":{"d":3,"c":2}, "a":1 }"#)
        );
        assert_ne!(of(r#"{"a":1}"#), of(r#"{"a":2}"#));
    }

    #[test]
    fn the_reservation_handed_back_is_not_part_of_the_fingerprint() {
        let (without, with) = (
            json!({"sku": "a"}),
            json!({"sku": "a", "reservation": {"left": 3}}),
        );
        for phase in [Phase::Confirm, Phase::Compensate] {
            assert_eq!(fingerprint(phase, &without), fingerprint(phase, &with));
        }
        for phase in [Phase::Reserve, Phase::Action] {
            assert_ne!(fingerprint(phase, &without), fingerprint(phase, &with));
        }
    }
}
