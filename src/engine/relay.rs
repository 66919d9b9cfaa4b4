//! Publishes what was committed: outbox → broker → confirm → outbox row gone.
//!
//! The one who committed hands the rows over at once, so a message waits for no poll. Confirmed
//! rows are removed by the *next* commit ([`Relay::take_sent`]), or by the relay itself when there
//! is none soon. What the broker does not take is given to it again soon ([`again`]); rows that a
//! crash or a longer failure left behind become due after a grace time and are swept by any node. Hence: published ⇒ committed, and committed ⇒ published at least once.
//!
//! Shared by the engine and the participants; deliberately without any knowledge of either.

mod again;
mod returned;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};
use uuid::Uuid;

use self::returned::{letter_of, returned_replay};
use super::limit::within;
use crate::broker::{Broker, Outgoing, Published};
use crate::environment::{Environment, Shutdown, Task};
use crate::id::Timestamp;
use crate::message::{AGGREGATE_EVENT_EXCHANGE, EVENT_EXCHANGE};
use crate::metric;
use crate::store::{Outbox, OutboxMessage};

/// Batches that may wait for a publisher; when they are full, whoever commits waits.
const WAITING_BATCHES_MAX: usize = 64;
/// Most messages given to the broker in one call.
const PUBLISH_BATCH_MAX: usize = 256;
/// How much longer than others a relay waits that nobody hears.
const UNHEARD_LAG: Duration = Duration::from_secs(3);
/// Most rows swept at once.
const SWEEP_ROWS_MAX: usize = 500;

/// How the relay paces itself.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Publishers at work side by side.
    pub publishers: usize,
    /// Age at which an outbox row counts as left behind. Longer than any publish normally takes,
    /// or messages are published twice (which is harmless, but costs).
    pub grace: Duration,
    /// How often to look for rows left behind.
    pub sweep_every: Duration,
    /// How long a confirmed row waits for a commit to take it along.
    pub remove_after: Duration,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            publishers: 4,
            grace: Duration::from_secs(10),
            sweep_every: Duration::from_secs(1),
            remove_after: Duration::from_millis(50),
        }
    }
}

/// A running relay.
pub struct Relay {
    intake: Mutex<Option<mpsc::Sender<Handed>>>,
    shared: Arc<Shared>,
    tasks: Mutex<Vec<Task>>,
    stop: Shutdown,
}

struct Shared {
    environment: Arc<dyn Environment>,
    broker: Arc<dyn Broker>,
    outbox: Arc<dyn Outbox>,
    options: RelayOptions,
    sent: Mutex<Vec<Uuid>>,
    sent_some: Notify,
    /// When the outbox was last swept to the end of what was due, or could be handed over.
    swept: AtomicI64,
    /// Takes rows that the broker did not take, to try them again soon.
    again: again::Again,
    /// Hears what became of messages, where that matters to whoever sent them. Without it, what no queue
    /// wanted is dropped with a warning.
    sender: Option<mpsc::Sender<Report>>,
}

/// Rows to publish.
struct Handed {
    rows: Vec<OutboxMessage>,
    before: Before,
}

/// What was done with a row before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// It has just been committed.
    Nothing,
    /// This relay has published it, this often, and heard no confirm.
    Tried(u32),
    /// It was left behind, by whomever: it may have been published.
    LeftBehind,
}

/// What became of a message, where that matters to whoever sent it; its row is still there.
#[derive(Debug)]
pub struct Report {
    /// The row.
    pub row: OutboxMessage,
    /// What became of it.
    pub fate: Fate,
}

/// See [`Report`].
#[derive(Debug)]
pub enum Fate {
    /// It must arrive, and no queue took it.
    NoQueue {
        /// Whether it was published just this once, so that no copy of it has arrived either.
        once: bool,
    },
    /// The broker will never take it, and says why.
    Refused(String),
    /// An answer to it is expected, and it may have been sent only now, long after it was written.
    Late,
}

