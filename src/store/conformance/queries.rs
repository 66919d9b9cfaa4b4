//! Cases: finding, claiming and listing sagas; definitions and the secret.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::sagas::store_all;
use super::sample::{self, at, new_saga, next, saga};
use super::{Complete, until_stored};
use crate::id::{SagaId, Timestamp};
use crate::store::{
    Activity, Census, KeyMatch, LIST_ROWS_MAX, ListFilter, LiveCount, LiveGroup, Minute, SagaCount,
    SagaKey, SagaTable, SagaWrite, Status,
};

fn waking(number: u128, wake_at: Option<i64>) -> SagaWrite {
    let mut write = new_saga(number, &number.to_string(), 1);
    write.head.wake_at = wake_at.map(at);
    write
}

/// By name and key together.
pub async fn find_answers_in_the_order_asked(store: &dyn Complete) {
    let one = new_saga(1, "a", 1);
    let mut two = new_saga(2, "b", 1);
    two.head.status = Status::Completed;
    store_all(store, vec![one.clone(), two.clone()]).await;
    let key = |name: &str, key: &str| SagaKey {
        name: name.to_owned(),
        key: key.to_owned(),
    };
    let name = sample::NAME;
    let keys = [
        key(name, "b"),
        key("other", "a"),
        key(name, "a"),
        key(name, "b"),
    ];
    let found = |write: &SagaWrite| {
        Some(KeyMatch {
            id: write.head.id,
            input_hash: write.head.input_hash,
            status: write.head.status,
        })
    };
    assert_eq!(
        store.find(&keys).await.unwrap(),
        [found(&two), None, found(&one), found(&two)]
    );
    assert_eq!(store.find(&[]).await.unwrap(), []);
}

/// At most as many as asked for; not those that wait for nothing or for later.
pub async fn due_sagas_are_claimed_earliest_first(store: &dyn Complete) {
    let wakes = [
        (1, Some(30)),
        (2, Some(10)),
        (3, None),
        (4, Some(20)),
        (5, Some(31)),
    ];
    let sagas = wakes.map(|(number, wake_at)| waking(number, wake_at));
    store_all(store, sagas.into()).await;
    let claim = |limit| store.claim_due(at(30), at(100), limit);
    assert_eq!(claim(0).await.unwrap(), []);
    assert_eq!(claim(2).await.unwrap(), [saga(2), saga(4)]);
    assert_eq!(claim(9).await.unwrap(), [saga(1)]);
    assert_eq!(claim(9).await.unwrap(), []);
}

/// Unless a commit has moved it; a claim is no revision.
pub async fn a_claimed_saga_is_claimed_again_after_its_time(store: &dyn Complete) {
    let (stays, ends) = (waking(1, Some(10)), waking(2, Some(10)));
    store_all(store, vec![stays, ends.clone()]).await;
    let claimed = store.claim_due(at(10), at(50), 9).await.unwrap();
    assert_eq!(claimed, [saga(1), saga(2)]);
    let found = store.load(&[sample::whole(1)]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().head.wake_at, Some(at(50)));
    let mut end = next(&ends, 1);
    end.head.wake_at = None;
    store_all(store, vec![end]).await;
    assert_eq!(store.claim_due(at(49), at(90), 9).await.unwrap(), []);
    assert_eq!(store.claim_due(at(50), at(90), 9).await.unwrap(), [saga(1)]);
}

/// Together they claim all of them.
pub async fn a_saga_is_claimed_by_one_of_concurrent_nodes(store: &dyn Complete) {
    let sagas = (1..=60).map(|number| waking(number, Some(10))).collect();
    store_all(store, sagas).await;
    let nodes = (0..4).map(|_| until_stored(|| store.claim_due(at(10), at(50), 20)));
    let mut claimed: Vec<SagaId> = join_all(nodes).await.concat();
    // A node may have skipped what another was just claiming or had not yet given up.
    claimed.extend(store.claim_due(at(10), at(50), 60).await.unwrap());
    assert_eq!(claimed.len(), 60);
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), 60);
}

