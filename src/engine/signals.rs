//! Signals: what they say, which saga they are for, and what becomes of them in a batch.
//!
//! A signal comes from the queue, from a caller in this process, or is a domain event that a
//! `wait` is about ([`super::events`]). It names its saga by id, or by name and key; a key is looked
//! up when the batch is loaded, so it also finds a saga that a work before it has started.
//!
//! Invariants: a signal is accepted once, by its id; a refusal is said only on a copy of the saga
//! that is known to be the stored one. Deliberately absent: whether a `wait` takes it, and when:
//! that is the saga's business.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::batch::{Batch, Decided, Found, Rejection};
use super::decode::{Undecodable, json_body, starter_of};
use super::encode::start_answer;
use super::work::{Origin, Work};
use crate::canonical::fingerprint_text;
use crate::definition::{Definition, NodeId, NodeKind, check_key, check_name};
use crate::error::{Code, code};
use crate::id::SagaId;
use crate::message::{HEADER_SAGA, HEADER_SAGA_KEY, Message};
use crate::saga::{Input, Refusal, Signal, Starter};
use crate::store::{DeadLetter, KeyMatch, OutboxMessage, SagaKey};

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
    pub(super) block: NodeId,
    pub(super) event: Arc<Value>,
    /// What the event is deduplicated by.
    pub(super) id: String,
}

/// The id of a signal whose sender gave none: the same name and payload is the same signal.
pub fn id_by_content(name: &str, payload: &Value) -> String {
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
    })
}

