//! Projections under load: many events, several writers, a projector that is killed again and again.
//!
//! The small sizes run with all other tests; the large ones by `tests/read-models-100k`.

use std::time::{Duration, Instant};

use backstitch::aggregates::work::{Details, WorkItemDetails};
use backstitch::projection::{Projection, fold};
use backstitch::store::feed::{EventFeed, EventQuery, PlacedEvent, Position};
use backstitch::store::postgres::{PostgresOptions, PostgresStore};
use backstitch::store::projections::ProjectionStore;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{
    Backends, Command, Node, Sent, Wire, blocking, eventually, finish, get, repository, told,
};

/// Events of a work item: it is opened, nine take part, the rest is done.
const EVENTS_PER_ITEM: u64 = 100;
/// Connections that commands are sent over.
const SENDERS: u64 = 4;
/// Processes that write.
const WRITERS: usize = 4;

struct Size {
    items: u64,
    kills: u64,
    patience: Duration,
}

#[test]
fn every_document_is_the_fold_of_its_events_though_the_projector_is_killed() {
    run(&Size {
        items: 12,
        kills: 2,
        patience: Duration::from_mins(2),
    });
}

#[test]
#[ignore = "takes minutes; see tests/read-models-100k"]
fn a_hundred_thousand_events_over_a_thousand_work_items() {
    run(&Size {
        items: 1_000,
        kills: 10,
        patience: Duration::from_mins(20),
    });
}

#[test]
#[ignore = "takes minutes; see tests/read-models-100k"]
fn a_new_projection_catches_up_over_a_million_events() {
    let backends = Backends::create();
    let migrated = finish(&Command::backstitch(["migrate"]).on(&backends));
    assert!(migrated.status.success(), "{}", told(&migrated));
    backends.database.run(
        "INSERT INTO backstitch.aggregate_events (kind, id, seq, at, body, correlation)
         SELECT
             'work-actions', 'a' || n, 1, 1700000000000000 + n,
             convert_to('{\"event\":\"recorded\",\"work_item\":\"w' || n % 10000
                 || '\",\"by\":\"ann\",\"text\":\"tile number ' || n || '\"}', 'UTF8'),
             'w' || n % 10000
         FROM generate_series(1, 1000000) AS n",
    );
    backends
        .database
        .run("VACUUM ANALYZE backstitch.aggregate_events");
    let begun = Instant::now();
    let anew = ["projection", "rebuild", "work-item-details"];
    let rebuilt = finish(&Command::backstitch(anew).on(&backends));
    let seconds = begun.elapsed().as_secs_f64();
    assert!(rebuilt.status.success(), "{}", told(&rebuilt));
    assert_eq!(
        backends.database.count("backstitch.projection_documents"),
        10_000
    );
    println!(
        "a new projection over 1,000,000 events and 10,000 documents: {seconds:.1} s, {:.0} events/s",
        1_000_000.0 / seconds
    );
}

fn run(size: &Size) {
    let backends = Backends::create();
    let migrated = finish(&Command::backstitch(["migrate"]).on(&backends));
    assert!(migrated.status.success(), "{}", told(&migrated));
    let kinds = ["work-items", "work-people", "work-actions"];
    let participants = Command::backstitch(["participants"]);
    let participants = kinds.iter().fold(participants, |it, kind| it.with(*kind));
    let participants = participants.on(&backends);
    let mut writers: Vec<Node> = (0..WRITERS).map(|_| Node::start(&participants)).collect();
    let projector = Command::backstitch(["projector"]).on(&backends);
    let mut projecting = Node::start(&projector);
    for kind in kinds {
        backends.virtual_host.wait_for_consumer(kind);
    }

    let (total, begun) = (size.items * EVENTS_PER_ITEM, Instant::now());
    let url = backends.virtual_host.url.as_str();
    let recorded = || {
        backends
            .database
            .count("backstitch.aggregate_events")
            .unsigned_abs()
    };
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            scope.spawn(move || {
                send_all(url, (0..size.items).filter(|item| item % SENDERS == sender));
            });
        }
        for kill in 1..=size.kills {
            eventually("events are recorded", size.patience, || {
                (recorded() >= kill * total / (size.kills + 1)).then_some(())
            });
            // Somewhere in the middle of what it does.
            projecting.kill9();
            projecting = Node::start(&projector);
        }
    });
    let written = eventually("every event is recorded", size.patience, || {
        let count = recorded();
        (count >= total).then_some(count)
    });
    assert_eq!(written, total, "each command took effect once");
    let wrote = begun.elapsed();
    eventually("the projector has folded all", size.patience, || {
        (documents_events(&backends) == total).then_some(())
    });
    let read = begun.elapsed();
    compare(&backends, size.items);
    let demand = on_demand(&backends, size.items);
    println!(
        "{total} events over {} work items by {WRITERS} processes: written in {:.1} s, all documents right after {:.1} s \
         with {} kills of the projector; on demand p50 {:.1} ms, p99 {:.1} ms",
        size.items,
        wrote.as_secs_f64(),
        read.as_secs_f64(),
        size.kills,
        demand.0,
        demand.1,
    );
    for writer in writers.iter_mut().chain([&mut projecting]) {
        assert!(writer.terminate().success(), "{}", writer.log());
    }
}

