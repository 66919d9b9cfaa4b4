//! Dead letters on PostgreSQL and RabbitMQ: drained, replayed and killed in the middle, by a
//! program that knows nothing of the queues' other users.

use std::collections::BTreeSet;

use backstitch::message::START_QUEUE;
use serde_json::{Value, json};

use crate::fixture::{
    Backends, Command, Node, PATIENCE, Sent, Wire, eventually, finish, get_json, post, repository,
    told,
};

const DEAD: &str = "shop.dlq";
const ORDERS: &str = "shop.orders";
const LETTERS: usize = 5_000;
const REPLAYED: usize = 1_500;
/// What RabbitMQ and the consumer's library leave behind.
const DIED: &[(&str, &str)] = &[
    ("x-first-death-queue", ORDERS),
    ("x-first-death-reason", "rejected"),
    ("x-first-death-exchange", "shop"),
    ("error", "no stock for order 17"),
];

fn letters(words: &[&str], backends: &Backends) -> Command {
    Command::backstitch(["dead-letters"].iter().chain(words).copied()).on(backends)
}

#[track_caller]
fn answer(words: &[&str], backends: &Backends) -> Value {
    let output = finish(&letters(words, backends).with("--json"));
    assert!(output.status.success(), "{}", told(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Starts a command again and again, and kills it each time another step is done.
fn kill_while(command: &Command, steps: &[i64], mut done: impl FnMut() -> i64) {
    for step in steps {
        let mut running = Node::start(command);
        eventually("some of it is done", PATIENCE, || {
            (done() >= *step).then_some(())
        });
        running.kill9();
    }
}

#[test]
fn five_thousand_letters_survive_kills_of_drain_and_replay() {
    let backends = Backends::create();
    let wire = Wire::connect(&backends.virtual_host.url);
    wire.declare(DEAD);
    wire.declare(ORDERS);
    let ids: Vec<String> = (0..LETTERS)
        .map(|number| format!("message-{number}"))
        .collect();
    for (number, id) in ids.iter().enumerate() {
        wire.send(
            DEAD,
            &Sent {
                kind: Some(if number % 10 < 3 {
                    "order.paid"
                } else {
                    "order.shipped"
                }),
                message_id: Some(id),
                headers: DIED,
                body: format!("{{\"order\":{number}}}").as_bytes(),
                ..Sent::default()
            },
        );
    }
    let database = &backends.database;
    assert!(
        finish(&Command::backstitch(["migrate"]).on(&backends))
            .status
            .success()
    );

    let drain = letters(&["drain", "--queue", DEAD, "--prefetch", "200"], &backends);
    kill_while(&drain, &[200, 1_000, 2_500], || {
        database.count("dead_letters")
    });
    let last = finish(&drain);
    assert!(last.status.success(), "{}", told(&last));
    assert_eq!(
        database.count("dead_letters"),
        i64::try_from(LETTERS).unwrap()
    );
    let groups = answer(&["groups"], &backends);
    let counts: Vec<_> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| &of["count"])
        .collect();
    assert_eq!(counts, [LETTERS - REPLAYED, REPLAYED]);

    let words = [
        "replay",
        "--type",
        "order.paid",
        "--by",
        "ann",
        "--why",
        "stock is back",
    ];
    let dry = answer(&[&words[..], &["--dry-run"]].concat(), &backends);
    assert_eq!(dry["replayed"], REPLAYED);
    assert_eq!(database.count("dead_letters WHERE status <> 'open'"), 0);
    let replay = letters(&[&words[..], &["--rate", "1000/s"]].concat(), &backends);
    let handled = || database.count("dead_letters WHERE status <> 'open'");
    kill_while(&replay, &[1, 300, 700, 1_100], handled);
    let last = finish(&replay);
    assert!(last.status.success(), "{}", told(&last));

    let mut arrived = BTreeSet::new();
    while let Some(message) = wire.take(ORDERS) {
        assert_eq!(message.kind.as_deref(), Some("order.paid"));
        assert!(
            !message.headers.keys().any(|name| name.starts_with("x-")),
            "{message:?}"
        );
        // A consumer handles an id once.
        arrived.insert(message.message_id.unwrap());
    }
    let wanted = ids.iter().enumerate().filter(|(number, _)| number % 10 < 3);
    assert_eq!(arrived, wanted.map(|(_, id)| id.clone()).collect());
    let expected = i64::try_from(REPLAYED).unwrap();
    assert_eq!(
        database.count("dead_letters WHERE status = 'replayed'"),
        expected
    );
    assert_eq!(database.count("outbox"), 0);

    let audit = answer(&["audit", "--list"], &backends);
    assert_eq!(audit["broken"], Value::Null);
    let entries = audit["shown"].as_array().unwrap();
    let of = |action: &str| {
        entries
            .iter()
            .filter(|entry| entry["action"] == action)
            .count()
    };
    assert_eq!((of("replay"), of("return")), (REPLAYED, 0));
    let drained = entries.iter().filter(|entry| entry["action"] == "drain");
    let new: u64 = drained
        .filter_map(|entry| entry["detail"]["new"].as_u64())
        .sum();
    assert_eq!(usize::try_from(new).unwrap(), LETTERS);
}

#[test]
fn bodies_come_back_byte_for_byte() {
    let backends = Backends::create();
    let wire = Wire::connect(&backends.virtual_host.url);
    wire.declare(DEAD);
    wire.declare(ORDERS);
    let large: Vec<u8> = (0..16 * 1024 * 1024_u32).map(|n| (n % 251) as u8).collect();
    let bodies: [&[u8]; 5] = [
        b"",
        b"\xff\xfe\x00not text",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b\xcc\x02\x00\xc2\x41\x24\x35",
        b"{\"a\":9007199254740993, \"b\":-9223372036854775808,\"c\":18446744073709551615}",
        &large,
    ];
    for body in bodies {
        wire.send(
            DEAD,
            &Sent {
                headers: DIED,
                body,
                ..Sent::default()
            },
        );
    }
    assert_eq!(answer(&["drain", "--queue", DEAD], &backends)["new"], 5);
    assert_eq!(answer(&["replay", "--all"], &backends)["replayed"], 5);
    for body in bodies {
        let came = wire.wait_for(ORDERS).body;
        assert!(
            came == body,
            "{} bytes came, not {}",
            came.len(),
            body.len()
        );
    }
}

#[test]
fn a_node_drains_named_queues_and_its_api_mends_and_replays() {
    let backends = Backends::create();
    let wire = Wire::connect(&backends.virtual_host.url);
    wire.declare(DEAD);
    wire.declare(ORDERS);
    let broken = Sent {
        kind: Some("order.paid"),
        message_id: Some("1"),
        headers: DIED,
        body: b"{\"amount\":-1}",
        ..Sent::default()
    };
    wire.send(DEAD, &broken);
    let node = Node::serve_with(
        &backends,
        &repository("sagas"),
        &["--dead-letter-queue", DEAD],
    );
    let letters = format!("{}/dead-letters", node.url);
    let letter = eventually("the letter is there", PATIENCE, || {
        let page = get_json(&format!("{letters}?type=order.paid&status=open"));
        page["dead_letters"].get(0).cloned()
    });
    assert_eq!(letter["origin"]["queue"], ORDERS);
    let reason = letter["reason"].as_str().unwrap();
    assert_eq!(
        reason,
        "rejected by a consumer of queue `shop.orders`: no stock for order 17"
    );
    let id = letter["id"].as_str().unwrap();

    let edit = json!({ "by": "ann", "why": "typo",
        "patch": [{ "op": "replace", "path": "/body/amount", "value": 1 }] });
    let (status, edited) = post(&format!("{letters}/{id}/edit"), &edit).unwrap();
    assert_eq!(status, 200, "{edited}");
    assert!(
        edited["diff"]
            .as_str()
            .unwrap()
            .contains("+     \"amount\": 1"),
        "{edited}"
    );
    let replay = json!({ "by": "ann", "why": "typo", "ids": [id] });
    let (status, replayed) = post(&format!("{letters}/replay"), &replay).unwrap();
    assert_eq!(
        (status, &replayed["replayed"]),
        (200, &json!(1)),
        "{replayed}"
    );
    let came = wire.wait_for(ORDERS);
    assert_eq!(came.body, b"{\"amount\":1}");
    assert_eq!(came.message_id.as_deref(), Some("1"));
    eventually("the letter is replayed", PATIENCE, || {
        let shown = get_json(&format!("{letters}/{id}"));
        (shown["status"] == "replayed").then_some(())
    });
    let (status, again) = post(&format!("{letters}/replay"), &replay).unwrap();
    assert_eq!((status, &again["replayed"]), (200, &json!(0)), "{again}");
    let check = get_json(&format!("{letters}/audit?verify=true"));
    assert_eq!(
        (&check["entries"], &check["broken"]),
        (&json!(3), &Value::Null)
    );
}

#[test]
fn a_start_that_is_refused_again_is_an_open_letter_and_the_canary_says_so() {
    let backends = Backends::create();
    let node = Node::serve(&backends, &repository("sagas"));
    let wire = Wire::connect(&backends.virtual_host.url);
    wire.send(
        START_QUEUE,
        &Sent {
            kind: Some("no-such-saga"),
            message_id: Some("m-1"),
            body: b"{\"id\":1}",
            ..Sent::default()
        },
    );
    let of_status = |status: &str, count: usize| {
        let url = format!("{}/dead-letters?status={status}", node.url);
        eventually("there are as many letters", PATIENCE, || {
            let page = get_json(&url);
            let found = page["dead_letters"].as_array().unwrap().clone();
            (found.len() == count).then_some(found)
        })
    };
    let first = of_status("open", 1).remove(0);
    let id = first["id"].as_str().unwrap();
    let replay = ["replay", id, "--why", "deployed", "--canary", "1"];
    let replay = finish(&letters(&replay, &backends));
    assert!(!replay.status.success(), "{}", told(&replay));
    assert!(told(&replay).contains(id), "{}", told(&replay));
    let second = of_status("open", 1).remove(0);
    assert_eq!(second["came_back_from"], id);
    assert_eq!(second["code"], "BST-0013");
    assert_eq!(of_status("replayed", 1)[0]["id"], id);

    // Retention takes the one that was sent, not the one that came back.
    let purge = ["purge", "--older-than", "1ms", "--why", "full"];
    let purge = finish(&letters(&purge, &backends));
    assert!(purge.status.success(), "{}", told(&purge));
    assert_eq!(of_status("open", 1)[0]["id"], second["id"]);
    of_status("replayed", 0);
}
