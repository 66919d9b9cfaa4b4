//! What can be wrong with a saga.

use std::fmt;

use crate::id::{SagaId, Timestamp};
use crate::saga::Saga;
use crate::saga::journal::{Chain, JournalError};
use crate::store::{Revision, SagaHead};

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
        let text = |at: Option<Timestamp>| {
            at.map_or_else(|| "not ended".to_owned(), |at| format!("ended {at}"))
        };
        return differs(text(head.ended_at), text(saga.ended_at));
    }
    Ok(())
}
