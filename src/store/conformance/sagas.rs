//! Cases: storing and loading sagas.

use futures_util::future::join_all;

use super::sample::{self, after, batch, new_saga, next, saga, whole};
use super::{Complete, until_stored};
use crate::limits::LOADED_BYTES;
use crate::store::{
    Commit, CommitOutcome, Conflict, INDEXED_BYTES_MAX, LoadRequest, LoadedSaga, SagaKey,
    SagaWrite, Snapshot, Status, StoreError,
};

/// Stores what must not conflict.
pub(super) async fn store_all(store: &dyn Complete, sagas: Vec<SagaWrite>) {
    let outcome = store.commit(batch(sagas)).await.unwrap();
    assert_eq!(outcome, CommitOutcome::default());
}

async fn load(store: &dyn Complete, number: u128) -> LoadedSaga {
    let found = store.load(&[whole(number)]).await.unwrap().remove(0);
    found.unwrap()
}

/// Every field comes back, and bodies byte for byte.
pub async fn a_new_saga_is_loaded_as_it_was_written(store: &dyn Complete) {
    let plain = new_saga(1, "a", 2);
    let mut full = new_saga(2, "b", 1);
    full.head.status = Status::Compensated;
    full.head.reason = Some("rejected: no stock".to_owned());
    full.head.ended_at = Some(sample::at(77));
    full.head.wake_at = None;
    full.head.version = u32::MAX;
    for write in [plain, full] {
        store_all(store, vec![write.clone()]).await;
        let expected = LoadedSaga {
            head: write.head,
            snapshot: None,
            entries: write.entries,
            left_out: false,
        };
        let request = LoadRequest {
            id: expected.head.id,
            after: 0,
        };
        assert_eq!(store.load(&[request]).await.unwrap(), [Some(expected)]);
    }
}

/// Also for sagas that don't exist and for one that is asked for twice.
pub async fn load_answers_in_the_order_asked(store: &dyn Complete) {
    store_all(store, vec![new_saga(1, "a", 1), new_saga(2, "b", 3)]).await;
    let requests = [whole(9), whole(2), after(1, 1), whole(8), after(2, 2)];
    let found = store.load(&requests).await.unwrap();
    let ids = found
        .iter()
        .map(|saga| saga.as_ref().map(|saga| saga.head.id));
    let expected = [None, Some(saga(2)), Some(saga(1)), None, Some(saga(2))];
    assert_eq!(ids.collect::<Vec<_>>(), expected);
    let lengths = found.iter().flatten().map(|saga| saga.entries.len());
    assert_eq!(lengths.collect::<Vec<_>>(), [3, 0, 1]);
    assert_eq!(store.load(&[]).await.unwrap(), []);
}

/// A node that has a saga in its cache reads only what is new.
pub async fn load_brings_only_newer_entries(store: &dyn Complete) {
    store_all(store, vec![new_saga(1, "a", 5)]).await;
    for (known, expected) in [
        (0, sample::entries(1, 1, 5)),
        (1, sample::entries(1, 2, 5)),
        (4, sample::entries(1, 5, 5)),
        (5, vec![]),
        (6, vec![]),
    ] {
        let found = store.load(&[after(1, known)]).await.unwrap();
        assert_eq!(
            found[0].as_ref().unwrap().entries,
            expected,
            "after {known}"
        );
    }
}

/// What is read at once is bounded by bytes, in order of ids; the first saga is read whatever its size.
pub async fn load_leaves_out_what_is_too_much_at_once(store: &dyn Complete) {
    let large = |bytes: usize| vec![7; bytes].into();
    let mut sagas = Vec::new();
    for (number, bytes) in [
        (1, LOADED_BYTES + 1),
        (2, LOADED_BYTES / 2),
        (3, LOADED_BYTES / 2),
    ] {
        let mut write = new_saga(number, &number.to_string(), 2);
        write.entries[1].body = large(bytes);
        sagas.push(write);
    }
    let mut with_snapshot = new_saga(4, "4", 2);
    with_snapshot.snapshot = Some(Snapshot {
        body: large(LOADED_BYTES),
        ..sample::snapshot(1)
    });
    sagas.push(with_snapshot);
    sagas.push(new_saga(5, "5", 2));
    for write in sagas {
        store_all(store, vec![write]).await;
    }
    for (wanted, left_out) in [
        (vec![whole(3), whole(1), whole(2)], vec![true, false, true]),
        (vec![whole(2), whole(3), whole(5)], vec![false, false, true]),
        (vec![whole(5), whole(4)], vec![true, false]),
        // Of whom nothing is to be read, nothing is left out.
        (vec![whole(1), after(2, 2), whole(9)], vec![false, false]),
        (vec![after(2, 1), after(1, 1)], vec![true, false]),
        (vec![whole(5)], vec![false]),
    ] {
        let found: Vec<_> = store.load(&wanted).await.unwrap();
        let found: Vec<_> = found.iter().flatten().collect();
        let says: Vec<bool> = found.iter().map(|saga| saga.left_out).collect();
        assert_eq!(says, left_out, "{wanted:?}");
        for saga in found {
            let nothing = saga.entries.is_empty() && saga.snapshot.is_none();
            assert!(!saga.left_out || nothing, "{wanted:?}");
        }
    }
}

