//! Cases: a participant's transactions, aggregates and events.

use futures_util::future::{join, join_all};

use super::sample::{article, barrier, dead_letter, event, outbox, stock, uuid};
use super::{Complete, until_stored};
use crate::id::StepPath;
use crate::store::StoreError;
use crate::store::participant::{
    AggregateKey, AggregateRow, BarrierKey, BarrierRow, Loaded, ParticipantWrites, Write,
};

async fn write(store: &dyn Complete, writes: ParticipantWrites) -> Result<(), StoreError> {
    store.begin().await?.commit(writes).await
}

async fn load(
    store: &dyn Complete,
    barriers: &[BarrierKey],
    aggregates: &[AggregateKey],
) -> Loaded {
    let mut transaction = store.begin().await.unwrap();
    transaction.load(barriers, aggregates).await.unwrap()
}

fn step(index: u32) -> StepPath {
    StepPath::at("stock", &[index])
}

fn inserts(barriers: Vec<BarrierRow>, aggregates: Vec<AggregateRow>) -> ParticipantWrites {
    ParticipantWrites {
        barriers: barriers.into_iter().map(Write::Insert).collect(),
        aggregates: aggregates.into_iter().map(Write::Insert).collect(),
        ..ParticipantWrites::default()
    }
}

/// The order of the keys' type (`stock[2]` before `stock[10]`), whatever order was asked for; each
/// once, and those that don't exist left out.
pub async fn what_exists_is_loaded_in_key_order(store: &dyn Complete) {
    let rows = [
        barrier(1, step(2)),
        barrier(1, step(10)),
        barrier(2, StepPath::plain("payment")),
    ];
    let stocks = ["B", "a", "\u{1F9F5}"].map(|id| stock(id, 1));
    let writes = inserts(
        rows.iter().rev().cloned().collect(),
        stocks.iter().rev().cloned().collect(),
    );
    write(store, writes).await.unwrap();

    let mut barriers: Vec<_> = rows.iter().rev().map(|row| row.key.clone()).collect();
    let mut other = barriers[0].clone();
    other.participant = "payments".into();
    barriers.extend([other, barrier(1, step(3)).key, rows[0].key.clone()]);
    let ids = ["zz", "\u{1F9F5}", "a", "B", "a", "a\0b"];
    let loaded = load(store, &barriers, &ids.map(article)).await;
    assert_eq!(loaded.barriers, rows);
    assert_eq!(loaded.aggregates, stocks);
    assert_eq!(load(store, &[], &[]).await, Loaded::default());
}

/// Rolling back needs no call, and hinders no one.
pub async fn a_dropped_transaction_leaves_nothing(store: &dyn Complete) {
    let key = barrier(1, step(1)).key;
    write(store, inserts(vec![], vec![stock("a", 1)]))
        .await
        .unwrap();
    let mut transaction = store.begin().await.unwrap();
    transaction
        .load(std::slice::from_ref(&key), &[article("a")])
        .await
        .unwrap();
    drop(transaction);
    let update = ParticipantWrites {
        aggregates: vec![Write::Update(stock("a", 2))],
        ..ParticipantWrites::default()
    };
    write(store, update).await.unwrap();
    let loaded = load(store, &[key], &[article("a")]).await;
    assert_eq!(loaded.barriers, []);
    assert_eq!(loaded.aggregates, [stock("a", 2)]);
}

