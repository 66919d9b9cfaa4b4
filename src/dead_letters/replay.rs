//! Letter → outbox → queue: what a replay sends, whether it may, and the way there.
//!
//! A chunk of letters is committed (status, outbox rows, audit entries), published, and its
//! outcome goes into the next chunk's transaction. A crash leaves outbox rows that any node, or the
//! next replay, sweeps up; running the same command again goes on with the letters still open.
//!
//! Letters of one saga never share a chunk, so the second is committed after the first is
//! confirmed.

mod prepare;
mod publish;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use self::prepare::check;
pub use self::prepare::{Refusal, prepare};
use self::waiting::Waiting;
use super::{CHUNK_LETTERS_MAX, Cursor, DeadLetterError, Desk, Selection, change, rate};
use crate::broker::Broker;
use crate::environment::Shutdown;
use crate::id::{SagaId, Timestamp};
use crate::message::Destination;
use crate::store::dead_letters::{Change, LetterHead, PublishedReplays};
use crate::store::{LoadRequest, OutboxMessage, Status};

/// How often a message may be replayed when nothing else is said.
pub const REPLAYS_MAX: u32 = 3;
/// How long whoever committed a replay has to publish it before others do.
const GRACE: Duration = Duration::from_secs(15);

/// How to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayOptions {
    /// Where to, if not to the queue where it died first.
    pub to: Option<Destination>,
    /// Also what was replayed or discarded before.
    pub again: bool,
    /// Also letters of sagas that have ended.
    pub force: bool,
    /// How often a message may be replayed.
    pub replays_max: u32,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// Most letters a second.
    pub rate: Option<u32>,
    /// How many to replay first, and how long to wait whether they come back.
    pub canary: Option<(usize, Duration)>,
    /// Most letters in all.
    pub limit: Option<u64>,
}

