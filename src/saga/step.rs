//! Where a step stands, and what a block that counts its children has counted.

use std::sync::Arc;

use crate::definition::BlockId;
use crate::id::{Phase, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepState {
    /// What is known of it.
    pub status: StepStatus,
    /// The command that was sent last.
    pub phase: Phase,
    /// How often, in this phase.
    pub attempt: u32,
    /// What it waits for.
    pub waiting: Waiting,
    /// The payload.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub with: Option<Arc<Value>>,
    /// What the `reserve`, `action` or confirm-only `confirm` answered.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub reply: Option<Arc<Value>>,
    /// The newest trouble, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of the phase's commands that were sent, how many may have been delivered.
    #[serde(default = "one")]
    pub deliverable: u32,
    /// How often this attempt found no queue.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub returns: u32,
    /// When the time of an attempt is up that found no queue and is to be sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_until: Option<Timestamp>,
    /// When the answer was first due, of a command that was not sent by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsent_since: Option<Timestamp>,
    /// Of a `wait`: ids of signals that were kept when it began and do not count for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub but_not: Vec<String>,
    /// Of a `wait` that took a signal: when that came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_at: Option<Timestamp>,
}

/// What is known of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Its `when` was false.
    Skipped,
    /// `reserve` or `action` was sent.
    Reserving,
    /// It was answered with yes.
    Reserved,
    /// It was answered with no.
    Rejected,
    /// It was not answered, and nobody asks any more.
    Unknown,
    /// None of its commands found a queue, and nobody asks any more.
    Undelivered,
    /// `confirm` was sent.
    Confirming,
    /// It was answered with yes.
    Confirmed,
    /// `compensate` was sent.
    Compensating,
    /// It was answered with yes.
    Compensated,
    /// A `wait` or `sleep` that is not over.
    Waiting,
    /// A `wait` that got its signal, or a `sleep` that is over.
    Done,
}

impl StepStatus {
    /// The name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Reserving => "reserving",
            Self::Reserved => "reserved",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
            Self::Undelivered => "never delivered",
            Self::Confirming => "confirming",
            Self::Confirmed => "confirmed",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::Waiting => "waiting",
            Self::Done => "done",
        }
    }
}

/// What a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for", content = "until")]
pub enum Waiting {
    /// Nothing: it is settled.
    Nothing,
    /// The answer, until then.
    Reply(Timestamp),
    /// The next attempt, at that time.
    Retry(Timestamp),
    /// A person.
    Person,
    /// A signal, until then or for ever.
    Signal(Option<Timestamp>),
    /// That time.
    Sleep(Timestamp),
}

/// What was stored before commands were counted may have been delivered.
fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for it
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl StepState {
    /// What is known of a step before anything is said of it but where it stands.
    pub(super) fn new(status: StepStatus) -> Self {
        Self {
            status,
            phase: Phase::Confirm,
            attempt: 0,
            waiting: Waiting::Nothing,
            with: None,
            reply: None,
            reason: None,
            deliverable: 0,
            returns: 0,
            returned_until: None,
            unsent_since: None,
            but_not: Vec::new(),
            signal_at: None,
        }
    }

    pub(super) fn settle(&mut self, reason: Option<String>) {
        self.reason = reason;
        self.unsent_since = None;
        self.waiting = Waiting::Nothing;
    }

    /// Whether it was asked, and none of the commands was delivered.
    pub(super) fn undelivered(&self) -> bool {
        self.attempt > 0 && self.deliverable == 0
    }

    /// Whether a person has just asked to try again what could not even be computed.
    pub(super) fn is_resumed(&self) -> bool {
        self.waiting == Waiting::Nothing && self.attempt == 0 && self.reason.is_some()
    }
}

impl Waiting {
    pub(super) fn timer(self) -> Option<Timestamp> {
        match self {
            Self::Reply(at) | Self::Retry(at) | Self::Sleep(at) => Some(at),
            Self::Signal(until) => until,
            Self::Nothing | Self::Person => None,
        }
    }
}

/// What is known of a counting block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockState {
    /// How many children it has.
    pub children: u32,
    /// How many of them are not done in this pass.
    pub remaining: u32,
    /// How many of them were entered; fewer than there are only in a sequential one.
    #[serde(default)]
    pub begun: u32,
    /// Its `when` was false.
    pub skipped: bool,
}

impl BlockState {
    /// Of a block that was just entered.
    pub(super) fn opened(children: u32, sequential: bool) -> Self {
        let begun = if sequential {
            children.min(1)
        } else {
            children
        };
        Self {
            children,
            remaining: children,
            begun,
            skipped: false,
        }
    }

    /// Of a block whose `when` was false.
    pub(super) fn left_out() -> Self {
        Self {
            skipped: true,
            ..Self::opened(0, false)
        }
    }
}

/// A block that counts its children: a `parallel` or a `for_each`, at a place in its own
/// enclosing `for_each` lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockPath {
    /// The block.
    pub block: BlockId,
    /// Positions in the enclosing `for_each` lists, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indices: Vec<u32>,
}

/// What is there is `Some`, also if it is null: an empty answer is an answer.
pub(super) fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Arc<Value>>, D::Error> {
    Arc::<Value>::deserialize(deserializer).map(Some)
}