/// Whoever comes second is told what is stored.
pub async fn a_definition_is_stored_once(store: &dyn Complete) {
    let first = sample::definition("b", 1);
    let mut other = first.clone();
    other.source = "saga: changed".into();
    other.hash = [9; 32];
    assert_eq!(store.put_definition(first.clone()).await.unwrap(), first);
    assert_eq!(store.put_definition(other).await.unwrap(), first);
    let more = [sample::definition("b", 2), sample::definition("a", 1)];
    for row in &more {
        store.put_definition(row.clone()).await.unwrap();
    }
    let [second, earlier] = more;
    assert_eq!(store.definitions().await.unwrap(), [earlier, first, second]);
}

/// However many nodes start at once.
pub async fn the_first_secret_stays(store: &dyn Complete) {
    let nodes = (1..=4).map(|byte| until_stored(move || store.secret([byte; 32])));
    let secrets = join_all(nodes).await;
    assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    assert_eq!(store.secret([77; 32]).await.unwrap(), secrets[0]);
}

/// A page ends where the next begins.
pub async fn list_is_newest_first_and_filtered(store: &dyn Complete) {
    let mut sagas: Vec<_> = (1..=6).map(|n| new_saga(n, &format!("k{n}"), 1)).collect();
    sagas[1].head.status = Status::Completed;
    sagas[2].head.name = "other".into();
    sagas[4].head.status = Status::Completed;
    sagas[5].head.key = "k1 again".into();
    store_all(store, sagas).await;
    let all = || ListFilter {
        limit: 9,
        ..ListFilter::default()
    };
    let text = |text: &str| Some(text.to_owned());
    let cases: [(&str, ListFilter, &[u128]); 8] = [
        ("all", all(), &[6, 5, 4, 3, 2, 1]),
        ("a page", ListFilter { limit: 2, ..all() }, &[6, 5]),
        (
            "the next",
            ListFilter {
                before: Some(saga(5)),
                limit: 2,
                ..all()
            },
            &[4, 3],
        ),
        ("none", ListFilter { limit: 0, ..all() }, &[]),
        (
            "name",
            ListFilter {
                name: text("other"),
                ..all()
            },
            &[3],
        ),
        (
            "status",
            ListFilter {
                status: Some(Status::Completed),
                ..all()
            },
            &[5, 2],
        ),
        (
            "key",
            ListFilter {
                key: text("k1"),
                ..all()
            },
            &[1],
        ),
        (
            "everything",
            ListFilter {
                name: text(sample::NAME),
                status: Some(Status::Running),
                key: text("k4"),
                before: Some(saga(5)),
                limit: 1,
            },
            &[4],
        ),
    ];
    for (case, filter, expected) in cases {
        let found = store.list(&filter).await.unwrap();
        let ids: Vec<_> = found.iter().map(|head| head.id).collect();
        let expected: Vec<_> = expected.iter().copied().map(saga).collect();
        assert_eq!(ids, expected, "{case}");
    }
}

/// Whatever the caller asks for.
pub async fn list_is_bounded(store: &dyn Complete) {
    let number_max = LIST_ROWS_MAX as u128 + 1;
    let sagas = (1..=number_max).map(|n| new_saga(n, &n.to_string(), 1));
    store_all(store, sagas.collect()).await;
    let filter = ListFilter {
        limit: usize::MAX,
        ..ListFilter::default()
    };
    assert_eq!(store.list(&filter).await.unwrap().len(), LIST_ROWS_MAX);
}

