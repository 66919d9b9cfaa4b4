//! A hundred thousand dead letters, with ten kills of the tool and one of RabbitMQ; and how fast it
//! goes beside what RabbitMQ gives at all. Run by `tests/dead-letters-100k`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch::broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use backstitch::broker::{Broker, Outgoing, Published, Queue, Topology};
use backstitch::message::{Destination, Message, Properties};
use backstitch::store::dead_letters::HEADER_ORIGIN;
use serde_json::{Value, json};

use crate::fixture::{Backends, Command, Node, blocking, eventually, finish, told};

const DEAD: &str = "shop.dlq";
const RAW: &str = "raw";
/// Messages published in one call, and calls side by side.
const BATCH: usize = 256;
const PUBLISHERS: usize = 4;
const KILLS: i64 = 10;
/// Longest wait for one step, RabbitMQ's recovery included.
const STEP_TIME_MAX: Duration = Duration::from_mins(5);

fn letters_wanted() -> usize {
    let text = std::env::var("BACKSTITCH_LETTERS").unwrap_or_else(|_| "100000".to_owned());
    text.parse().expect("BACKSTITCH_LETTERS is a number")
}

fn kind(number: usize) -> &'static str {
    match number % 10 {
        0..3 => "order.paid",
        3..6 => "order.sent",
        _ => "order.open",
    }
}

fn message(number: usize) -> Message {
    let headers = json!({
        HEADER_ORIGIN: kind(number), // the broker's own would not be sent
        "error": format!("no stock for order {number}"),
    });
    Message {
        properties: Properties {
            message_id: Some(format!("message-{number}")),
            kind: Some(kind(number).to_owned()),
            headers: serde_json::from_value(headers).unwrap(),
            ..Properties::default()
        },
        body: format!("{{\"order\":{number},\"filler\":\"{}\"}}", "x".repeat(900)).into(),
    }
}

async fn publish_all(broker: &Arc<RabbitMqBroker>, queue: &'static str, count: usize) {
    let publishers = (0..PUBLISHERS).map(|publisher| async move {
        let numbers: Vec<usize> = (publisher..count).step_by(PUBLISHERS).collect();
        for part in numbers.chunks(BATCH) {
            let outgoing = part.iter().map(|number| Outgoing {
                destination: Destination::queue(queue),
                message: message(*number),
                mandatory: true,
            });
            let words = broker.publish(outgoing.collect()).await;
            assert!(words.iter().all(|word| *word == Published::Confirmed));
        }
    });
    futures_util::future::join_all(publishers).await;
}

/// Takes messages until none comes for a moment; gives their ids.
async fn take_all(broker: &Arc<RabbitMqBroker>, queue: &str) -> Vec<String> {
    let mut consumer = broker.consume(queue, 500).await.unwrap();
    let mut ids = Vec::new();
    loop {
        let next = consumer.deliveries.next_batch(100);
        let Ok(batch) = tokio::time::timeout(Duration::from_secs(2), next).await else {
            return ids;
        };
        consumer
            .acks
            .ack(&batch.iter().map(|one| one.tag).collect::<Vec<_>>());
        ids.extend(
            batch
                .into_iter()
                .filter_map(|one| one.message.properties.message_id),
        );
    }
}

async fn connect(url: &str) -> Arc<RabbitMqBroker> {
    let broker = RabbitMqBroker::connect(url, RabbitMqOptions::default())
        .await
        .unwrap();
    let queue = |name: &str| Queue {
        name: name.to_owned(),
        dead_letter_to: None,
    };
    let topology = Topology {
        queues: [DEAD, RAW, "order.paid", "order.sent"].map(queue).to_vec(),
        ..Topology::default()
    };
    broker.declare(&topology).await.unwrap();
    Arc::new(broker)
}

fn tool(words: &[&str], backends: &Backends) -> Command {
    Command::backstitch(["dead-letters"].iter().chain(words).copied()).on(backends)
}

