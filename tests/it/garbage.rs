//! Messages that no client library would write, beside good ones: each becomes a letter, and nothing
//! else notices.

mod client;

use std::fs;

use serde_json::json;

use self::client::{Client, long, short};
use crate::fixture::{
    Backends, Command, Node, PATIENCE, Sent, Wire, eventually, finish, get, told,
};

/// Garbage to all places together; `BACKSTITCH_TEST_GARBAGE` asks for another number.
const GARBAGE: usize = 2_100;
/// Good messages beside it.
const GOOD: usize = 200;
/// Levels of nesting that still fit a frame.
const LEVELS_MAX: usize = 26_000;

/// Asks a participant once.
const THANK: &str = "saga: thank
version: 1
key: ${ input.id }
start: { on: { exchange: shop, routing_key: '#' } }
timeout: 1h
steps:
  - step: receipt
    with: { order_id: '${ input.id }' }
    confirm: mailer.send-receipt
";

/// Where garbage goes: exchange, key.
const PLACES: [(&str, &str); 5] = [
    ("", "backstitch.start"),
    ("", "backstitch.replies"),
    ("", "backstitch.signals"),
    ("", "mailer"),
    ("shop", "order.placed"),
];

#[test]
fn no_message_stops_a_node_or_costs_another_one_anything() {
    let backends = Backends::create();
    let sagas = tempfile::tempdir().unwrap();
    fs::write(sagas.path().join("thank.yaml"), THANK).unwrap();
    let mut node = Node::serve_with(&backends, sagas.path(), &["--with-participants"]);
    backends.virtual_host.wait_for_consumer("mailer");
    let mut client = Client::connect(&backends.virtual_host.url);
    let mut sent = 0;
    for round in 0..garbage_wanted() / PLACES.len() {
        for (exchange, key) in PLACES {
            let list = garbage(sent);
            let body = json!({ "id": format!("garbage-{sent}") }).to_string();
            // The routing key is a text of strangers too.
            let key = if exchange.is_empty() || round % 2 == 0 {
                key.as_bytes().to_vec()
            } else {
                [key.as_bytes(), b".\xff\xfe"].concat()
            };
            client.publish(exchange.as_bytes(), &key, &list, body.as_bytes());
            sent += 1;
        }
        if round < GOOD {
            let list = [&[0, 0b0010_0000][..], &short(b"thank")].concat();
            let body = json!({ "id": format!("good-{round}") }).to_string();
            client.publish(b"", b"backstitch.start", &list, body.as_bytes());
        }
    }
    // Straight to the queue that each node drains, and that has no delivery limit.
    for _ in 0..20 {
        client.publish(b"", b"backstitch.dead-letters", &garbage(sent), b"{}");
        sent += 1;
    }
    client.confirmed();
    eventually("all good ones are done", PATIENCE * 3, || {
        (backends.database.ended_sagas() == GOOD).then_some(())
    });
    let sent = i64::try_from(sent).unwrap();
    eventually("all others are letters", PATIENCE * 3, || {
        (backends.database.count("backstitch.dead_letters") >= sent).then_some(())
    });
    assert_eq!(backends.database.count("backstitch.dead_letters"), sent);
    let unreadable =
        "backstitch.dead_letters WHERE code = 77 AND properties LIKE '%\"unreadable\"%'";
    assert_eq!(backends.database.count(unreadable), sent - 20);
    node.assert_running();
    let (status, ready) = get(&format!("{}/readyz", node.url)).unwrap();
    assert_eq!(status, 200, "{ready}");
    let log = node.log();
    // RabbitMQ 3.10 may stumble over a consumer of a queue that it is still making; from the first
    // letter on, no connection is lost.
    let since = log.find("dead letter").unwrap_or_default();
    assert!(
        !log[since..].contains("no connection to the broker"),
        "{log}"
    );
    assert!(node.terminate().success());
}

#[test]
fn a_letter_that_can_not_be_read_is_shown_kept_and_sent_again_once_mended() {
    let backends = Backends::create();
    let wire = Wire::connect(&backends.virtual_host.url);
    wire.declare("bin");
    wire.declare("orders");
    let list = [&[0, 0b1010_0000][..], &short(b"id-\xff"), &short(b"order")].concat();
    Client::connect(&backends.virtual_host.url).publish(b"", b"bin", &list, b"{}");
    Client::connect(&backends.virtual_host.url).publish(b"", b"bin", &deep(5_000), b"{\"deep\":1}");
    let run = |arguments: &[&str]| {
        let command = Command::backstitch(["dead-letters"]).on(&backends);
        let with = |command: Command, argument: &&str| command.with(argument);
        finish(&arguments.iter().fold(command, with))
    };
    eventually("both are drained", PATIENCE, || {
        let output = run(&["drain", "--queue", "bin"]);
        assert!(output.status.success(), "{}", told(&output));
        (backends.database.count("backstitch.dead_letters") == 2).then_some(())
    });
    let ids: Vec<String> = backends.database.query(async |connection| {
        sqlx::query_scalar("SELECT id::text FROM backstitch.dead_letters ORDER BY length(body)")
            .fetch_all(connection)
            .await
    });
    let shown = told(&run(&["show", &ids[0]]));
    assert!(shown.contains("its message id is not UTF-8"), "{shown}");
    assert!(shown.contains(&hex::encode(&list)), "{shown}");
    let refused = run(&["replay", &ids[0], "--to", "orders", "--why", "try"]);
    let why = told(&refused);
    assert!(why.contains("/properties/unreadable"), "{why}");
    let mend = json!([
        { "op": "remove", "path": "/properties/unreadable" },
        { "op": "replace", "path": "/properties/message_id", "value": "id-1" },
    ]);
    let mended = run(&[
        "edit",
        &ids[0],
        "--patch",
        &mend.to_string(),
        "--why",
        "read",
    ]);
    assert!(mended.status.success(), "{}", told(&mended));
    let replayed = run(&["replay", &ids[0], "--to", "orders", "--why", "mended"]);
    assert!(replayed.status.success(), "{}", told(&replayed));
    let order = wire.wait_for("orders");
    assert_eq!(order.message_id.as_deref(), Some("id-1"));
    assert_eq!(order.kind.as_deref(), Some("order"));
}