/// State, events, replies and dead letters at once, and what was sent is gone.
pub async fn a_participants_commit_writes_everything(store: &dyn Complete) {
    let first = ParticipantWrites {
        events: vec![event("a", 1)],
        outbox: vec![outbox(1), outbox(2)],
        dead_letters: vec![dead_letter(3)],
        ..inserts(vec![barrier(1, step(1))], vec![stock("a", 1)])
    };
    write(store, first).await.unwrap();
    let mut changed = barrier(1, step(1));
    changed.status = -2;
    changed.body = bytes::Bytes::from_static(b"{}");
    changed.at = super::sample::at(60);
    let second = ParticipantWrites {
        barriers: vec![
            Write::Insert(barrier(2, step(1))),
            Write::Update(changed.clone()),
        ],
        aggregates: vec![Write::Update(stock("a", 3)), Write::Insert(stock("b", 1))],
        events: vec![event("b", 1), event("a", 2), event("a", 3)],
        sent: vec![uuid(1), uuid(1), uuid(99)],
        outbox: vec![outbox(4)],
        dead_letters: vec![dead_letter(3)],
        ..ParticipantWrites::default()
    };
    write(store, second).await.unwrap();
    let keys = [changed.key.clone(), barrier(2, step(1)).key];
    let loaded = load(store, &keys, &[article("a"), article("b")]).await;
    assert_eq!(loaded.barriers, [changed, barrier(2, step(1))]);
    assert_eq!(loaded.aggregates, [stock("a", 3), stock("b", 1)]);
    let events = store.aggregate_events(&article("a"), 0, 9).await.unwrap();
    assert_eq!(events, [1, 2, 3].map(|seq| event("a", seq)));
    assert_eq!(store.outbox_len().await.unwrap(), 2);
    assert_eq!(store.dead_letters(9).await.unwrap(), [dead_letter(3)]);
}

/// The batch is to be done again as a whole.
pub async fn an_insert_of_what_exists_conflicts_and_leaves_nothing(store: &dyn Complete) {
    let first = inserts(vec![barrier(1, step(1))], vec![stock("a", 1)]);
    let first = ParticipantWrites {
        events: vec![event("a", 1)],
        ..first
    };
    write(store, first).await.unwrap();
    let with_event = ParticipantWrites {
        events: vec![event("a", 1)],
        ..ParticipantWrites::default()
    };
    for again in [
        inserts(vec![barrier(2, step(1)), barrier(1, step(1))], vec![]),
        inserts(vec![], vec![stock("b", 1), stock("a", 1)]),
        with_event,
    ] {
        let again = ParticipantWrites {
            outbox: vec![outbox(1)],
            dead_letters: vec![dead_letter(1)],
            ..again
        };
        let result = write(store, again).await;
        assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    }
    let loaded = load(store, &[barrier(2, step(1)).key], &[article("b")]).await;
    assert_eq!(loaded, Loaded::default());
    assert_eq!(store.outbox_len().await.unwrap(), 0);
    assert_eq!(store.dead_letters(9).await.unwrap(), []);
}

/// A caller's mistake, not a conflict that would be repeated for ever.
pub async fn an_update_of_what_is_missing_is_refused(store: &dyn Complete) {
    for writes in [
        ParticipantWrites {
            barriers: vec![Write::Update(barrier(1, step(1)))],
            ..ParticipantWrites::default()
        },
        ParticipantWrites {
            aggregates: vec![Write::Update(stock("a", 1))],
            ..ParticipantWrites::default()
        },
        inserts(vec![], vec![stock("a\0b", 1)]),
    ] {
        let writes = ParticipantWrites {
            outbox: vec![outbox(1)],
            ..writes
        };
        let result = write(store, writes).await;
        assert!(matches!(result, Err(StoreError::Refused(_))), "{result:?}");
    }
    assert_eq!(store.outbox_len().await.unwrap(), 0);
}

/// What a transaction has loaded stays as it is until it ends, be it a barrier or an aggregate.
pub async fn a_load_waits_for_the_lock_and_sees_what_was_written(store: &dyn Complete) {
    let row = barrier(1, step(1));
    let mut changed = row.clone();
    changed.status = 2;
    let first = inserts(vec![row.clone()], vec![stock("a", 1)]);
    write(store, first).await.unwrap();
    let updates = [
        ParticipantWrites {
            barriers: vec![Write::Update(changed.clone())],
            ..ParticipantWrites::default()
        },
        ParticipantWrites {
            aggregates: vec![Write::Update(stock("a", 2))],
            ..ParticipantWrites::default()
        },
    ];
    for update in updates {
        let barriers = update.barriers.iter().map(|write| write.row().key.clone());
        let barriers: Vec<_> = barriers.collect();
        let aggregates = update
            .aggregates
            .iter()
            .map(|write| write.row().key.clone());
        let aggregates: Vec<_> = aggregates.collect();
        let mut first = store.begin().await.unwrap();
        first.load(&barriers, &aggregates).await.unwrap();
        let second = load(store, &barriers, &aggregates);
        let (loaded, committed) = join(second, first.commit(update.clone())).await;
        committed.unwrap();
        let written: Vec<_> = update.barriers.iter().map(Write::row).collect();
        assert_eq!(loaded.barriers.iter().collect::<Vec<_>>(), written);
        let written: Vec<_> = update.aggregates.iter().map(Write::row).collect();
        assert_eq!(loaded.aggregates.iter().collect::<Vec<_>>(), written);
    }
}

