//! Sagas that are open on this node, kept so that the next message finds its saga loaded.
//!
//! The cache needs no invalidation to be right: a commit names the revision it was decided on, so
//! a stale copy is found out and loaded again. It is bounded by the memory that it takes, as far as
//! that can be told from what the sagas hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::definition::{Definition, Label};
use crate::id::{SagaId, Timestamp};
use crate::limits::STEP_MEMORY_BYTES;
use crate::saga::format::mark;
use crate::saga::{Saga, StepPhase};
use crate::store::{JournalEntry, SagaCause, SagaHead, Snapshot};

/// A saga with its row and the definition it keeps.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) saga: Saga,
    pub(super) head: SagaHead,
    pub(super) definition: Arc<Definition>,
    /// Journal entries since the newest snapshot.
    pub(super) tail: u64,
    /// The highest format that any of what it was made of was written in.
    pub(super) format: u32,
    /// Whether it was loaded, or checked, for the batch at hand; otherwise another node may be
    /// further. A commit would find that out, but a refusal commits nothing.
    pub(super) fresh: bool,
}

impl Open {
    /// Brings the row up to the saga, which has got this entry.
    pub(super) fn note(&mut self, entry: &JournalEntry, wake_at: Option<Timestamp>) {
        let Self { head, saga, .. } = self;
        head.revision = entry.seq;
        head.head_hash = entry.hash;
        head.updated_at = entry.at;
        head.status = saga.status();
        head.ended_at = saga.ended_at;
        head.parent = saga.family.as_ref().map(|family| family.parent.saga);
        head.superseded = saga.is_superseded() || saga.is_undone_child();
        head.wake_at = next_wake(head.wake_at, wake_at, entry.at);
        self.tail += 1;
    }

    /// Brings what people look for up to the saga, which waits for this.
    pub(super) fn note_trouble(&mut self, awaits: Option<StepPhase>, now: Timestamp) {
        let trouble = self.saga.trouble(awaits.as_ref());
        let head = &mut self.head;
        let before = head.cause.take();
        head.cause =
            trouble.map(|trouble| SagaCause::of(&head.name, trouble, before.as_ref(), now));
        head.awaits = awaits;
    }

    /// What people search it by.
    pub(super) fn labels(&self) -> Vec<Label> {
        self.definition.labels_of(&self.saga.input)
    }

    /// A snapshot, if the journal has grown by so many entries, and as many as the saga has steps,
    /// since the newest one.
    pub(super) fn snapshot(&mut self, entries: u64) -> Option<Snapshot> {
        if self.tail < entries.max(self.saga.steps.len() as u64) {
            return None;
        }
        let body = serde_json::to_vec(&self.saga).ok()?;
        self.tail = 0;
        Some(Snapshot {
            revision: self.head.revision,
            body: mark(body, self.format).into(),
        })
    }

    /// Bytes of memory, roughly.
    pub(super) fn weight(&self) -> usize {
        (self.saga.steps.len() + 1) * STEP_MEMORY_BYTES + self.saga.held.memory()
    }
}

/// A stored wake-up that comes earlier than needed is left alone: looking once too often is
/// cheaper than moving an index entry at every step.
fn next_wake(
    stored: Option<Timestamp>,
    needed: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    match (stored, needed) {
        (Some(stored), Some(needed)) if stored > now && stored <= needed => Some(stored),
        (_, needed) => needed,
    }
}

/// Open sagas by id.
#[derive(Debug)]
pub(super) struct Cache {
    open: BTreeMap<SagaId, Open>,
    weight: usize,
    weight_max: usize,
}

impl Cache {
    /// An empty one, for so many bytes.
    pub(super) fn new(weight_max: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            weight: 0,
            weight_max,
        }
    }

    /// Bytes of memory that it takes, roughly.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Takes a saga out, so that nobody else works on this copy.
    pub(super) fn take(&mut self, id: SagaId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.weight -= open.weight();
        Some(open)
    }

    /// Keeps a committed saga; ended ones and the oldest beyond the bound are let go.
    pub(super) fn keep(&mut self, mut open: Open) {
        open.fresh = false;
        if open.head.status.is_ended() {
            return;
        }
        self.weight += open.weight();
        if let Some(replaced) = self.open.insert(open.head.id, open) {
            self.weight -= replaced.weight();
        }
        while self.weight > self.weight_max
            && let Some((_, oldest)) = self.open.pop_first()
        {
            self.weight -= oldest.weight();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::definition::parse;
    use crate::saga::journal::GENESIS;
    use crate::saga::{Event, Status, apply};

    fn open(number: u128, bytes: usize) -> Open {
        let yaml = "{ saga: s, version: 1, key: '${ input.id }', steps: [{ sleep: s, for: 1h }] }";
        let id = SagaId(Uuid::from_u128(number));
        let at = Timestamp::default();
        let mut saga = Saga::new(id, "s", "k", at);
        let input = Arc::new(json!("x".repeat(bytes)));
        let (deadline, starter) = (None, None);
        apply(
            &mut saga,
            &Event::Started {
                input,
                at,
                deadline,
                starter,
            },
        )
        .unwrap();
        let head = SagaHead {
            id,
            name: "s".to_owned(),
            version: 1,
            key: "k".to_owned(),
            input_hash: [0; 32],
            status: Status::Running,
            reason: None,
            revision: 1,
            head_hash: GENESIS,
            started_at: at,
            updated_at: at,
            ended_at: None,
            wake_at: None,
            parent: None,
            awaits: None,
            cause: None,
            superseded: false,
        };
        Open {
            saga,
            head,
            definition: Arc::new(parse(yaml, "s.yaml").unwrap()),
            tail: 1,
            format: 1,
            fresh: true,
        }
    }

    #[test]
    fn it_keeps_as_many_sagas_as_fit_its_bytes_and_lets_the_oldest_go() {
        let mut cache = Cache::new(1_000_000);
        for number in 1..=20 {
            cache.keep(open(number, 100_000));
            assert!(cache.weight() <= 1_000_000);
        }
        assert!(cache.take(SagaId(Uuid::from_u128(1))).is_none());
        let kept = (1..=20).filter(|number| cache.take(SagaId(Uuid::from_u128(*number))).is_some());
        assert_eq!(kept.count(), 9);
        assert_eq!(cache.weight(), 0);
    }
}
