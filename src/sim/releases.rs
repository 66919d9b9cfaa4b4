//! Nodes of several releases on one database: upgrades node by node, and ways back.
//!
//! Three releases there are: ours; the next one, which reads the next format and does not write it
//! yet; and the one after that, which writes it. What the next format has more is stood for by its
//! mark. Which release a node is of is drawn at each start, so that every mixture occurs; and in the
//! end one node is of the oldest, and only the other can read everything.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::now::now;
use super::scheduler::{NodeName, Scheduler};
use crate::engine::EngineOptions;
use crate::saga::Saga;
use crate::saga::format::{Formats, READS, WRITES};
use crate::saga::journal;
use crate::store::memory::MemoryStore;
use crate::store::{LIST_ROWS_MAX, ListFilter, LoadRequest, LoadedSaga, SagaHead, Snapshot, Store};

/// The releases, oldest first.
const RELEASES: [Formats; 3] = [
    Formats::OURS,
    Formats {
        writes: WRITES,
        reads: READS + 1,
    },
    ALL,
];
/// The newest one: it reads everything.
pub(super) const ALL: Formats = Formats {
    writes: READS + 1,
    reads: READS + 1,
};
/// Entries after which a snapshot is written: so few that short sagas have some.
const SNAPSHOT_ENTRIES: u64 = 3;

/// Which release a node is of from now on, where that is not left to chance.
#[derive(Default)]
pub(super) struct Releases(Mutex<BTreeMap<NodeName, Formats>>);

impl Releases {
    /// How a node that starts now behaves.
    pub(super) fn options(&self, node: NodeName, scheduler: &Scheduler) -> EngineOptions {
        let fixed = self.0.lock().ok().and_then(|it| it.get(node).copied());
        let formats = fixed.unwrap_or_else(|| {
            let drawn = scheduler.random(|random| random.usize(..RELEASES.len()));
            RELEASES[drawn]
        });
        EngineOptions {
            formats,
            snapshot_entries: SNAPSHOT_ENTRIES,
            ..EngineOptions::default()
        }
    }

    /// From now on one node is of the oldest release, and the other of the newest.
    pub(super) fn settle(&self, nodes: [NodeName; 2]) {
        let ends = [RELEASES[0], ALL];
        if let Ok(mut fixed) = self.0.lock() {
            fixed.extend(nodes.into_iter().zip(ends));
        }
    }
}

/// What an older release has made less of than it was, and snapshots that are not what the journal
/// says.
pub(super) fn wrong(store: &MemoryStore) -> Vec<String> {
    let filter = ListFilter {
        limit: LIST_ROWS_MAX,
        ..ListFilter::default()
    };
    let sagas = now(store.list(&filter)).into_iter();
    sagas.flat_map(|head| judge(store, &head)).collect()
}

fn judge(store: &MemoryStore, head: &SagaHead) -> Vec<String> {
    let mut wrong = Vec::new();
    let entries = now(store.journal(head.id, 0, LIST_ROWS_MAX));
    let mut highest = 0;
    let mut formats = vec![0];
    for entry in &entries {
        let format = format_of(&entry.body);
        if format < highest {
            wrong.push(format!(
                "saga {}: entry {} is in format {format}, after one in {highest}",
                head.id, entry.seq
            ));
        }
        highest = highest.max(format);
        formats.push(highest);
    }
    let request = LoadRequest {
        id: head.id,
        after: 0,
    };
    let loaded = now(store.load(&[request])).into_iter().flatten().next();
    if let Some(LoadedSaga {
        snapshot: Some(Snapshot { revision, body }),
        ..
    }) = loaded
    {
        let up_to = usize::try_from(revision).unwrap_or(usize::MAX);
        if formats.get(up_to).is_none_or(|of| format_of(&body) < *of) {
            wrong.push(format!(
                "saga {}: the snapshot at {revision} is in an older format than what it is of",
                head.id
            ));
        }
        let mut saga = Saga::new(head.id, &head.name, &head.key, head.started_at);
        let plain = entries.iter().take(up_to).map(|entry| entry.plain(ALL));
        let plain = plain.collect::<Result<Vec<_>, _>>();
        let folded = plain.and_then(|plain| journal::fold(&mut saga, 0, &plain));
        let kept = ALL.read(&body).ok();
        let kept = kept.and_then(|(body, _)| serde_json::from_slice::<Saga>(&body).ok());
        if folded.is_err() || kept != Some(saga) {
            wrong.push(format!(
                "saga {}: the snapshot at {revision} is not what its journal says",
                head.id
            ));
        }
    }
    wrong
}

fn format_of(body: &[u8]) -> u32 {
    ALL.read(body).map_or(u32::MAX, |(_, format)| format)
}