/// A hot aggregate: each adds one, and the sum is right. Also when the row is not there yet.
pub async fn concurrent_transactions_lose_no_update(store: &dyn Complete) {
    // No events: their numbers alone would tell that an update was lost.
    let add_one = || async {
        let mut transaction = store.begin().await?;
        let found = transaction.load(&[], &[article("a")]).await?;
        let aggregate = found.aggregates.first().map_or_else(
            || Write::Insert(stock("a", 1)),
            |row| Write::Update(stock("a", row.revision + 1)),
        );
        let writes = ParticipantWrites {
            aggregates: vec![aggregate],
            ..ParticipantWrites::default()
        };
        transaction.commit(writes).await
    };
    join_all((0..60).map(|_| until_stored(add_one))).await;
    let loaded = load(store, &[], &[article("a")]).await;
    assert_eq!(loaded.aggregates, [stock("a", 60)]);
}

/// Duplicates of a command that are handled at once give one answer.
pub async fn of_concurrent_first_answers_one_is_kept(store: &dyn Complete) {
    let answer = |status: i16| async move {
        let mut row = barrier(1, step(1));
        row.status = status;
        let mut transaction = store.begin().await?;
        let keys = std::slice::from_ref(&row.key);
        if let Some(kept) = transaction.load(keys, &[]).await?.barriers.first() {
            return Ok(kept.status);
        }
        transaction.commit(inserts(vec![row], vec![])).await?;
        Ok(status)
    };
    let answers = (1..=8).map(|status| until_stored(move || answer(status)));
    let answers = join_all(answers).await;
    let loaded = load(store, &[barrier(1, step(1)).key], &[]).await;
    assert_eq!(answers, [loaded.barriers[0].status; 8]);
}

/// Pages of one aggregate's history.
pub async fn events_come_in_order_and_are_numbered_once(store: &dyn Complete) {
    let writes = ParticipantWrites {
        events: vec![event("a", 3), event("b", 1), event("a", 1), event("a", 2)],
        ..ParticipantWrites::default()
    };
    write(store, writes).await.unwrap();
    for (after, limit, expected) in [
        (0, 9, vec![1, 2, 3]),
        (0, 2, vec![1, 2]),
        (2, 9, vec![3]),
        (3, 9, vec![]),
        (0, 0, vec![]),
    ] {
        let found = store.aggregate_events(&article("a"), after, limit).await;
        let expected: Vec<_> = expected.into_iter().map(|seq| event("a", seq)).collect();
        assert_eq!(found.unwrap(), expected);
    }
    assert_eq!(
        store.aggregate_events(&article("c"), 0, 9).await.unwrap(),
        []
    );
}

/// Of one kind only.
pub async fn aggregates_are_paged_by_id(store: &dyn Complete) {
    let mut other = stock("b", 1);
    other.key.kind = "payments".into();
    let rows = vec![
        stock("c", 1),
        stock("", 1),
        other,
        stock("b", 1),
        stock("B", 1),
    ];
    write(store, inserts(vec![], rows)).await.unwrap();
    for (after, limit, expected) in [
        (None, 9, vec!["", "B", "b", "c"]),
        (None, 2, vec!["", "B"]),
        (Some("B"), 9, vec!["b", "c"]),
        (Some("c"), 9, vec![]),
        (Some(""), 1, vec!["B"]),
    ] {
        let found = store.aggregates("inventory", after, limit).await.unwrap();
        let expected: Vec<_> = expected.into_iter().map(|id| stock(id, 1)).collect();
        assert_eq!(found, expected);
    }
}
