//! Puts together what the SQL stores read for a [`Store::load`](super::Store::load).
//!
//! Separate because both databases need it. Three statements without a transaction agree if they
//! come in this order: snapshots (of sagas asked for whole), heads, entries up to those heads.
//! A snapshot is never newer than a head read after it, and entries never change.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::rows::{self, EntryRow, HeadRow, SnapshotRow};
use super::{JournalEntry, LoadRequest, LoadedSaga, Revision, SagaHead, Snapshot, StoreError};
use crate::id::SagaId;

/// What was read so far.
pub(super) struct Loading<'a> {
    requests: &'a [LoadRequest],
    snapshots: BTreeMap<SagaId, Snapshot>,
    heads: BTreeMap<SagaId, SagaHead>,
    entries: BTreeMap<SagaId, Vec<JournalEntry>>,
}

/// Entries to read: those of `saga` after `after`, up to and with `up_to`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) saga: Uuid,
    pub(super) after: i64,
    pub(super) up_to: i64,
}

impl<'a> Loading<'a> {
    pub(super) fn new(requests: &'a [LoadRequest]) -> Self {
        Self {
            requests,
            snapshots: BTreeMap::new(),
            heads: BTreeMap::new(),
            entries: BTreeMap::new(),
        }
    }

    /// Sagas whose snapshot is wanted.
    pub(super) fn whole(&self) -> Vec<Uuid> {
        let whole = self.requests.iter().filter(|request| request.after == 0);
        whole.map(|request| request.id.0).collect()
    }

    /// All sagas.
    pub(super) fn ids(&self) -> Vec<Uuid> {
        self.requests.iter().map(|request| request.id.0).collect()
    }

    pub(super) fn add_snapshots(&mut self, found: Vec<SnapshotRow>) -> Result<(), StoreError> {
        self.snapshots.extend(rows::all(found, rows::snapshot)?);
        Ok(())
    }

    pub(super) fn add_heads(&mut self, found: Vec<HeadRow>) -> Result<(), StoreError> {
        let heads = rows::all(found, rows::head)?;
        self.heads
            .extend(heads.into_iter().map(|head| (head.id, head)));
        Ok(())
    }

    /// One range for each saga of which entries are wanted.
    pub(super) fn ranges(&self) -> Vec<Range> {
        let mut after_by_saga = BTreeMap::new();
        for request in self.requests {
            let after = self.after(request);
            let least = after_by_saga.entry(request.id).or_insert(after);
            *least = after.min(*least);
        }
        let range = |(id, after): (SagaId, Revision)| {
            let up_to = self.heads.get(&id)?.revision;
            (after < up_to).then(|| Range {
                saga: id.0,
                after: rows::signed(after),
                up_to: rows::signed(up_to),
            })
        };
        after_by_saga.into_iter().filter_map(range).collect()
    }

    /// Takes entries, those of one saga in order of `seq`.
    pub(super) fn add_entries(&mut self, found: Vec<EntryRow>) -> Result<(), StoreError> {
        for row in found {
            let (saga, entry) = rows::entry(row)?;
            self.entries.entry(saga).or_default().push(entry);
        }
        Ok(())
    }

    /// The answer, in the order of the requests.
    pub(super) fn finish(self) -> Vec<Option<LoadedSaga>> {
        let load = |request| self.answer(request);
        self.requests.iter().map(load).collect()
    }

    fn answer(&self, request: &LoadRequest) -> Option<LoadedSaga> {
        let after = self.after(request);
        let entries = self.entries.get(&request.id).into_iter().flatten();
        Some(LoadedSaga {
            head: self.heads.get(&request.id)?.clone(),
            snapshot: self.snapshot(request).cloned(),
            entries: entries.filter(|entry| entry.seq > after).cloned().collect(),
        })
    }

    fn after(&self, request: &LoadRequest) -> Revision {
        self.snapshot(request)
            .map_or(request.after, |snapshot| snapshot.revision)
    }

    fn snapshot(&self, request: &LoadRequest) -> Option<&Snapshot> {
        let wanted = request.after == 0;
        self.snapshots.get(&request.id).filter(|_| wanted)
    }
}
