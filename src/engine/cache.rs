//! Sagas that are open on this node, kept so that the next message finds its saga loaded.
//!
//! The cache needs no invalidation to be right: a commit names the revision it was decided on, so
//! a stale copy is found out and loaded again. It is bounded by the number of steps it holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::definition::Definition;
use crate::id::SagaId;
use crate::saga::Saga;
use crate::store::SagaHead;

/// Steps that all cached sagas together may have; about 500 bytes each.
const STEPS_MAX: usize = 200_000;

/// A saga with its row and the definition it keeps.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) saga: Saga,
    pub(super) head: SagaHead,
    pub(super) definition: Arc<Definition>,
    /// Journal entries since the newest snapshot.
    pub(super) tail: u64,
    /// Whether it was loaded, or checked, for the batch at hand; otherwise another node may be
    /// further. A commit would find that out, but a refusal commits nothing.
    pub(super) fresh: bool,
}

impl Open {
    fn weight(&self) -> usize {
        self.saga.steps.len() + 1
    }
}

/// Open sagas by id.
#[derive(Debug, Default)]
pub(super) struct Cache {
    open: BTreeMap<SagaId, Open>,
    weight: usize,
}

impl Cache {
    /// Takes a saga out, so that nobody else works on this copy.
    pub(super) fn take(&mut self, id: SagaId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.weight -= open.weight();
        Some(open)
    }

    /// Keeps a committed saga; ended ones and the oldest beyond the bound are let go.
    pub(super) fn keep(&mut self, mut open: Open) {
        open.fresh = false;
        if open.head.status.is_ended() {
            return;
        }
        self.weight += open.weight();
        if let Some(replaced) = self.open.insert(open.head.id, open) {
            self.weight -= replaced.weight();
        }
        while self.weight > STEPS_MAX
            && let Some((_, oldest)) = self.open.pop_first()
        {
            self.weight -= oldest.weight();
        }
    }
}