/// People see all of it, from the first entry.
pub async fn the_journal_is_read_in_pages_and_whole_whatever_snapshots_there_are(
    store: &dyn Complete,
) {
    let mut first = new_saga(1, "a", 3);
    first.snapshot = Some(sample::snapshot(3));
    let second = sample::next(&first, 2);
    store_all(store, vec![first, new_saga(2, "b", 1)]).await;
    store_all(store, vec![second]).await;
    let cases: [(u128, u64, usize, &[u64]); 6] = [
        (1, 0, 9, &[1, 2, 3, 4, 5]),
        (1, 0, 2, &[1, 2]),
        (1, 2, 2, &[3, 4]),
        (1, 4, usize::MAX, &[5]),
        (1, 5, 9, &[]),
        (3, 0, 9, &[]),
    ];
    for (number, after, limit, expected) in cases {
        let found = store.journal(saga(number), after, limit).await.unwrap();
        let seqs: Vec<_> = found.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, expected, "saga {number} after {after}");
    }
    let entries = store.journal(saga(1), 0, 9).await.unwrap();
    assert_eq!(entries, sample::entries(1, 1, 5));
}

/// In the order of both.
pub async fn counts_are_by_name_and_status(store: &dyn Complete) {
    assert_eq!(store.counts().await.unwrap(), []);
    let mut sagas: Vec<_> = (1..=5).map(|n| new_saga(n, &n.to_string(), 1)).collect();
    sagas[0].head.status = Status::Completed;
    sagas[1].head.name = "a".into();
    sagas[2].head.status = Status::Compensating;
    store_all(store, sagas).await;
    let count = |name: &str, status, count| SagaCount {
        name: name.to_owned(),
        status,
        count,
    };
    let expected = [
        count("a", Status::Running, 1),
        count(sample::NAME, Status::Running, 2),
        count(sample::NAME, Status::Compensating, 1),
        count(sample::NAME, Status::Completed, 1),
    ];
    assert_eq!(store.counts().await.unwrap(), expected);
}

/// In order of `seq`, at most as many as asked for; a journal can be longer than a page.
pub async fn a_journal_is_read_in_pages(store: &dyn Complete) {
    let length = LIST_ROWS_MAX as u64 + 2;
    store_all(store, vec![new_saga(1, "a", length), new_saga(2, "b", 2)]).await;
    for (number, after, limit, first, last) in [
        (1, 0, 2, 1, 2),
        (1, 2, 3, 3, 5),
        (1, 0, usize::MAX, 1, length - 2),
        (1, length - 2, usize::MAX, length - 1, length),
        (2, 1, 9, 2, 2),
    ] {
        let found = store.journal(saga(number), after, limit).await.unwrap();
        assert_eq!(found, sample::entries(number, first, last));
    }
    for (number, after, limit) in [(2, 2, 9), (2, 0, 0), (3, 0, 9)] {
        let found = store.journal(saga(number), after, limit).await.unwrap();
        assert_eq!(found, []);
    }
}

/// A page is of rows, so a saga may come again on the next one; none is left out.
pub async fn sagas_are_found_by_the_rows_of_other_tables(store: &dyn Complete) {
    let mut kept = new_saga(2, "b", 2);
    kept.snapshot = Some(sample::snapshot(2));
    store_all(store, vec![new_saga(1, "a", 5), kept, new_saga(3, "c", 1)]).await;
    let (journal, snapshots) = (SagaTable::Journal, SagaTable::Snapshots);
    for (table, after, found) in [
        (journal, None, vec![1, 2, 3]),
        (journal, Some(1), vec![2, 3]),
        (journal, Some(3), vec![]),
        (snapshots, None, vec![2]),
        (snapshots, Some(2), vec![]),
    ] {
        let is_there = found.into_iter().map(|number| (saga(number), true));
        let answer = store.sagas_in(table, after.map(saga), 100).await.unwrap();
        assert_eq!(answer, is_there.collect::<Vec<_>>(), "{table:?} {after:?}");
    }
    let page = store.sagas_in(journal, None, 1).await.unwrap();
    assert_eq!(page, [(saga(1), true)]);
}

