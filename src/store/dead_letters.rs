//! Dead letters as data: stored once, searched, changed only with an entry in the audit log.
//!
//! Separate from [`Store`](super::Store) because nothing here is on a saga's way: people and the
//! drain use it. All three stores implement it and pass the same cases.
//!
//! Invariants:
//! * every occurrence of a refused message is a letter of its own (see [`occurrence`]);
//! * what was received is never changed; edits are rows of their own, and the newest one counts;
//! * a letter's status, the outbox row of its replay and the audit entry are one transaction;
//! * the audit log is one chain of hashes, appended to under a lock, never changed, never deleted;
//! * only letters that were replayed or discarded can be deleted.
//!
//! Deliberately absent: what may be done to which letter. That is `crate::dead_letters`.

pub mod audit;
mod facts;
pub mod occurrence;
pub(super) mod plan;
pub(super) mod row;
mod trail;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DeadLetter, Outbox, OutboxMessage, StoreError};
use crate::error::Code;
use crate::id::{SagaId, Timestamp};
use crate::message::Message;

pub use audit::{AuditEntry, AuditError, AuditHead};
pub use facts::{LetterFacts, fingerprint};
pub use occurrence::{Earlier, Sighting};
pub use trail::{Teller, Trail};

/// Header of a replay: how often its message has been replayed, this time included.
pub const HEADER_REPLAYS: &str = "backstitch-replays";
/// Header of a replay: the queue whose consumer refused its message, should nobody say so next time.
pub const HEADER_ORIGIN: &str = "backstitch-origin";
/// Header of a replay to a queue alone: the exchange by which its message came there at first.
pub const HEADER_EXCHANGE: &str = "backstitch-exchange";
/// Header of a replay to a queue alone: the routing keys with which its message came there at first.
pub const HEADER_KEYS: &str = "backstitch-keys";
/// Header of a replay: the letter it was made from.
pub const HEADER_LETTER: &str = "backstitch-letter";

/// Most letters that a page of heads has.
pub const LETTER_ROWS_MAX: usize = 1_000;
/// Most groups that are listed.
pub const GROUPS_MAX: usize = 1_000;

/// Keeps dead letters. See the module's documentation for the invariants.
#[async_trait]
pub trait DeadLetterStore: Outbox {
    /// Stores a batch taken from a queue, with one audit entry, and returns how many were new: the
    /// others were seen before.
    async fn store_drained(
        &self,
        queue: &str,
        at: Timestamp,
        letters: &[DeadLetter],
    ) -> Result<usize, StoreError>;

    /// Stores letters that somebody brings from elsewhere, with an audit entry for each, and returns
    /// how many there were. None of them may be there already.
    async fn store_imported(
        &self,
        actor: &Actor,
        letters: &[DeadLetter],
    ) -> Result<usize, StoreError>;

    /// Those of `letters` that somebody brought from elsewhere.
    async fn imported(&self, letters: &[Uuid]) -> Result<Vec<Uuid>, StoreError>;

    /// Heads of letters in order of (at, id).
    async fn letters(
        &self,
        filter: &LetterFilter,
        page: &LetterPage,
    ) -> Result<Vec<LetterHead>, StoreError>;

    /// Whole letters, in the order asked; those that don't exist are missing.
    async fn load_letters(&self, ids: &[Uuid]) -> Result<Vec<Letter>, StoreError>;

    /// Letters by cause, the most frequent first.
    async fn letter_groups(
        &self,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<Vec<LetterGroup>, StoreError>;

    /// Number of letters by queue and status.
    async fn letter_counts(&self) -> Result<Vec<LetterCount>, StoreError>;

    /// Changes letters and says what became of earlier replays, in one transaction with the audit
    /// entries. Returns the letters that were left out because they had changed meanwhile.
    async fn change_letters(
        &self,
        actor: &Actor,
        changes: &[LetterChange],
        published: &PublishedReplays,
    ) -> Result<Vec<Uuid>, StoreError>;

    /// Takes note of replays that a relay has published: their outbox rows are gone. Returns how
    /// many letters are still on their way.
    async fn settle_replays(&self) -> Result<u64, StoreError>;

    /// Those of `letters` whose replay came back as another letter.
    async fn came_back(&self, letters: &[Uuid]) -> Result<Vec<Uuid>, StoreError>;

    /// Deletes at most `limit` replayed and discarded letters that were handled before `before`,
    /// with one audit entry; returns how many.
    async fn purge_letters(
        &self,
        actor: &Actor,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64, StoreError>;

    /// A letter's edits, oldest first.
    async fn letter_edits(&self, letter: Uuid) -> Result<Vec<LetterEdit>, StoreError>;

    /// Audit entries after `after` in order, all or those of one letter.
    async fn letter_audit(
        &self,
        letter: Option<Uuid>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError>;

    /// Where the audit log ends.
    async fn audit_head(&self) -> Result<AuditHead, StoreError>;
}

/// What is to become of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterStatus {
    /// A person must decide.
    Open,
    /// Its replay is in the outbox.
    Replaying,
    /// The broker has its replay.
    Replayed,
    /// It is to be forgotten.
    Discarded,
}

impl LetterStatus {
    /// The name in the database and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replaying => "replaying",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

impl std::fmt::Display for LetterStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for LetterStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Open, Self::Replaying, Self::Replayed, Self::Discarded]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| {
                format!("`{text}` is not a status: open, replaying, replayed or discarded")
            })
    }
}