/// All commands of some work items: the first of each, the second of each, and so on.
fn send_all(url: &str, items: impl Iterator<Item = u64>) {
    let wire = Wire::connect(url);
    let replies = wire.own_queue();
    let items: Vec<u64> = items.collect();
    for number in 0..EVENTS_PER_ITEM {
        for item in &items {
            send(&wire, &replies, *item, number);
        }
    }
}

/// The one command of a work item with this number.
fn send(wire: &Wire, replies: &str, item: u64, number: u64) {
    let work_item = format!("w{item}");
    let (command, body) = match number {
        0 => (
            "work-items.open",
            json!({ "work_item": work_item, "title": format!("item {item}") }),
        ),
        1..10 => (
            "work-people.add",
            json!({ "work_item": work_item, "person": format!("p{number}"), "role": "builder" }),
        ),
        _ => (
            "work-actions.record",
            json!({
                "action": format!("{work_item}-{number}"), "work_item": work_item, "by": "ann",
                "text": "one more tile",
            }),
        ),
    };
    let saga = Uuid::from_u128(u128::from(item * EVENTS_PER_ITEM + number) + 1);
    let (body, correlation) = (body.to_string(), format!("{saga}/step/action/mac"));
    let message = Sent {
        kind: Some(command),
        reply_to: Some(replies),
        correlation_id: Some(&correlation),
        headers: &[("correlation", &work_item)],
        body: body.as_bytes(),
        ..Sent::default()
    };
    wire.send(command.split('.').next().unwrap_or_default(), &message);
}

/// How many events are in all documents together.
fn documents_events(backends: &Backends) -> u64 {
    let sum = backends.database.text(
        "SELECT coalesce(sum((convert_from(body, 'UTF8')::json ->> 'events')::bigint), 0)::text
         FROM backstitch.projection_documents",
    );
    sum.parse().expect("a sum is a number")
}

fn compare(backends: &Backends, items: u64) {
    let differing: Vec<String> = blocking(async || {
        let options = PostgresOptions::default();
        let store = PostgresStore::open(&backends.database.url, options)
            .await
            .unwrap();
        let generations = store
            .generations(Some(WorkItemDetails::NAME))
            .await
            .unwrap();
        let serving = generations
            .iter()
            .find(|it| it.serving)
            .expect("one serves");
        let mut differing = Vec::new();
        for item in 0..items {
            let key = format!("w{item}");
            let query = EventQuery {
                kinds: WorkItemDetails::KINDS
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                correlation: Some(key.clone()),
                after: Position::START,
                upto: Position::END,
                limit: 10_000,
            };
            let events: Vec<PlacedEvent> = store.events(&query).await.unwrap().events;
            let folded = fold::<WorkItemDetails>(&events);
            let kept = store
                .documents(
                    WorkItemDetails::NAME,
                    serving.generation,
                    std::slice::from_ref(&key),
                )
                .await
                .unwrap();
            let kept: Option<Details> = kept
                .first()
                .map(|row| serde_json::from_slice(&row.body).unwrap());
            if kept != Some(folded) {
                differing.push(key);
            }
        }
        store.close().await;
        differing
    });
    assert_eq!(
        differing,
        Vec::<String>::new(),
        "documents that are not the fold of their events"
    );
}

/// Milliseconds of a request that folds one document from its first event on: median and 99th percentile.
fn on_demand(backends: &Backends, items: u64) -> (f64, f64) {
    let mut node = Node::serve(backends, &repository("sagas"));
    let mut took: Vec<f64> = (0..items)
        .map(|item| {
            let url = format!(
                "{}/projections/work-item-details/w{item}?as=on-demand",
                node.url
            );
            let begun = Instant::now();
            let answer = get(&url);
            let milliseconds = begun.elapsed().as_secs_f64() * 1_000.0;
            let Ok((200, answer)) = answer else {
                panic!("{url}: {answer:?}");
            };
            assert_eq!(answer["document"]["events"], Value::from(EVENTS_PER_ITEM));
            milliseconds
        })
        .collect();
    assert!(node.terminate().success(), "{}", node.log());
    took.sort_by(f64::total_cmp);
    (took[took.len() / 2], took[took.len() * 99 / 100])
}