/// What happens, for those who watch.
#[derive(Debug)]
pub enum ReplayEvent<'a> {
    /// It goes, or would go, there.
    Sent(&'a LetterHead, &'a Destination),
    /// It does not go.
    Refused(&'a LetterHead, &'a Refusal),
    /// Somebody else changed it first.
    Lost(Uuid),
    /// No queue takes it, or the broker refuses it, and says why: it is open again.
    Returned(Uuid, &'a str),
    /// The canaries are out.
    Waiting(usize, Duration),
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Replayed {
    /// Letters replayed.
    pub replayed: u64,
    /// Letters that may not be.
    pub refused: u64,
    /// Letters that no queue took, or the broker refused: open again.
    pub returned: u64,
    /// Letters that somebody else changed first.
    pub lost: u64,
    /// Canaries that came back; then no others were sent.
    pub came_back: Vec<Uuid>,
    /// Letters whose replay is committed, but not yet confirmed by the broker.
    pub on_their_way: u64,
}

impl Desk {
    /// Says what a replay would do, and does nothing.
    pub async fn replay_dry(
        &self,
        selection: Selection,
        options: &ReplayOptions,
        mut tell: impl FnMut(ReplayEvent<'_>) + Send,
    ) -> Result<Replayed, DeadLetterError> {
        let mut cursor = Cursor::new(selection);
        let mut total = Replayed::default();
        loop {
            let heads = cursor.next(&*self.letters).await?;
            if heads.is_empty() {
                return Ok(total);
            }
            let sagas = self.saga_statuses(&heads).await?;
            for head in &heads {
                if options.limit.is_some_and(|most| total.replayed >= most) {
                    return Ok(total);
                }
                let saga = head.saga.and_then(|saga| sagas.get(&saga).copied());
                match check(head, saga, options) {
                    Ok(to) => {
                        total.replayed += 1;
                        tell(ReplayEvent::Sent(head, &to));
                    }
                    Err(refusal) => {
                        total.refused += 1;
                        tell(ReplayEvent::Refused(head, &refusal));
                    }
                }
            }
        }
    }

    /// Commits replays without publishing them: nodes sweep them up at once. For callers that are
    /// not connected to the broker.
    pub async fn replay_by_nodes(
        &self,
        selection: Selection,
        options: &ReplayOptions,
        mut tell: impl FnMut(ReplayEvent<'_>) + Send,
    ) -> Result<Replayed, DeadLetterError> {
        let mut queue = Waiting::new(selection);
        let mut total = Replayed::default();
        let most = options.limit.unwrap_or(u64::MAX);
        while total.replayed < most {
            let room = usize::try_from(most - total.replayed).unwrap_or(usize::MAX);
            let heads = queue.next(self, room.min(CHUNK_LETTERS_MAX)).await?;
            if heads.is_empty() {
                break;
            }
            let due_at = self.environment.now();
            let nothing = PublishedReplays::default();
            let sent = self
                .commit(&heads, options, due_at, &nothing, &mut total, &mut tell)
                .await?;
            total.replayed += sent.len() as u64;
        }
        total.on_their_way = self.letters.settle_replays().await?;
        Ok(total)
    }

    /// Replays: commits, publishes, paces itself, and stops if the canaries come back.
    pub async fn replay(
        &self,
        broker: &Arc<dyn Broker>,
        selection: Selection,
        options: &ReplayOptions,
        stop: &Shutdown,
        mut tell: impl FnMut(ReplayEvent<'_>) + Send,
    ) -> Result<Replayed, DeadLetterError> {
        let mut queue = Waiting::new(selection);
        let mut total = Replayed::default();
        let mut published = PublishedReplays::default();
        let (mut canaries, wait) = options.canary.unwrap_or_default();
        let mut out = Vec::new();
        let most = options.limit.unwrap_or(u64::MAX);
        // What an earlier run left behind is older than anything sent now.
        self.settle(broker, stop, &mut total).await?;
        let (mut started, mut paced_from) = (self.environment.now(), 0);
        while total.replayed < most && !stop.is_requested() {
            let room = usize::try_from(most - total.replayed).unwrap_or(usize::MAX);
            let chunk = match canaries {
                0 => rate::step(options.rate, CHUNK_LETTERS_MAX),
                left => left,
            };
            let chunk = chunk.clamp(1, CHUNK_LETTERS_MAX);
            let heads = queue.next(self, chunk.min(room)).await?;
            if heads.is_empty() {
                break;
            }
            let due_at = self.environment.now().after(GRACE);
            let told = std::mem::take(&mut published);
            let sent = self
                .commit(&heads, options, due_at, &told, &mut total, &mut tell)
                .await?;
            let count = sent.len();
            let went: HashSet<Uuid> = sent.iter().map(|(letter, _)| *letter).collect();
            total.replayed += count as u64;
            let outcome = self.publish(broker, sent).await;
            for replay in &outcome.published.returned {
                tell(ReplayEvent::Returned(replay.letter, &replay.why));
                total.returned += 1;
                total.replayed -= 1;
            }
            published = outcome.published;
            if outcome.failed > 0 {
                // Nothing may overtake what the broker did not take.
                self.note(options, std::mem::take(&mut published)).await?;
                self.settle(broker, stop, &mut total).await?;
                (started, paced_from) = (self.environment.now(), total.replayed);
            }
            if canaries > 0 {
                canaries = canaries.saturating_sub(count);
                out.extend(heads.into_iter().filter(|head| went.contains(&head.id)));
                if canaries == 0 {
                    self.note(options, std::mem::take(&mut published)).await?;
                    tell(ReplayEvent::Waiting(out.len(), wait));
                    total.came_back = self.watch(broker, &out, wait, stop).await?;
                    // The time spent waiting is not made up for by a burst.
                    (started, paced_from) = (self.environment.now(), total.replayed);
                    if !total.came_back.is_empty() {
                        break;
                    }
                }
            }
            let sent = total.replayed.saturating_sub(paced_from);
            rate::pace(&self.environment, options.rate, started, sent, stop).await;
        }
        self.note(options, published).await?;
        self.settle(broker, stop, &mut total).await?;
        Ok(total)
    }

    /// Commits one chunk, and what became of the one before.
    async fn commit(
        &self,
        heads: &[LetterHead],
        options: &ReplayOptions,
        due_at: Timestamp,
        published: &PublishedReplays,
        total: &mut Replayed,
        tell: &mut (impl FnMut(ReplayEvent<'_>) + Send),
    ) -> Result<Vec<(Uuid, OutboxMessage)>, DeadLetterError> {
        let sagas = self.saga_statuses(heads).await?;
        let mut allowed = Vec::with_capacity(heads.len());
        for head in heads {
            let saga = head.saga.and_then(|saga| sagas.get(&saga).copied());
            match check(head, saga, options) {
                Ok(_) => allowed.push(head.id),
                Err(refusal) => {
                    total.refused += 1;
                    tell(ReplayEvent::Refused(head, &refusal));
                }
            }
        }
        let mut changes = Vec::with_capacity(allowed.len());
        for letter in self.letters.load_letters(&allowed).await? {
            let saga = letter.head.saga.and_then(|saga| sagas.get(&saga).copied());
            let id = self.environment.new_id();
            match prepare(&letter, saga, options, id, due_at) {
                Ok(row) => changes.push(change(&letter.head, Change::Replay(Box::new(row)))),
                Err(refusal @ Refusal::Unsendable(_)) => {
                    total.refused += 1;
                    tell(ReplayEvent::Refused(&letter.head, &refusal));
                }
                // It changed since its head was read.
                Err(_) => total.lost += 1,
            }
        }
        let actor = self.actor(&options.by, &options.why);
        let lost = self
            .letters
            .change_letters(&actor, &changes, published)
            .await?;
        let lost: HashSet<Uuid> = lost.into_iter().collect();
        let heads: HashMap<Uuid, &LetterHead> = heads.iter().map(|head| (head.id, head)).collect();
        let mut sent = Vec::with_capacity(changes.len());
        for change in changes {
            let Change::Replay(row) = change.what else {
                continue;
            };
            if lost.contains(&change.letter) {
                total.lost += 1;
                tell(ReplayEvent::Lost(change.letter));
                continue;
            }
            if let Some(head) = heads.get(&change.letter) {
                tell(ReplayEvent::Sent(head, &row.destination));
            }
            sent.push((change.letter, *row));
        }
        Ok(sent)
    }

    async fn saga_statuses(
        &self,
        heads: &[LetterHead],
    ) -> Result<HashMap<SagaId, Status>, DeadLetterError> {
        let sagas: HashSet<SagaId> = heads.iter().filter_map(|head| head.saga).collect();
        // No entry comes after the largest number that every database can hold.
        let after = i64::MAX.unsigned_abs();
        let requests: Vec<_> = sagas
            .into_iter()
            .map(|id| LoadRequest { id, after })
            .collect();
        let loaded = self.sagas.load(&requests).await?;
        let heads = loaded.into_iter().flatten().map(|saga| saga.head);
        Ok(heads.map(|head| (head.id, head.status)).collect())
    }
}
