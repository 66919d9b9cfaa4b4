//! Cases: reading back what happened to aggregates.

use futures_util::future::join_all;

use super::sample::{article, at, event, saga, stock};
use super::{Complete, until_stored};
use crate::store::feed::{EventQuery, PAGE_BYTES, PlacedEvent, Position};
use crate::store::participant::{
    AggregateEvent, AggregateSnapshot, Origin, ParticipantWrites, Write,
};

async fn append(store: &dyn Complete, events: Vec<AggregateEvent>) {
    let writes = ParticipantWrites {
        events,
        ..ParticipantWrites::default()
    };
    store.begin().await.unwrap().commit(writes).await.unwrap();
}

fn all() -> EventQuery {
    EventQuery {
        kinds: Vec::new(),
        correlation: None,
        after: Position::START,
        upto: Position::END,
        limit: 1_000,
    }
}

async fn read(store: &dyn Complete, query: &EventQuery) -> Vec<PlacedEvent> {
    store.events(query).await.unwrap().events
}

fn of_kind(kind: &str, seq: u64, correlation: Option<&str>) -> AggregateEvent {
    let mut event = event("a", seq);
    kind.clone_into(&mut event.key.kind);
    event.origin.correlation = correlation.map(str::to_owned);
    event
}

/// In pages too, and up to a position.
pub async fn events_of_all_aggregates_are_in_one_order(store: &dyn Complete) {
    assert_eq!(store.settled().await.unwrap(), Position::START);
    assert_eq!(read(store, &all()).await, []);
    append(store, vec![event("b", 1), event("a", 1), event("a", 2)]).await;
    append(store, vec![event("b", 2)]).await;
    let placed = read(store, &all()).await;
    let events: Vec<_> = placed.iter().map(|placed| placed.event.clone()).collect();
    let expected = [event("b", 1), event("a", 1), event("a", 2), event("b", 2)];
    assert_eq!(events, expected);
    assert!(placed.is_sorted_by(|a, b| a.position < b.position));
    let newest = placed[3].position;
    let settled = until_stored(async || {
        let settled = store.settled().await?;
        (settled == newest)
            .then_some(settled)
            .ok_or(crate::store::StoreError::Conflict)
    });
    assert_eq!(settled.await, newest);
    for (after, upto, limit, expected) in [
        (Position::START, Position::END, 2, &placed[..2]),
        (placed[0].position, placed[2].position, 9, &placed[1..3]),
        (newest, Position::END, 9, &[][..]),
        (newest, placed[0].position, 9, &[][..]),
    ] {
        let query = EventQuery {
            after,
            upto,
            limit,
            ..all()
        };
        assert_eq!(read(store, &query).await, expected);
    }
    let history = store.history(&article("a"), 1, 9).await.unwrap().events;
    assert_eq!(history, placed[2..3]);
}

/// However many events are asked for; a larger one than fits comes alone.
pub async fn a_page_of_events_ends_by_bytes_too(store: &dyn Complete) {
    let sized = |seq, bytes| AggregateEvent {
        body: vec![b'x'; bytes].into(),
        ..of_kind("items", seq, Some("w1"))
    };
    let lengths = [PAGE_BYTES - 1, 1, 1, PAGE_BYTES + 1, 1, 1];
    for (seq, bytes) in (1..).zip(lengths) {
        append(store, vec![sized(seq, bytes)]).await;
    }
    let key = of_kind("items", 1, None).key;
    let pages = [&[1, 2][..], &[3, 4], &[5, 6]];
    for correlation in [None, Some("w1".to_owned())] {
        let mut query = EventQuery {
            correlation,
            ..all()
        };
        let mut after = 0;
        for expected in pages {
            let page = store.events(&query).await.unwrap();
            let history = store.history(&key, after, 9).await.unwrap();
            assert_eq!(history, page);
            let seqs: Vec<_> = page.events.iter().map(|placed| placed.event.seq).collect();
            assert_eq!(seqs, expected);
            assert_eq!(page.more, expected != [5, 6]);
            after = seqs[seqs.len() - 1];
            query.after = page.read_upto(Position::END);
        }
        assert_eq!(query.after, Position::END);
    }
    let one = EventQuery { limit: 1, ..all() };
    assert!(store.events(&one).await.unwrap().more);
}

/// Each for itself, and together.
pub async fn events_are_found_by_kind_and_correlation(store: &dyn Complete) {
    let events = vec![
        of_kind("items", 1, Some("w1")),
        of_kind("people", 1, Some("w1")),
        of_kind("people", 2, Some("w2")),
        of_kind("actions", 1, None),
    ];
    append(store, events).await;
    for (kinds, correlation, expected) in [
        (&[][..], Some("w1"), &["items 1", "people 1"][..]),
        (&["people"], None, &["people 1", "people 2"]),
        (&["people", "actions"], Some("w2"), &["people 2"]),
        (&["actions"], Some("w1"), &[]),
        (&["o\u{0}"], None, &[]),
        (&[], Some("w\u{0}1"), &[]),
    ] {
        let query = EventQuery {
            kinds: kinds.iter().map(ToString::to_string).collect(),
            correlation: correlation.map(str::to_owned),
            ..all()
        };
        let found = read(store, &query).await.into_iter();
        let found = found.map(|it| format!("{} {}", it.event.key.kind, it.event.seq));
        assert_eq!(
            found.collect::<Vec<_>>(),
            expected,
            "{kinds:?} {correlation:?}"
        );
    }
}

