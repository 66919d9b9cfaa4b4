//! The way from the outbox to the broker, and what comes back.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::commit::Sent;
use super::event::Replayed;
use super::options::{GRACE, ReplayOptions};
use crate::broker::{Broker, Outgoing, Published};
use crate::dead_letters::desk::{DeadLetterError, Desk, IDS_AT_ONCE};
use crate::environment::Shutdown;
use crate::message::Destination;
use crate::store::OutboxMessage;
use crate::store::dead_letters::{HEADER_LETTER, LetterStatus, PublishedReplays, ReturnedReplay};

/// Rows swept up at once.
const SWEEP_ROWS_MAX: usize = 500;
/// Pause between two looks at replays that are on their way.
pub(super) const SETTLE_PAUSE: Duration = Duration::from_millis(200);
/// How long to wait for replays that are on their way.
const SETTLE_TIME_MAX: Duration = Duration::from_mins(1);

impl Desk {
    pub(super) async fn publish(&self, broker: &Arc<dyn Broker>, sent: Vec<Sent>) -> Outcome {
        let names = sent
            .iter()
            .map(|sent| (sent.letter, sent.row.id, sent.row.destination.clone()));
        let names: Vec<_> = names.collect();
        let outgoing = sent.into_iter().map(|sent| outgoing(sent.row)).collect();
        let mut outcome = Outcome::default();
        for ((letter, row, to), word) in names.into_iter().zip(broker.publish(outgoing).await) {
            match word {
                Published::Confirmed => outcome.published.confirmed.push((letter, row)),
                Published::Unroutable => {
                    let why = no_queue(&to);
                    let replay = ReturnedReplay { letter, row, why };
                    outcome.published.returned.push(replay);
                }
                Published::Refused(why) | Published::NotYet(why) => {
                    let replay = ReturnedReplay { letter, row, why };
                    outcome.published.returned.push(replay);
                }
                Published::Failed(why) => {
                    tracing::warn!(%letter, %why, "not published; it stays in the outbox");
                    outcome.failed.push(letter);
                }
            }
        }
        outcome
    }

    pub(super) async fn note(
        &self,
        options: &ReplayOptions,
        published: PublishedReplays,
    ) -> Result<(), DeadLetterError> {
        if !published.is_empty() {
            let actor = self.actor(&options.by, &options.why);
            self.letters.change_letters(&actor, &[], &published).await?;
        }
        Ok(())
    }

    /// Publishes what was left in the outbox until all replays are confirmed, or time is up.
    pub(super) async fn settle(
        &self,
        broker: &Arc<dyn Broker>,
        stop: &Shutdown,
        total: &mut Replayed,
    ) -> Result<(), DeadLetterError> {
        let started = self.environment.now();
        loop {
            total.on_their_way = self.letters.settle_replays().await?;
            let waited = self.environment.now().since(started);
            if total.on_their_way == 0 || waited > SETTLE_TIME_MAX || stop.is_requested() {
                return Ok(());
            }
            if !self.sweep(broker, total).await? {
                self.environment.sleep(SETTLE_PAUSE).await;
            }
        }
    }

    /// Publishes rows that are due, and says whether there were some.
    async fn sweep(
        &self,
        broker: &Arc<dyn Broker>,
        total: &mut Replayed,
    ) -> Result<bool, DeadLetterError> {
        let now = self.environment.now();
        let rows = self
            .letters
            .sweep_outbox(now, now.after(GRACE), SWEEP_ROWS_MAX)
            .await?;
        if rows.is_empty() {
            return Ok(false);
        }
        let letter = |row: &OutboxMessage| row.message.header(HEADER_LETTER)?.parse().ok();
        let names = rows
            .iter()
            .map(|row| (letter(row), row.id, row.destination.clone()));
        let names: Vec<_> = names.collect();
        let words = broker
            .publish(rows.into_iter().map(outgoing).collect())
            .await;
        let mut sent = Vec::new();
        let mut published = PublishedReplays::default();
        for ((letter, row, to), word) in names.into_iter().zip(words) {
            match (word, letter) {
                (Published::Confirmed, Some(letter)) => published.confirmed.push((letter, row)),
                (Published::Confirmed, None) => sent.push(row),
                (Published::Unroutable, Some(letter)) => {
                    let why = no_queue(&to);
                    let replay = ReturnedReplay { letter, row, why };
                    published.returned.push(replay);
                }
                (Published::Refused(why) | Published::NotYet(why), Some(letter)) => {
                    let replay = ReturnedReplay { letter, row, why };
                    published.returned.push(replay);
                }
                // A saga's: its node must hear of it, and will sweep it.
                (
                    Published::Unroutable
                    | Published::Refused(_)
                    | Published::NotYet(_)
                    | Published::Failed(_),
                    _,
                ) => {}
            }
        }
        total.returned += published.returned.len() as u64;
        self.letters.remove_sent(&sent).await?;
        let actor = self.actor("backstitch", "left in the outbox by an earlier run");
        self.letters.change_letters(&actor, &[], &published).await?;
        Ok(true)
    }

    /// How many of these letters are replayed by now.
    pub(super) async fn replayed_of(&self, letters: &[Uuid]) -> Result<u64, DeadLetterError> {
        let mut replayed = 0;
        for part in letters.chunks(IDS_AT_ONCE) {
            let found = self.letters.load_letters(part).await?;
            let done = found
                .iter()
                .filter(|letter| letter.head.status == LetterStatus::Replayed);
            replayed += done.count() as u64;
        }
        Ok(replayed)
    }
}

#[derive(Default)]
pub(super) struct Outcome {
    pub(super) published: PublishedReplays,
    /// Letters whose replay may or may not have arrived.
    pub(super) failed: Vec<Uuid>,
}

fn no_queue(to: &Destination) -> String {
    format!("no queue takes it: {to}")
}

fn outgoing(row: OutboxMessage) -> Outgoing {
    Outgoing {
        destination: row.destination,
        message: row.message,
        mandatory: true,
    }
}