/// A newer snapshot takes the older one's place; who has a revision gets none.
pub async fn load_of_a_whole_saga_starts_at_its_newest_snapshot(store: &dyn Complete) {
    let mut first = new_saga(1, "a", 4);
    first.snapshot = Some(sample::snapshot(3));
    store_all(store, vec![first.clone()]).await;
    let found = load(store, 1).await;
    assert_eq!(found.snapshot, Some(sample::snapshot(3)));
    assert_eq!(found.entries, sample::entries(1, 4, 4));

    let mut second = next(&first, 3);
    second.snapshot = Some(sample::snapshot(6));
    store_all(store, vec![second]).await;
    let found = load(store, 1).await;
    assert_eq!(found.snapshot, Some(sample::snapshot(6)));
    assert_eq!(found.entries, sample::entries(1, 7, 7));

    let found = store.load(&[after(1, 2), whole(1)]).await.unwrap();
    let found: Vec<_> = found.into_iter().flatten().collect();
    assert_eq!(found[0].snapshot, None);
    assert_eq!(found[0].entries, sample::entries(1, 3, 7));
    assert_eq!(found[1].entries, sample::entries(1, 7, 7));
}

/// Also a change without a journal entry, such as another wake-up time.
pub async fn a_change_is_seen_by_the_next_load(store: &dyn Complete) {
    let first = new_saga(1, "a", 1);
    let mut second = next(&first, 2);
    second.head.status = Status::Suspended;
    second.head.reason = Some("confirm failed".to_owned());
    second.head.ended_at = Some(sample::at(3));
    second.head.wake_at = Some(sample::at(2_000));
    let mut third = next(&second, 0);
    third.head.wake_at = None;
    third.head.reason = None;
    store_all(store, vec![first]).await;
    for write in [second, third] {
        store_all(store, vec![write.clone()]).await;
        let found = load(store, 1).await;
        assert_eq!(found.head, write.head);
        assert_eq!(found.entries, sample::entries(1, 1, 3));
    }
}

/// Name, version, key, input and start are never changed by a later write.
pub async fn a_saga_keeps_what_it_started_with(store: &dyn Complete) {
    let first = new_saga(1, "a", 1);
    let mut second = next(&first, 1);
    second.head.name = "other".into();
    second.head.version = 99;
    second.head.key = "other".into();
    second.head.input_hash = [1; 32];
    second.head.started_at = sample::at(99);
    let expected = next(&first, 1).head;
    store_all(store, vec![first]).await;
    store_all(store, vec![second]).await;
    assert_eq!(load(store, 1).await.head, expected);
}

