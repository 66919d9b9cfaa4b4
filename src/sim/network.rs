//! The store and the broker as a node meets them: slow, and sometimes lying.
//!
//! Every call waits before and after it takes effect, so that a crash can fall on either side of
//! it, and so that messages overtake each other. Until [`Faults::heal`], messages of the saga
//! protocol get lost or doubled, confirms go missing, commits that succeeded report failure, and
//! calls to the store are never answered.

mod letters;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::books::Books;
use super::scheduler::Scheduler;
use super::times::{Stored, add_lease};
use crate::broker::{Broker, BrokerError, Consumer, Health, Outgoing, Published, Topology};
use crate::environment::Environment;
use crate::id::{SagaId, Timestamp};
use crate::message::START_QUEUE;
use crate::message::child::ChildCommand;
use crate::store::dead_letters::{HEADER_LETTER, ReturnedReplay};
use crate::store::participant::{
    AggregateEvent, AggregateKey, AggregateRow, BarrierKey, Loaded, ParticipantStore,
    ParticipantTransaction, ParticipantWrites,
};
use crate::store::{
    Commit, CommitOutcome, DeadLetter, DefinitionRow, JournalEntry, KeyMatch, ListFilter,
    LiveCount, LoadRequest, LoadedSaga, Moved, Outbox, OutboxMessage, Revision, SagaCount,
    SagaHead, SagaKey, SagaTable, ScheduleKey, ScheduleRow, Schedules, Store, StoreError, Trials,
};

/// How likely each fault is, for each message or call.
#[derive(Debug, Clone, Copy)]
pub struct FaultRates {
    /// A command or reply vanishes although its publish was confirmed.
    pub loss: f64,
    /// A message arrives twice.
    pub duplicate: f64,
    /// A message arrived, but its publish is reported as failed.
    pub lost_confirm: f64,
    /// A commit is stored, but reported as failed.
    pub lost_commit: f64,
    /// A call to the store fails without effect.
    pub unavailable: f64,
    /// A reply to a reserve says when the reservation lapses.
    pub lease: f64,
    /// A call to the store is never answered; whether it takes effect is left to chance.
    pub silent: f64,
    /// Longest time that a call or message takes; drawn for each.
    pub latency_max: Duration,
}

impl FaultRates {
    /// Nothing goes wrong, and nothing takes time.
    pub fn none() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            lost_confirm: 0.0,
            lost_commit: 0.0,
            unavailable: 0.0,
            lease: 0.0,
            silent: 0.0,
            latency_max: Duration::ZERO,
        }
    }
}

impl Default for FaultRates {
    fn default() -> Self {
        Self {
            loss: 0.05,
            duplicate: 0.1,
            lost_confirm: 0.05,
            lost_commit: 0.02,
            unavailable: 0.02,
            lease: 0.0,
            silent: 0.002,
            latency_max: Duration::from_millis(40),
        }
    }
}

/// The faults of one run, shared by all nodes.
pub struct Faults {
    scheduler: Scheduler,
    /// Belongs to no node, so that messages under way survive their sender.
    network: Arc<dyn Environment>,
    rates: FaultRates,
    healed: AtomicBool,
    /// When what was committed was stored.
    pub(super) stored: Stored,
    /// What the broker gave out, and what of it was acknowledged.
    pub(super) books: Arc<Books>,
}

impl Faults {
    /// Faults at these rates, until healed.
    pub fn new(scheduler: &Scheduler, rates: FaultRates) -> Arc<Self> {
        let network = scheduler.environment("network", Duration::ZERO);
        Arc::new(Self {
            scheduler: scheduler.clone(),
            network,
            rates,
            healed: AtomicBool::new(false),
            stored: Stored::default(),
            books: Arc::default(),
        })
    }

    /// From here on everything works, slowly.
    pub fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }

    fn strikes(&self, rate: f64) -> bool {
        !self.healed.load(Ordering::Relaxed) && self.scheduler.chance(rate)
    }

    async fn delay(&self) {
        let most = u64::try_from(self.rates.latency_max.as_micros()).unwrap_or(0);
        let micros = self.scheduler.random(|random| random.u64(..=most));
        self.network.sleep(Duration::from_micros(micros)).await;
    }

    /// Waits for ever, once in a while: the network has forgotten the connection.
    async fn silence(&self) {
        if self.strikes(self.rates.silent) {
            std::future::pending::<()>().await;
        }
    }

    fn available(&self) -> Result<(), StoreError> {
        if self.strikes(self.rates.unavailable) {
            Err(broken("no connection"))
        } else {
            Ok(())
        }
    }
}

