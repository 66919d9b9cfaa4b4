//! What a participant keeps: barrier rows (its inbox), aggregates with their events, its outbox.
//!
//! Unlike the saga store this one is transactional from the load on: a participant locks the
//! rows of a batch in key order, decides, and writes, so that a hot aggregate makes others wait
//! for one commit instead of failing them all.

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::{DeadLetter, Outbox, OutboxMessage, StoreError};
use crate::id::{SagaId, StepPath, Timestamp};

/// Keeps a participant's state.
#[async_trait]
pub trait ParticipantStore: Outbox {
    /// Opens a transaction. Dropping it rolls back.
    async fn begin(&self) -> Result<Box<dyn ParticipantTransaction>, StoreError>;

    /// Aggregates of a kind in id order, those after `after`, for reports and proofs.
    async fn aggregates(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AggregateRow>, StoreError>;

    /// Events of one aggregate in order, those after `after`.
    async fn aggregate_events(
        &self,
        key: &AggregateKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AggregateEvent>, StoreError>;
}

/// One batch of a participant, all or nothing.
#[async_trait]
pub trait ParticipantTransaction: Send {
    /// Reads and locks rows, each list in key order whatever the order asked; rows that do not
    /// exist are missing from the answer. May be called more than once.
    async fn load(
        &mut self,
        barriers: &[BarrierKey],
        aggregates: &[AggregateKey],
    ) -> Result<Loaded, StoreError>;

    /// Writes and commits. [`StoreError::Conflict`] when a row that was missing at load has
    /// appeared since: do the batch again.
    async fn commit(self: Box<Self>, writes: ParticipantWrites) -> Result<(), StoreError>;
}

/// What [`ParticipantTransaction::load`] found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// Barrier rows that exist.
    pub barriers: Vec<BarrierRow>,
    /// Aggregates that exist.
    pub aggregates: Vec<AggregateRow>,
}

/// Identifies what was asked of a participant: one step of one saga.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BarrierKey {
    /// The participant's name (several may share a database).
    pub participant: String,
    /// The saga.
    pub saga: SagaId,
    /// The step.
    pub step: StepPath,
}

/// What was answered for one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BarrierRow {
    /// Which step.
    pub key: BarrierKey,
    /// A monotonic status; the participant knows its meaning.
    pub status: i16,
    /// Payload hashes and stored replies, as the participant encodes them.
    pub body: Bytes,
    /// When it was last written.
    pub at: Timestamp,
}

/// Identifies an aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AggregateKey {
    /// Its kind, such as `inventory`.
    pub kind: String,
    /// Its id within the kind, such as an article's number.
    pub id: String,
}

/// An aggregate's snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateRow {
    /// Which.
    pub key: AggregateKey,
    /// Number of its newest event; 0 before the first.
    pub revision: u64,
    /// Its state, as the aggregate encodes it.
    pub state: Bytes,
}

/// One event of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateEvent {
    /// Whose.
    pub key: AggregateKey,
    /// From 1, without gaps.
    pub seq: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// Since when it is true, if that is not when it was recorded.
    pub valid_from: Option<Timestamp>,
    /// What led to it.
    pub origin: Origin,
    /// What, as JSON.
    pub body: Bytes,
}

/// What led to an event: the command that was handled. Empty for what came without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The saga that sent it.
    pub saga: Option<SagaId>,
    /// That saga's key.
    pub saga_key: Option<String>,
    /// The command's message id.
    pub message_id: Option<String>,
    /// What the saga's definition says that belongs together.
    pub correlation: Option<String>,
}

/// An aggregate's state at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateSnapshot {
    /// Whose.
    pub key: AggregateKey,
    /// The event it includes last.
    pub revision: u64,
    /// When that was recorded.
    pub at: Timestamp,
    /// The state, as the aggregate encodes it.
    pub state: Bytes,
}

/// What a participant's batch writes.
#[derive(Debug, Clone, Default)]
pub struct ParticipantWrites {
    /// New and changed barrier rows; `inserted` ones must not exist yet.
    pub barriers: Vec<Write<BarrierRow>>,
    /// New and changed aggregates.
    pub aggregates: Vec<Write<AggregateRow>>,
    /// Events to append; those of one aggregate in the order of their numbers.
    pub events: Vec<AggregateEvent>,
    /// States to keep beside the newest ones.
    pub snapshots: Vec<AggregateSnapshot>,
    /// Replies to publish once this is committed.
    pub outbox: Vec<OutboxMessage>,
    /// Outbox rows whose messages were confirmed since the last batch.
    pub sent: Vec<Uuid>,
    /// Commands that can't be handled.
    pub dead_letters: Vec<DeadLetter>,
}

/// A row to write, and whether it is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write<T> {
    /// Was missing at load.
    Insert(T),
    /// Was there and is locked.
    Update(T),
}

impl<T> Write<T> {
    /// The row.
    pub fn row(&self) -> &T {
        match self {
            Self::Insert(row) | Self::Update(row) => row,
        }
    }
}