#[track_caller]
fn answer(words: &[&str], backends: &Backends) -> (Value, Duration) {
    let started = Instant::now();
    let output = finish(&tool(words, backends).with("--json"));
    assert!(output.status.success(), "{}", told(&output));
    let answer = serde_json::from_slice(&output.stdout).unwrap();
    (answer, started.elapsed())
}

fn told_rate(what: &str, count: usize, time: Duration) {
    let millis = time.as_millis().max(1);
    println!(
        "{what}: {count} in {millis} ms, {} msg/s",
        count as u128 * 1000 / millis
    );
}

#[test]
#[ignore = "takes minutes and kills RabbitMQ: tests/dead-letters-100k runs it"]
fn a_hundred_thousand_letters_survive_everything() {
    let count = letters_wanted();
    let part = (0..count)
        .filter(|number| kind(*number) == "order.paid")
        .count();
    let backends = Backends::create();
    let url = backends.virtual_host.url.clone();
    let database = &backends.database;
    blocking(async || {
        let broker = connect(&url).await;
        let started = Instant::now();
        publish_all(&broker, RAW, count).await;
        told_rate("raw publish", count, started.elapsed());
        let started = Instant::now();
        let taken = take_all(&broker, RAW).await.len();
        told_rate(
            "raw consume",
            taken,
            started.elapsed().saturating_sub(Duration::from_secs(2)),
        );
        publish_all(&broker, DEAD, count).await;
        broker.close().await;
    });

    let (drained, time) = answer(&["drain", "--queue", DEAD], &backends);
    assert_eq!(drained["new"], count, "{drained}");
    told_rate("drain", count, time);
    let (groups, time) = answer(&["groups"], &backends);
    assert_eq!(groups["groups"].as_array().map(Vec::len), Some(3));
    println!("groups: {} ms", time.as_millis());
    let (sent, time) = answer(
        &["replay", "--type", "order.sent", "--why", "timed"],
        &backends,
    );
    assert_eq!(sent["replayed"], part, "{sent}");
    told_rate("replay", part, time);

    let replay = tool(
        &["replay", "--type", "order.paid", "--why", "killed"],
        &backends,
    );
    let handled = || database.count("dead_letters WHERE status <> 'open' AND type = 'order.paid'");
    let all = i64::try_from(part).unwrap();
    for kill in 0..KILLS {
        let mut running = Node::start(&replay);
        let step = all * (kill + 1) / (KILLS + 2);
        eventually("some of it is done", STEP_TIME_MAX, || {
            (handled() >= step).then_some(())
        });
        if kill == KILLS / 2 {
            let command = std::env::var("BACKSTITCH_TEST_RABBITMQ_KILL").unwrap();
            let status = std::process::Command::new(command).status().unwrap();
            assert!(status.success(), "RabbitMQ comes back");
            println!(
                "RabbitMQ killed and started again at {} of {part}",
                handled()
            );
        }
        running.kill9();
        println!("tool killed at {} of {part}", handled());
    }
    let last = finish(&replay);
    assert!(last.status.success(), "{}", told(&last));

    let ids = blocking(async || {
        let broker = connect(&url).await;
        let ids = take_all(&broker, "order.paid").await;
        broker.close().await;
        ids
    });
    let effects: BTreeSet<_> = ids.iter().cloned().collect();
    println!(
        "arrived: {} messages, {} effects of {part}",
        ids.len(),
        effects.len()
    );
    let wanted = (0..count).filter(|number| kind(*number) == "order.paid");
    assert_eq!(
        effects,
        wanted.map(|number| format!("message-{number}")).collect()
    );
    assert_eq!(
        database.count("dead_letters WHERE status = 'replayed'"),
        2 * all
    );
    assert_eq!(database.count("outbox"), 0);
    let (audit, time) = answer(&["audit"], &backends);
    assert_eq!(audit["broken"], Value::Null);
    println!(
        "audit: {} entries hold, {} ms",
        audit["entries"],
        time.as_millis()
    );
    let replays = "letter_audit WHERE action = 'replay'";
    assert_eq!(database.count(replays), 2 * all);
}
