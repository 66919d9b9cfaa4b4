//! Messages that come back from the broker for good: dead letters, new ones and those that were replayed.

use uuid::Uuid;

use super::Shared;
use crate::broker::Published;
use crate::engine::limit::within;
use crate::error::code;
use crate::metric;
use crate::store::dead_letters::{HEADER_LETTER, ReturnedReplay, Sighting};
use crate::store::{DeadLetter, OutboxMessage};

impl Shared {
    /// Keeps messages that the broker will never take as dead letters, with its words. Their rows are
    /// done with then.
    pub(super) async fn set_aside(&self, refused: Vec<(OutboxMessage, String)>) {
        if refused.is_empty() {
            return;
        }
        let at = self.environment.now();
        let letters = refused.iter().map(|(row, why)| DeadLetter {
            id: Uuid::new_v5(&row.id, b"refused by the broker"),
            at,
            queue: row.destination.routing_key.clone(),
            code: code::BROKER_REFUSED,
            reason: format!(
                "the broker refuses this message to {}: {why}",
                row.destination
            ),
            message: row.message.clone(),
            sighting: Sighting::default(),
        });
        let (letters, rows) = (letters.collect(), refused.iter().map(|(row, _)| row.id));
        let keeping = self.outbox.set_aside(letters, rows.collect());
        if let Err(error) = within(&*self.environment, keeping).await {
            // The rows stay and become due after the grace time.
            tracing::warn!(%error, "can't keep messages that the broker refuses; will be swept");
            return;
        }
        for (row, why) in refused {
            metric::dead_letter(code::BROKER_REFUSED);
            tracing::warn!(to = %row.destination, why, "the broker refuses a message: dead letter");
        }
    }

    /// Opens the letters of replays that were not taken; their rows are done with then.
    pub(super) async fn give_back_replays(&self, returned: Vec<ReturnedReplay>) {
        if returned.is_empty() {
            return;
        }
        for replay in &returned {
            tracing::warn!(letter = %replay.letter, why = replay.why, "a replay comes back");
        }
        let now = self.environment.now();
        let returning = self.outbox.return_replays(now, returned);
        if let Err(error) = within(&*self.environment, returning).await {
            // The rows stay and become due after the grace time.
            tracing::warn!(%error, "can't give replays back to the dead letters; will be swept");
        }
    }
}

/// The letter whose replay this is.
pub(super) fn letter_of(row: &OutboxMessage) -> Option<Uuid> {
    row.message.header(HEADER_LETTER)?.parse().ok()
}

pub(super) fn returned_replay(row: &OutboxMessage, word: Published) -> Option<ReturnedReplay> {
    let why = match word {
        Published::Refused(why) | Published::NotYet(why) => why,
        _ => format!("no queue takes it: {}", row.destination),
    };
    let (letter, row) = (letter_of(row)?, row.id);
    Some(ReturnedReplay { letter, row, why })
}
