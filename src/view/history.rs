//! What is read of a saga before it can be shown: its row and its journal.

use crate::id::SagaId;
use crate::saga::Saga;
use crate::saga::journal::{self, JournalEntry, JournalError};
use crate::store::{LoadRequest, SagaHead, Store, StoreError};

/// Journal entries read at once.
const JOURNAL_PAGE: usize = 1_000;

/// A saga's row and its whole journal.
#[derive(Debug, Clone)]
pub struct History {
    /// The row.
    pub head: SagaHead,
    /// The entries that the row speaks of, from the first one.
    pub entries: Vec<JournalEntry>,
}

/// Reads a saga's row and whole journal; `None` if there is no such saga.
pub async fn read_history(store: &dyn Store, id: SagaId) -> Result<Option<History>, StoreError> {
    let Some(head) = read_head(store, id).await? else {
        return Ok(None);
    };
    let mut entries: Vec<JournalEntry> = Vec::new();
    // Entries that are written meanwhile belong to a later row than the one read above.
    while (entries.len() as u64) < head.revision {
        let after = entries.last().map_or(0, |entry| entry.seq);
        let page = store.journal(id, after, JOURNAL_PAGE).await?;
        if page.is_empty() {
            break;
        }
        entries.extend(page.into_iter().filter(|entry| entry.seq <= head.revision));
    }
    Ok(Some(History { head, entries }))
}

/// Reads a saga's row alone.
pub async fn read_head(store: &dyn Store, id: SagaId) -> Result<Option<SagaHead>, StoreError> {
    // No entry comes after the largest number that every database can hold.
    let after = i64::MAX.unsigned_abs();
    let loaded = store.load(&[LoadRequest { id, after }]).await?;
    Ok(loaded.into_iter().flatten().next().map(|saga| saga.head))
}

/// What the journal says, as far as it can be read; [`JournalView`](super::JournalView) tells if that is not all of it.
pub fn folded(history: &History) -> Saga {
    fold(history).0
}

/// The same, and why it is not all of it.
pub(super) fn fold(History { head, entries }: &History) -> (Saga, Result<(), JournalError>) {
    let mut saga = Saga::new(head.id, &head.name, &head.key, head.started_at);
    let all = journal::fold(&mut saga, 0, entries);
    (saga, all)
}
