//! Letter → outbox → queue: what a replay sends, whether it may, and the way there.
//!
//! A chunk of letters is committed (status, outbox rows, audit entries), published, and its
//! outcome goes into the next chunk's transaction. A crash leaves outbox rows that any node, or the
//! next replay, sweeps up; running the same command again goes on with the letters still open.
//!
//! Letters of one saga never share a chunk, so the second is committed after the first is
//! confirmed.

mod canaries;
mod commit;
mod event;
mod options;
pub(in crate::dead_letters) mod prepare;
mod publish;
mod waiting;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use self::commit::Chunk;
pub use self::event::{ReplayEvent, Replayed};
use self::options::GRACE;
pub use self::options::{REPLAYS_MAX, ReplayOptions};
pub use self::prepare::ReplayRefusal;
use self::waiting::Waiting;
use super::desk::{CHUNK_LETTERS_MAX, DeadLetterError, Desk, Selection};
use super::rate;
use super::route::{Routes, Watch};
use crate::broker::Broker;
use crate::definition::parse_stored;
use crate::environment::Shutdown;
use crate::id::Timestamp;
use crate::store::dead_letters::{LetterHead, PublishedReplays};

impl Desk {
    /// Routes past the exchanges that stored definitions name: what is published there comes to us.
    async fn routes(&self, broker: Option<Arc<dyn Broker>>) -> Result<Routes, DeadLetterError> {
        let mut listened = BTreeSet::new();
        for row in self.sagas.definitions().await? {
            // One that can't be read by this program is not run by it either.
            if let Ok(definition) = parse_stored(&row.source, &row.name) {
                let events = definition.events();
                listened.extend(events.map(|event| event.exchange.clone()));
            }
        }
        Ok(Routes::new(broker).besides(listened))
    }