/// No entry, snapshot or message of the loser; everything of the others.
pub async fn a_conflict_leaves_the_saga_out_whole_and_stores_the_rest(store: &dyn Complete) {
    let (one, two) = (new_saga(1, "a", 1), new_saga(2, "b", 1));
    let mut setup = batch(vec![one.clone(), two.clone()]);
    setup.outbox = vec![sample::outbox(50)];
    store.commit(setup).await.unwrap();
    store_all(store, vec![next(&one, 1)]).await;

    let mut late = next(&one, 3);
    late.snapshot = Some(sample::snapshot(4));
    late.outbox = vec![sample::outbox(60)];
    let mut good = next(&two, 1);
    good.outbox = vec![sample::outbox(61)];
    let mut taken = new_saga(3, "b", 1);
    taken.outbox = vec![sample::outbox(62)];
    let mut fresh = new_saga(4, "d", 1);
    fresh.outbox = vec![sample::outbox(63)];
    let outcome = store.commit(Commit {
        sagas: vec![taken, late, good, fresh],
        outbox: vec![sample::outbox(64)],
        sent: vec![sample::uuid(50)],
        dead_letters: vec![sample::dead_letter(70)],
    });
    let expected = [(saga(3), Conflict::KeyTaken), (saga(1), Conflict::Revision)];
    assert_eq!(outcome.await.unwrap().conflicts, expected);

    let found = store.load(&[whole(1), whole(2), whole(3), whole(4)]).await;
    let found = found.unwrap();
    let revision = |at: usize| found[at].as_ref().map(|saga| saga.head.revision);
    assert_eq!(
        [0, 1, 2, 3].map(revision),
        [Some(2), Some(2), None, Some(1)]
    );
    assert_eq!(found[0].as_ref().unwrap().snapshot, None);
    assert_eq!(found[0].as_ref().unwrap().entries, sample::entries(1, 1, 2));
    let swept = store.sweep_outbox(sample::at(1), sample::at(2), 10).await;
    let ids: Vec<_> = swept.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(ids, [61, 63, 64].map(sample::uuid));
    assert_eq!(store.dead_letters(10).await.unwrap().len(), 1);
}

/// Behind, ahead, not there, there already.
pub async fn what_was_decided_on_another_revision_conflicts(store: &dyn Complete) {
    let first = new_saga(1, "a", 2);
    store_all(store, vec![first.clone()]).await;
    let ahead = next(&next(&first, 1), 1);
    let behind = next(&new_saga(1, "a", 1), 1);
    let missing = next(&new_saga(2, "b", 1), 1);
    let again = new_saga(1, "a", 1);
    let again_with_another_key = new_saga(1, "c", 1);
    for write in [ahead, behind, missing, again, again_with_another_key] {
        let id = write.head.id;
        let outcome = store.commit(batch(vec![write])).await.unwrap();
        // A row that is not there looks to a server like one that somebody holds: either way the
        // saga is loaded and decided again.
        let held = id == saga(2) && outcome.conflicts == [(id, Conflict::Locked)];
        assert!(
            held || outcome.conflicts == [(id, Conflict::Revision)],
            "{:?}",
            outcome.conflicts
        );
    }
    assert_eq!(load(store, 1).await.head, first.head);
}

/// Of one definition; in one batch the first has it.
pub async fn a_key_belongs_to_one_saga(store: &dyn Complete) {
    let mut elsewhere = new_saga(3, "a", 1);
    elsewhere.head.name = "other".into();
    let sagas = vec![new_saga(2, "a", 1), elsewhere, new_saga(1, "a", 1)];
    let outcome = store.commit(batch(sagas)).await.unwrap();
    assert_eq!(outcome.conflicts, [(saga(1), Conflict::KeyTaken)]);
    let outcome = store.commit(batch(vec![new_saga(4, "a", 1)])).await;
    assert_eq!(outcome.unwrap().conflicts, [(saga(4), Conflict::KeyTaken)]);
}

/// Two nodes can't both append, however often they try.
pub async fn of_concurrent_writers_one_wins(store: &dyn Complete) {
    let mut current = new_saga(1, "a", 1);
    store_all(store, vec![current.clone()]).await;
    for _ in 0..6 {
        let writes: Vec<_> = (1..=8).map(|more| next(&current, more)).collect();
        let commits = writes.iter().map(|write| {
            let attempt = move || store.commit(batch(vec![write.clone()]));
            until_stored(attempt)
        });
        let outcomes = join_all(commits).await;
        let pairs = writes.into_iter().zip(outcomes);
        let mut won = pairs.filter(|(_, outcome)| outcome.conflicts.is_empty());
        current = won.next().expect("one wins").0;
        assert_eq!(won.count(), 0, "another wins too");
        let found = load(store, 1).await;
        let expected = sample::entries(1, 1, current.head.revision);
        assert_eq!(found.entries, expected);
    }
}

/// The others are told that the key is taken.
pub async fn of_concurrent_starts_one_gets_the_key(store: &dyn Complete) {
    let starters = (1..=8).map(|number| {
        let write = new_saga(number, "a", 1);
        until_stored(move || store.commit(batch(vec![write.clone()])))
    });
    let outcomes = join_all(starters).await;
    let conflicts = outcomes.iter().flat_map(|outcome| &outcome.conflicts);
    let taken = conflicts.filter(|(_, conflict)| *conflict == Conflict::KeyTaken);
    assert_eq!(taken.count(), 7);
}

