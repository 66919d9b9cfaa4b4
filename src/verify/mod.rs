//! Is what the database says still what was written?
//!
//! Each saga's journal is a hash chain, which shows an entry that was changed, removed or slipped
//! in. It can't show that a whole saga is gone, or was written anew from its first entry: for that
//! there is the [`checkpoint`], a list of all chains' heads under one Merkle root, kept where the
//! database's administrator can't reach it. [`scan()`] reads all sagas once, newest first, and
//! checks both. [`strays()`] finds rows without a saga and snapshots that are not what the journal
//! says, [`letters()`] dead letters that are not as their audit log says.
//!
//! Invariants: nothing is written; memory is bounded by a page of sagas and a page of journal,
//! however long either is; a saga that goes on while it is looked at is judged by what its row
//! said when it was read.
//! Deliberately absent: repair. What is broken was broken by somebody, and a person must know.

pub mod checkpoint;
mod letters;
pub mod merkle;
mod scan;
mod strays;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::id::SagaId;
use crate::saga::Saga;
use crate::saga::journal::{Chain, JournalError};
use crate::store::{Hash, Revision, SagaHead, StoreError};

use checkpoint::CheckpointError;
pub use letters::{LetterFinding, LetterFlaw, Letters, letters};
pub use scan::{Scan, Summary, scan};
pub use strays::strays;

/// What is wrong with a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The saga.
    pub saga: SagaId,
    /// Its definition and key, unless it is gone.
    pub name: Option<(String, String)>,
    /// What is wrong.
    pub flaw: Flaw,
}

/// The ways in which a saga can be other than it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The chain has a broken link.
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    /// Entries were cut off the end, or the row was set ahead.
    #[error("the row is at entry {row}, the journal ends at {journal}")]
    Cut {
        /// What the row says.
        row: Revision,
        /// The last entry there is.
        journal: Revision,
    },
    /// The row's hash is another than the newest entry's.
    #[error("the row's hash is not that of entry {0}")]
    RowHash(Revision),
    /// The row says something else than the journal.
    #[error("the row says {row}, the journal says {journal}")]
    Row {
        /// The row's status, or when it ended.
        row: String,
        /// The journal's.
        journal: String,
    },
    /// It has rows elsewhere, and none of its own.
    #[error("it has rows in `{0}`, and none in `sagas`")]
    NoRow(&'static str),
    /// What a node would take for its state is something else.
    #[error("snapshot at entry {revision}: {why}")]
    Snapshot {
        /// The last entry that it should include.
        revision: Revision,
        /// What is wrong with it.
        why: String,
    },
    /// It is in the checkpoint, and not in the database.
    #[error("it is gone: the checkpoint knows it with {0} entries")]
    Gone(Revision),
    /// It was at this entry when the checkpoint was made, and has another entry in that place.
    #[error("it was replaced: entry {0} is another one than the checkpoint's")]
    Replaced(Revision),
    /// It has fewer entries than when the checkpoint was made.
    #[error("it was cut: the checkpoint knows it with {checkpoint} entries, now it has {now}")]
    Shortened {
        /// Then.
        checkpoint: Revision,
        /// Now.
        now: Revision,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some((name, key)) => write!(f, "{} {name} {key}: {}", self.saga, self.flaw),
            None => write!(f, "{}: {}", self.saga, self.flaw),
        }
    }
}

/// Why sagas could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The checkpoint can't be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Whether a row says the same as its journal, which was read to its end as `chain` and folded
/// into `saga`.
pub fn row_agrees(head: &SagaHead, chain: &Chain, saga: &Saga) -> Result<(), Flaw> {
    if chain.seq() != head.revision {
        return Err(Flaw::Cut {
            row: head.revision,
            journal: chain.seq(),
        });
    }
    if chain.head() != head.head_hash {
        return Err(Flaw::RowHash(head.revision));
    }
    let differs = |row: String, journal: String| Err(Flaw::Row { row, journal });
    if saga.status() != head.status {
        return differs(head.status.to_string(), saga.status().to_string());
    }
    if saga.ended_at != head.ended_at {
        let text = |at: Option<crate::id::Timestamp>| {
            at.map_or_else(|| "not ended".to_owned(), |at| format!("ended {at}"))
        };
        return differs(text(head.ended_at), text(saga.ended_at));
    }
    Ok(())
}

/// A chain's end: what a checkpoint keeps of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainEnd {
    /// The saga.
    pub saga: SagaId,
    /// Its newest entry.
    pub revision: Revision,
    /// That entry's hash.
    pub hash: Hash,
}
