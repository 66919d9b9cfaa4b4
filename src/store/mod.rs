//! Where sagas, their journals, the outbox and dead letters are kept.
//!
//! One coarse trait: everything the engine does is a batch, and a batch is one [`Store::load`] and
//! one [`Store::commit`], each a fixed number of statements whatever the batch's size.
//! Three implementations pass the same suite (`conformance`): PostgreSQL (production), SQLite
//! (embedded) and memory (the reference model, and the simulator's store).
//!
//! Invariants every implementation keeps:
//! * a [`SagaWrite`] is stored whole (head, journal entries, outbox rows) or not at all;
//! * `(saga, seq)` is unique, so two nodes can't both append: the second is a [`Conflict`];
//! * `(name, key)` is unique among sagas that are not superseded;
//! * journal entries are never changed.
//!
//! Deliberately absent: any knowledge of what a saga *is*. Bodies are bytes.

pub mod census;
#[doc(hidden)]
pub mod conformance;
pub mod dead_letters;
pub mod feed;
mod filter;
mod head;
pub mod inspect;
pub mod jobs;
mod labels;
mod loading;
pub mod memory;
pub mod participant;
pub mod postgres;
pub mod projections;
pub mod requests;
mod rows;
pub mod schedules;
pub mod schema;
pub mod search;
mod shape;
pub mod sqlite;
pub mod tokens;
pub mod trials;

use std::time::Duration;

use self::dead_letters::{ReturnedReplay, Sighting};
use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

pub use self::census::{Activity, Census, CensusStore, LiveGroup, Minute};
pub use self::inspect::{InspectStore, ServerFacts};
use crate::definition::{BUSINESS_KEY_BYTES_MAX, Label};
use crate::error::{Class, Code};
use crate::id::{SagaId, Timestamp};
use crate::message::{Destination, Message};
pub use crate::saga::Status;
use crate::saga::StepPhase;
pub use crate::saga::journal::{Hash, JournalEntry};
pub use filter::{
    FILTER_VALUES_MAX, Filter, FilterError, LabelCondition, Relation, Span, StepPattern,
};
pub use jobs::{JobCommand, JobResult, JobRow, JobState, JobStore, Progress};
pub use labels::{LABEL_BYTES_MAX, SagaCause};
pub use requests::RequestStore;
pub use schedules::{Moved, ScheduleKey, ScheduleRow, Schedules};
pub use schema::AccessMode;
pub use search::SagaSearch;
pub use tokens::{TokenRow, TokenStore};
pub use trials::Trials;

/// A saga's position in its journal: the `seq` of its newest entry; 0 before the first.
pub type Revision = u64;

/// Most rows that a query for people returns at once.
pub const LIST_ROWS_MAX: usize = 1_000;

/// Longest text that a store keeps in an index, in bytes: an aggregate's id, or a saga's key, of which
/// definitions allow less. Any database takes it.
pub const INDEXED_BYTES_MAX: usize = 1_000;

const _: () = assert!(BUSINESS_KEY_BYTES_MAX <= INDEXED_BYTES_MAX);

/// Whether a text that came from outside can be a saga's key or an aggregate's id. Others are
/// refused by every store, so a caller asks before it decides anything.
pub fn is_key(text: &str) -> bool {
    text.len() <= INDEXED_BYTES_MAX && !text.contains('\0')
}

/// Keeps sagas. See the module's documentation for the invariants.
#[async_trait]
pub trait Store: Outbox + Schedules + Trials {
    /// Loads sagas with the journal after the revision the caller already has, in request order;
    /// `None` for a saga that does not exist. Once [`LOADED_BYTES`](crate::limits::LOADED_BYTES) were
    /// read, those with later ids are [left out](LoadedSaga::left_out); the first never is.
    async fn load(&self, requests: &[LoadRequest]) -> Result<Vec<Option<LoadedSaga>>, StoreError>;

