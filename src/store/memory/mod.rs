//! The store without a database: the reference model of the contracts, and the simulator's store.
//!
//! Everything is ordered (`BTreeMap`), so equal calls give equal answers, and no call awaits
//! anything but a participant's turn: no runtime is needed. A commit is one critical section.
//! A handle is cheap to clone, and all clones are one store, which is how simulated nodes share
//! a database and how what was committed outlives a node's crash.
//!
//! Deliberately absent: durability, and locks on single rows (see [`participant`]).

mod census;
mod feed;
mod head;
mod jobs;
mod letters;
mod participant;
mod projections;
mod requests;
mod schedules;
mod search;
mod tokens;
mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;

use self::letters::{Audit, LetterRecord};
use self::projections::Projections;
use super::dead_letters::occurrence::NewLetter;
use super::dead_letters::{ReturnedReplay, Sighting, note_returned};
use super::feed::Position;
use super::participant::{
    AggregateEvent, AggregateKey, AggregateRow, AggregateSnapshot, BarrierKey, BarrierRow,
};
use super::{
    Commit, CommitOutcome, Conflict, DeadLetter, DefinitionRow, JournalEntry, KeyMatch,
    LIST_ROWS_MAX, ListFilter, LiveCount, LoadRequest, LoadedSaga, Outbox, OutboxMessage, Revision,
    SagaCount, SagaHead, SagaKey, SagaTable, SagaWrite, ScheduleKey, ScheduleRow, Snapshot, Store,
    StoreError, TokenRow, shape,
};
use crate::definition::Label;
use crate::id::{SagaId, Timestamp};
use crate::limits::LOADED_BYTES;
use crate::saga::journal::Hash;

/// A store in memory; clones are handles to the same one.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// When the first saga must be looked at or the first outbox row counts as left behind.
    pub fn next_due(&self) -> Option<Timestamp> {
        let state = self.state();
        let wake = state.wakes.first().map(|(at, _)| *at);
        let row = state.due.first().map(|(at, _)| *at);
        wake.into_iter().chain(row).min()
    }

    /// What participants have answered, in key order: all that a proof must know of them.
    pub fn barriers(&self) -> Vec<BarrierRow> {
        self.state().barriers.values().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere can't leave half a change: changes are checked before they are made.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Held by the one open participant transaction.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    sagas: BTreeMap<SagaId, SagaRecord>,
    /// Who holds a key.
    keys: BTreeMap<SagaKey, SagaId>,
    wakes: BTreeSet<(Timestamp, SagaId)>,
    outbox: BTreeMap<Uuid, OutboxMessage>,
    due: BTreeSet<(Timestamp, Uuid)>,
    dead_letters: BTreeMap<Uuid, LetterRecord>,
    audit: Audit,
    definitions: BTreeMap<(String, u32), DefinitionRow>,
    schedules: BTreeMap<ScheduleKey, ScheduleRow>,
    trials: BTreeMap<Uuid, u32>,
    tokens: BTreeMap<Uuid, TokenRow>,
    answers: BTreeMap<Hash, requests::Kept>,
    jobs: jobs::Jobs,
    secret: Option<[u8; 32]>,
    barriers: BTreeMap<BarrierKey, BarrierRow>,
    aggregates: BTreeMap<AggregateKey, AggregateRow>,
    events: BTreeMap<(AggregateKey, u64), Position>,
    /// All events, in the order of their commits.
    feed: BTreeMap<Position, AggregateEvent>,
    snapshots: BTreeMap<(AggregateKey, u64), AggregateSnapshot>,
    projections: Projections,
}

#[derive(Debug)]
struct SagaRecord {
    head: SagaHead,
    /// Entry `seq` is at `seq - 1`.
    journal: Vec<JournalEntry>,
    snapshot: Option<Snapshot>,
    labels: Vec<Label>,
}

#[async_trait]
impl Store for MemoryStore {
    async fn load(&self, requests: &[LoadRequest]) -> Result<Vec<Option<LoadedSaga>>, StoreError> {
        let state = self.state();
        let mut in_order: Vec<usize> = (0..requests.len()).collect();
        in_order.sort_by_key(|at| requests[*at].id);
        let mut loaded = vec![None; requests.len()];
        let mut room = LOADED_BYTES;
        for at in in_order {
            let LoadRequest { id, after } = requests[at];
            let Some(record) = state.sagas.get(&id) else {
                continue;
            };
            let mut saga = record.load(after);
            if room == 0 && after < saga.head.revision {
                saga.leave_out();
            }
            room = room.saturating_sub(saga.bytes());
            loaded[at] = Some(saga);
        }
        Ok(loaded)
    }

    async fn find(&self, keys: &[SagaKey]) -> Result<Vec<Option<KeyMatch>>, StoreError> {
        let state = self.state();
        let find = |key| {
            let head = &state.sagas.get(state.keys.get(key)?)?.head;
            Some(KeyMatch {
                id: head.id,
                input_hash: head.input_hash,
                status: head.status,
            })
        };
        Ok(keys.iter().map(find).collect())
    }

