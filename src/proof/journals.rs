//! What the orchestrator says: each saga's row, checked against its journal.

use std::collections::BTreeMap;

use super::expected::Expected;
use super::verdict::Verdict;
use crate::id::SagaId;
use crate::saga::format::Formats;
use crate::saga::{Saga, Status, journal};
use crate::store::{
    JournalEntry, LIST_ROWS_MAX, ListFilter, LoadRequest, LoadedSaga, SagaHead, Store, StoreError,
};
use crate::verify::{Flaw, row_agrees};

/// Journals read at once; bounds what is in memory.
const JOURNALS_AT_ONCE: usize = 200;

/// The sagas of a run.
#[derive(Debug, Default)]
pub(super) struct Sagas {
    pub(super) by_key: BTreeMap<String, Seen>,
    /// Journals read.
    pub(super) journals: u64,
    /// Their entries.
    pub(super) entries: u64,
}

/// What the row says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) id: SagaId,
    pub(super) status: Status,
}

/// Reads the run's sagas, newest first, and checks each against its journal.
pub(super) async fn read(
    store: &dyn Store,
    expected: &Expected,
    chains: &mut Verdict,
) -> Result<Sagas, StoreError> {
    let mut sagas = Sagas::default();
    let mut filter = ListFilter {
        name: Some(expected.saga.clone()),
        limit: LIST_ROWS_MAX,
        ..ListFilter::default()
    };
    loop {
        let page = store.list(&filter).await?;
        let ours: Vec<&SagaHead> = page
            .iter()
            .filter(|head| head.key.starts_with(&expected.prefix))
            .collect();
        for some in ours.chunks(JOURNALS_AT_ONCE) {
            examine(store, some, expected.formats, &mut sagas, chains).await?;
        }
        match page.last() {
            Some(oldest) if page.len() == LIST_ROWS_MAX && oldest.started_at >= expected.since => {
                filter.before = Some(oldest.id);
            }
            _ => return Ok(sagas),
        }
    }
}

async fn examine(
    store: &dyn Store,
    heads: &[&SagaHead],
    formats: Formats,
    sagas: &mut Sagas,
    chains: &mut Verdict,
) -> Result<(), StoreError> {
    let requests: Vec<LoadRequest> = heads
        .iter()
        .map(|head| LoadRequest {
            id: head.id,
            after: 0,
        })
        .collect();
    for (head, loaded) in heads.iter().zip(store.load(&requests).await?) {
        match loaded {
            None => chains.wrong(|| format!("{} was listed and can't be loaded", head.key)),
            Some(loaded) => {
                sagas.journals += 1;
                sagas.entries += loaded.head.revision;
                let rest = whole_journal(store, &loaded).await?;
                let entries = rest.as_ref().unwrap_or(&loaded.entries);
                if let Err(why) = check(&loaded.head, entries, formats) {
                    chains.wrong(|| format!("{}: {why}", head.key));
                }
            }
        }
        let seen = Seen {
            id: head.id,
            status: head.status,
        };
        // Newest first: of those that have had a key, the one that has it.
        sagas.by_key.entry(head.key.clone()).or_insert(seen);
    }
    Ok(())
}

/// The journal from its first entry, of a saga that was not loaded from there.
async fn whole_journal(
    store: &dyn Store,
    loaded: &LoadedSaga,
) -> Result<Option<Vec<JournalEntry>>, StoreError> {
    if loaded.snapshot.is_none() && !loaded.left_out {
        return Ok(None);
    }
    let mut entries: Vec<JournalEntry> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |entry| entry.seq);
        let page = store.journal(loaded.head.id, after, LIST_ROWS_MAX).await?;
        // What has been added since the row was read is not this row's.
        let page = page
            .into_iter()
            .take_while(|entry| entry.seq <= loaded.head.revision);
        let before = entries.len();
        entries.extend(page);
        if entries.len() - before < LIST_ROWS_MAX {
            return Ok(Some(entries));
        }
    }
}

/// The chain verifies up to the row's hash, and its fold says what the row says.
fn check(head: &SagaHead, entries: &[JournalEntry], formats: Formats) -> Result<(), Flaw> {
    let chain = journal::verify(head.id, entries)?;
    let mut saga = Saga::new(head.id, &head.name, &head.key, head.started_at);
    let plain = entries.iter().map(|entry| entry.plain(formats));
    journal::fold(&mut saga, 0, &plain.collect::<Result<Vec<_>, _>>()?)?;
    row_agrees(head, &chain, &saga)
}
