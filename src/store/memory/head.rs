//! A saga's row, as this store changes it.

use crate::store::{SagaHead, SagaKey};

impl SagaHead {
    /// What it is found by.
    pub(super) fn saga_key(&self) -> SagaKey {
        SagaKey {
            name: self.name.clone(),
            key: self.key.clone(),
        }
    }

    /// Takes over what a later write may change; the rest stays as the saga started.
    /// `wake_at` is left to the caller, who keeps it in an index too.
    pub(super) fn follow(&mut self, newer: SagaHead) {
        self.status = newer.status;
        self.reason = newer.reason;
        self.revision = newer.revision;
        self.head_hash = newer.head_hash;
        self.updated_at = newer.updated_at;
        self.ended_at = newer.ended_at;
        self.superseded = newer.superseded;
        self.awaits = newer.awaits;
        self.cause = newer.cause;
    }
}