#[test]
fn an_address_over_which_the_broker_stumbles_is_refused_at_the_door() {
    const STARTS: usize = 5;
    let backends = Backends::create();
    let sagas = tempfile::tempdir().unwrap();
    fs::write(sagas.path().join("thank.yaml"), THANK).unwrap();
    let mut node = Node::serve_with(&backends, sagas.path(), &["--with-participants"]);
    let wire = Wire::connect(&backends.virtual_host.url);
    for n in 0..STARTS {
        let body = json!({ "id": n.to_string() }).to_string();
        let start = Sent {
            kind: Some("thank"),
            // RabbitMQ 3.10 ends the connection over such a name.
            reply_to: Some("amq.rabbitmq.reply-to.rubbish"),
            correlation_id: Some("c"),
            body: body.as_bytes(),
            ..Sent::default()
        };
        wire.send("backstitch.start", &start);
    }
    let refused = "backstitch.dead_letters WHERE code = 93";
    eventually("all are letters", PATIENCE, || {
        (backends.database.count(refused) == i64::try_from(STARTS).unwrap()).then_some(())
    });
    eventually("nothing is published again and again", PATIENCE, || {
        (backends.database.count("backstitch.outbox") == 0).then_some(())
    });
    assert!(node.terminate().success());
}

/// How much garbage is sent.
fn garbage_wanted() -> usize {
    let wanted = std::env::var("BACKSTITCH_TEST_GARBAGE").ok();
    wanted.map_or(GARBAGE, |text| text.parse().expect("a number"))
}

/// A list of properties that the library can't take, of a kind that `number` chooses.
fn garbage(number: usize) -> Vec<u8> {
    let bad = [b"\xff\0 ".as_slice(), number.to_string().as_bytes()].concat();
    // Content type, content encoding, correlation id, reply-to, message id, type, app id, cluster id.
    let texts = [15, 14, 10, 9, 7, 5, 3, 2];
    match number % 6 {
        0 | 1 => {
            let flags: u16 = 1 << texts[number / 6 % texts.len()];
            [&flags.to_be_bytes()[..], &short(&bad)].concat()
        }
        2 => headers(&[&short(&bad)[..], b"I\0\0\0\x01"].concat()),
        3 => {
            let levels = [16, 17, 40, 126, 127, 128, 1_000, 5_000];
            let rare = (number % 1_500 == 3).then_some(LEVELS_MAX);
            deep(rare.unwrap_or(levels[number / 6 % levels.len()]))
        }
        4 => headers(&[&short(b"\x01backstitch")[..], b"l\0\0\0\0\0\0\0\x01"].concat()),
        _ => {
            // Each type there is, nested in a table, and one text that is none.
            let mut table = Vec::new();
            for (tag, value) in [
                (b't', &b"\x01"[..]),
                (b'b', b"\xff"),
                (b'B', b"\xff"),
                (b's', b"\xff\xff"),
                (b'u', b"\xff\xff"),
                (b'I', b"\xff\xff\xff\xff"),
                (b'i', b"\xff\xff\xff\xff"),
                (b'f', b"\x3f\xc0\0\0"),
                (b'D', b"\xff\xff\xff\xff\xff"),
                (b'l', b"\xff\xff\xff\xff\xff\xff\xff\xff"),
                (b'd', b"\x3f\xf8\0\0\0\0\0\0"),
                (b'T', b"\xff\xff\xff\xff\xff\xff\xff\xff"),
                (b'S', b"\0\0\0\x02\xff\0"),
                (b'x', b"\0\0\0\x02\xff\0"),
                (b'V', b""),
            ] {
                table.extend(short(&[tag]));
                table.push(tag);
                table.extend(value);
            }
            let mut outer = short(b"all");
            outer.push(b'F');
            outer.extend(long(&table));
            let flags: u16 = (1 << 13) | (1 << 7);
            [&flags.to_be_bytes()[..], &long(&outer), &short(&bad)].concat()
        }
    }
}

fn headers(table: &[u8]) -> Vec<u8> {
    [&[0b0010_0000, 0][..], &long(table)].concat()
}

/// One header, nested in so many arrays.
fn deep(levels: usize) -> Vec<u8> {
    let mut ends = Vec::new();
    // From the inside, so that each level knows its size; written from the outside.
    let mut size = 1_u32;
    for _ in 0..levels {
        ends.push(size);
        size += 5;
    }
    let mut table = short(b"deep");
    for size in ends.iter().rev() {
        table.push(b'A');
        table.extend(size.to_be_bytes());
    }
    table.push(b'V');
    headers(&table)
}