/// Whatever the order within the batches, each ends and each saga is written once a round.
pub async fn batches_over_the_same_sagas_do_not_lock_each_other_out(store: &dyn Complete) {
    let sagas: Vec<_> = (1..=20).map(|n| new_saga(n, &n.to_string(), 1)).collect();
    store_all(store, sagas.clone()).await;
    let batches = (0..6).map(|node: usize| {
        let mut writes: Vec<_> = sagas.iter().map(|write| next(write, 1)).collect();
        writes
            .extend((0..5).map(|n| new_saga(100 + 10 * node as u128 + n, &format!("new {n}"), 1)));
        writes.rotate_left(node * 4);
        if node.is_multiple_of(2) {
            writes.reverse();
        }
        until_stored(move || store.commit(batch(writes.clone())))
    });
    let outcomes = join_all(batches).await;
    let lost: usize = outcomes.iter().map(|outcome| outcome.conflicts.len()).sum();
    assert_eq!(lost, 5 * 25);
}

/// Nothing of it is stored.
pub async fn a_batch_that_breaks_its_promises_is_refused_whole(store: &dyn Complete) {
    let mut gap = new_saga(2, "b", 3);
    gap.entries.remove(1);
    let refused = store.commit(batch(vec![new_saga(1, "a", 1), gap])).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))));
    assert_eq!(store.load(&[whole(1)]).await.unwrap(), [None]);
}

/// The number of statements may not depend on the batch's size, nor is there a limit to meet.
pub async fn a_batch_of_a_thousand_sagas_is_stored(store: &dyn Complete) {
    let number_max = 1_000;
    let with_outbox = |mut write: SagaWrite, number: u128| {
        write.outbox = vec![sample::outbox(number)];
        write
    };
    let first: Vec<_> = (1..=number_max)
        .map(|n| new_saga(n, &n.to_string(), 3))
        .collect();
    let second = first.iter().map(|write| next(write, 2));
    let second = (1..)
        .zip(second)
        .map(|(n, write)| with_outbox(write, n))
        .collect();
    store_all(store, first).await;
    store_all(store, second).await;
    let requests: Vec<_> = (1..=number_max).map(whole).collect();
    let found = store.load(&requests).await.unwrap();
    for (number, found) in (1..).zip(found) {
        let found = found.unwrap();
        assert_eq!(found.head.id, saga(number));
        assert_eq!(found.entries, sample::entries(number, 1, 5));
    }
    assert_eq!(store.outbox_len().await.unwrap(), 1_000);
    let sent = (1..=number_max).map(sample::uuid).collect();
    let commit = Commit {
        sent,
        ..Commit::default()
    };
    store.commit(commit).await.unwrap();
    assert_eq!(store.outbox_len().await.unwrap(), 0);
}

/// As when a worker wakes up for nothing.
pub async fn an_empty_batch_is_stored(store: &dyn Complete) {
    assert_eq!(
        store.commit(Commit::default()).await.unwrap(),
        CommitOutcome::default()
    );
}

/// Keys in any script; reasons even with what a database can't keep.
pub async fn text_comes_back_whatever_it_is(store: &dyn Complete) {
    let longest = "x".repeat(INDEXED_BYTES_MAX);
    for (number, key) in (1..).zip(["", "'; --", "ключ\u{1F9F5}", "a\nb\t%", &longest]) {
        let mut write = new_saga(number, key, 1);
        write.head.reason = Some(format!("\u{0}because {key}"));
        store_all(store, vec![write]).await;
        let found = load(store, number).await;
        assert_eq!(found.head.key, key);
        assert!(
            found
                .head
                .reason
                .unwrap()
                .ends_with(&format!("because {key}"))
        );
        let name = sample::NAME.to_owned();
        let key = key.to_owned();
        let found = store.find(&[SagaKey { name, key }]).await.unwrap();
        assert_eq!(found[0].as_ref().unwrap().id, saga(number));
    }
}

/// Callers ask [`is_key`](crate::store::is_key) first; a batch that has one anyway is not stored.
pub async fn keys_that_no_database_takes_are_refused(store: &dyn Complete) {
    for key in ["a\0b".to_owned(), "x".repeat(INDEXED_BYTES_MAX + 1)] {
        let refused = store.commit(batch(vec![new_saga(1, &key, 1)])).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))));
        let name = sample::NAME.to_owned();
        let found = store.find(&[SagaKey { name, key }]).await;
        assert_eq!(found.unwrap(), [None]);
    }
}
