//! The line of sagas that have had one key, one after the other.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::incoming::{Signal, Starter};
use super::status::Status;
use crate::id::{SagaId, Timestamp};

/// Ids of starts that a line of sagas remembers; enough for messages that are delivered again.
const STARTS_MAX: usize = 16;

/// A saga's place in the line of those that have had its key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The saga that gave way to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<SagaId>,
    /// Ids of the starts that are known, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<String>,
    /// What starts once this saga has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<Successor>,
    /// Signals for the successor, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Signal>,
}

/// A start that waits for its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Successor {
    /// The id that its saga will have.
    pub saga: SagaId,
    /// What the start is deduplicated by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// What it works on.
    pub input: Arc<Value>,
    /// Who wants to hear of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starter: Option<Starter>,
    /// When it was asked for.
    pub at: Timestamp,
}

impl Line {
    /// Whether a start with this id is known.
    pub fn knows(&self, start: &str) -> bool {
        self.starts.iter().any(|known| known == start)
    }

    /// The place of the saga that follows.
    #[must_use]
    pub fn next(&self, before: SagaId) -> Self {
        Self {
            replaces: Some(before),
            starts: self.starts.clone(),
            successor: None,
            kept: self.kept.clone(),
        }
    }

    pub(super) fn follow(&mut self, successor: &Successor) {
        self.starts.extend(successor.start.clone());
        let excess = self.starts.len().saturating_sub(STARTS_MAX);
        self.starts.drain(..excess);
        self.successor = Some(successor.clone());
    }
}

/// What keeps a successor waiting, in words for people.
pub fn holdup(status: Status) -> &'static str {
    match status {
        // A sub-saga that is prepared, until its parent decides.
        Status::Running => "the saga before it has to end first",
        Status::Compensating => "the saga before it is rolled back first",
        Status::Confirming => "the saga before it is past the pivot and finishes first",
        Status::Suspended => "the saga before it waits for a person",
        Status::Completed | Status::Compensated => "it has the key now",
    }
}