    /// Finds the sagas that hold keys, in request order; a superseded one does not hold its key.
    async fn find(&self, keys: &[SagaKey]) -> Result<Vec<Option<KeyMatch>>, StoreError>;

    /// Stores a batch in one transaction. Sagas that conflict are left out whole and named in the
    /// outcome; the rest of the batch is stored.
    async fn commit(&self, commit: Commit) -> Result<CommitOutcome, StoreError>;

    /// The database's own time, which nodes go by. `None`: it has none but the node's.
    async fn clock(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Sagas whose `wake_at` has come, at most `limit`, earliest first; moves their `wake_at` to
    /// `until`, so that no other node is given them before then (and any node is, after it).
    async fn claim_due(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SagaId>, StoreError>;

    /// Stores a definition unless (name, version) is there, and returns what is stored under it.
    async fn put_definition(&self, row: DefinitionRow) -> Result<DefinitionRow, StoreError>;

    /// All stored definitions.
    async fn definitions(&self) -> Result<Vec<DefinitionRow>, StoreError>;

    /// The secret that signs correlation ids: the stored one, or `candidate`, stored now.
    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StoreError>;

    /// Sagas for people, newest first.
    async fn list(&self, filter: &ListFilter) -> Result<Vec<SagaHead>, StoreError>;

    /// A saga's journal entries after `after` in order of `seq`, at most `limit`, for people: all
    /// of them, also those that a snapshot has made superfluous. Empty if there is no such saga.
    async fn journal(
        &self,
        saga: SagaId,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError>;

    /// The sagas of which a table has rows, and whether each has a row of its own, in order of id: those
    /// among the next `limit` rows, all of them later than `after`. Empty at the end.
    async fn sagas_in(
        &self,
        table: SagaTable,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<(SagaId, bool)>, StoreError>;

    /// Number of sagas by name and status.
    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError>;

    /// Number of sagas that have not ended, by name and version.
    async fn live(&self) -> Result<Vec<LiveCount>, StoreError>;

    /// Writes something that changes nothing: an error says that the database can't be written.
    async fn check_writable(&self) -> Result<(), StoreError>;

    /// How old the oldest snapshot is that somebody holds in the database, where that can be asked:
    /// nothing that was deleted since can be cleared away.
    async fn oldest_snapshot(&self) -> Result<Option<Duration>, StoreError> {
        Ok(None)
    }

    /// Dead letters for people, newest first.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError>;
}

/// Keeps messages until the broker has confirmed them.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Outbox rows whose `due_at` has come, at most `limit`, oldest first; moves their `due_at` to
    /// `until`, so that no other node is given them before then. These are rows whose writer
    /// crashed between commit and publish, or whose publish failed.
    async fn sweep_outbox(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxMessage>, StoreError>;

    /// Which of these rows are still there, in any order.
    async fn unsent(&self, rows: &[Uuid]) -> Result<Vec<Uuid>, StoreError>;

    /// Removes rows whose messages were confirmed; ids that are gone are ignored.
    async fn remove_sent(&self, sent: &[Uuid]) -> Result<(), StoreError>;

    /// Takes note of replays of dead letters that the broker did not take: the letters are open
    /// again, the audit log says why, and the rows are gone.
    async fn return_replays(
        &self,
        at: Timestamp,
        returned: Vec<ReturnedReplay>,
    ) -> Result<(), StoreError>;

    /// Keeps messages that will never be published as dead letters, and removes their rows.
    async fn set_aside(&self, letters: Vec<DeadLetter>, rows: Vec<Uuid>) -> Result<(), StoreError>;

    /// Number of messages in the outbox.
    async fn outbox_len(&self) -> Result<u64, StoreError>;
}

/// Which saga to load, and what of it the caller has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadRequest {
    /// The saga.
    pub id: SagaId,
    /// Entries up to this one are not loaded again. 0: load the snapshot (if any) and what follows.
    pub after: Revision,
}

/// A saga as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedSaga {
    /// Its row.
    pub head: SagaHead,
    /// The newest snapshot, when `after` was 0 and one exists.
    pub snapshot: Option<Snapshot>,
    /// Journal entries after the snapshot, or after the request's `after`; in order of `seq`.
    pub entries: Vec<JournalEntry>,
    /// Whether only its row was read, because those before it were large enough: ask again.
    pub left_out: bool,
}

/// A saga's state at a revision, so that a long journal need not be read from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The journal entry it includes last.
    pub revision: Revision,
    /// The state.
    pub body: Bytes,
}

/// What identifies a saga for those outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SagaKey {
    /// The definition's name.
    pub name: String,
    /// The business key.
    pub key: String,
}