fn broken(what: &'static str) -> StoreError {
    StoreError::Unavailable(what.into())
}

/// A broker behind a bad network.
pub struct SimBroker<B> {
    /// The broker itself, which never fails.
    pub inner: B,
    /// What happens on the way.
    pub faults: Arc<Faults>,
}

#[async_trait]
impl<B: Broker + Clone> Broker for SimBroker<B> {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.inner.declare(topology).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        let consumer = self.inner.consume(queue, prefetch).await?;
        Ok(self.faults.books.watch(queue, consumer))
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Published> {
        let mut published = Vec::with_capacity(messages.len());
        self.faults.delay().await;
        for mut message in messages {
            // A start that is lost was never asked for, and a letter that is sent again can't be asked
            // for a second time; everything else must be made up for.
            let may_vanish = (message.destination.routing_key != START_QUEUE
                || ChildCommand::is_meant(&message.message))
                && message.message.header(HEADER_LETTER).is_none();
            if may_vanish && self.faults.strikes(self.faults.rates.loss) {
                published.push(Published::Confirmed);
                continue;
            }
            if self.faults.rates.lease > 0.0 && self.faults.strikes(self.faults.rates.lease) {
                let to = &message.destination.routing_key;
                add_lease(&self.faults.scheduler, &mut message.message, to);
            }
            if self.faults.strikes(self.faults.rates.duplicate) {
                self.publish_later(message.clone());
            }
            let mut outcome = self.inner.publish(vec![message]).await;
            if self.faults.strikes(self.faults.rates.lost_confirm) {
                outcome = vec![Published::Failed("the confirm was lost".to_owned())];
            }
            published.append(&mut outcome);
        }
        self.faults.delay().await;
        published
    }

    async fn queue_len(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        Broker::queue_len(&self.inner, queue).await
    }

    fn health(&self) -> Health {
        self.inner.health()
    }
}

impl<B: Broker + Clone> SimBroker<B> {
    /// A second copy, some time later: a duplicate that also arrives out of order.
    fn publish_later(&self, message: Outgoing) {
        let (faults, inner) = (Arc::clone(&self.faults), self.inner.clone());
        let scheduler = self.faults.scheduler.clone();
        scheduler.spawn(
            "network",
            Box::pin(async move {
                for _ in 0..8 {
                    faults.delay().await;
                }
                inner.publish(vec![message]).await;
            }),
        );
    }
}

/// A store behind a bad network.
pub struct SimStore<S> {
    /// The store itself, which never fails.
    pub inner: S,
    /// What happens on the way.
    pub faults: Arc<Faults>,
}

impl<S> SimStore<S> {
    /// Waits, has the call done, waits again.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.faults.delay().await;
        self.faults.silence().await;
        self.faults.available()?;
        let result = call.await;
        self.faults.delay().await;
        self.faults.silence().await;
        result
    }
}

#[async_trait]
impl<S: Outbox> Outbox for SimStore<S> {
    async fn sweep_outbox(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxMessage>, StoreError> {
        self.call(self.inner.sweep_outbox(now, until, limit)).await
    }

    async fn unsent(&self, rows: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        self.call(self.inner.unsent(rows)).await
    }

    async fn remove_sent(&self, sent: &[Uuid]) -> Result<(), StoreError> {
        self.call(self.inner.remove_sent(sent)).await
    }

    async fn return_replays(
        &self,
        at: Timestamp,
        returned: Vec<ReturnedReplay>,
    ) -> Result<(), StoreError> {
        self.call(self.inner.return_replays(at, returned)).await
    }

    async fn set_aside(&self, letters: Vec<DeadLetter>, rows: Vec<Uuid>) -> Result<(), StoreError> {
        self.call(self.inner.set_aside(letters, rows)).await
    }

    async fn outbox_len(&self) -> Result<u64, StoreError> {
        self.inner.outbox_len().await
    }
}

#[async_trait]
impl<S: Schedules> Schedules for SimStore<S> {
    async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        self.call(self.inner.schedules()).await
    }

    async fn settle(
        &self,
        schedule: &ScheduleKey,
        expected: Option<Timestamp>,
        settled: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        self.call(self.inner.settle(schedule, expected, settled))
            .await
    }

