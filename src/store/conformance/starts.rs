//! Cases: schedules, keys that are passed on, and how many sagas keep a version.

use futures_util::future::join_all;

use super::sagas::store_all;
use super::sample::{self, at, batch, new_saga, next, saga};
use super::{Complete, until_stored};
use crate::store::{
    Conflict, ListFilter, LiveCount, Moved, SagaKey, ScheduleKey, ScheduleRow, Status,
};

/// Whoever comes with an outdated position is told where the schedule stands.
pub async fn a_schedule_is_moved_by_who_knows_where_it_stands(store: &dyn Complete) {
    assert_eq!(store.schedules().await.unwrap(), []);
    let cases = [
        ("b", None, 10, 10),
        ("b", None, 99, 10),
        ("b", Some(10), 20, 20),
        ("b", Some(10), 30, 20),
        ("b", Some(11), 30, 20),
        ("a", None, 5, 5),
    ];
    for (name, expected, to, stands) in cases {
        let key = schedule(name, "daily");
        let found = store.settle(&key, expected.map(at), at(to)).await.unwrap();
        assert_eq!(found, at(stands), "{name} {expected:?} {to}");
    }
    let row = |name: &str, rhythm: &str, settled| ScheduleRow {
        key: schedule(name, rhythm),
        settled: at(settled),
        absent_since: None,
        moved: None,
    };
    let expected = [row("a", "daily", 5), row("b", "daily", 20)];
    assert_eq!(store.schedules().await.unwrap(), expected);
    // Another rhythm knows nothing of the first one's position.
    let hourly = schedule("b", "hourly");
    let found = store.settle(&hourly, None, at(7)).await.unwrap();
    assert_eq!(found, at(7));
    let [a, b] = expected;
    let expected = [a, b, row("b", "hourly", 7)];
    assert_eq!(store.schedules().await.unwrap(), expected);
}

/// Since when nodes run without it, and who has set its position.
pub async fn a_schedule_is_marked_and_moved(store: &dyn Complete) {
    let (daily, hourly) = (schedule("a", "daily"), schedule("a", "hourly"));
    for key in [&daily, &hourly] {
        store.settle(key, None, at(10)).await.unwrap();
    }
    let moved = Moved {
        by: "ann".to_owned(),
        why: "the clock was wrong".to_owned(),
        at: at(30),
    };
    let done = store.move_schedule(&daily, at(2), &moved).await.unwrap();
    assert!(done);
    let unknown = schedule("b", "daily");
    let done = store.move_schedule(&unknown, at(2), &moved).await.unwrap();
    assert!(!done);
    store.mark_absent(&hourly, Some(at(20))).await.unwrap();
    store.mark_absent(&unknown, Some(at(20))).await.unwrap();
    let row = |key: &ScheduleKey, settled, absent: Option<i64>, moved| ScheduleRow {
        key: key.clone(),
        settled: at(settled),
        absent_since: absent.map(at),
        moved,
    };
    let moved = Some(moved);
    let expected = [
        row(&daily, 2, None, moved.clone()),
        row(&hourly, 10, Some(20), None),
    ];
    assert_eq!(store.schedules().await.unwrap(), expected);
    store.mark_absent(&hourly, None).await.unwrap();
    let settled = store.settle(&daily, Some(at(2)), at(3)).await.unwrap();
    assert_eq!(settled, at(3));
    let expected = [row(&daily, 3, None, moved), row(&hourly, 10, None, None)];
    assert_eq!(store.schedules().await.unwrap(), expected);
}

fn schedule(name: &str, rhythm: &str) -> ScheduleKey {
    ScheduleKey {
        name: name.to_owned(),
        rhythm: rhythm.to_owned(),
    }
}

/// However often it was begun, an ended one is forgotten.
pub async fn a_trial_is_counted_until_it_is_ended(store: &dyn Complete) {
    let (first, second) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    let mut begun = Vec::new();
    for message in [first, first, second, first] {
        begun.push(store.begin_trial(message, at(1)).await.unwrap());
    }
    assert_eq!(begun, [1, 2, 1, 3]);
    store.end_trial(first).await.unwrap();
    assert_eq!(store.begin_trial(first, at(2)).await.unwrap(), 1);
    assert_eq!(store.begin_trial(second, at(2)).await.unwrap(), 2);
}

/// All of them know who did.
pub async fn of_concurrent_nodes_one_settles_a_tick(store: &dyn Complete) {
    let key = schedule("a", "daily");
    let key = &key;
    store.settle(key, None, at(0)).await.unwrap();
    let nodes = (1..=6).map(|node| until_stored(move || store.settle(key, Some(at(0)), at(node))));
    let stand = join_all(nodes).await;
    assert!(stand.iter().all(|at| *at == stand[0]), "{stand:?}");
    assert_eq!(store.schedules().await.unwrap()[0].settled, stand[0]);
}

/// The key is free, its holder is found; the superseded one is there still, by its id.
pub async fn a_superseded_saga_gives_up_its_key(store: &dyn Complete) {
    let first = new_saga(1, "a", 1);
    store_all(store, vec![first.clone()]).await;
    let mut ended = next(&first, 1);
    ended.head.status = Status::Compensated;
    ended.head.ended_at = Some(at(3));
    ended.head.superseded = true;
    store_all(store, vec![ended.clone()]).await;
    let key = SagaKey {
        name: sample::NAME.to_owned(),
        key: "a".to_owned(),
    };
    let holder = async || {
        store
            .find(std::slice::from_ref(&key))
            .await
            .unwrap()
            .remove(0)
    };
    assert_eq!(holder().await, None);
    store_all(store, vec![new_saga(2, "a", 1)]).await;
    assert_eq!(holder().await.unwrap().id, saga(2));
    let filter = ListFilter {
        key: Some("a".to_owned()),
        limit: 9,
        ..ListFilter::default()
    };
    let listed = store.list(&filter).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|head| head.id).collect();
    assert_eq!(ids, [saga(2)]);
    let found = store.load(&[sample::whole(1)]).await.unwrap().remove(0);
    assert_eq!(found.unwrap().head, ended.head);
    // One holder at a time, and the same saga never twice.
    for (number, conflict) in [(3, Conflict::KeyTaken), (1, Conflict::Revision)] {
        let again = store.commit(batch(vec![new_saga(number, "a", 1)])).await;
        assert_eq!(again.unwrap().conflicts, [(saga(number), conflict)]);
    }
    // One that ends in the batch that it begins in takes no key, so it needs none to be free.
    let mut brief = new_saga(4, "a", 1);
    brief.head.status = Status::Compensated;
    brief.head.ended_at = Some(at(3));
    brief.head.superseded = true;
    store_all(store, vec![brief]).await;
    assert_eq!(holder().await.unwrap().id, saga(2));
}

/// In the order of both; ended ones keep no version.
pub async fn live_sagas_are_counted_by_version(store: &dyn Complete) {
    assert_eq!(store.live().await.unwrap(), []);
    let mut sagas: Vec<_> = (1..=5).map(|n| new_saga(n, &n.to_string(), 1)).collect();
    sagas[0].head.version = 2;
    sagas[1].head.name = "a".into();
    sagas[2].head.status = Status::Completed;
    sagas[3].head.status = Status::Suspended;
    store_all(store, sagas).await;
    let count = |name: &str, version, count| LiveCount {
        name: name.to_owned(),
        version,
        count,
    };
    let expected = [
        count("a", 3, 1),
        count(sample::NAME, 2, 1),
        count(sample::NAME, 3, 2),
    ];
    assert_eq!(store.live().await.unwrap(), expected);
}
