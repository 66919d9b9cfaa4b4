//! Bytes to work: what a delivery asks for, or why nobody can tell.

use std::sync::Arc;

use serde_json::Value;

use super::catalogue::Catalogue;
use super::succession::Succession;
use crate::canonical::fingerprint;
use crate::definition::Definition;
use crate::error::{Code, code};
use crate::id::SagaId;
use crate::limits;
use crate::message::address::check_reply_to;
use crate::message::correlation::{Correlation, CorrelationError, Secret};
use crate::message::{HEADER_OUTCOME, HEADER_REASON, Message, Outcome};
use crate::saga::{Reply, Starter};
use crate::store::Hash;

/// Longest reason that is kept, in characters; participants have been seen to send stack traces.
const REASON_CHARS_MAX: usize = 1_000;

/// A start that can be decided: checked against its definition, its key computed.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// What to run.
    pub definition: Arc<Definition>,
    /// The business key.
    pub key: String,
    /// The input.
    pub input: Arc<Value>,
    /// Its fingerprint: the same key with another one is a conflict.
    pub input_hash: Hash,
    /// Who wants to hear of it.
    pub starter: Option<Starter>,
    /// What it is deduplicated by where its input is not enough: the `message_id`, or the tick.
    pub id: Option<String>,
    /// If it takes over another saga's key.
    pub succeeds: Option<Box<Succession>>,
}

/// Why a message can't be handled, in words for the one who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct Undecodable {
    /// Which error.
    pub code: Code,
    /// What is wrong and what to do.
    pub reason: String,
}

impl Undecodable {
    pub(super) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    /// Whether a newer definition might make sense of it.
    pub(super) fn hangs_on_definitions(&self) -> bool {
        let codes = [code::SAGA_UNKNOWN, code::INPUT_INVALID, code::KEY_INVALID];
        codes.contains(&self.code)
    }
}

/// Why a message is not even decoded whose properties can't be read.
pub(super) fn unreadable(message: &Message) -> Undecodable {
    let unreadable = message.properties.unreadable.as_ref();
    let why = unreadable.map_or("", |unreadable| unreadable.why.as_str());
    Undecodable::new(
        code::PROPERTIES_UNREADABLE,
        format!("the message can't be handled: {why}"),
    )
}

/// Reads a message from the start queue.
pub fn decode_start(message: &Message, catalogue: &Catalogue) -> Result<StartRequest, Undecodable> {
    let name = message
        .properties
        .kind
        .as_deref()
        .filter(|kind| !kind.is_empty())
        .ok_or_else(|| {
            Undecodable::new(
                code::TYPE_MISSING,
                "a start message's `type` property must be the saga's name, and it is missing",
            )
        })?;
    check_address(message)?;
    let input = json_body(message)?;
    let request = check_start(catalogue, name, input, starter_of(message))?;
    let id = message.properties.message_id.clone();
    let id = id.filter(|id| !id.is_empty());
    Ok(StartRequest { id, ..request })
}

/// Checks a start that came by whatever way.
pub fn check_start(
    catalogue: &Catalogue,
    name: &str,
    input: impl Into<Arc<Value>>,
    starter: Option<Starter>,
) -> Result<StartRequest, Undecodable> {
    start_of(&startable(catalogue, name)?, input, None, starter)
}

/// What a new saga of this name runs.
pub(super) fn startable(catalogue: &Catalogue, name: &str) -> Result<Arc<Definition>, Undecodable> {
    catalogue.newest(name).ok_or_else(|| {
        let known = catalogue.known();
        let known: Vec<&str> = known.names().collect();
        let name: String = name.chars().take(100).collect();
        Undecodable::new(
            code::SAGA_UNKNOWN,
            format!(
                "no saga is called `{name}`; this node knows: {}",
                known.join(", ")
            ),
        )
    })
}

/// Checks a start of this definition, with a key of its own or the one that its input gives.
pub(super) fn start_of(
    definition: &Arc<Definition>,
    input: impl Into<Arc<Value>>,
    key: Option<String>,
    starter: Option<Starter>,
) -> Result<StartRequest, Undecodable> {
    let name = &definition.name;
    let input = input.into();
    check_body("the input", &input)?;
    definition.check_input(&input).map_err(|wrong| {
        Undecodable::new(
            code::INPUT_INVALID,
            format!(
                "the input of `{name}` does not fit its schema: {}",
                wrong.join("; ")
            ),
        )
    })?;
    let key = match key {
        Some(key) => key,
        None => definition
            .key_of(&input)
            .map_err(|error| Undecodable::new(code::KEY_INVALID, error.to_string()))?,
    };
    // Now, so that no saga is started that could not send a command.
    definition
        .correlation_of(&input)
        .map_err(|error| Undecodable::new(code::KEY_INVALID, error.to_string()))?;
    let input_hash = fingerprint(&input);
    Ok(StartRequest {
        definition: Arc::clone(definition),
        key,
        input,
        input_hash,
        starter,
        id: None,
        succeeds: None,
    })
}

