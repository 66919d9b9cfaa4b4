//! What somebody may make of letters who has nothing but the dead-letter commands: every door to our
//! own queues is tried.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::tests::Bundle;
use super::*;
use crate::broker::{Queue, Topology};
use crate::dead_letters::desk::{DeadLetterError, Selection};
use crate::dead_letters::edit::{document, from_document};
use crate::dead_letters::replay::{REPLAYS_MAX, ReplayEvent, ReplayOptions};
use crate::dead_letters::route::Wish;
use crate::dead_letters::transfer::{LetterLine, Macs};
use crate::message::{Destination, EVENT_EXCHANGE, Properties, REPLY_QUEUE, START_QUEUE};
use crate::store::dead_letters::LetterStatus;
use crate::store::{DefinitionRow, Store};

const CORRELATION: &str =
    "00000000-0000-7000-8000-000000000001/stock/reserve/0123456789abcdef0123456789abcdef";

async fn bundle() -> Bundle {
    let bundle = Bundle::new().await;
    let queue = |name: &str| Queue {
        name: name.to_owned(),
        dead_letter_to: None,
    };
    let topology = Topology {
        queues: [REPLY_QUEUE, START_QUEUE, DEAD_LETTER_QUEUE]
            .map(queue)
            .to_vec(),
        topic_exchanges: vec![EVENT_EXCHANGE.to_owned(), "shop".to_owned()],
        ..Topology::default()
    };
    bundle.broker.declare(&topology).await.unwrap();
    bundle
}

fn line(id: Uuid, queue: &str, code: u16, properties: &Value) -> Value {
    json!({
        "id": id, "at": "2026-01-01T00:00:00Z", "queue": queue, "code": code, "reason": "so I say",
        "properties": properties, "body": "e30=",
    })
}

fn death(queue: &str, exchange: &str, keys: &[&str]) -> Value {
    json!({ "count": 1, "queue": queue, "reason": "rejected", "exchange": exchange,
            "routing-keys": keys })
}

fn to(place: &Destination) -> Wish {
    Wish {
        to: Some(place.clone()),
        anyway: true,
        ..Wish::default()
    }
}

/// Replays all letters; where they went, and why others did not.
async fn replay(bundle: &Bundle, wish: Wish) -> (Vec<Destination>, Vec<String>) {
    let options = ReplayOptions {
        wish,
        again: true,
        force: true,
        replays_max: REPLAYS_MAX,
        by: "mallory".to_owned(),
        why: "let me in".to_owned(),
        rate: None,
        canary: None,
        limit: None,
    };
    let ids = bundle.heads().await.iter().map(|head| head.id).collect();
    let broker: Arc<dyn Broker> = Arc::new(bundle.broker.clone());
    let (mut sent, mut refused) = (Vec::new(), Vec::new());
    let tell = |event: ReplayEvent<'_>| match event {
        ReplayEvent::Sent(_, to) => sent.push(to.clone()),
        ReplayEvent::Refused(_, why) => refused.push(why.to_string()),
        _ => {}
    };
    let ids = Selection::Ids(ids);
    let stop = Shutdown::default();
    bundle
        .desk
        .replay(&broker, ids, &options, &stop, tell)
        .await
        .unwrap();
    (sent, refused)
}

#[track_caller]
fn assert_kept_out(told: &(Vec<Destination>, Vec<String>), what: &str) {
    let (sent, refused) = told;
    assert!(sent.is_empty(), "{what}: {sent:?}");
    assert!(!refused.is_empty(), "{what}");
    assert!(
        refused.iter().all(|why| why.contains("BST-0058")),
        "{what}: {refused:?}"
    );
}

