//! The way from the outbox to the broker, and what comes back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use uuid::Uuid;

use super::{GRACE, ReplayOptions, Replayed};
use crate::broker::{Broker, Outgoing, Published};
use crate::dead_letters::drain::{Drain, Until};
use crate::dead_letters::{DeadLetterError, Desk};
use crate::environment::Shutdown;
use crate::error::code;
use crate::message::{DEAD_LETTER_QUEUE, Destination};
use crate::store::OutboxMessage;
use crate::store::dead_letters::{HEADER_LETTER, LetterHead, PublishedReplays, ReturnedReplay};

/// Rows swept up at once.
const SWEEP_ROWS_MAX: usize = 500;
/// Pause between two looks at replays that are on their way.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);
/// How long to wait for replays that are on their way.
const SETTLE_TIME_MAX: Duration = Duration::from_mins(1);
/// Prefetch of the drains that watch for what comes back.
const WATCH_PREFETCH: u16 = 100;

impl Desk {
    pub(super) async fn publish(
        &self,
        broker: &Arc<dyn Broker>,
        rows: Vec<(Uuid, OutboxMessage)>,
    ) -> Outcome {
        let names = rows
            .iter()
            .map(|(letter, row)| (*letter, row.id, row.destination.clone()));
        let names: Vec<_> = names.collect();
        let outgoing = rows.into_iter().map(|(_, row)| outgoing(row)).collect();
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
                    outcome.failed += 1;
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

    /// Waits, and says which letters came back meanwhile.
    pub(super) async fn watch(
        &self,
        broker: &Arc<dyn Broker>,
        sent: &[LetterHead],
        wait: Duration,
        stop: &Shutdown,
    ) -> Result<Vec<Uuid>, DeadLetterError> {
        let mut queues: Vec<String> = vec![DEAD_LETTER_QUEUE.to_owned()];
        let drained = sent.iter().filter(|head| head.code == code::DEAD_LETTERED);
        queues.extend(drained.map(|head| head.queue.clone()));
        queues.sort_unstable();
        queues.dedup();
        let enough = Shutdown::default();
        let drain = Drain {
            environment: Arc::clone(&self.environment),
            broker: Arc::clone(broker),
            letters: Arc::clone(&self.letters),
            prefetch: WATCH_PREFETCH,
        };
        let drains = queues
            .iter()
            .map(|queue| watch_queue(&drain, queue, &enough));
        let ids: Vec<Uuid> = sent.iter().map(|head| head.id).collect();
        let time_is_up = async {
            tokio::select! {
                () = self.environment.sleep(wait) => {}
                () = self.all_are_back(&ids) => {}
                () = stop.requested() => {}
            }
            enough.request();
        };
        join(join_all(drains), time_is_up).await;
        Ok(self.letters.came_back(&ids).await?)
    }

    /// Ends when nothing is left to wait for.
    async fn all_are_back(&self, ids: &[Uuid]) {
        loop {
            self.environment.sleep(SETTLE_PAUSE).await;
            if let Ok(back) = self.letters.came_back(ids).await
                && back.len() >= ids.len()
            {
                return;
            }
        }
    }
}

/// Drains a queue, if it is there.
async fn watch_queue(drain: &Drain, queue: &str, enough: &Shutdown) {
    if matches!(drain.broker.queue_len(queue).await, Ok(Some(_)))
        && let Err(error) = drain.run(queue, Until::Stopped, enough, |_| {}).await
    {
        tracing::warn!(%error, queue, "can't watch this queue for what comes back");
    }
}

#[derive(Default)]
pub(super) struct Outcome {
    pub(super) published: PublishedReplays,
    pub(super) failed: usize,
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