/// Also through [`ParticipantStore::aggregate_events`](crate::store::participant::ParticipantStore).
pub async fn an_event_says_where_it_comes_from(store: &dyn Complete) {
    let mut told = event("a", 1);
    told.valid_from = Some(at(99));
    told.origin = Origin {
        saga: Some(saga(7)),
        saga_key: Some("o-1".to_owned()),
        message_id: Some("m \u{1F9F5}".to_owned()),
        correlation: Some("w1".to_owned()),
    };
    append(store, vec![told.clone()]).await;
    assert_eq!(read(store, &all()).await[0].event, told);
    let events = store.aggregate_events(&article("a"), 0, 9).await.unwrap();
    assert_eq!(events, [told]);
}

/// Events of one aggregate stand in the order of their numbers, though many write at once, and
/// whoever reads on from where all was settled finds each event once.
pub async fn causes_stand_before_their_effects_whoever_commits_when(store: &dyn Complete) {
    const WRITERS: u64 = 8;
    const ROUNDS: u64 = 5;
    let add_one = |writer: u64| async move {
        let (own, hot) = (article(&format!("own-{writer}")), article("hot"));
        let mut transaction = store.begin().await?;
        // Apart, so that the other rows are locked while it waits for the hot one.
        let first = transaction.load(&[], std::slice::from_ref(&own)).await?;
        let second = transaction.load(&[], std::slice::from_ref(&hot)).await?;
        let (mut aggregates, mut events) = (Vec::new(), Vec::new());
        for (key, loaded) in [(own, first), (hot, second)] {
            let revision = loaded.aggregates.first().map_or(0, |row| row.revision) + 1;
            let row = stock(&key.id, revision);
            aggregates.push(if revision == 1 {
                Write::Insert(row)
            } else {
                Write::Update(row)
            });
            events.push(event(&key.id, revision));
        }
        let writes = ParticipantWrites {
            aggregates,
            events,
            ..ParticipantWrites::default()
        };
        transaction.commit(writes).await
    };
    let writing =
        join_all((0..WRITERS * ROUNDS).map(|n| until_stored(move || add_one(n % WRITERS))));
    let expected = 2 * WRITERS * ROUNDS;
    let reading = async {
        let (mut seen, mut after) = (Vec::new(), Position::START);
        while (seen.len() as u64) < expected {
            let upto = store.settled().await.unwrap();
            let query = EventQuery {
                after,
                upto,
                limit: 7,
                ..all()
            };
            let page = read(store, &query).await;
            after = page.last().map_or(after, |placed| placed.position);
            seen.extend(page);
            futures_util::future::ready(()).await;
            tokio::task::yield_now().await;
        }
        seen
    };
    let (_, seen) = futures_util::future::join(writing, reading).await;
    assert_eq!(
        seen,
        read(store, &all()).await,
        "nothing is skipped or moved"
    );
    let hot = seen.iter().filter(|it| it.event.key == article("hot"));
    let seqs: Vec<u64> = hot.map(|it| it.event.seq).collect();
    assert_eq!(seqs, (1..=WRITERS * ROUNDS).collect::<Vec<_>>());
}

/// The newest that is not newer than asked for.
pub async fn an_old_state_is_found_by_revision_and_time(store: &dyn Complete) {
    let snapshot = |id: &str, revision: u64, seconds: i64| AggregateSnapshot {
        key: article(id),
        revision,
        at: at(seconds),
        state: stock(id, revision).state,
    };
    let writes = ParticipantWrites {
        snapshots: vec![
            snapshot("a", 10, 100),
            snapshot("a", 20, 200),
            snapshot("b", 15, 1),
        ],
        aggregates: vec![Write::Insert(stock("a", 21))],
        ..ParticipantWrites::default()
    };
    store.begin().await.unwrap().commit(writes).await.unwrap();
    for (revision_max, seconds_max, expected) in [
        (9, 999, None),
        (10, 999, Some(10)),
        (19, 999, Some(10)),
        (u64::MAX, 999, Some(20)),
        (u64::MAX, 199, Some(10)),
        (u64::MAX, 99, None),
    ] {
        let found = store
            .snapshot(&article("a"), revision_max, at(seconds_max))
            .await
            .unwrap();
        assert_eq!(found.map(|it| it.revision), expected);
    }
    let found = store.aggregate(&article("a")).await.unwrap();
    assert_eq!(found, Some(stock("a", 21)));
    assert_eq!(store.aggregate(&article("a\0")).await.unwrap(), None);
}
