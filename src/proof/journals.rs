//! What the orchestrator says: each saga's row, checked against its journal.

use std::collections::BTreeMap;

use super::Expected;
use super::verdict::Verdict;
use crate::id::SagaId;
use crate::saga::{Saga, Status, journal};
use crate::store::{
    LIST_ROWS_MAX, ListFilter, LoadRequest, LoadedSaga, SagaHead, Store, StoreError,
};

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
            examine(store, some, &mut sagas, chains).await?;
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
                if let Err(why) = check(&loaded) {
                    chains.wrong(|| format!("{}: {why}", head.key));
                }
            }
        }
        let seen = Seen {
            id: head.id,
            status: head.status,
        };
        sagas.by_key.insert(head.key.clone(), seen);
    }
    Ok(())
}

/// The chain verifies up to the row's hash, and its fold says what the row says. Of a journal
/// that is long enough to have a snapshot, what follows the snapshot.
fn check(loaded: &LoadedSaga) -> Result<(), String> {
    let LoadedSaga {
        head,
        snapshot,
        entries,
    } = loaded;
    let (mut saga, revision) = match snapshot {
        Some(snapshot) => {
            let saga = serde_json::from_slice(&snapshot.body)
                .map_err(|error| format!("its snapshot can't be read: {error}"))?;
            (saga, snapshot.revision)
        }
        None => {
            let hash = journal::verify(head.id, entries).map_err(|error| error.to_string())?;
            if hash != head.head_hash {
                return Err("the row has another hash than the journal's end".to_owned());
            }
            (
                Saga::new(head.id, &head.name, &head.key, head.started_at),
                0,
            )
        }
    };
    journal::fold(&mut saga, revision, entries).map_err(|error| error.to_string())?;
    let end = revision + entries.len() as u64;
    if end != head.revision {
        return Err(format!(
            "the row is at entry {}, the journal at {end}",
            head.revision
        ));
    }
    if saga.status() != head.status {
        return Err(format!(
            "the row says {}, the journal {}",
            head.status,
            saga.status()
        ));
    }
    if saga.ended_at != head.ended_at || saga.status_reason() != head.reason {
        return Err("the row and the journal differ about its end".to_owned());
    }
    Ok(())
}
