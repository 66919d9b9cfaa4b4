//! What is said and counted of a saga whose status a decision has changed.

use super::batch::{Batch, Changed};
use crate::id::SagaId;
use crate::metric;
use crate::saga::Status;

impl Batch<'_> {
    /// A decision was made about a saga that had this status before.
    pub(super) fn count(&self, id: SagaId, before: Status) {
        let Some(Changed { open, .. }) = self.changed.get(&id) else {
            return;
        };
        let head = &open.head;
        tracing::debug!(
            saga.id = %id, saga.name = %head.name, seq = head.revision, status = %head.status,
            "decided"
        );
        if head.status == before {
            return;
        }
        if head.status == Status::Suspended {
            let reason = head.reason.as_deref().unwrap_or_default();
            tracing::warn!(saga.id = %id, saga.name = %head.name, %reason, "saga waits for a person");
            metric::suspended(&head.name);
        } else if head.status.is_ended() {
            let lasted = self.now.since(head.started_at).as_secs_f64();
            metric::ended(&head.name, head.status.as_str(), lasted);
        }
    }
}
