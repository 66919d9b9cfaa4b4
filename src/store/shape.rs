//! What a batch must look like before any store takes it.
//!
//! Separate from the stores so that all of them refuse the same mistakes of a caller, before a
//! row is touched: the database's constraints would find most of them, but as a failed batch.
//! Deliberately absent: anything that needs a look at what is stored.

use std::collections::BTreeSet;

use super::participant::{AggregateKey, BarrierKey, ParticipantWrites};
use super::projections::Advance;
use super::{Commit, SagaWrite, StoreError, is_key};

/// Refuses a batch that breaks the promises in [`Commit`]'s and [`SagaWrite`]'s documentation.
pub(super) fn check(commit: &Commit) -> Result<(), StoreError> {
    let mut seen = BTreeSet::new();
    for write in &commit.sagas {
        if !seen.insert(write.head.id) {
            return Err(refused(write, "is written twice in one batch"));
        }
        check_saga(write)?;
    }
    Ok(())
}

fn check_saga(write: &SagaWrite) -> Result<(), StoreError> {
    let head = &write.head;
    if !is_key(&head.key) {
        return Err(refused(write, "has a key that can't be stored"));
    }
    if head.revision == 0 {
        return Err(refused(write, "has no journal entry"));
    }
    let seqs = write.entries.iter().map(|entry| entry.seq);
    if head.revision < write.expected || !seqs.eq(write.expected + 1..=head.revision) {
        return Err(refused(
            write,
            "lacks journal entries between the expected and the new revision",
        ));
    }
    match &write.snapshot {
        Some(snapshot) if snapshot.revision == 0 || snapshot.revision > head.revision => {
            Err(refused(write, "has a snapshot of another revision"))
        }
        _ => Ok(()),
    }
}

/// Refuses a participant's batch whose keys can't be stored.
pub(super) fn check_writes(writes: &ParticipantWrites) -> Result<(), StoreError> {
    let barriers = writes.barriers.iter().map(|write| &write.row().key);
    let aggregates = writes.aggregates.iter().map(|write| &write.row().key);
    let events = writes.events.iter().map(|event| &event.key);
    if barriers.into_iter().all(is_barrier) && aggregates.chain(events).all(is_aggregate) {
        Ok(())
    } else {
        Err(StoreError::Refused("a key that can't be stored".into()))
    }
}

/// Whether such a barrier can exist.
pub(super) fn is_barrier(key: &BarrierKey) -> bool {
    is_key(&key.participant) && is_key(&key.step.name)
}

/// Whether such an aggregate can exist.
pub(super) fn is_aggregate(key: &AggregateKey) -> bool {
    is_key(&key.kind) && is_key(&key.id)
}

/// Those keys that a document can have.
pub(super) fn keys(keys: &[String]) -> impl Iterator<Item = &str> {
    keys.iter().map(String::as_str).filter(|key| is_key(key))
}

/// Refuses a projection's name that can't be stored.
pub(super) fn check_projection(name: &str) -> Result<(), StoreError> {
    if is_key(name) && !name.is_empty() {
        Ok(())
    } else {
        Err(StoreError::Refused(
            "a projection's name that can't be stored".into(),
        ))
    }
}

/// Refuses a document whose key can't be stored.
pub(super) fn check_document(name: &str, key: &str) -> Result<(), StoreError> {
    check_projection(name)?;
    if is_key(key) {
        Ok(())
    } else {
        Err(StoreError::Refused(
            "a document's key that can't be stored".into(),
        ))
    }
}

/// Refuses a step that goes backwards or whose keys can't be stored.
pub(super) fn check_advance(advance: &Advance) -> Result<(), StoreError> {
    if advance.to < advance.from {
        return Err(StoreError::Refused(
            "a projection can't go backwards".into(),
        ));
    }
    let mut documents = advance.documents.iter();
    documents.try_for_each(|row| check_document(&advance.name, &row.key))
}

fn refused(write: &SagaWrite, why: &str) -> StoreError {
    StoreError::Refused(format!("saga {} {why}", write.head.id).into())
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::sample;

    #[test]
    fn a_batch_that_breaks_its_promises_is_refused() {
        let good = || sample::new_saga(1, "a", 2);
        let with = |change: fn(&mut SagaWrite)| {
            let mut write = good();
            change(&mut write);
            vec![write]
        };
        let cases = [
            ("one saga twice", vec![good(), good()]),
            ("a gap", with(|write| drop(write.entries.remove(0)))),
            ("out of order", with(|write| write.entries.reverse())),
            ("an entry too few", with(|write| drop(write.entries.pop()))),
            ("backwards", with(|write| write.expected = 3)),
            (
                "no journal",
                with(|write| {
                    write.entries.clear();
                    write.head.revision = 0;
                }),
            ),
            (
                "a snapshot from the future",
                with(|write| write.snapshot = Some(sample::snapshot(3))),
            ),
        ];
        for (case, sagas) in cases {
            let commit = Commit {
                sagas,
                ..Commit::default()
            };
            assert!(
                matches!(check(&commit), Err(StoreError::Refused(_))),
                "{case}"
            );
        }
    }
}
