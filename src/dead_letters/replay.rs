//! Letter → outbox → queue: what a replay sends, whether it may, and the way there.
//!
//! A chunk of letters is committed (status, outbox rows, audit entries), published, and its
//! outcome goes into the next chunk's transaction. A crash leaves outbox rows that any node, or the
//! next replay, sweeps up; running the same command again goes on with the letters still open.
//!
//! Letters of one saga never share a chunk, so the second is committed after the first is
//! confirmed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use uuid::Uuid;

use super::drain::{Drain, Until};
use super::{CHUNK_BYTES_MAX, CHUNK_LETTERS_MAX, Cursor, DeadLetterError, Desk, Selection, change};
use crate::broker::{Broker, Outgoing, Published};
use crate::environment::Shutdown;
use crate::error::code;
use crate::id::{SagaId, Timestamp};
use crate::message::{DEAD_LETTER_QUEUE, Destination, Message};
use crate::store::dead_letters::{
    Change, HEADER_LETTER, HEADER_ORIGIN, HEADER_REPLAYS, Letter, LetterHead, LetterStatus,
    PublishedReplays,
};
use crate::store::{LoadRequest, OutboxMessage, Status};

/// How often a message may be replayed when nothing else is said.
pub const REPLAYS_MAX: u32 = 3;
/// How long whoever committed a replay has to publish it before others do.
const GRACE: Duration = Duration::from_secs(15);
/// Rows swept up at once.
const SWEEP_ROWS_MAX: usize = 500;
/// Pause between two looks at replays that are on their way.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);
/// How long to wait for replays that are on their way.
const SETTLE_TIME_MAX: Duration = Duration::from_mins(1);
/// With a rate, chunks a second.
const CHUNKS_A_SECOND: u32 = 5;
/// Prefetch of the drains that watch for what comes back.
const WATCH_PREFETCH: u16 = 100;

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

/// Why a letter is not replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was handled.
    #[error("it was {0} already; `--again` replays it all the same")]
    Handled(LetterStatus),
    /// Its replay has not been confirmed.
    #[error("its replay is on its way; wait until it is confirmed")]
    OnItsWay,
    /// Its saga is over.
    #[error("its saga {0} has ended ({1}); `--force` sends it all the same")]
    Ended(SagaId, Status),
    /// It keeps coming back.
    #[error(
        "its message was replayed {0} times; mend the cause, or allow more with `--replays-max`"
    )]
    TooOften(u32),
    /// Nobody knows where it belongs.
    #[error("the broker does not say which queue it died in; name one with `--to`")]
    NoQueue,
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
    /// No queue takes it: it is open again.
    Returned(Uuid),
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
    /// Letters that no queue took: open again.
    pub returned: u64,
    /// Letters that somebody else changed first.
    pub lost: u64,
    /// Canaries that came back; then no others were sent.
    pub came_back: Vec<Uuid>,
    /// Letters whose replay is committed, but not yet confirmed by the broker.
    pub on_their_way: u64,
}

/// What a replay of this letter sends, if it may be sent.
pub fn prepare(
    letter: &Letter,
    saga: Option<Status>,
    options: &ReplayOptions,
    id: Uuid,
    due_at: Timestamp,
) -> Result<OutboxMessage, Refusal> {
    let head = &letter.head;
    let destination = check(head, saga, options)?;
    let mut message: Message = letter.message().clone();
    let headers = &mut message.properties.headers;
    headers.retain(|name, _| !is_brokers(name));
    headers.insert(HEADER_LETTER.to_owned(), Value::from(head.id.to_string()));
    headers.insert(HEADER_REPLAYS.to_owned(), Value::from(head.replays + 1));
    let origin = head.origin.queue.clone().or_else(|| {
        let to = &destination;
        to.exchange.is_empty().then(|| to.routing_key.clone())
    });
    if let Some(queue) = origin {
        headers.insert(HEADER_ORIGIN.to_owned(), Value::from(queue));
    }
    Ok(OutboxMessage {
        id,
        destination,
        message,
        due_at,
    })
}

