//! A participant's transactions in memory: one at a time.
//!
//! A transaction is the turn it holds: nothing is written before its commit, which checks
//! everything and then writes in one critical section, so dropping it is rolling back.
//! Deliberately absent: locks on single rows. One turn for all gives the same guarantees, and the
//! model stays small enough to be believed.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OwnedMutexGuard;

use super::{MemoryStore, State};
use crate::store::dead_letters::occurrence::NewLetter;
use crate::store::participant::{
    AggregateEvent, AggregateKey, AggregateRow, BarrierKey, Loaded, ParticipantStore,
    ParticipantTransaction, ParticipantWrites, Write,
};
use crate::store::{StoreError, shape};

#[async_trait]
impl ParticipantStore for MemoryStore {
    async fn begin(&self) -> Result<Box<dyn ParticipantTransaction>, StoreError> {
        let turn = Arc::clone(&self.inner.turn).lock_owned().await;
        Ok(Box::new(MemoryTransaction {
            store: self.clone(),
            _turn: turn,
        }))
    }

    async fn aggregates(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AggregateRow>, StoreError> {
        let key = |id: &str| AggregateKey {
            kind: kind.to_owned(),
            id: id.to_owned(),
        };
        let from = after.map_or_else(
            || Bound::Included(key("")),
            |after| Bound::Excluded(key(after)),
        );
        let state = self.state();
        let rows = state.aggregates.range((from, Bound::Unbounded));
        let of_kind = rows.take_while(|(key, _)| key.kind == kind);
        Ok(of_kind.take(limit).map(|(_, row)| row.clone()).collect())
    }

    async fn aggregate_events(
        &self,
        key: &AggregateKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AggregateEvent>, StoreError> {
        let bounds = (
            Bound::Excluded((key.clone(), after)),
            Bound::Included((key.clone(), u64::MAX)),
        );
        let state = self.state();
        let positions = state.events.range(bounds).take(limit);
        let events = positions.filter_map(|(_, position)| state.feed.get(position));
        Ok(events.cloned().collect())
    }
}

struct MemoryTransaction {
    store: MemoryStore,
    _turn: OwnedMutexGuard<()>,
}

#[async_trait]
impl ParticipantTransaction for MemoryTransaction {
    async fn load(
        &mut self,
        barriers: &[BarrierKey],
        aggregates: &[AggregateKey],
    ) -> Result<Loaded, StoreError> {
        let state = self.store.state();
        let barriers: BTreeSet<_> = barriers.iter().collect();
        let aggregates: BTreeSet<_> = aggregates.iter().collect();
        Ok(Loaded {
            barriers: barriers
                .into_iter()
                .filter_map(|key| state.barriers.get(key).cloned())
                .collect(),
            aggregates: aggregates
                .into_iter()
                .filter_map(|key| state.aggregates.get(key).cloned())
                .collect(),
        })
    }

    async fn commit(self: Box<Self>, writes: ParticipantWrites) -> Result<(), StoreError> {
        shape::check_writes(&writes)?;
        let letters = NewLetter::all(&writes.dead_letters)?;
        let mut state = self.store.state();
        state.check(&writes)?;
        for write in &writes.barriers {
            let row = write.row();
            state.barriers.insert(row.key.clone(), row.clone());
        }
        for write in &writes.aggregates {
            let row = write.row();
            state.aggregates.insert(row.key.clone(), row.clone());
        }
        for event in writes.events {
            state.append(event);
        }
        for snapshot in writes.snapshots {
            let id = (snapshot.key.clone(), snapshot.revision);
            state.snapshots.entry(id).or_insert(snapshot);
        }
        state.keep(letters);
        state.write_messages(writes.outbox, &writes.sent);
        Ok(())
    }
}

impl State {
    fn check(&self, writes: &ParticipantWrites) -> Result<(), StoreError> {
        check_writes(&writes.barriers, |row| {
            (row.key.clone(), self.barriers.contains_key(&row.key))
        })?;
        check_writes(&writes.aggregates, |row| {
            (row.key.clone(), self.aggregates.contains_key(&row.key))
        })?;
        let mut seen = BTreeSet::new();
        for event in &writes.events {
            let id = (event.key.clone(), event.seq);
            if self.events.contains_key(&id) || !seen.insert(id) {
                return Err(StoreError::Conflict);
            }
        }
        Ok(())
    }
}

/// Refuses what the primary key of a table would.
fn check_writes<T, K: Ord>(
    writes: &[Write<T>],
    look_up: impl Fn(&T) -> (K, bool),
) -> Result<(), StoreError> {
    let mut seen = BTreeSet::new();
    for write in writes {
        let (key, exists) = look_up(write.row());
        let first = seen.insert(key);
        match write {
            Write::Insert(_) if exists || !first => return Err(StoreError::Conflict),
            Write::Update(_) if !exists => {
                return Err(StoreError::Refused("a row to update is not there".into()));
            }
            _ => {}
        }
    }
    Ok(())
}