#[tokio::test]
async fn an_imported_letter_gets_into_no_queue_of_ours_whatever_it_says() {
    let correlation = json!(CORRELATION);
    for (queue, code, properties) in [
        (REPLY_QUEUE, 20, json!({ "correlation_id": correlation })),
        (
            DEAD_LETTER_QUEUE,
            50,
            json!({ "headers": { "x-death": [death(REPLY_QUEUE, "", &[REPLY_QUEUE])] } }),
        ),
        (
            "dlq",
            50,
            json!({ "headers": { "x-first-death-queue": REPLY_QUEUE, "x-first-death-reason": "rejected" } }),
        ),
        (
            "dlq",
            50,
            json!({ "headers": { "backstitch-origin": REPLY_QUEUE } }),
        ),
        (
            "dlq",
            50,
            json!({ "headers": { "rbs2-source-queue": START_QUEUE } }),
        ),
        (
            "dlq",
            50,
            json!({ "headers": { "x-original-exchange": "", "x-original-routingKey": START_QUEUE } }),
        ),
        (
            "dlq",
            50,
            json!({ "headers": { "x-death": [death("orders", EVENT_EXCHANGE, &["a"])] } }),
        ),
        ("dlq", 50, json!({})),
        (
            "orders",
            50,
            json!({ "headers": { "x-death": [death("orders", "", &["orders"])] } }),
        ),
    ] {
        let bundle = bundle().await;
        let id = bundle.desk.environment.new_id();
        let line = line(id, queue, code, &properties);
        assert!(
            bundle
                .desk
                .import(&line.to_string(), "mallory", "why")
                .await
                .unwrap()
        );
        let as_published = Wish {
            as_published: true,
            ..Wish::default()
        };
        let anyway = Wish {
            anyway: true,
            ..Wish::default()
        };
        let ours = [
            Destination::queue(REPLY_QUEUE),
            Destination::queue(DEAD_LETTER_QUEUE),
            Destination::event("x"),
        ];
        let wishes = [Wish::default(), as_published, anyway];
        for wish in wishes.into_iter().chain(ours.iter().map(to)) {
            let what = format!("{properties} {wish:?}");
            assert_kept_out(&replay(&bundle, wish).await, &what);
        }
        let orders = Destination::queue("orders");
        assert_eq!(replay(&bundle, to(&orders)).await, (vec![orders], vec![]));
        let sent = bundle.take("orders").await.remove(0);
        assert_eq!(sent.header("backstitch-origin"), Some("orders"));
        assert!(!sent.properties.headers.contains_key("backstitch-cc"));
    }
}

#[tokio::test]
async fn an_import_is_in_the_audit_log_as_one_with_who_and_why() {
    let bundle = bundle().await;
    let id = bundle.desk.environment.new_id();
    let line = line(id, "dlq", 50, &json!({ "message_id": "7" })).to_string();
    assert!(
        bundle
            .desk
            .import(&line, "ann", "from the old system")
            .await
            .unwrap()
    );
    assert!(!bundle.desk.import(&line, "ann", "once more").await.unwrap());
    let audit = bundle.store.letter_audit(None, 0, 10).await.unwrap();
    assert_eq!(audit.len(), 1);
    assert_eq!((&*audit[0].action, audit[0].letter), ("import", Some(id)));
    let body: Value = serde_json::from_str(&audit[0].body).unwrap();
    assert_eq!(
        (&body["by"], &body["why"]),
        (&json!("ann"), &json!("from the old system"))
    );
    assert_eq!(body["detail"]["message_id"], "7");
}

/// Whoever may publish to a queue that dead-letters may write what he likes into `x-death`.
#[tokio::test]
async fn of_deaths_in_our_queues_only_the_brokers_newest_word_in_our_own_is_believed() {
    let forged = death(REPLY_QUEUE, "", &[REPLY_QUEUE]);
    let real = death("orders", "", &["orders"]);
    for (from, deaths, gets_in) in [
        ("dlq", vec![&forged], false),
        (DEAD_LETTER_QUEUE, vec![&real, &forged], false),
        (DEAD_LETTER_QUEUE, vec![&forged], true),
    ] {
        let bundle = bundle().await;
        let headers = json!({
            "x-death": deaths, "x-first-death-queue": REPLY_QUEUE, "x-first-death-reason": "rejected",
        });
        let message = Message {
            properties: Properties {
                headers: serde_json::from_value(headers).unwrap(),
                ..Properties::default()
            },
            body: "{}".into(),
        };
        bundle.publish(from, vec![message]).await;
        bundle.drain_of(from).await;
        let told = replay(&bundle, Wish::default()).await;
        if gets_in {
            assert_eq!(told.0, [Destination::queue(REPLY_QUEUE)]);
        } else {
            assert_kept_out(&told, from);
        }
    }
}

async fn drained(bundle: &Bundle, headers: Value) {
    let message = Message {
        properties: Properties {
            headers: serde_json::from_value(headers).unwrap(),
            correlation_id: Some(CORRELATION.to_owned()),
            reply_to: Some(REPLY_QUEUE.to_owned()),
            ..Properties::default()
        },
        body: json!({ "was": CORRELATION, "rest": 1 }).to_string().into(),
    };
    bundle.publish("dlq", vec![message]).await;
    bundle.drain().await;
}