/// The saga that holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyMatch {
    /// Its id.
    pub id: SagaId,
    /// Fingerprint of the input it started with.
    pub input_hash: Hash,
    /// Its status.
    pub status: Status,
}

/// A saga's row: what people search by, and where its journal ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaHead {
    /// The saga's id.
    pub id: SagaId,
    /// The definition's name.
    pub name: String,
    /// The definition's version, kept for the saga's whole life.
    pub version: u32,
    /// The business key.
    pub key: String,
    /// Fingerprint of the input.
    pub input_hash: Hash,
    /// Where it stands.
    pub status: Status,
    /// Why it is compensating, compensated or suspended.
    pub reason: Option<String>,
    /// `seq` of the newest journal entry.
    pub revision: Revision,
    /// Hash of the newest journal entry.
    pub head_hash: Hash,
    /// When it started.
    pub started_at: Timestamp,
    /// When the newest entry was written.
    pub updated_at: Timestamp,
    /// When it completed or was compensated.
    pub ended_at: Option<Timestamp>,
    /// When to look at it even if no message comes. May be earlier than needed, never later:
    /// leaving an early value in place spares the index an update at every step.
    pub wake_at: Option<Timestamp>,
    /// The saga that runs it, if one does.
    pub parent: Option<SagaId>,
    /// What it waits for.
    pub awaits: Option<StepPhase>,
    /// What stands in its way, or why it did not complete.
    pub cause: Option<SagaCause>,
    /// Whether it has ended and given up its key: to a saga that replaces it, or, if another saga
    /// ran it and it was rolled back, to whichever comes.
    pub superseded: bool,
}

/// A batch to store.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Changed and new sagas, at most one write for each saga.
    pub sagas: Vec<SagaWrite>,
    /// Messages that belong to no saga (answers to refused starts).
    pub outbox: Vec<OutboxMessage>,
    /// Outbox rows whose messages were confirmed since the last commit.
    pub sent: Vec<Uuid>,
    /// Messages nobody could handle.
    pub dead_letters: Vec<DeadLetter>,
}

impl Commit {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.sagas.is_empty()
            && self.outbox.is_empty()
            && self.sent.is_empty()
            && self.dead_letters.is_empty()
    }
}

/// One saga's part of a batch.
#[derive(Debug, Clone)]
pub struct SagaWrite {
    /// The revision this was decided on; 0 for a new saga.
    pub expected: Revision,
    /// The row as it will be.
    pub head: SagaHead,
    /// Entries `expected + 1 ..= head.revision`.
    pub entries: Vec<JournalEntry>,
    /// A new snapshot, when the journal has grown long enough to pay for it.
    pub snapshot: Option<Snapshot>,
    /// Messages to publish once this is committed.
    pub outbox: Vec<OutboxMessage>,
    /// What it can be searched by; only ever of a new saga.
    pub labels: Vec<Label>,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitOutcome {
    /// Sagas that were left out because another node was faster, and how.
    pub conflicts: Vec<(SagaId, Conflict)>,
    /// Dead letters that were counted on an earlier one, because they were delivered again.
    pub known_letters: Vec<Uuid>,
}

/// Why a saga's write was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// Its revision is no longer the expected one: load, decide again.
    Revision,
    /// A saga with the same name holds the key.
    KeyTaken,
    /// Another transaction is changing it at this moment: decide again in a moment.
    Locked,
}