/// Refuses a message that can't be answered where it wants to be.
pub(super) fn check_address(message: &Message) -> Result<(), Undecodable> {
    let reply_to = message.properties.reply_to.as_deref().unwrap_or_default();
    let checked = check_reply_to(reply_to);
    checked.map_err(|wrong| Undecodable::new(code::ADDRESS_REFUSED, wrong))
}

/// Who a start message wants answered; nobody if that is not possible.
pub fn starter_of(message: &Message) -> Option<Starter> {
    let reply_to = message
        .properties
        .reply_to
        .clone()
        .filter(|queue| !queue.is_empty() && check_reply_to(queue).is_ok())?;
    Some(Starter {
        reply_to,
        correlation_id: message.properties.correlation_id.clone(),
    })
}

/// A reply that nothing can be made of, but of which it may be known what it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableReply {
    /// What is wrong with it.
    pub wrong: Undecodable,
    /// The command that it answers, if its correlation id is one of ours.
    pub answers: Option<Correlation>,
}

impl From<Undecodable> for UnusableReply {
    fn from(wrong: Undecodable) -> Self {
        let answers = None;
        Self { wrong, answers }
    }
}

/// Reads a message from the reply queue.
pub fn decode_reply(message: &Message, secret: &Secret) -> Result<(SagaId, Reply), UnusableReply> {
    let correlation = correlation_of(message, secret)?;
    match read_answer(message) {
        Ok((outcome, body)) => {
            let reason = message
                .header(HEADER_REASON)
                .map(|reason| reason.chars().take(REASON_CHARS_MAX).collect());
            let Correlation { saga, step, phase } = correlation;
            let reply = Reply {
                step,
                phase,
                outcome,
                stated: message.properties.headers.contains_key(HEADER_OUTCOME),
                body: Arc::new(body),
                reason,
            };
            Ok((saga, reply))
        }
        Err(wrong) => Err(UnusableReply {
            wrong,
            answers: Some(correlation),
        }),
    }
}

fn correlation_of(message: &Message, secret: &Secret) -> Result<Correlation, Undecodable> {
    let Some(text) = message.properties.correlation_id.as_deref() else {
        return Err(Undecodable::new(
            code::CORRELATION_MISSING,
            "a reply must copy the command's `correlation_id` property, and it is missing",
        ));
    };
    Correlation::verify(text, secret).map_err(|error| {
        let code = match error {
            CorrelationError::Malformed(_) => code::CORRELATION_MISSING,
            CorrelationError::Forged(_) => code::CORRELATION_FORGED,
        };
        Undecodable::new(code, error.to_string())
    })
}

fn read_answer(message: &Message) -> Result<(Outcome, Value), Undecodable> {
    let outcome = match message.properties.headers.get(HEADER_OUTCOME) {
        None => Some(Outcome::Succeeded),
        Some(value) => value
            .as_str()
            .and_then(|text| Outcome::from_header(Some(text))),
    }
    .ok_or_else(|| {
        Undecodable::new(
            code::OUTCOME_UNKNOWN,
            "the `outcome` header must be `succeeded`, `rejected` or `failed`",
        )
    })?;
    // A refusal needs no result; many libraries send an empty body or plain text with it.
    let body = match json_body(message) {
        Ok(body) => body,
        Err(_) if outcome != Outcome::Succeeded => Value::Null,
        Err(error) => return Err(error),
    };
    Ok((outcome, body))
}

pub(super) fn json_body(message: &Message) -> Result<Value, Undecodable> {
    if message.body.is_empty() {
        return Ok(Value::Null);
    }
    limits::read(&message.body, &limits::BODY)
        .map_err(|error| Undecodable::new(error.code(), error.about("the body")))
}

/// Whether a value that did not come as a body of its own, or was computed, could have been one.
pub(super) fn check_body(what: &str, value: &Value) -> Result<(), Undecodable> {
    limits::BODY
        .check_value(value)
        .map_err(|excess| Undecodable::new(excess.code(), format!("{what} is too large: {excess}")))
}