async fn edit(bundle: &Bundle, pointer: &str, value: Value) -> Result<(), DeadLetterError> {
    let letter = bundle
        .desk
        .letter(bundle.heads().await[0].id)
        .await
        .unwrap();
    let mut wanted = document(letter.message());
    *wanted.pointer_mut(pointer).unwrap() = value;
    let edited = from_document(&wanted, letter.message()).unwrap();
    bundle.desk.edit(&letter, edited, "mallory", "why").await
}

#[tokio::test]
async fn an_edit_sends_no_letter_elsewhere_and_no_copy_or_answer_either() {
    let bundle = bundle().await;
    // A routing key of ours among those it came with: published as `CC`, it would be a copy.
    drained(
        &bundle,
        json!({ "x-death": [death("orders", "shop", &["o", REPLY_QUEUE])] }),
    )
    .await;
    let headers = json!({
        "x-death": [death(REPLY_QUEUE, "", &[REPLY_QUEUE])], "CC": [REPLY_QUEUE], "BCC": [REPLY_QUEUE],
        "backstitch-cc": [REPLY_QUEUE], "backstitch-origin": REPLY_QUEUE,
        "backstitch-keys": [REPLY_QUEUE], "rbs2-source-queue": REPLY_QUEUE,
    });
    edit(&bundle, "/properties/headers", headers).await.unwrap();
    let anyway = Wish {
        anyway: true,
        ..Wish::default()
    };
    let orders = Destination::queue("orders");
    assert_eq!(
        replay(&bundle, anyway.clone()).await,
        (vec![orders], vec![])
    );
    let sent = bundle.take("orders").await.remove(0);
    assert_eq!(sent.properties.headers["backstitch-cc"], json!(["o"]));
    assert_eq!(sent.header("backstitch-origin"), Some("orders"));
    edit(&bundle, "/properties/reply_to", json!(START_QUEUE))
        .await
        .unwrap();
    assert_kept_out(
        &replay(&bundle, anyway).await,
        "its answer would be a start",
    );
}

#[tokio::test]
async fn nothing_goes_by_an_exchange_that_sagas_listen_to() {
    let bundle = bundle().await;
    drained(
        &bundle,
        json!({ "x-death": [death("orders", "shop", &["order.placed"])] }),
    )
    .await;
    let as_published = || Wish {
        as_published: true,
        ..Wish::default()
    };
    let within = Wish {
        within: Some(vec!["shop/other".to_owned()]),
        ..as_published()
    };
    assert_kept_out(&replay(&bundle, within).await, "a node allows another key");
    let source = "saga: bill\nversion: 1\nkey: ${ input.id }\nstart:\n  on: { exchange: shop, routing_key: order.paid }\nsteps:\n  - step: x\n    confirm: x.y\n";
    let row = DefinitionRow {
        name: "bill".to_owned(),
        version: 1,
        hash: [0; 32],
        source: source.to_owned(),
        stored_at: bundle.desk.environment.now(),
    };
    bundle.store.put_definition(row).await.unwrap();
    assert_kept_out(
        &replay(&bundle, as_published()).await,
        "sagas wait for its events",
    );
    let by_name = Destination {
        exchange: "shop".to_owned(),
        routing_key: "z".to_owned(),
    };
    assert_kept_out(&replay(&bundle, to(&by_name)).await, "also by name");
    assert_eq!(bundle.heads().await[0].status, LetterStatus::Open);
}

#[tokio::test]
async fn macs_are_in_no_document_and_no_export_but_in_what_is_sent() {
    let bundle = bundle().await;
    drained(
        &bundle,
        json!({ "x-death": [death("orders", "", &["orders"])], "copy": CORRELATION }),
    )
    .await;
    let mac = CORRELATION.rsplit('/').next().unwrap();
    let letter = bundle
        .desk
        .letter(bundle.heads().await[0].id)
        .await
        .unwrap();
    assert!(!document(letter.message()).to_string().contains(mac));
    let masked = LetterLine::new(&letter, Macs::Masked);
    assert!(!json!(masked).to_string().contains(mac));
    let body = STANDARD.decode(&masked.body).unwrap();
    assert!(!String::from_utf8_lossy(&body).contains(mac));
    assert!(
        json!(LetterLine::new(&letter, Macs::Shown))
            .to_string()
            .contains(mac)
    );
    edit(&bundle, "/body/rest", json!(2)).await.unwrap();
    assert_eq!(replay(&bundle, Wish::default()).await.0.len(), 1);
    let sent = bundle.take("orders").await.remove(0);
    assert_eq!(sent.properties.correlation_id.as_deref(), Some(CORRELATION));
    assert_eq!(sent.header("copy"), Some(CORRELATION));
    let body: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(body, json!({ "was": CORRELATION, "rest": 2 }));
}
