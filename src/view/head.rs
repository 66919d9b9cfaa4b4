//! A saga's row as people look at it.

use serde::Serialize;

use crate::id::{Phase, SagaId, Timestamp};
use crate::message::mask;
use crate::saga::{Status, StepPhase};
use crate::store::{SagaCause, SagaHead};

/// A saga's row, for lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeadView {
    /// The id.
    pub saga_id: SagaId,
    /// The definition's name.
    pub saga: String,
    /// Its version.
    pub version: u32,
    /// The business key.
    pub key: String,
    /// Where it stands.
    pub status: Status,
    /// Why it is compensating, compensated or suspended.
    pub reason: Option<String>,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaits: Option<SpotView>,
    /// What stands in its way, or why it did not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<CauseView>,
    /// The saga that runs it, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_by: Option<SagaId>,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// When the newest journal entry was written.
    pub updated_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// When it is looked at even if no message comes.
    pub wake_at: Option<String>,
    /// Entries in its journal.
    pub revision: u64,
    /// Whether it has ended and given up its key: it was replaced, or is a sub-saga rolled back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub superseded: bool,
}

impl HeadView {
    /// As people see a row.
    pub fn new(head: &SagaHead) -> Self {
        Self {
            saga_id: head.id,
            saga: head.name.clone(),
            version: head.version,
            key: head.key.clone(),
            status: head.status,
            reason: head.reason.as_deref().map(masked),
            awaits: head.awaits.as_ref().map(SpotView::new),
            cause: head.cause.as_ref().map(CauseView::new),
            run_by: head.parent,
            started_at: head.started_at.to_string(),
            updated_at: head.updated_at.to_string(),
            ended_at: text_of(head.ended_at),
            wake_at: text_of(head.wake_at),
            revision: head.revision,
            superseded: head.superseded,
        }
    }
}

/// A step and its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpotView {
    /// The step, such as `stock[2]`.
    pub step: String,
    /// The command; `action` also for a `wait` or a `sleep`.
    pub phase: Phase,
}

impl SpotView {
    /// As people see it.
    pub fn new(spot: &StepPhase) -> Self {
        Self {
            step: spot.step.to_string(),
            phase: spot.phase,
        }
    }
}

/// What stands in a saga's way, or why it did not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CauseView {
    /// The same for all sagas with the same cause.
    pub id: String,
    /// Where, if it is a matter of one step.
    #[serde(flatten)]
    pub spot: Option<SpotView>,
    /// In words.
    pub reason: String,
    /// Since when, RFC 3339.
    pub since: String,
}

impl CauseView {
    /// As people see it.
    pub fn new(cause: &SagaCause) -> Self {
        Self {
            id: cause.id.clone(),
            spot: cause.spot.as_ref().map(SpotView::new),
            reason: mask::text(&cause.reason).into_owned(),
            since: cause.since.to_string(),
        }
    }
}

/// Text from outside, as people may see it.
pub(super) fn masked(text: &str) -> String {
    mask::text(text).into_owned()
}

pub(super) fn text_of(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}