/// Live sagas by name and status, with the one that has not moved for longest; the outbox.
pub async fn a_census_counts_what_lives_and_what_waits(store: &dyn Complete) {
    assert_eq!(store.census().await.unwrap(), Census::default());
    let mut sagas: Vec<_> = (1..=5).map(|n| new_saga(n, &n.to_string(), 1)).collect();
    sagas[0].head.status = Status::Completed;
    sagas[1].head.name = "a".into();
    sagas[2].head.status = Status::Suspended;
    sagas[3].head.updated_at = at(9);
    sagas[4].head.updated_at = at(7);
    sagas[4].outbox = vec![sample::outbox(1), sample::outbox(2)];
    let due = sagas[4].outbox.iter().map(|row| row.due_at).min();
    store_all(store, sagas).await;
    let group = |name: &str, status, count, oldest| LiveGroup {
        name: name.to_owned(),
        status,
        count,
        oldest: at(oldest),
    };
    let census = Census {
        live: vec![
            group("a", Status::Running, 1, 2),
            group(sample::NAME, Status::Running, 2, 7),
            group(sample::NAME, Status::Suspended, 1, 2),
        ],
        outbox: 2,
        outbox_due: due,
    };
    assert_eq!(store.census().await.unwrap(), census);
}

/// Those that have ended do not count.
pub async fn live_sagas_are_counted_by_version_within_a_bound(store: &dyn Complete) {
    assert_eq!(store.live_versions().await.unwrap(), []);
    let mut sagas: Vec<_> = (1..=5).map(|n| new_saga(n, &n.to_string(), 1)).collect();
    sagas[0].head.status = Status::Compensated;
    sagas[1].head.name = "a".into();
    sagas[2].head.status = Status::Suspended;
    sagas[3].head.version = 7;
    store_all(store, sagas).await;
    let live = |name: &str, version, count| LiveCount {
        name: name.to_owned(),
        version,
        count,
    };
    let version = new_saga(1, "1", 1).head.version;
    assert_eq!(
        store.live_versions().await.unwrap(),
        [
            live("a", version, 1),
            live(sample::NAME, version, 2),
            live(sample::NAME, 7, 1)
        ]
    );
}

/// Each minute by itself, and none further than its bound.
pub async fn what_began_and_ended_is_counted_by_minute(store: &dyn Complete) {
    const MINUTE: i64 = 60_000_000;
    let mut sagas: Vec<_> = (1..=6).map(|n| new_saga(n, &n.to_string(), 1)).collect();
    let times = [0, MINUTE - 1, MINUTE, MINUTE + 5, MINUTE + 6, 3 * MINUTE];
    for (saga, at) in sagas.iter_mut().zip(times) {
        saga.head.started_at = Timestamp::from_micros(at);
    }
    for (place, status) in [
        (0, Status::Completed),
        (1, Status::Completed),
        (2, Status::Compensated),
    ] {
        sagas[place].head.status = status;
        sagas[place].head.ended_at = Some(Timestamp::from_micros(MINUTE));
    }
    store_all(store, sagas).await;
    let minute = |number: i64, bound| Minute {
        at: Timestamp::from_micros(number * MINUTE),
        bound,
    };
    let minutes = [minute(1, 9), minute(0, 9), minute(2, 9), minute(1, 2)];
    let found = store.activity(&minutes[..3]).await.unwrap();
    let second = Activity {
        started: 3,
        completed: 2,
        compensated: 1,
        or_more: false,
    };
    let first = Activity {
        started: 2,
        ..Activity::default()
    };
    assert_eq!(found, [second, first, Activity::default()]);
    let bounded = store.activity(&minutes[3..]).await.unwrap()[0];
    assert_eq!(
        (
            bounded.started,
            bounded.completed + bounded.compensated,
            bounded.or_more
        ),
        (2, 2, true)
    );
    assert_eq!(store.activity(&[]).await.unwrap(), []);
}
