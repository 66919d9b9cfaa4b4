//! What comes to a saga from outside: answers, signals, and people.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical;
use crate::id::{Phase, StepPath, Timestamp};
use crate::message::{Destination, Outcome};

/// A participant's answer to one command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The step that asked.
    pub step: StepPath,
    /// Which of its commands.
    pub phase: Phase,
    /// Yes, no, or try again.
    pub outcome: Outcome,
    /// Whether it says so itself; an answer that says nothing is taken for a yes.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub stated: bool,
    /// The result.
    pub body: Arc<Value>,
    /// Why it was rejected or failed.
    pub reason: Option<String>,
}

fn yes() -> bool {
    true
}

/// A command that found no queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Returned {
    /// The step that asked.
    pub step: StepPath,
    /// Which of its commands.
    pub phase: Phase,
    /// Which attempt of it.
    pub attempt: u32,
    /// Where nobody listens.
    pub to: Destination,
    /// Whether it was published just this once, so that it was certainly not delivered.
    pub certain: bool,
}

/// Something from outside: sent to this saga, or a domain event correlated to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// Its name.
    pub name: String,
    /// What it is deduplicated by.
    pub id: String,
    /// Its payload.
    pub body: Arc<Value>,
    /// When a saga first had it; the saga's business, not the sender's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl Signal {
    /// What it says, in short: its name, and a hash of its payload.
    pub(super) fn mark(&self) -> String {
        let payload = canonical::fingerprint(&self.body);
        format!("{} {}", self.name, hex::encode(&payload[..MARK_BYTES]))
    }
}

/// Bytes of a payload's hash that are remembered: whoever wants his payload taken for another's can't
/// find one.
const MARK_BYTES: usize = 16;

/// Who started a saga and where they want to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Starter {
    /// The queue to answer to.
    pub reply_to: String,
    /// Copied into each answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// A person's decision about one saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorAction {
    /// What it is deduplicated by.
    pub id: String,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// What.
    pub kind: OperatorKind,
}

/// What a person can do to a saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum OperatorKind {
    /// Roll back, while that is still possible.
    Cancel,
    /// Try a step, or all that wait for a person or a retry, again at once.
    Retry {
        /// Which; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepPath>,
        /// What the command carries from now on, instead of what it carried.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "crate::saga::step::present"
        )]
        with: Option<Arc<Value>>,
    },
    /// Take a suspended command for done: the person has seen to it. `why` is the evidence.
    Skip {
        /// Which step's.
        step: StepPath,
        /// What came of it, for the blocks that use the step's reply.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "crate::saga::step::present"
        )]
        reply: Option<Arc<Value>>,
    },
    /// Decide nothing until resumed; answers and signals are kept.
    Pause,
    /// Go on after a pause, and try again what waits for a person.
    Resume,
    /// Call it completed, whatever is still open.
    ForceComplete,
    /// Call it compensated, whatever is still open.
    ForceCompensated,
}

impl OperatorKind {
    /// The name for people, as on the command line.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry { .. } => "retry",
            Self::Skip { .. } => "skip",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::ForceComplete => "force-complete",
            Self::ForceCompensated => "force-compensated",
        }
    }
}
