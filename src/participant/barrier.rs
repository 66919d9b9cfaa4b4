//! The barrier: what was answered for one step of one saga, and so what a command now means.
//!
//! Brokers deliver twice, late and out of order; this is the one place that knows what then
//! follows, so handlers never see a duplicate, nor a compensation before its reservation, nor the
//! other way round. Pure: a verdict is computed from the row and the command, nothing else.
//!
//! | row \ command | reserve, action | confirm | compensate |
//! | --- | --- | --- | --- |
//! | none | execute | execute if standalone, else error | record, succeeds empty |
//! | rejected | same reply | error | record, succeeds empty |
//! | held (reserved) | same reply | execute | execute |
//! | done (action) | same reply | error | execute |
//! | confirmed | same reply | same reply | error |
//! | compensated | same reply, or refused if it never ran | error | same reply |
//!
//! Invariants:
//! * the status only rises, and follows from the answers, so the two can't contradict each other;
//! * a `failed` answer leaves no trace: it is to be tried again;
//! * a *rejected* confirm or compensate leaves none either: both must succeed in the end, so a
//!   person who has put things right may have them tried again.
//!
//! Deliberately absent: the message id. It is derived from (saga, step, phase), which is how the
//! answers are kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Code, code};
use crate::id::Phase;
use crate::message::Outcome;
use crate::store::Hash;

/// An answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What became of it.
    pub outcome: Outcome,
    /// Why, unless it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The result.
    pub body: Value,
}

impl Answer {
    /// It is done; this came out.
    pub fn succeeded(body: Value) -> Self {
        Self {
            outcome: Outcome::Succeeded,
            reason: None,
            body,
        }
    }

    /// A business no.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Rejected,
            reason: Some(reason.into()),
            body: json!({}),
        }
    }

    /// Try again.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Failed,
            reason: Some(reason.into()),
            body: json!({}),
        }
    }
}

/// How far a step has come. The order is the order of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BarrierStatus {
    /// Its reserve or action was rejected: there is nothing to undo.
    Rejected,
    /// Reserved.
    Held,
    /// Done at once by an action.
    Done,
    /// Final.
    Confirmed,
    /// Undone, or barred before it ever ran.
    Compensated,
}

impl BarrierStatus {
    /// The number in the database.
    pub fn as_number(self) -> i16 {
        match self {
            Self::Rejected => 1,
            Self::Held => 2,
            Self::Done => 3,
            Self::Confirmed => 4,
            Self::Compensated => 5,
        }
    }
}

/// The answers given so far for one step. Never empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Barrier {
    answers: BTreeMap<Phase, Answered>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Answered {
    #[serde(with = "hex_hash")]
    sha256: Hash,
    #[serde(flatten)]
    answer: Answer,
}

/// What is asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Which of the step's commands.
    pub phase: Phase,
    /// Hash of its payload.
    pub fingerprint: Hash,
    /// Whether the handler takes this command as a confirm without a reserve before it.
    pub standalone: bool,
}

/// What to do with a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Run the handler and [`settle`] its answer.
    Execute,
    /// There is nothing to undo: [`settle`] and send this answer, without the handler.
    Settle(Answer),
    /// Send this answer; the row stays as it is.
    Repeat(Answer),
    /// The command contradicts what was done: a dead letter, and this answer, so that the saga
    /// does not wait in vain.
    Contradiction(Code, Answer),
    /// The same command came with another payload: a dead letter, and no answer, as it is not
    /// known which of the two was meant.
    PayloadChanged(String),
}

/// Decides what a command means, given what was answered before.
pub fn judge(barrier: Option<&Barrier>, asked: &Asked) -> Verdict {
    if let Some(answered) = barrier.and_then(|barrier| barrier.answers.get(&asked.phase)) {
        return if answered.sha256 == asked.fingerprint {
            Verdict::Repeat(answered.answer.clone())
        } else {
            Verdict::PayloadChanged(format!(
                "this step's {} was already answered for another payload; \
                 if both are wanted they must be two steps",
                asked.phase
            ))
        };
    }
    let contradiction =
        |code: Code, reason: &str| Verdict::Contradiction(code, Answer::rejected(reason));
    match (barrier.map(Barrier::status), asked.phase) {
        (None, Phase::Reserve | Phase::Action)
        | (Some(BarrierStatus::Held), Phase::Confirm)
        | (Some(BarrierStatus::Held | BarrierStatus::Done), Phase::Compensate) => Verdict::Execute,
        (None, Phase::Confirm) if asked.standalone => Verdict::Execute,
        (None | Some(BarrierStatus::Rejected), Phase::Compensate) => {
            Verdict::Settle(Answer::succeeded(json!({})))
        }
        (Some(BarrierStatus::Compensated), Phase::Reserve | Phase::Action) => Verdict::Repeat(
            Answer::rejected("this step was compensated before this command came; it was not run"),
        ),
        (_, Phase::Confirm) => contradiction(
            code::CONFIRM_WITHOUT_RESERVE,
            "there is nothing to confirm: this step holds no reservation",
        ),
        (_, Phase::Compensate) => contradiction(
            code::COMPENSATE_AFTER_CONFIRM,
            "this step is confirmed and can no longer be undone",
        ),
        (_, Phase::Reserve | Phase::Action) => contradiction(
            code::COMMAND_MALFORMED,
            "this step was asked both as a reserve and as an action, or after its confirm; \
             a step has one of the two, and it comes first",
        ),
    }
}

/// The row after `answer`, or `None` if it leaves no trace.
pub fn settle(barrier: Option<&Barrier>, asked: &Asked, answer: &Answer) -> Option<Barrier> {
    let kept = match (answer.outcome, asked.phase) {
        (Outcome::Failed, _) | (Outcome::Rejected, Phase::Confirm | Phase::Compensate) => false,
        (Outcome::Rejected, Phase::Reserve | Phase::Action) | (Outcome::Succeeded, _) => true,
    };
    kept.then(|| {
        let mut answers = barrier.map(|b| b.answers.clone()).unwrap_or_default();
        let answered = Answered {
            sha256: asked.fingerprint,
            answer: answer.clone(),
        };
        answers.insert(asked.phase, answered);
        Barrier { answers }
    })
}

impl Barrier {
    /// How far the step has come.
    pub fn status(&self) -> BarrierStatus {
        let succeeded = |phase: Phase| {
            self.answers
                .get(&phase)
                .is_some_and(|answered| answered.answer.outcome == Outcome::Succeeded)
        };
        if succeeded(Phase::Compensate) {
            BarrierStatus::Compensated
        } else if succeeded(Phase::Confirm) {
            BarrierStatus::Confirmed
        } else if succeeded(Phase::Action) {
            BarrierStatus::Done
        } else if succeeded(Phase::Reserve) {
            BarrierStatus::Held
        } else {
            BarrierStatus::Rejected
        }
    }

    /// The answers given so far, by phase.
    pub fn answers(&self) -> impl Iterator<Item = (Phase, &Answer)> {
        let answers = self.answers.iter();
        answers.map(|(phase, answered)| (*phase, &answered.answer))
    }

    /// The row's body.
    pub fn encode(&self) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(self).map(Bytes::from)
    }

    /// From the row's body.
    pub fn decode(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }
}

mod hex_hash {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::store::Hash;

    pub fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(hash))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let mut hash = Hash::default();
        hex::decode_to_slice(text.as_ref(), &mut hash).map_err(D::Error::custom)?;
        Ok(hash)
    }
}

#[cfg(test)]
#[path = "barrier_tests.rs"]
mod tests;