    async fn commit(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        shape::check(&commit)?;
        let letters = NewLetter::all(&commit.dead_letters)?;
        let mut state = self.state();
        let mut outcome = CommitOutcome::default();
        for write in commit.sagas {
            let id = write.head.id;
            if let Some(conflict) = state.conflict(&write) {
                outcome.conflicts.push((id, conflict));
            } else {
                state.write_saga(write);
            }
        }
        outcome.known_letters = state.keep(letters).known;
        state.write_messages(commit.outbox, &commit.sent);
        Ok(outcome)
    }

    async fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SagaId>, StoreError> {
        let mut state = self.state();
        let due: Vec<_> = state.wakes.iter().copied().take(limit).collect();
        let due = due.into_iter().take_while(|(wake_at, _)| *wake_at <= now);
        let ids: Vec<_> = due.map(|(_, id)| id).collect();
        for id in &ids {
            state.set_wake(*id, Some(until));
        }
        Ok(ids)
    }

    async fn put_definition(&self, row: DefinitionRow) -> Result<DefinitionRow, StoreError> {
        let mut state = self.state();
        let id = (row.name.clone(), row.version);
        Ok(state.definitions.entry(id).or_insert(row).clone())
    }

    async fn definitions(&self) -> Result<Vec<DefinitionRow>, StoreError> {
        Ok(self.state().definitions.values().cloned().collect())
    }

    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StoreError> {
        Ok(*self.state().secret.get_or_insert(candidate))
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<SagaHead>, StoreError> {
        let state = self.state();
        let heads = state.sagas.values().rev().map(|record| &record.head);
        Ok(heads
            .filter(|head| filter.before.is_none_or(|before| head.id < before))
            .filter(|head| filter.name.as_ref().is_none_or(|name| head.name == *name))
            .filter(|head| filter.status.is_none_or(|status| head.status == status))
            .filter(|head| {
                let key = filter.key.as_ref();
                key.is_none_or(|key| head.key == *key && !head.superseded)
            })
            .take(filter.limit.min(LIST_ROWS_MAX))
            .cloned()
            .collect())
    }

    async fn journal(
        &self,
        saga: SagaId,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        let state = self.state();
        let journal = state.sagas.get(&saga).map(|record| record.journal.iter());
        Ok(journal
            .into_iter()
            .flatten()
            .filter(|entry| entry.seq > after)
            .take(limit.min(LIST_ROWS_MAX))
            .cloned()
            .collect())
    }

    async fn sagas_in(
        &self,
        table: SagaTable,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<(SagaId, bool)>, StoreError> {
        let state = self.state();
        let later = state.sagas.iter().filter(|(id, _)| Some(**id) > after);
        let with_rows = later.filter(|(_, record)| match table {
            SagaTable::Journal => !record.journal.is_empty(),
            SagaTable::Snapshots => record.snapshot.is_some(),
        });
        // One record holds all of a saga, so none is without its row.
        Ok(with_rows.take(limit).map(|(id, _)| (*id, true)).collect())
    }

    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError> {
        let state = self.state();
        let mut counts = BTreeMap::new();
        for SagaRecord { head, .. } in state.sagas.values() {
            *counts.entry((&head.name, head.status)).or_insert(0) += 1;
        }
        let row = |((name, status), count): ((&String, _), _)| SagaCount {
            name: name.clone(),
            status,
            count,
        };
        Ok(counts.into_iter().map(row).collect())
    }

    async fn live(&self) -> Result<Vec<LiveCount>, StoreError> {
        let state = self.state();
        let heads = state.sagas.values().map(|record| &record.head);
        let mut counts = BTreeMap::new();
        for head in heads.filter(|head| !head.status.is_ended()) {
            *counts.entry((&head.name, head.version)).or_insert(0) += 1;
        }
        let row = |((name, version), count): ((&String, _), _)| LiveCount {
            name: name.clone(),
            version,
            count,
        };
        Ok(counts.into_iter().map(row).collect())
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let state = self.state();
        let letters = state.dead_letters.values().map(|record| &record.letter);
        let mut letters: Vec<&DeadLetter> = letters.collect();
        letters.sort_by_key(|letter| std::cmp::Reverse((letter.at, letter.id)));
        letters.truncate(limit.min(LIST_ROWS_MAX));
        let as_kept = |letter: &DeadLetter| DeadLetter {
            sighting: Sighting::default(),
            ..letter.clone()
        };
        Ok(letters.into_iter().map(as_kept).collect())
    }
}

#[async_trait]
impl Outbox for MemoryStore {
    async fn sweep_outbox(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxMessage>, StoreError> {
        let mut state = self.state();
        let due: Vec<_> = state.due.iter().copied().take(limit).collect();
        let due = due.into_iter().take_while(|(due_at, _)| *due_at <= now);
        Ok(due
            .filter_map(|(_, id)| state.postpone(id, until))
            .collect())
    }

    async fn unsent(&self, rows: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let state = self.state();
        let unsent = rows.iter().filter(|row| state.outbox.contains_key(row));
        Ok(unsent.copied().collect())
    }

    async fn remove_sent(&self, sent: &[Uuid]) -> Result<(), StoreError> {
        self.state().remove_sent(sent);
        Ok(())
    }

    async fn return_replays(
        &self,
        at: Timestamp,
        returned: Vec<ReturnedReplay>,
    ) -> Result<(), StoreError> {
        note_returned(self, at, returned).await
    }

    async fn set_aside(&self, letters: Vec<DeadLetter>, rows: Vec<Uuid>) -> Result<(), StoreError> {
        let commit = Commit {
            dead_letters: letters,
            sent: rows,
            ..Commit::default()
        };
        self.commit(commit).await.map(drop)
    }

    async fn outbox_len(&self) -> Result<u64, StoreError> {
        Ok(self.state().outbox.len() as u64)
    }
}

impl SagaRecord {
    fn load(&self, after: u64) -> LoadedSaga {
        let snapshot = self.snapshot.as_ref().filter(|_| after == 0).cloned();
        let after = snapshot.as_ref().map_or(after, |from| from.revision);
        let newer = self.journal.iter().filter(|entry| entry.seq > after);
        LoadedSaga {
            head: self.head.clone(),
            snapshot,
            entries: newer.cloned().collect(),
            left_out: false,
        }
    }
}

impl LoadedSaga {
    fn bytes(&self) -> usize {
        let snapshot = self.snapshot.as_ref().map_or(0, |it| it.body.len());
        let entries = self.entries.iter().map(|entry| entry.body.len());
        snapshot + entries.sum::<usize>()
    }

    fn leave_out(&mut self) {
        self.snapshot = None;
        self.entries.clear();
        self.left_out = true;
    }
}

impl State {
    /// Why this write can't be stored, if so.
    fn conflict(&self, write: &SagaWrite) -> Option<Conflict> {
        let stored = self.sagas.get(&write.head.id);
        if stored.map_or(0, |record| record.head.revision) != write.expected {
            return Some(Conflict::Revision);
        }
        let needs_key = stored.is_none() && !write.head.superseded;
        let taken = needs_key && self.keys.contains_key(&write.head.saga_key());
        taken.then_some(Conflict::KeyTaken)
    }

    fn write_saga(&mut self, write: SagaWrite) {
        let SagaWrite {
            head,
            entries,
            snapshot,
            outbox,
            labels,
            ..
        } = write;
        let (id, wake_at) = (head.id, head.wake_at);
        if !head.superseded {
            self.keys.entry(head.saga_key()).or_insert(id);
        } else if self.keys.get(&head.saga_key()) == Some(&id) {
            self.keys.remove(&head.saga_key());
        }
        let record = self.sagas.entry(id).or_insert_with(|| SagaRecord {
            head: SagaHead {
                wake_at: None,
                ..head.clone()
            },
            journal: Vec::new(),
            snapshot: None,
            labels,
        });
        record.head.follow(head);
        record.journal.extend(entries);
        record.snapshot = snapshot.or(record.snapshot.take());
        self.set_wake(id, wake_at);
        self.put_outbox(outbox);
    }

    fn set_wake(&mut self, id: SagaId, wake_at: Option<Timestamp>) {
        let Some(record) = self.sagas.get_mut(&id) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut record.head.wake_at, wake_at) {
            self.wakes.remove(&(old, id));
        }
        self.wakes.extend(wake_at.map(|at| (at, id)));
    }

    fn write_messages(&mut self, outbox: Vec<OutboxMessage>, sent: &[Uuid]) {
        self.put_outbox(outbox);
        self.remove_sent(sent);
    }

    fn put_outbox(&mut self, messages: Vec<OutboxMessage>) {
        for message in messages {
            // A batch that is stored again after a lost answer brings the same rows.
            if !self.outbox.contains_key(&message.id) {
                self.due.insert((message.due_at, message.id));
                self.outbox.insert(message.id, message);
            }
        }
    }

    fn remove_sent(&mut self, sent: &[Uuid]) {
        for id in sent {
            if let Some(row) = self.outbox.remove(id) {
                self.due.remove(&(row.due_at, *id));
            }
        }
    }

    fn postpone(&mut self, id: Uuid, until: Timestamp) -> Option<OutboxMessage> {
        let row = self.outbox.get_mut(&id)?;
        self.due.remove(&(row.due_at, id));
        self.due.insert((until, id));
        row.due_at = until;
        Some(row.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{Complete, Fixture};

    #[async_trait]
    impl Fixture for MemoryStore {
        fn store(&self) -> &dyn Complete {
            self
        }

        async fn close(self) {}
    }

    fn open() -> std::future::Ready<MemoryStore> {
        std::future::ready(MemoryStore::new())
    }

    crate::store_conformance!(open);
}