impl Relay {
    /// Starts the publishers and the sweeper. What became of some messages is told to `sender`, whose
    /// owner then has their outbox rows removed; while it is full they wait for a sweep.
    pub fn start(
        environment: Arc<dyn Environment>,
        broker: Arc<dyn Broker>,
        outbox: Arc<dyn Outbox>,
        options: RelayOptions,
        sender: Option<mpsc::Sender<Report>>,
    ) -> Arc<Self> {
        let (intake, waiting) = mpsc::channel(WAITING_BATCHES_MAX);
        let waiting = Arc::new(AsyncMutex::new(waiting));
        let swept = AtomicI64::new(environment.now().as_micros());
        let (again, failed) = again::channel();
        let shared = Arc::new(Shared {
            environment,
            broker,
            outbox,
            options,
            sent: Mutex::default(),
            sent_some: Notify::new(),
            swept,
            again,
            sender,
        });
        let stop = Shutdown::default();
        let mut tasks = Vec::new();
        for _ in 0..shared.options.publishers.max(1) {
            let (shared, waiting) = (Arc::clone(&shared), Arc::clone(&waiting));
            let environment = Arc::clone(&shared.environment);
            tasks.push(Task::start(
                &environment,
                "relay",
                shared.publish_waiting(waiting),
            ));
        }
        let environment = Arc::clone(&shared.environment);
        tasks.push(Task::start(
            &environment,
            "relay-sweep",
            Arc::clone(&shared).sweep_left_behind(intake.clone(), stop.clone()),
        ));
        tasks.push(Task::start(
            &environment,
            "relay-again",
            again::run(
                Arc::clone(&environment),
                failed,
                intake.clone(),
                stop.clone(),
            ),
        ));
        tasks.push(Task::start(
            &environment,
            "relay-remove",
            Arc::clone(&shared).remove_when_idle(stop.clone()),
        ));
        Arc::new(Self {
            intake: Mutex::new(Some(intake)),
            shared,
            tasks: Mutex::new(tasks),
            stop,
        })
    }

    /// Hands over messages whose rows are committed; waits while the broker can't keep up.
    pub async fn send(&self, messages: Vec<OutboxMessage>) {
        if messages.is_empty() {
            return;
        }
        let intake = self
            .intake
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(intake) = intake {
            // Fails only after `stop`: the rows stay, and another node sweeps them.
            let _ = intake
                .send(Handed {
                    rows: messages,
                    before: Before::Nothing,
                })
                .await;
        }
    }

    /// Ids of confirmed rows, to be removed by the caller's next commit; the caller gives them
    /// back by [`Relay::give_back`] if that commit fails.
    pub fn take_sent(&self) -> Vec<Uuid> {
        std::mem::take(&mut *lock(&self.shared.sent))
    }

    /// When the outbox was last swept with success.
    pub fn swept_at(&self) -> Timestamp {
        Timestamp::from_micros(self.shared.swept.load(Ordering::Relaxed))
    }

    /// Undoes [`Relay::take_sent`].
    pub fn give_back(&self, sent: Vec<Uuid>) {
        self.shared.mark_sent(sent);
    }

    /// Publishes what was handed over, removes the confirmed rows and stops.
    pub async fn stop(&self) {
        drop(
            self.intake
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        self.stop.request();
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        join_all(tasks.into_iter().map(Task::ended)).await;
        self.shared.remove(self.take_sent()).await;
    }
}

impl Shared {
    async fn publish_waiting(self: Arc<Self>, waiting: Arc<AsyncMutex<mpsc::Receiver<Handed>>>) {
        loop {
            let mut batch = Vec::new();
            {
                let mut waiting = waiting.lock().await;
                match waiting.recv().await {
                    Some(handed) => take(&mut batch, handed),
                    None => return,
                }
                while batch.len() < PUBLISH_BATCH_MAX
                    && let Ok(handed) = waiting.try_recv()
                {
                    take(&mut batch, handed);
                }
            }
            self.publish(batch).await;
        }
    }

    async fn publish(&self, batch: Vec<(OutboxMessage, Before)>) {
        let outgoing = batch
            .iter()
            .map(|(row, _)| Outgoing {
                destination: row.destination.clone(),
                message: row.message.clone(),
                mandatory: row.destination.exchange != EVENT_EXCHANGE
                    && row.destination.exchange != AGGREGATE_EVENT_EXCHANGE
                    && !row.destination.is_direct_reply(),
            })
            .collect();
        let published = self.broker.publish(outgoing).await;
        let mut sent = Vec::with_capacity(batch.len());
        let mut returned = Vec::new();
        let mut refused = Vec::new();
        let mut failed = Vec::new();
        for ((row, before), published) in batch.into_iter().zip(published) {
            match published {
                Published::Confirmed if self.is_late(&row, before) => {
                    sent.extend(self.report(row, Fate::Late));
                }
                Published::Confirmed => sent.push(row.id),
                // A replay has no saga that waits for it: its letter must come back.
                Published::Unroutable | Published::Refused(_) | Published::NotYet(_)
                    if letter_of(&row).is_some() =>
                {
                    returned.extend(returned_replay(&row, published));
                }
                Published::Unroutable => {
                    let once = before == Before::Nothing;
                    sent.extend(self.report(row, Fate::NoQueue { once }));
                }
                // Nobody else keeps it.
                Published::Refused(why) if self.sender.is_none() => refused.push((row, why)),
                Published::Refused(why) => sent.extend(self.report(row, Fate::Refused(why))),
                Published::NotYet(why) => {
                    // The row stays, and with it whoever has yet to come back for it may come late.
                    metric::publish_waits();
                    tracing::debug!(to = %row.destination, %why, "not yet; will be swept");
                }
                Published::Failed(why) => {
                    metric::publish_failed();
                    tracing::debug!(to = %row.destination, %why, "publish failed; will be tried again");
                    failed.push((row, before));
                }
            }
        }
        metric::published(sent.len());
        self.mark_sent(sent);
        self.try_again(failed);
        self.give_back_replays(returned).await;
        self.set_aside(refused).await;
    }