    /// Says what a replay would do, and does nothing.
    pub async fn replay_dry(
        &self,
        broker: Option<Arc<dyn Broker>>,
        selection: Selection,
        options: &ReplayOptions,
        mut tell: impl FnMut(ReplayEvent<'_>) + Send,
    ) -> Result<Replayed, DeadLetterError> {
        let mut queue = Waiting::new(selection);
        let mut routes = self.routes(broker).await?;
        let mut total = Replayed::default();
        let most = options.limit.unwrap_or(u64::MAX);
        while total.replayed < most {
            let room = usize::try_from(most - total.replayed).unwrap_or(usize::MAX);
            let heads = queue.next(self, room.min(CHUNK_LETTERS_MAX)).await?;
            if heads.is_empty() {
                break;
            }
            let mut chunk = Chunk {
                options,
                routes: &mut routes,
                due_at: self.environment.now(),
                total: &mut total,
                tell: &mut tell,
            };
            for (head, sent) in self.decide(&heads, &mut chunk).await? {
                total.replayed += 1;
                tell(ReplayEvent::Sent(&head, &sent.row.destination));
            }
        }
        Ok(total)
    }

    /// Commits replays without publishing them: nodes sweep them up as soon as they are due, which is at
    /// once, or by and by if there is a rate. `broker` is only looked at.
    pub async fn replay_by_nodes(
        &self,
        broker: Option<Arc<dyn Broker>>,
        selection: Selection,
        options: &ReplayOptions,
        mut tell: impl FnMut(ReplayEvent<'_>) + Send,
    ) -> Result<Replayed, DeadLetterError> {
        let mut queue = Waiting::new(selection);
        let mut routes = self.routes(broker).await?;
        let mut total = Replayed::default();
        let most = options.limit.unwrap_or(u64::MAX);
        let step = rate::step(options.rate, CHUNK_LETTERS_MAX);
        let started = self.environment.now();
        while total.replayed < most {
            let room = usize::try_from(most - total.replayed).unwrap_or(usize::MAX);
            let heads = queue.next(self, room.min(step)).await?;
            if heads.is_empty() {
                break;
            }
            let chunk = Chunk {
                options,
                routes: &mut routes,
                due_at: rate::due(options.rate, started, total.replayed)
                    .max(self.environment.now()),
                total: &mut total,
                tell: &mut tell,
            };
            let nothing = PublishedReplays::default();
            let sent = self.commit(&heads, &nothing, chunk).await?;
            total.replayed += sent.len() as u64;
        }
        total.on_their_way = self.letters.settle_replays().await?;
        Ok(total)
    }

    /// Replays: commits, publishes, paces itself, and stops if the canaries come back, or if nobody
    /// can know whether they do.
    pub async fn replay(
        &self,
        broker: &Arc<dyn Broker>,
        selection: Selection,
        options: &ReplayOptions,
        stop: &Shutdown,
        tell: impl FnMut(ReplayEvent<'_>) + Send,
    ) -> Result<Replayed, DeadLetterError> {
        let mut queue = Waiting::new(selection);
        let mut run = Run {
            desk: self,
            broker,
            options,
            stop,
            tell,
            routes: self.routes(Some(Arc::clone(broker))).await?,
            total: Replayed::default(),
            published: PublishedReplays::default(),
            pacing: (self.environment.now(), 0),
            canaries: options.canary.map_or(0, |(count, _)| count),
            out: Vec::new(),
        };
        let most = options.limit.unwrap_or(u64::MAX);
        // What an earlier run left behind is older than anything sent now.
        self.settle(broker, stop, &mut run.total).await?;
        run.pacing = (self.environment.now(), 0);
        while run.total.replayed < most && !stop.is_requested() {
            let room = usize::try_from(most - run.total.replayed).unwrap_or(usize::MAX);
            let heads = queue.next(self, run.step().min(room)).await?;
            if heads.is_empty() {
                // There were fewer letters than canaries.
                if run.canaries > 0 && !run.out.is_empty() {
                    run.canaries_are_good().await?;
                }
                break;
            }
            if !run.send(&heads).await? {
                break;
            }
            run.pace().await;
        }
        self.note(options, run.published).await?;
        self.settle(broker, stop, &mut run.total).await?;
        Ok(run.total)
    }
}

/// A replay under way.
struct Run<'a, T> {
    desk: &'a Desk,
    broker: &'a Arc<dyn Broker>,
    options: &'a ReplayOptions,
    stop: &'a Shutdown,
    tell: T,
    routes: Routes,
    total: Replayed,
    /// What the broker said about the chunk before; goes into the next commit.
    published: PublishedReplays,
    /// Since when, and from how many letters on, the rate counts.
    pacing: (Timestamp, u64),
    /// Canaries still to be sent.
    canaries: usize,
    /// Those that are out.
    out: Vec<(Uuid, Watch)>,
}

impl<T: FnMut(ReplayEvent<'_>) + Send> Run<'_, T> {
    /// How many letters to send next.
    fn step(&self) -> usize {
        let step = match self.canaries {
            0 => rate::step(self.options.rate, CHUNK_LETTERS_MAX),
            left => left,
        };
        step.clamp(1, CHUNK_LETTERS_MAX)
    }

    /// Commits and publishes a chunk; whether to go on.
    async fn send(&mut self, heads: &[LetterHead]) -> Result<bool, DeadLetterError> {
        let chunk = Chunk {
            options: self.options,
            routes: &mut self.routes,
            due_at: self.desk.environment.now().after(GRACE),
            total: &mut self.total,
            tell: &mut self.tell,
        };
        let told = std::mem::take(&mut self.published);
        let sent = self.desk.commit(heads, &told, chunk).await?;
        let count = sent.len();
        if self.canaries > 0 {
            let watched = sent.iter().map(|sent| (sent.letter, sent.watch.clone()));
            self.out.extend(watched);
        }
        let outcome = self.desk.publish(self.broker, sent).await;
        let returned = outcome.published.returned.len();
        self.total.replayed += outcome.published.confirmed.len() as u64;
        self.total.returned += returned as u64;
        for replay in &outcome.published.returned {
            (self.tell)(ReplayEvent::Returned(replay.letter, &replay.why));
        }
        self.published = outcome.published;
        if !outcome.failed.is_empty() {
            // Nothing may overtake what the broker did not take.
            self.note().await?;
            self.desk
                .settle(self.broker, self.stop, &mut self.total)
                .await?;
            self.total.replayed += self.desk.replayed_of(&outcome.failed).await?;
            self.pacing = (self.desk.environment.now(), self.total.replayed);
        }
        if self.canaries == 0 {
            return Ok(true);
        }
        self.canaries = self.canaries.saturating_sub(count);
        if self.canaries > 0 && returned == 0 {
            return Ok(true);
        }
        let good = self.canaries_are_good().await?;
        Ok(good && returned == 0)
    }

    /// Waits whether the canaries come back; whether the others may follow.
    async fn canaries_are_good(&mut self) -> Result<bool, DeadLetterError> {
        self.note().await?;
        let wait = self.options.canary.map_or(Duration::ZERO, |(_, wait)| wait);
        (self.tell)(ReplayEvent::Waiting(self.out.len(), wait));
        let seen = self
            .desk
            .watch(self.broker, &self.out, wait, self.stop)
            .await?;
        let good = seen.add_to(&mut self.total);
        // The time spent waiting is not made up for by a burst.
        self.pacing = (self.desk.environment.now(), self.total.replayed);
        let goes_on = good || (self.options.wish.anyway && self.total.came_back.is_empty());
        self.total.stopped = !goes_on;
        Ok(goes_on)
    }

    async fn note(&mut self) -> Result<(), DeadLetterError> {
        let published = std::mem::take(&mut self.published);
        self.desk.note(self.options, published).await
    }

    async fn pace(&self) {
        let (since, from) = self.pacing;
        let sent = self.total.replayed.saturating_sub(from);
        let environment = &self.desk.environment;
        rate::pace(environment, self.options.rate, since, sent, self.stop).await;
    }
}
