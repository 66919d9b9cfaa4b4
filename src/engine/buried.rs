//! Dead letters of a batch, which are told of once they are stored.

use uuid::Uuid;

use crate::error::Code;
use crate::metric;
use crate::store::DeadLetter;

/// A dead letter of a batch, to be told of once it is stored.
pub(super) struct Buried {
    id: Uuid,
    queue: String,
    code: Code,
    reason: String,
}

impl Buried {
    pub(super) fn of(letter: &DeadLetter) -> Self {
        Self {
            id: letter.id,
            queue: letter.queue.clone(),
            code: letter.code,
            reason: letter.reason.clone(),
        }
    }

    pub(super) fn tell(&self, known: &[Uuid]) {
        let Self {
            id,
            queue,
            code,
            reason,
        } = self;
        if known.contains(id) {
            tracing::info!(%queue, %code, %reason, "a dead letter was delivered again");
            metric::dead_letter_again(*code);
        } else {
            tracing::warn!(letter = %id, %queue, %code, %reason, "dead letter");
            metric::dead_letter(*code);
        }
    }
}