/// A message waiting for the broker's confirm.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxMessage {
    /// The row's id (UUIDv7; not the message's id, which a retry repeats).
    pub id: Uuid,
    /// Where to.
    pub destination: Destination,
    /// What.
    pub message: Message,
    /// When any node may sweep it up.
    pub due_at: Timestamp,
}

/// A message nobody could handle, kept until a person decides.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// The row's id (UUIDv7), one for each delivery. Storing the same id twice stores it once.
    pub id: Uuid,
    /// When it was recorded.
    pub at: Timestamp,
    /// The queue it was taken from.
    pub queue: String,
    /// Which error it was.
    pub code: Code,
    /// What was wrong and what to do, in a sentence.
    pub reason: String,
    /// The message, unchanged.
    pub message: Message,
    /// By which it is told from others that are equal to the last byte; not kept with it.
    pub sighting: Sighting,
}

/// A definition as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionRow {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// SHA-256 of the source.
    pub hash: Hash,
    /// The YAML.
    pub source: String,
    /// When it was first loaded.
    pub stored_at: Timestamp,
}

/// A table whose rows belong to sagas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SagaTable {
    /// What has happened to them.
    Journal,
    /// What has become of those with long journals.
    Snapshots,
}

/// Which sagas to list.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Only of this definition.
    pub name: Option<String>,
    /// Only with this status.
    pub status: Option<Status>,
    /// Only with this key, and holding it.
    pub key: Option<String>,
    /// Only sagas with a smaller (older) id: the last one of the page before.
    pub before: Option<SagaId>,
    /// At most this many; capped at [`LIST_ROWS_MAX`].
    pub limit: usize,
}

/// How many sagas of a definition have a status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SagaCount {
    /// The definition's name.
    pub name: String,
    /// The status.
    pub status: Status,
    /// How many.
    pub count: u64,
}

/// How many sagas of a definition's version have not ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LiveCount {
    /// The definition's name.
    pub name: String,
    /// The version that they keep.
    pub version: u32,
    /// How many.
    pub count: u64,
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database can't be reached, timed out, or asked to try again (40001, 40P01, 0A000).
    #[error("the database can't be used right now: {0}")]
    Unavailable(#[source] BoxedError),
    /// Rows that are needed are locked by another transaction, for longer than a moment.
    #[error("another transaction holds rows of the batch: {0}")]
    Locked(#[source] BoxedError),
    /// A statement took longer than the database, or we, allow.
    #[error("the database takes too long: {0}")]
    TooSlow(#[source] BoxedError),
    /// Another transaction was faster: load, decide and commit again.
    #[error("another transaction changed the same rows first")]
    Conflict,
    /// What is stored can't be read back: a foreign or damaged row.
    #[error("stored {what} can't be read: {why}")]
    Corrupt {
        /// Which row.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The database refused for another reason: a bug, or someone changed the schema.
    #[error("the database refused: {0}")]
    Refused(#[source] BoxedError),
    /// Bad URL, missing file, wrong rights; says what to do.
    #[error("can't open the database: {0}")]
    Open(String),
    /// The tables are not those that this program works with.
    #[error(transparent)]
    Schema(#[from] schema::SchemaError),
}

/// The library's own error, kept as the source.
pub type BoxedError = Box<dyn std::error::Error + Send + Sync>;

impl StoreError {
    /// How to react.
    pub fn class(&self) -> Class {
        match self {
            Self::Unavailable(_) | Self::Locked(_) | Self::TooSlow(_) | Self::Conflict => {
                Class::Retry
            }
            Self::Corrupt { .. } | Self::Refused(_) | Self::Open(_) | Self::Schema(_) => {
                Class::Permanent
            }
        }
    }
}
