//! Why an input led to nothing, and what the batch does about it.

use super::decode::Undecodable;
use crate::error::{Code, code};
use crate::id::SagaId;
use crate::saga::IllegalEvent;

/// Why an input led to nothing.
pub(super) enum Rejection {
    /// Duplicate or late.
    Nothing,
    /// Perhaps wrong, perhaps our copy of the saga is behind: load and decide again.
    Stale,
    /// Wrong: a dead letter.
    Wrong(Undecodable),
}

impl Rejection {
    /// What follows can't be. If that is so of what is stored, it is a bug of ours.
    pub(super) fn illegal(id: SagaId, is_fresh: bool, why: &IllegalEvent) -> Self {
        if !is_fresh {
            return Self::Stale;
        }
        let (code, reason) = (code::EVENT_ILLEGAL, format!("saga {id}: {why}"));
        tracing::error!(saga.id = %id, %code, %reason, "a decision is set aside, which is a bug");
        Self::wrong(code, reason)
    }

    pub(super) fn wrong(code: Code, reason: String) -> Self {
        Self::Wrong(Undecodable { code, reason })
    }
}
