//! Puts together what the SQL stores read for a [`Store::load`](super::Store::load).
//!
//! Separate because both databases need it. Three statements without a transaction agree if they
//! come in this order: snapshots (of sagas asked for whole), heads, entries up to those heads.
//! A snapshot is never newer than a head read after it, and entries never change.
//!
//! It also knows when enough was read: whoever runs the statements reads the sagas in order of their
//! ids, and whole ones only. What is left out then, the caller asks for again.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::head::{self, HeadRow};
use super::rows::{self, EntryRow, SnapshotRow};
use super::{JournalEntry, LoadRequest, LoadedSaga, Revision, SagaHead, Snapshot, StoreError};
use crate::id::SagaId;
use crate::limits::LOADED_BYTES;

/// What was read so far.
pub(super) struct Loading<'a> {
    requests: &'a [LoadRequest],
    snapshots: BTreeMap<SagaId, Snapshot>,
    heads: BTreeMap<SagaId, SagaHead>,
    entries: BTreeMap<SagaId, Vec<JournalEntry>>,
    /// What may still be read, in bytes; the saga that is being read is read to its end.
    room: usize,
    /// The saga that was read last.
    last: Option<SagaId>,
    /// Later ones are left out.
    end: Option<SagaId>,
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
            room: LOADED_BYTES,
            last: None,
            end: None,
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

    /// Bytes of bodies that may still be read. At least one, so that a saga is read whatever its size.
    pub(super) fn room(&self) -> i64 {
        i64::try_from(self.room.max(1)).unwrap_or(i64::MAX)
    }

    /// Takes the next snapshot in order of ids; `false` if enough was read, so that it is left out.
    pub(super) fn add_snapshot(&mut self, row: SnapshotRow) -> Result<bool, StoreError> {
        let (saga, snapshot) = rows::snapshot(row)?;
        if !self.takes(saga, snapshot.body.len()) {
            return Ok(false);
        }
        self.snapshots.insert(saga, snapshot);
        Ok(true)
    }

    /// No snapshot comes any more.
    pub(super) fn end_snapshots(&mut self) {
        if self.room == 0 {
            self.end = self.last;
        }
        self.last = None;
    }

    fn takes(&mut self, saga: SagaId, bytes: usize) -> bool {
        if self.last.is_some_and(|last| last != saga) && self.room == 0 {
            return false;
        }
        self.room = self.room.saturating_sub(bytes);
        self.last = Some(saga);
        true
    }

    fn is_behind_the_end(&self, saga: SagaId) -> bool {
        self.end.is_some_and(|end| saga > end)
    }

    pub(super) fn add_heads(&mut self, found: Vec<HeadRow>) -> Result<(), StoreError> {
        let heads = rows::all(found, head::head)?;
        self.heads
            .extend(heads.into_iter().map(|head| (head.id, head)));
        Ok(())
    }

    /// One range for each saga of which entries are wanted.
    pub(super) fn ranges(&self) -> Vec<Range> {
        let mut after_by_saga = BTreeMap::new();
        for request in self.requests {
            if request.after == 0 && self.is_behind_the_end(request.id) {
                continue;
            }
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

    /// Takes the next entry, in order of ids and, for each, of `seq`; `false` if enough was read, so
    /// that it and all that follow are left out.
    pub(super) fn add_entry(&mut self, row: EntryRow) -> Result<bool, StoreError> {
        let (saga, entry) = rows::entry(row)?;
        if !self.takes(saga, entry.body.len()) {
            return Ok(false);
        }
        self.entries.entry(saga).or_default().push(entry);
        Ok(true)
    }

    /// The answer, in the order of the requests.
    pub(super) fn finish(mut self) -> Vec<Option<LoadedSaga>> {
        if self.room == 0 && self.last.is_some() {
            self.end = self.last.min(self.end.or(self.last));
        }
        let load = |request| self.answer(request);
        self.requests.iter().map(load).collect()
    }

    fn answer(&self, request: &LoadRequest) -> Option<LoadedSaga> {
        let after = self.after(request);
        let head = self.heads.get(&request.id)?.clone();
        // Who has it all is told so.
        if self.is_behind_the_end(request.id) && after < head.revision {
            return Some(LoadedSaga {
                head,
                snapshot: None,
                entries: Vec::new(),
                left_out: true,
            });
        }
        let entries = self.entries.get(&request.id).into_iter().flatten();
        Some(LoadedSaga {
            head,
            snapshot: self.snapshot(request).cloned(),
            entries: entries.filter(|entry| entry.seq > after).cloned().collect(),
            left_out: false,
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