/// Where a message died, as the broker or the consumer's library tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterOrigin {
    /// The exchange by which it came to that queue; empty for the default one.
    pub exchange: Option<String>,
    /// The routing key with which it came there.
    pub routing_key: Option<String>,
    /// The queue whose consumer refused it; where it died otherwise, if none did.
    pub queue: Option<String>,
    /// The broker's word: `rejected`, `expired`, `maxlen`, `delivery_limit`.
    pub reason: Option<String>,
    /// How often it died there.
    pub count: u64,
}

/// A letter without its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterHead {
    /// The letter's id.
    pub id: Uuid,
    /// When it was recorded.
    pub at: Timestamp,
    /// The queue it was taken from.
    pub queue: String,
    /// Which error it was.
    pub code: Code,
    /// What was wrong, in a sentence.
    pub reason: String,
    /// Where it died.
    pub origin: LetterOrigin,
    /// AMQP `type`.
    pub kind: Option<String>,
    /// AMQP `message_id`.
    pub message_id: Option<String>,
    /// The same for all letters with the same cause.
    pub fingerprint: String,
    /// The saga it belongs to.
    pub saga: Option<SagaId>,
    /// The saga's step and phase, as in `stock[2]/reserve`.
    pub step: Option<String>,
    /// What is to become of it.
    pub status: LetterStatus,
    /// Counts its changes.
    pub version: u64,
    /// How often its message was replayed, before and after it became this letter.
    pub replays: u32,
    /// The letter whose replay this is, or that the same message was before.
    pub came_back_from: Option<Uuid>,
    /// How often it was delivered again after it was stored.
    pub seen_again: u32,
    /// How often it was edited.
    pub edits: u32,
    /// Length of the body as received.
    pub body_bytes: u64,
    /// When it was replayed or discarded.
    pub handled_at: Option<Timestamp>,
}

/// A whole letter.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// All but the message.
    pub head: LetterHead,
    /// The message as received.
    pub original: Message,
    /// The message as last edited.
    pub edited: Option<Message>,
}

impl Letter {
    /// The message that a replay sends.
    pub fn message(&self) -> &Message {
        self.edited.as_ref().unwrap_or(&self.original)
    }
}

/// One edit of a letter.
#[derive(Debug, Clone, PartialEq)]
pub struct LetterEdit {
    /// From 1.
    pub number: u32,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// The message since then.
    pub message: Message,
}

/// Which letters. Everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterFilter {
    /// Taken from this queue, or refused by its consumer.
    pub queue: Option<String>,
    /// With this AMQP `type`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// With this AMQP `message_id`.
    pub message_id: Option<String>,
    /// Of this cause.
    pub fingerprint: Option<String>,
    /// Of this saga.
    pub saga: Option<SagaId>,
    /// With this status.
    pub status: Option<LetterStatus>,
    /// Recorded at this time or later.
    pub since: Option<Timestamp>,
    /// Recorded before this time.
    pub until: Option<Timestamp>,
    /// With this text in the reason.
    pub reason: Option<String>,
    /// With these bytes in the body as received.
    pub body: Option<String>,
}

/// Which part of the letters that fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetterPage {
    /// The last letter of the page before.
    pub after: Option<(Timestamp, Uuid)>,
    /// Oldest first: what arrives meanwhile comes at the end.
    pub oldest_first: bool,
    /// At most this many; capped at [`LETTER_ROWS_MAX`].
    pub limit: usize,
}

/// Letters of one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterGroup {
    /// What they have in common.
    pub fingerprint: String,
    /// How many there are.
    pub count: u64,
    /// How many of them are open.
    pub open: u64,
    /// When the first was recorded.
    pub first_at: Timestamp,
    /// When the newest was recorded.
    pub last_at: Timestamp,
    /// The newest one.
    pub newest: LetterHead,
}

/// How many letters of a queue have a status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LetterCount {
    /// The queue they were taken from.
    pub queue: String,
    /// The status.
    pub status: LetterStatus,
    /// How many.
    pub count: u64,
}

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// A change of one letter, decided on a version of it.
#[derive(Debug, Clone, PartialEq)]
pub struct LetterChange {
    /// Which.
    pub letter: Uuid,
    /// The version it was decided on.
    pub version: u64,
    /// What.
    pub what: LetterAction,
}

/// What to do with a letter.
#[derive(Debug, Clone, PartialEq)]
pub enum LetterAction {
    /// Send its message again.
    Replay(Box<OutboxMessage>),
    /// Have replays send another message.
    Edit(Box<Message>),
    /// Forget it.
    Discard,
    /// It is undecided again.
    Reopen,
}

/// What the broker said about replays, as (letter, outbox row).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishedReplays {
    /// It has them.
    pub confirmed: Vec<(Uuid, Uuid)>,
    /// They were not taken: the letters are open again.
    pub returned: Vec<ReturnedReplay>,
}

/// A replay that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnedReplay {
    /// The letter.
    pub letter: Uuid,
    /// The outbox row.
    pub row: Uuid,
    /// Why, in the broker's words if it had some.
    pub why: String,
}

impl PublishedReplays {
    /// Whether there is nothing to take note of.
    pub fn is_empty(&self) -> bool {
        self.confirmed.is_empty() && self.returned.is_empty()
    }
}

/// What every store that keeps letters does about replays that its relay could not publish.
pub(super) async fn note_returned(
    letters: &impl DeadLetterStore,
    at: Timestamp,
    returned: Vec<ReturnedReplay>,
) -> Result<(), StoreError> {
    let actor = Actor {
        by: "backstitch".to_owned(),
        why: "published by a node".to_owned(),
        at,
    };
    let published = PublishedReplays {
        returned,
        ..PublishedReplays::default()
    };
    letters.change_letters(&actor, &[], &published).await?;
    Ok(())
}