    async fn mark_absent(
        &self,
        schedule: &ScheduleKey,
        since: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.call(self.inner.mark_absent(schedule, since)).await
    }

    async fn move_schedule(
        &self,
        schedule: &ScheduleKey,
        to: Timestamp,
        moved: &Moved,
    ) -> Result<bool, StoreError> {
        self.call(self.inner.move_schedule(schedule, to, moved))
            .await
    }
}

#[async_trait]
impl<S: Trials> Trials for SimStore<S> {
    async fn begin_trial(&self, message: Uuid, at: Timestamp) -> Result<u32, StoreError> {
        self.call(self.inner.begin_trial(message, at)).await
    }

    async fn end_trial(&self, message: Uuid) -> Result<(), StoreError> {
        self.call(self.inner.end_trial(message)).await
    }
}

#[async_trait]
impl<S: Store> Store for SimStore<S> {
    async fn load(&self, requests: &[LoadRequest]) -> Result<Vec<Option<LoadedSaga>>, StoreError> {
        self.call(self.inner.load(requests)).await
    }

    async fn find(&self, keys: &[SagaKey]) -> Result<Vec<Option<KeyMatch>>, StoreError> {
        self.call(self.inner.find(keys)).await
    }

    async fn commit(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let entries = Stored::entries(&commit);
        let commit = async {
            let outcome = self.inner.commit(commit).await?;
            let at = self.faults.scheduler.now();
            self.faults.stored.note(entries, &outcome, at);
            Ok(outcome)
        };
        let outcome = self.call(commit).await?;
        if self.faults.strikes(self.faults.rates.lost_commit) {
            return Err(broken("the connection broke during the commit"));
        }
        Ok(outcome)
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SagaId>, StoreError> {
        self.call(self.inner.claim_due(now, until, limit)).await
    }

    async fn put_definition(&self, row: DefinitionRow) -> Result<DefinitionRow, StoreError> {
        self.inner.put_definition(row).await
    }

    async fn definitions(&self) -> Result<Vec<DefinitionRow>, StoreError> {
        self.inner.definitions().await
    }

    async fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(Some(self.faults.scheduler.now()))
    }

    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StoreError> {
        self.inner.secret(candidate).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<SagaHead>, StoreError> {
        self.inner.list(filter).await
    }

    async fn journal(
        &self,
        saga: SagaId,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        self.inner.journal(saga, after, limit).await
    }

    async fn sagas_in(
        &self,
        table: SagaTable,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<(SagaId, bool)>, StoreError> {
        self.inner.sagas_in(table, after, limit).await
    }

    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError> {
        self.inner.counts().await
    }

    async fn live(&self) -> Result<Vec<LiveCount>, StoreError> {
        self.inner.live().await
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        self.call(self.inner.check_writable()).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.inner.dead_letters(limit).await
    }
}

#[async_trait]
impl<S: ParticipantStore> ParticipantStore for SimStore<S> {
    async fn begin(&self) -> Result<Box<dyn ParticipantTransaction>, StoreError> {
        let inner = self.call(self.inner.begin()).await?;
        Ok(Box::new(SimTransaction {
            inner,
            faults: Arc::clone(&self.faults),
        }))
    }

    async fn aggregates(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AggregateRow>, StoreError> {
        self.inner.aggregates(kind, after, limit).await
    }

    async fn aggregate_events(
        &self,
        key: &AggregateKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AggregateEvent>, StoreError> {
        self.inner.aggregate_events(key, after, limit).await
    }
}

struct SimTransaction {
    inner: Box<dyn ParticipantTransaction>,
    faults: Arc<Faults>,
}

#[async_trait]
impl ParticipantTransaction for SimTransaction {
    async fn load(
        &mut self,
        barriers: &[BarrierKey],
        aggregates: &[AggregateKey],
    ) -> Result<Loaded, StoreError> {
        self.faults.delay().await;
        self.faults.silence().await;
        self.faults.available()?;
        self.inner.load(barriers, aggregates).await
    }

    async fn commit(self: Box<Self>, writes: ParticipantWrites) -> Result<(), StoreError> {
        let Self { inner, faults } = *self;
        faults.delay().await;
        inner.commit(writes).await?;
        faults.delay().await;
        faults.silence().await;
        if faults.strikes(faults.rates.lost_commit) {
            return Err(broken("the connection broke during the commit"));
        }
        Ok(())
    }
}
