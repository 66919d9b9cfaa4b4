//! Rows that belong to no saga, and snapshots that are not what the journal says.
//!
//! Separate from the scan because that begins with the sagas' rows: what has lost its row is never come
//! by there. A snapshot is looked at because a node believes it: it is not folded anew.

use super::flaw::{Finding, Flaw};
use crate::id::SagaId;
use crate::saga::Saga;
use crate::saga::format::{Formats, unknown};
use crate::saga::journal::replay;
use crate::store::{
    LIST_ROWS_MAX, LoadRequest, LoadedSaga, Revision, SagaTable, Snapshot, Store, StoreError,
};

/// Rows of which the ids are read at once.
const ROWS: usize = 10_000;

/// Tells `see` of each saga that has rows without having one itself, and of each snapshot that does not
/// fit; returns how many there are.
///
/// # Errors
/// The database's.
pub async fn strays(store: &dyn Store, mut see: impl FnMut(Finding)) -> Result<u64, StoreError> {
    let mut found = 0;
    let mut tell = |saga, name, flaw| {
        found += 1;
        see(Finding { saga, name, flaw });
    };
    for table in [SagaTable::Journal, SagaTable::Snapshots] {
        let mut after = None;
        loop {
            let page = store.sagas_in(table, after, ROWS).await?;
            let Some((last, _)) = page.last() else {
                break;
            };
            after = Some(*last);
            for (saga, has_row) in page {
                match (has_row, table) {
                    (false, SagaTable::Journal) => tell(saga, None, Flaw::NoRow("journal")),
                    (false, SagaTable::Snapshots) => tell(saga, None, Flaw::NoRow("snapshots")),
                    (true, SagaTable::Journal) => {}
                    (true, SagaTable::Snapshots) => {
                        if let Some((name, flaw)) = snapshot(store, saga).await? {
                            tell(saga, Some(name), flaw);
                        }
                    }
                }
            }
        }
    }
    Ok(found)
}

type Flawed = ((String, String), Flaw);

/// What is wrong with a saga's snapshot, if anything.
async fn snapshot(store: &dyn Store, saga: SagaId) -> Result<Option<Flawed>, StoreError> {
    let request = LoadRequest { id: saga, after: 0 };
    let Some(LoadedSaga {
        head,
        snapshot: Some(snapshot),
        ..
    }) = store.load(&[request]).await?.into_iter().flatten().next()
    else {
        // It was removed meanwhile, with its saga.
        return Ok(None);
    };
    let Snapshot { revision, body } = snapshot;
    let flawed = |why: String| {
        Some((
            (head.name.clone(), head.key.clone()),
            Flaw::Snapshot { revision, why },
        ))
    };
    if revision > head.revision {
        let why = format!("the row is at entry {}", head.revision);
        return Ok(flawed(why));
    }
    let kept = match read(&body) {
        Ok(saga) => saga,
        Err(why) => return Ok(flawed(why)),
    };
    let start = Saga::new(head.id, &head.name, &head.key, head.started_at);
    let folded = fold(store, start, revision).await?;
    Ok(match folded {
        Some(folded) if folded != kept => flawed("it is not what the journal says".to_owned()),
        // A journal that can't be folded is the scan's matter.
        _ => None,
    })
}

/// What a snapshot says; or why this program can't say that.
fn read(body: &[u8]) -> Result<Saga, String> {
    let plain = Formats::OURS.read(body);
    let (plain, _) = plain.map_err(|newer| newer.to_string())?;
    serde_json::from_slice(&plain).map_err(|error| match unknown(&error) {
        Some(newer) => newer.to_string(),
        None => format!("it can't be read: {error}"),
    })
}

/// A saga as its journal says that it was at a revision; `None` if that can't be read.
async fn fold(
    store: &dyn Store,
    mut saga: Saga,
    revision: Revision,
) -> Result<Option<Saga>, StoreError> {
    let mut seq = 0;
    while seq < revision {
        let page = store.journal(saga.id, seq, LIST_ROWS_MAX).await?;
        if page.is_empty() {
            return Ok(None);
        }
        for entry in page.iter().take_while(|entry| entry.seq <= revision) {
            if replay(&mut saga, entry).is_err() {
                return Ok(None);
            }
            seq = entry.seq;
        }
        if page.last().is_some_and(|last| last.seq > revision) {
            break;
        }
    }
    Ok((seq == revision).then_some(saga))
}