    /// Hands over what failed, to be published again soon. What is not, stays in the outbox and becomes
    /// due after the grace time.
    fn try_again(&self, failed: Vec<(OutboxMessage, Before)>) {
        for handed in again::soon(failed, self.environment.now()) {
            let _ = self.again.put(handed);
        }
    }

    /// Whether somebody waits for an answer to a message that may have been sent only now: by the clock
    /// that has run for long.
    fn is_late(&self, row: &OutboxMessage, before: Before) -> bool {
        self.sender.is_some()
            && row.message.properties.reply_to.is_some()
            && letter_of(row).is_none()
            && (before == Before::LeftBehind || row.due_at <= self.environment.now())
    }

    /// Tells the sender what became of a message; gives its id back if nobody is there to hear it.
    fn report(&self, row: OutboxMessage, fate: Fate) -> Option<Uuid> {
        if let Some(sender) = &self.sender {
            // Never waits: the owner waits for workers, and they for us. A row that it has no room
            // for, or that comes while it stops, stays and is swept.
            drop(sender.try_send(Report { row, fate }));
            return None;
        }
        if row.message.properties.reply_to.is_some() {
            // Somebody's command, perhaps a saga's whose node is away: it is theirs to give it up.
            tracing::warn!(to = %row.destination, "no queue takes this command; kept, and tried again");
            return None;
        }
        tracing::warn!(to = %row.destination, "no queue takes this message; dropped");
        Some(row.id)
    }

    fn mark_sent(&self, ids: Vec<Uuid>) {
        if !ids.is_empty() {
            lock(&self.sent).extend(ids);
            self.sent_some.notify_one();
        }
    }

    /// By when rows must have been due that this relay sweeps. One that nobody hears leaves some time to
    /// those who are heard: a node knows what to do about a command that no queue takes, or that is sent late.
    fn due_by(&self, now: Timestamp) -> Timestamp {
        match self.sender {
            Some(_) => now,
            None => now.before(UNHEARD_LAG),
        }
    }

    async fn sweep_left_behind(self: Arc<Self>, intake: mpsc::Sender<Handed>, stop: Shutdown) {
        loop {
            let now = self.environment.now();
            let until = now.after(self.options.grace);
            let sweeping = self
                .outbox
                .sweep_outbox(self.due_by(now), until, SWEEP_ROWS_MAX);
            let full = match within(&*self.environment, sweeping).await {
                Ok(rows) => {
                    let full = rows.len() == SWEEP_ROWS_MAX;
                    if !rows.is_empty() {
                        metric::swept(rows.len());
                        tracing::info!(rows = rows.len(), "publishing messages left in the outbox");
                        tokio::select! {
                            biased;
                            _ = intake.send(Handed { rows, before: Before::LeftBehind }) => {}
                            () = stop.requested() => return,
                        }
                    }
                    let swept = self.environment.now().as_micros();
                    self.swept.store(swept, Ordering::Relaxed);
                    full
                }
                Err(error) => {
                    tracing::warn!(%error, "can't sweep the outbox; trying again");
                    false
                }
            };
            let pause = if full {
                Duration::ZERO
            } else {
                self.options.sweep_every
            };
            tokio::select! {
                biased;
                () = stop.requested() => return,
                () = self.environment.pause(pause) => {}
            }
        }
    }

    async fn remove_when_idle(self: Arc<Self>, stop: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return,
                () = self.sent_some.notified() => {}
            }
            self.environment.sleep(self.options.remove_after).await;
            let idle = std::mem::take(&mut *lock(&self.sent));
            self.remove(idle).await;
        }
    }

    async fn remove(&self, sent: Vec<Uuid>) {
        if sent.is_empty() {
            return;
        }
        let removing = self.outbox.remove_sent(&sent);
        if let Err(error) = within(&*self.environment, removing).await {
            // Left in place they would be published again; keep them for the next commit.
            tracing::warn!(%error, "can't remove published outbox rows; trying again");
            lock(&self.sent).extend(sent);
        }
    }
}

fn take(batch: &mut Vec<(OutboxMessage, Before)>, handed: Handed) {
    let Handed { rows, before } = handed;
    batch.extend(rows.into_iter().map(|row| (row, before)));
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while holding these locks, and the data stays whole if something did.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