/// Whether a letter may be replayed, and where to.
fn check(
    head: &LetterHead,
    saga: Option<Status>,
    options: &ReplayOptions,
) -> Result<Destination, Refusal> {
    match head.status {
        LetterStatus::Open => {}
        LetterStatus::Replaying => return Err(Refusal::OnItsWay),
        handled if !options.again => return Err(Refusal::Handled(handled)),
        _ => {}
    }
    if let (Some(id), Some(status)) = (head.saga, saga)
        && matches!(status, Status::Completed | Status::Compensated)
        && !options.force
    {
        return Err(Refusal::Ended(id, status));
    }
    if head.replays >= options.replays_max {
        return Err(Refusal::TooOften(head.replays));
    }
    if let Some(to) = &options.to {
        return Ok(to.clone());
    }
    let queue = match &head.origin.queue {
        Some(queue) => queue,
        // What we buried ourselves was taken from where it belongs.
        None if head.code != code::DEAD_LETTERED => &head.queue,
        None => return Err(Refusal::NoQueue),
    };
    Ok(Destination::queue(queue))
}

/// The broker's own books, by which it would take the replay for one that goes in circles.
fn is_brokers(name: &str) -> bool {
    ["x-death", "x-first-death-", "x-last-death-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || ["x-delivery-count", "x-acquired-count"].contains(&name)
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
        broker: &std::sync::Arc<dyn Broker>,
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
        let started = self.environment.now();
        let most = options.limit.unwrap_or(u64::MAX);
        // What an earlier run left behind is older than anything sent now.
        self.settle(broker, stop, &mut total).await?;
        while total.replayed < most && !stop.is_requested() {
            let room = usize::try_from(most - total.replayed).unwrap_or(usize::MAX);
            let chunk = match canaries {
                0 => chunk_of(options.rate),
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
            for (letter, _) in &outcome.published.returned {
                tell(ReplayEvent::Returned(*letter));
                total.returned += 1;
                total.replayed -= 1;
            }
            published = outcome.published;
            if outcome.failed > 0 {
                // Nothing may overtake what the broker did not take.
                self.note(options, std::mem::take(&mut published)).await?;
                self.settle(broker, stop, &mut total).await?;
            }
            if canaries > 0 {
                canaries = canaries.saturating_sub(count);
                out.extend(heads.into_iter().filter(|head| went.contains(&head.id)));
                if canaries == 0 {
                    self.note(options, std::mem::take(&mut published)).await?;
                    tell(ReplayEvent::Waiting(out.len(), wait));
                    total.came_back = self.watch(broker, &out, wait, stop).await?;
                    if !total.came_back.is_empty() {
                        break;
                    }
                }
            }
            self.pace(options.rate, started, total.replayed, stop).await;
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

    async fn publish(
        &self,
        broker: &std::sync::Arc<dyn Broker>,
        rows: Vec<(Uuid, OutboxMessage)>,
    ) -> Outcome {
        let names: Vec<(Uuid, Uuid)> = rows.iter().map(|(letter, row)| (*letter, row.id)).collect();
        let outgoing = rows.into_iter().map(|(_, row)| outgoing(row)).collect();
        let mut outcome = Outcome::default();
        for (name, word) in names.into_iter().zip(broker.publish(outgoing).await) {
            match word {
                Published::Confirmed => outcome.published.confirmed.push(name),
                Published::Unroutable => outcome.published.returned.push(name),
                Published::Failed(why) => {
                    tracing::warn!(letter = %name.0, %why, "not published; it stays in the outbox");
                    outcome.failed += 1;
                }
            }
        }
        outcome
    }

    async fn note(
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
    async fn settle(
        &self,
        broker: &std::sync::Arc<dyn Broker>,
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
        broker: &std::sync::Arc<dyn Broker>,
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
        let names: Vec<(Option<Uuid>, Uuid)> =
            rows.iter().map(|row| (letter(row), row.id)).collect();
        let words = broker
            .publish(rows.into_iter().map(outgoing).collect())
            .await;
        let mut sent = Vec::new();
        let mut published = PublishedReplays::default();
        for ((letter, row), word) in names.into_iter().zip(words) {
            match (word, letter) {
                (Published::Confirmed, Some(letter)) => published.confirmed.push((letter, row)),
                (Published::Confirmed, None) => sent.push(row),
                (Published::Unroutable, Some(letter)) => published.returned.push((letter, row)),
                // A saga's: its node must hear of it, and will sweep it.
                (Published::Unroutable | Published::Failed(_), _) => {}
            }
        }
        total.returned += published.returned.len() as u64;
        self.letters.remove_sent(&sent).await?;
        let actor = self.actor("backstitch", "left in the outbox by an earlier run");
        self.letters.change_letters(&actor, &[], &published).await?;
        Ok(true)
    }

    /// Waits, and says which letters came back meanwhile.
    async fn watch(
        &self,
        broker: &std::sync::Arc<dyn Broker>,
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
            environment: std::sync::Arc::clone(&self.environment),
            broker: std::sync::Arc::clone(broker),
            letters: std::sync::Arc::clone(&self.letters),
            prefetch: WATCH_PREFETCH,
        };
        let drains = queues
            .iter()
            .map(|queue| watch_queue(&drain, queue, &enough));
        let time_is_up = async {
            tokio::select! {
                () = self.environment.sleep(wait) => {}
                () = stop.requested() => {}
            }
            enough.request();
        };
        futures_util::future::join(join_all(drains), time_is_up).await;
        let ids: Vec<Uuid> = sent.iter().map(|head| head.id).collect();
        Ok(self.letters.came_back(&ids).await?)
    }

    /// Waits until `sent` letters are no more than the rate allows.
    async fn pace(&self, rate: Option<u32>, started: Timestamp, sent: u64, stop: &Shutdown) {
        let Some(rate) = rate else {
            return;
        };
        let micros = sent.saturating_mul(1_000_000) / u64::from(rate.max(1));
        let due = started.after(Duration::from_micros(micros));
        let wait = due.since(self.environment.now());
        if !wait.is_zero() {
            tokio::select! {
                () = self.environment.sleep(wait) => {}
                () = stop.requested() => {}
            }
        }
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

/// Drains a queue, if it is there.
async fn watch_queue(drain: &Drain, queue: &str, enough: &Shutdown) {
    if matches!(drain.broker.queue_len(queue).await, Ok(Some(_)))
        && let Err(error) = drain.run(queue, Until::Stopped, enough, |_| {}).await
    {
        tracing::warn!(%error, queue, "can't watch this queue for what comes back");
    }
}

#[derive(Default)]
struct Outcome {
    published: PublishedReplays,
    failed: usize,
}

/// Letters that wait for their chunk.
struct Waiting {
    cursor: Cursor,
    heads: VecDeque<LetterHead>,
}

impl Waiting {
    fn new(selection: Selection) -> Self {
        Self {
            cursor: Cursor::new(selection),
            heads: VecDeque::new(),
        }
    }

    /// The next chunk: in order, within the bounds, and of each saga only the first.
    async fn next(&mut self, desk: &Desk, most: usize) -> Result<Vec<LetterHead>, DeadLetterError> {
        while self.heads.len() < most {
            let heads = self.cursor.next(&*desk.letters).await?;
            if heads.is_empty() {
                break;
            }
            self.heads.extend(heads);
        }
        let mut chunk = Vec::new();
        let mut later = VecDeque::new();
        let mut sagas = HashSet::new();
        let mut bytes = 0;
        while chunk.len() < most
            && let Some(head) = self.heads.pop_front()
        {
            let fits = chunk.is_empty() || bytes + head.body_bytes <= CHUNK_BYTES_MAX;
            if !fits {
                later.push_back(head);
                break;
            }
            if head.saga.is_some_and(|saga| !sagas.insert(saga)) {
                later.push_back(head);
                continue;
            }
            bytes += head.body_bytes;
            chunk.push(head);
        }
        later.append(&mut self.heads);
        self.heads = later;
        Ok(chunk)
    }
}

fn chunk_of(rate: Option<u32>) -> usize {
    rate.map_or(CHUNK_LETTERS_MAX, |rate| {
        usize::try_from(rate.div_ceil(CHUNKS_A_SECOND)).unwrap_or(CHUNK_LETTERS_MAX)
    })
}

fn outgoing(row: OutboxMessage) -> Outgoing {
    Outgoing {
        destination: row.destination,
        message: row.message,
        mandatory: true,
    }
}
