//! Signals: what they say, which saga they are for, and what becomes of them in a batch.
//!
//! A signal comes from the queue, from a caller in this process, or is a domain event that a
//! `wait` is about ([`super::events`]). It names its saga by id, or by name and key; a key is looked
//! up when the batch is loaded, so it also finds a saga that a work before it has started.
//!
//! Invariants: a signal is accepted once, by its id; a refusal is said only on a copy of the saga
//! that is known to be the stored one. Deliberately absent: whether a `wait` takes it, and when:
//! that is the saga's business.

mod delivery;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use super::decode::{Undecodable, check_address, check_body, json_body, starter_of};
use crate::canonical::fingerprint_text;
use crate::definition::{BlockId, Definition, check_key, check_name};
use crate::error::{Code, code};
use crate::id::SagaId;
use crate::message::{HEADER_SAGA, HEADER_SAGA_KEY, Message};
use crate::numeral;
use crate::saga::{Refusal, Signal, Starter};
use crate::store::{KeyMatch, SagaKey};

/// Longest id of a signal, in bytes: AMQP's short string.
pub const SIGNAL_ID_BYTES_MAX: usize = 255;

/// Which saga a signal is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressee {
    /// The one with this id.
    Saga(SagaId),
    /// The one with this name and key.
    Key(SagaKey),
}

/// What became of a signal that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalAnswer {
    /// The saga has it.
    Accepted(SagaId),
    /// The saga had it before; nothing new happens.
    Duplicate(SagaId),
}

/// Why a signal did not reach a saga.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// There is no such saga, it has ended, or it never waits for this.
    #[error(transparent)]
    Refused(#[from] Undecodable),
    /// The node is stopping, or its database refuses.
    #[error("this node can't take signals now: {0}")]
    Unavailable(String),
}

/// A signal on its way to a saga.
#[derive(Debug)]
pub(super) struct SignalRequest {
    pub(super) to: Addressee,
    pub(super) what: What,
    /// Who wants to hear what became of it.
    pub(super) sender: Option<Starter>,
    /// Whether its id is made of what it says, because its sender gave none. Then an equal one that
    /// the saga had before is another signal, unless this may be the same one once more.
    pub(super) by_content: bool,
    /// Whether it may have been taken in already: it was delivered before, or a commit was lost.
    pub(super) uncertain: AtomicBool,
}

/// What a signal says.
#[derive(Debug)]
pub(super) enum What {
    /// Ready to be told.
    Sent(Signal),
    /// A domain event; its payload is computed once it is known that a saga waits for it.
    Event(Correlated),
}

/// A domain event that a `wait` is about.
#[derive(Debug)]
pub(super) struct Correlated {
    pub(super) definition: Arc<Definition>,
    /// The `wait`.
    pub(super) block: BlockId,
    pub(super) event: Arc<Value>,
    /// What the event is deduplicated by.
    pub(super) id: String,
}

/// The id of the first signal with this name and payload whose sender gave none.
fn id_by_content(name: &str, payload: &Value) -> String {
    format!("hash:{}", fingerprint_text(&json!([name, payload])))
}

/// Checks a signal that came by whatever way, and gives it an id if it has none.
pub(super) fn check_signal(
    name: &str,
    id: Option<String>,
    payload: Value,
) -> Result<Signal, Undecodable> {
    let malformed = |why: String| Undecodable::new(code::SIGNAL_MALFORMED, why);
    check_name(name).map_err(|why| malformed(format!("the signal's name: {why}")))?;
    check_body("the signal's payload", &payload)?;
    let id = id.unwrap_or_else(|| id_by_content(name, &payload));
    if id.is_empty() || id.len() > SIGNAL_ID_BYTES_MAX || id.chars().any(char::is_control) {
        return Err(malformed(format!(
            "a signal's id has between 1 and {SIGNAL_ID_BYTES_MAX} bytes and no control characters"
        )));
    }
    Ok(Signal {
        name: name.to_owned(),
        id,
        body: Arc::new(payload),
        at: None,
    })
}

/// Reads a message from the signal queue.
pub(super) fn decode_signal(
    message: &Message,
    redelivered: bool,
) -> Result<SignalRequest, Undecodable> {
    let properties = &message.properties;
    let name = properties.kind.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(Undecodable::new(
            code::SIGNAL_MALFORMED,
            "a signal's `type` property must be the signal's name, and it is missing",
        ));
    }
    check_address(message)?;
    let to = addressee(message)?;
    let id = properties.message_id.clone().filter(|id| !id.is_empty());
    let by_content = id.is_none();
    let signal = check_signal(name, id, json_body(message)?)?;
    Ok(SignalRequest {
        to,
        what: What::Sent(signal),
        sender: starter_of(message),
        by_content,
        uncertain: AtomicBool::new(redelivered),
    })
}

/// Which saga the headers name: `saga` an id; or `saga` a name, as on commands, with `saga-key`.
fn addressee(message: &Message) -> Result<Addressee, Undecodable> {
    let malformed = |why: String| Undecodable::new(code::SIGNAL_MALFORMED, why);
    let saga = message.header(HEADER_SAGA).filter(|text| !text.is_empty());
    let Some(saga) = saga else {
        return Err(malformed(
            "the header `saga` must hold the saga's id, or its name beside `saga-key`, and it is missing"
                .to_owned(),
        ));
    };
    let key = match message.properties.headers.get(HEADER_SAGA_KEY) {
        None => {
            let id = saga.parse().map_err(|_| {
                malformed(
                    "the header `saga` is not a saga's id (a UUID); beside a saga's name, `saga-key` must say its key"
                        .to_owned(),
                )
            })?;
            return Ok(Addressee::Saga(id));
        }
        Some(Value::String(key)) => key.clone(),
        Some(Value::Number(key)) => numeral::whole_text(key).ok_or_else(|| {
            malformed("the header `saga-key` is a number, but not a whole one".to_owned())
        })?,
        Some(_) => {
            return Err(malformed(
                "the header `saga-key` is neither text nor a whole number".to_owned(),
            ));
        }
    };
    by_key(saga, key).map(Addressee::Key)
}

/// A name and key, if there can be a saga with them.
pub(super) fn by_key(name: &str, key: String) -> Result<SagaKey, Undecodable> {
    let malformed = |why: String| Undecodable::new(code::SIGNAL_MALFORMED, why);
    check_name(name).map_err(|why| malformed(format!("the saga's name: {why}")))?;
    check_key(&key).map_err(malformed)?;
    let name = name.to_owned();
    Ok(SagaKey { name, key })
}

/// The code of a refusal that somebody's signal met.
pub(super) fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Ended => code::SIGNAL_TOO_LATE,
        Refusal::RollingBack(_) => code::SIGNAL_ROLLING_BACK,
        Refusal::OtherSignal(_) => code::SIGNAL_CONFLICT,
        Refusal::NoSuchSignal(_) => code::SIGNAL_UNKNOWN,
        Refusal::TooManySignals => code::SIGNALS_FULL,
        _ => code::NOT_POSSIBLE,
    }
}

impl SignalRequest {
    /// The saga that has to be loaded, given which sagas have which keys.
    pub(super) fn saga(&self, keys: &BTreeMap<SagaKey, Option<KeyMatch>>) -> Option<SagaId> {
        match &self.to {
            Addressee::Saga(id) => Some(*id),
            Addressee::Key(key) => {
                let known = keys.get(key)?.as_ref()?;
                let passes_by = matches!(self.what, What::Event(_)) && known.status.is_ended();
                (!passes_by).then_some(known.id)
            }
        }
    }
}

#[cfg(test)]
mod tests;
