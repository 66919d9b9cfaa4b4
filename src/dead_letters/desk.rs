//! The desk: whoever looks at letters, chooses some and changes them.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::broker::BrokerError;
use crate::environment::Environment;
use crate::store::dead_letters::{
    Actor, DeadLetterStore, LetterAction, LetterChange, LetterFilter, LetterHead, LetterPage,
    LetterStatus, PublishedReplays,
};
use crate::store::{Store, StoreError};

/// Most letters changed in one transaction.
pub const CHUNK_LETTERS_MAX: usize = 500;
/// Letters read at once when they are named: each comes with its body.
pub(super) const IDS_AT_ONCE: usize = 50;
/// A queue that gives a message up after fewer deliveries than this, and has no dead-letter exchange, is
/// handled with care: a few looks, or crashes, and its messages are gone.
pub const DELIVERIES_MIN: u64 = 10;
/// Most bytes of bodies in one transaction, unless a single one is larger.
pub const CHUNK_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Where letters are worked on.
#[derive(Clone)]
pub struct Desk {
    /// Clock and ids.
    pub environment: Arc<dyn Environment>,
    /// The letters.
    pub letters: Arc<dyn DeadLetterStore>,
    /// The sagas that letters may belong to.
    pub sagas: Arc<dyn Store>,
}

/// Which letters to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Ids(Vec<Uuid>),
    /// All that fit.
    Filter(Box<LetterFilter>),
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// There is no such letter.
    #[error("there is no dead letter {0}; `dead-letters list` shows those there are")]
    NotFound(Uuid),
    /// It can't be done to this letter.
    #[error("dead letter {letter}: {why}")]
    Refused {
        /// Which.
        letter: Uuid,
        /// Why.
        why: String,
    },
    /// It would lose or wear out messages.
    #[error("{0}")]
    Danger(String),
    /// What was given is not what is needed.
    #[error("{0}")]
    Malformed(String),
}

/// Reads a selection in order of time, page by page.
pub(crate) struct Cursor {
    selection: Selection,
    last: Option<(crate::id::Timestamp, Uuid)>,
    ended: bool,
}

impl Cursor {
    pub(crate) fn new(selection: Selection) -> Self {
        Self {
            selection,
            last: None,
            ended: false,
        }
    }

    /// The next letters; empty at the end.
    pub(crate) async fn next(
        &mut self,
        letters: &dyn DeadLetterStore,
    ) -> Result<Vec<LetterHead>, DeadLetterError> {
        if self.ended {
            return Ok(Vec::new());
        }
        match &self.selection {
            Selection::Ids(ids) => {
                self.ended = true;
                let mut heads = Vec::with_capacity(ids.len());
                for part in ids.chunks(IDS_AT_ONCE) {
                    let found = letters.load_letters(part).await?;
                    let is_there = |id: &Uuid| found.iter().any(|letter| letter.head.id == *id);
                    if let Some(missing) = part.iter().find(|id| !is_there(id)) {
                        return Err(DeadLetterError::NotFound(*missing));
                    }
                    heads.extend(found.into_iter().map(|letter| letter.head));
                }
                heads.sort_by_key(|head: &LetterHead| (head.at, head.id));
                heads.dedup_by_key(|head| head.id);
                Ok(heads)
            }
            Selection::Filter(filter) => {
                let page = LetterPage {
                    after: self.last,
                    oldest_first: true,
                    limit: CHUNK_LETTERS_MAX,
                };
                let heads = letters.letters(filter, &page).await?;
                self.ended = heads.len() < CHUNK_LETTERS_MAX;
                self.last = heads.last().map(|head| (head.at, head.id)).or(self.last);
                Ok(heads)
            }
        }
    }
}

/// What became of a discard.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Discarded {
    /// Letters discarded.
    pub discarded: u64,
    /// Letters left out: not open, or changed meanwhile.
    pub skipped: u64,
}

impl Desk {
    /// Who does something, now.
    pub fn actor(&self, by: &str, why: &str) -> Actor {
        Actor {
            by: by.to_owned(),
            why: why.to_owned(),
            at: self.environment.now(),
        }
    }

    /// Discards open letters.
    pub async fn discard(
        &self,
        selection: Selection,
        by: &str,
        why: &str,
    ) -> Result<Discarded, DeadLetterError> {
        let mut cursor = Cursor::new(selection);
        let mut outcome = Discarded::default();
        loop {
            let heads = cursor.next(&*self.letters).await?;
            if heads.is_empty() {
                return Ok(outcome);
            }
            let total = heads.len();
            let open = heads
                .iter()
                .filter(|head| head.status == LetterStatus::Open);
            let changes: Vec<_> = open
                .map(|head| change(head, LetterAction::Discard))
                .collect();
            let nothing = PublishedReplays::default();
            let actor = self.actor(by, why);
            let lost = self
                .letters
                .change_letters(&actor, &changes, &nothing)
                .await?;
            let done = changes.len() - lost.len();
            outcome.discarded += done as u64;
            outcome.skipped += (total - done) as u64;
        }
    }

    /// Deletes replayed and discarded letters that were handled longer ago than `age`.
    pub async fn purge(&self, age: Duration, by: &str, why: &str) -> Result<u64, DeadLetterError> {
        let actor = self.actor(by, why);
        let before = actor.at.before(age);
        let mut purged = 0;
        loop {
            let count = self
                .letters
                .purge_letters(&actor, before, CHUNK_LETTERS_MAX)
                .await?;
            purged += count;
            if count < CHUNK_LETTERS_MAX as u64 {
                return Ok(purged);
            }
        }
    }
}

pub(crate) fn change(head: &LetterHead, what: LetterAction) -> LetterChange {
    LetterChange {
        letter: head.id,
        version: head.version,
        what,
    }
}