/// Reads a message from the signal queue.
pub(super) fn decode_signal(message: &Message) -> Result<SignalRequest, Undecodable> {
    let properties = &message.properties;
    let name = properties.kind.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(Undecodable::new(
            code::SIGNAL_MALFORMED,
            "a signal's `type` property must be the signal's name, and it is missing",
        ));
    }
    let to = addressee(message)?;
    let id = properties.message_id.clone().filter(|id| !id.is_empty());
    let signal = check_signal(name, id, json_body(message)?)?;
    Ok(SignalRequest {
        to,
        what: What::Sent(signal),
        sender: starter_of(message),
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
        Some(Value::Number(key)) if key.is_i64() || key.is_u64() => key.to_string(),
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

/// Why a signal did not get to a saga.
enum Undelivered {
    /// An event about no live saga: others' events pass by all day.
    Ignored,
    /// Not certain; decide again on what is stored.
    Stale,
    /// It can't be, and that is final.
    Refused(Undecodable),
}

impl Batch<'_> {
    pub(super) fn decide_signal(&mut self, work: Work, request: &SignalRequest) {
        let (saga, outcome) = match self.deliver(request) {
            Ok(answer) => {
                let (SignalAnswer::Accepted(saga) | SignalAnswer::Duplicate(saga)) = answer;
                if let (Some(sender), What::Sent(signal)) = (&request.sender, &request.what) {
                    self.acknowledge_signal(sender, signal, answer);
                }
                (Some(saga), Some(Ok(answer)))
            }
            Err(Undelivered::Ignored) => {
                crate::metric::event_ignored("no_saga");
                (None, None)
            }
            Err(Undelivered::Stale) => {
                self.look_closer(work);
                return;
            }
            Err(Undelivered::Refused(wrong)) => {
                if let Origin::Delivery { letter, .. } = &work.origin {
                    let letter = DeadLetter {
                        code: wrong.code,
                        reason: wrong.reason.clone(),
                        ..letter()
                    };
                    self.bury(letter, request.sender.as_ref());
                }
                (None, Some(Err(wrong.into())))
            }
        };
        self.done_signal(work, saga, outcome);
    }

    fn deliver(&mut self, request: &SignalRequest) -> Result<SignalAnswer, Undelivered> {
        let id = self.addressed(request)?;
        let signal = match &request.what {
            What::Sent(signal) => signal.clone(),
            What::Event(correlated) => self.signal_of(id, correlated)?,
        };
        match self.turn(id, Input::Signal(signal)) {
            Ok(()) => Ok(SignalAnswer::Accepted(id)),
            Err(Rejection::Nothing) => Ok(SignalAnswer::Duplicate(id)),
            Err(Rejection::Stale) => Err(Undelivered::Stale),
            // It ended between the look for its key and now.
            Err(Rejection::Wrong(wrong))
                if wrong.code == code::SIGNAL_TOO_LATE
                    && matches!(request.what, What::Event(_)) =>
            {
                Err(Undelivered::Ignored)
            }
            Err(Rejection::Wrong(wrong)) => Err(Undelivered::Refused(wrong)),
        }
    }

    /// The saga that a signal is for: one that a work before it starts, or a stored one.
    fn addressed(&self, request: &SignalRequest) -> Result<SagaId, Undelivered> {
        let nobody = |who: String| {
            let why = format!(
                "there is no saga {who}: it was not started yet, or was deleted; a signal may come early, but not before its saga"
            );
            let wrong = Undecodable::new(code::SIGNAL_FOR_NO_SAGA, why);
            Undelivered::Refused(wrong)
        };
        let by_event = matches!(request.what, What::Event(_));
        match &request.to {
            Addressee::Saga(id) if self.is_missing(*id) => Err(nobody(id.to_string())),
            Addressee::Saga(id) => Ok(*id),
            Addressee::Key(key) => {
                if let Some(id) = self.starting.get(key) {
                    return Ok(*id);
                }
                match self.keys.get(key).and_then(Option::as_ref) {
                    Some(known) if by_event && known.status.is_ended() => Err(Undelivered::Ignored),
                    Some(known) if !self.is_missing(known.id) => Ok(known.id),
                    _ if by_event => Err(Undelivered::Ignored),
                    _ => Err(nobody(format!("`{}` with key `{}`", key.name, key.key))),
                }
            }
        }
    }

    /// An event as the signal that a `wait` of this saga is for. The rule counts only for sagas
    /// that keep its version of the definition.
    fn signal_of(&self, id: SagaId, correlated: &Correlated) -> Result<Signal, Undelivered> {
        let definition = &correlated.definition;
        if let Some(version) = self.version_of(id)
            && version != definition.version
        {
            return Err(Undelivered::Ignored);
        }
        let NodeKind::Wait(wait) = &definition.node(correlated.block).kind else {
            return Err(Undelivered::Ignored);
        };
        let payload = match &wait.on {
            Some(rule) => rule.content_of(&correlated.event),
            None => return Err(Undelivered::Ignored),
        };
        let payload = payload.map_err(|error| {
            let why = format!(
                "saga {id} (`{}`) waits for this event as `{}`, but its `with` fails: {error}",
                definition.name, wait.name
            );
            Undelivered::Refused(Undecodable::new(code::EVENT_UNUSABLE, why))
        })?;
        Ok(Signal {
            name: wait.signal.clone(),
            // One event may be several signals to a saga.
            id: format!("{}@{}", wait.signal, correlated.id),
            body: Arc::new(payload),
        })
    }

    /// Whether there is no such saga.
    fn is_missing(&self, id: SagaId) -> bool {
        let found = self.found.get(&id);
        !self.changed.contains_key(&id) && found.is_none_or(|found| matches!(found, Found::Missing))
    }

    /// The version of its definition that a saga keeps, if the saga can be read.
    fn version_of(&self, id: SagaId) -> Option<u32> {
        match (self.changed.get(&id), self.found.get(&id)) {
            (Some(changed), _) => Some(changed.open.head.version),
            (None, Some(Found::Open(open))) => Some(open.head.version),
            _ => None,
        }
    }

    /// A message that is to be sent only if what was decided about the saga is stored.
    fn send_with(&mut self, id: SagaId, row: OutboxMessage) {
        match self.changed.get_mut(&id).filter(|changed| changed.dirty) {
            Some(changed) => changed.outbox.push(row),
            None => self.outbox.push(row),
        }
    }

    fn done_signal(
        &mut self,
        work: Work,
        saga: Option<SagaId>,
        signalled: Option<Result<SignalAnswer, SignalError>>,
    ) {
        self.decided.push(Decided {
            work,
            saga,
            answer: None,
            told: Ok(()),
            signalled,
        });
    }

    /// Tells the sender of a signal, together with the saga's own messages.
    fn acknowledge_signal(&mut self, sender: &Starter, signal: &Signal, answer: SignalAnswer) {
        let (saga, duplicate) = match answer {
            SignalAnswer::Accepted(saga) => (saga, false),
            SignalAnswer::Duplicate(saga) => (saga, true),
        };
        let body = json!({
            "saga_id": saga, "signal": signal.name, "id": signal.id, "duplicate": duplicate,
        });
        let id = self.node.environment.new_id();
        let (to, message) = start_answer(sender, id, "accepted", None, &body, self.now);
        let row = self.node.outbox_row(to, message, self.now);
        self.send_with(saga, row);
    }
}

/// The code of a refusal that somebody's signal met.
pub(super) fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Ended => code::SIGNAL_TOO_LATE,
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
