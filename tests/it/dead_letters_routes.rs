//! Where replays and moves go on RabbitMQ, so that what is refused again is not lost; and what a look at
//! a queue costs its messages.

use lapin::ExchangeKind;
use lapin::types::AMQPValue;
use serde_json::{Value, json};

use crate::fixture::{Backends, Command, PATIENCE, Sent, Wire, eventually, finish, text, told};

const WORK: &str = "labels";
const DEAD: &str = "labels.dead";
const OTHER: &str = "statistics";

struct Shop {
    backends: Backends,
    wire: Wire,
}

impl Shop {
    fn open() -> Self {
        let backends = Backends::create();
        let wire = Wire::connect(&backends.virtual_host.url);
        wire.declare(DEAD);
        Self { backends, wire }
    }

    fn letters(&self, words: &[&str]) -> Command {
        Command::backstitch(["dead-letters"].iter().chain(words).copied()).on(&self.backends)
    }

    #[track_caller]
    fn answer(&self, words: &[&str]) -> Value {
        let output = finish(&self.letters(words).with("--json"));
        assert!(output.status.success(), "{}", told(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command that must fail; gives all that it said.
    #[track_caller]
    fn failed(&self, words: &[&str]) -> String {
        let output = finish(&self.letters(words));
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        told(&output)
    }

    fn waits(&self, queue: &str, count: u32) {
        eventually("the messages are there", PATIENCE, || {
            (self.wire.waiting(queue) == count).then_some(())
        });
    }
}

/// How messages come to the work queue, and what dies there to the dead-letter queue.
struct Topology {
    name: &'static str,
    declare: fn(&Wire),
    exchange: &'static str,
    key: &'static str,
    headers: &'static [(&'static str, &'static str)],
}

const TOPOLOGIES: [Topology; 6] = [
    Topology {
        name: "a topic exchange, and dead letters that keep their key",
        declare: |wire| {
            wire.exchange("in", ExchangeKind::Topic, &[]);
            wire.exchange("out", ExchangeKind::Topic, &[]);
            wire.declare_with(WORK, &[("x-dead-letter-exchange", text("out"))]);
            wire.bind(WORK, "in", "parcel.*");
            wire.bind(DEAD, "out", "parcel.*");
        },
        exchange: "in",
        key: "parcel.packed",
        headers: &[],
    },
    Topology {
        name: "a fanout exchange that another queue is bound to",
        declare: |wire| {
            wire.exchange("in", ExchangeKind::Fanout, &[]);
            wire.exchange("out", ExchangeKind::Direct, &[]);
            wire.declare_with(WORK, &[("x-dead-letter-exchange", text("out"))]);
            wire.bind(WORK, "in", "");
            wire.bind(OTHER, "in", "");
            wire.bind(DEAD, "out", "packed");
        },
        exchange: "in",
        key: "packed",
        headers: &[],
    },
    Topology {
        name: "headers exchanges",
        declare: |wire| {
            wire.exchange("in", ExchangeKind::Headers, &[]);
            wire.exchange("out", ExchangeKind::Headers, &[]);
            wire.declare_with(WORK, &[("x-dead-letter-exchange", text("out"))]);
            for (queue, exchange) in [(WORK, "in"), (DEAD, "out")] {
                let all = [("x-match", text("all")), ("kind", text("parcel"))];
                wire.bind_with(queue, exchange, "", &all);
            }
        },
        exchange: "in",
        key: "k",
        headers: &[("kind", "parcel")],
    },
    Topology {
        name: "an alternate exchange, before and behind",
        declare: |wire| {
            wire.exchange("in.rest", ExchangeKind::Fanout, &[]);
            let alternate = [("alternate-exchange", text("in.rest"))];
            wire.exchange("in", ExchangeKind::Direct, &alternate);
            wire.exchange("out.rest", ExchangeKind::Fanout, &[]);
            let alternate = [("alternate-exchange", text("out.rest"))];
            wire.exchange("out", ExchangeKind::Topic, &alternate);
            wire.declare_with(WORK, &[("x-dead-letter-exchange", text("out"))]);
            wire.bind(WORK, "in.rest", "");
            wire.bind(DEAD, "out.rest", "");
        },
        exchange: "in",
        key: "unknown",
        headers: &[],
    },
    Topology {
        name: "a delay queue before the work queue",
        declare: |wire| {
            wire.exchange("delayed", ExchangeKind::Topic, &[]);
            wire.exchange("out", ExchangeKind::Topic, &[]);
            let delay = [
                ("x-dead-letter-exchange", text("delayed")),
                ("x-dead-letter-routing-key", text("parcel.late")),
                ("x-message-ttl", AMQPValue::LongInt(50)),
            ];
            wire.declare_with("delay", &delay);
            wire.declare_with(WORK, &[("x-dead-letter-exchange", text("out"))]);
            wire.bind(WORK, "delayed", "parcel.*");
            wire.bind(DEAD, "out", "parcel.*");
        },
        exchange: "",
        key: "delay",
        headers: &[],
    },
    Topology {
        name: "a quorum queue that dead-letters at least once",
        declare: |wire| {
            wire.exchange("in", ExchangeKind::Topic, &[]);
            wire.exchange("out", ExchangeKind::Topic, &[]);
            let quorum = [
                ("x-queue-type", text("quorum")),
                ("x-dead-letter-exchange", text("out")),
                ("x-dead-letter-strategy", text("at-least-once")),
                ("x-overflow", text("reject-publish")),
            ];
            wire.declare_with(WORK, &quorum);
            wire.bind(WORK, "in", "parcel.*");
            wire.bind(DEAD, "out", "parcel.*");
        },
        exchange: "in",
        key: "parcel.packed",
        headers: &[],
    },
];

#[test]
fn what_is_refused_again_dies_as_it_died_before() {
    for topology in TOPOLOGIES {
        let Topology {
            name,
            exchange,
            key,
            headers,
            ..
        } = topology;
        println!("{name}");
        let shop = Shop::open();
        let wire = &shop.wire;
        wire.declare(OTHER);
        (topology.declare)(wire);
        let sent = Sent {
            message_id: Some("m1"),
            headers,
            body: b"{}",
            ..Sent::default()
        };
        wire.publish(exchange, key, &sent);
        let copies = wire.waiting(OTHER);
        wire.refuse(WORK);
        shop.waits(DEAD, 1);

        // With the database.
        assert_eq!(shop.answer(&["drain", "--queue", DEAD])["new"], 1);
        let replayed = shop.answer(&["replay", "--queue", WORK, "--why", "mended, I think"]);
        assert_eq!(replayed["replayed"], 1, "{name}: {replayed}");
        wire.refuse(WORK);
        shop.waits(DEAD, 1);

        // And without it.
        let moved = shop.answer(&["move", "--from", DEAD, "--to", WORK]);
        assert_eq!(
            (&moved["moved"], &moved["left"]),
            (&json!(1), &json!(0)),
            "{name}"
        );
        wire.refuse(WORK);
        shop.waits(DEAD, 1);
        assert_eq!(
            wire.waiting(OTHER),
            copies,
            "{name}: nobody else gets it again"
        );

        // The letter knows where it belongs, however often it comes back.
        assert_eq!(shop.answer(&["drain", "--queue", DEAD])["new"], 1);
        let open = shop.answer(&["list", "--status", "open"]);
        let origin = &open["dead_letters"][0]["origin"];
        assert_eq!(origin["queue"], WORK, "{name}: {open}");
    }
}

#[test]
fn a_key_that_is_also_a_queues_name_is_refused_and_goes_by_the_exchange_when_asked() {
    let shop = Shop::open();
    let wire = &shop.wire;
    wire.exchange("in", ExchangeKind::Direct, &[]);
    wire.exchange("out", ExchangeKind::Direct, &[]);
    wire.declare_with(WORK, &[("x-dead-letter-exchange", text("out"))]);
    wire.declare("packed");
    wire.bind(WORK, "in", "packed");
    wire.bind(DEAD, "out", "packed");
    wire.publish(
        "in",
        "packed",
        &Sent {
            body: b"{}",
            ..Sent::default()
        },
    );
    wire.refuse(WORK);
    shop.waits(DEAD, 1);
    shop.answer(&["drain", "--queue", DEAD]);
    let said = shop.failed(&["replay", "--all"]);
    assert!(
        ["BST-0056", "`out`", "`packed`", "--as-published"]
            .iter()
            .all(|word| said.contains(word)),
        "{said}"
    );
    assert_eq!(wire.waiting(WORK), 0);
    let replayed = shop.answer(&["replay", "--all", "--as-published"]);
    assert_eq!(replayed["replayed"], 1, "{replayed}");
    assert_eq!(wire.refuse(WORK), ("in".to_owned(), "packed".to_owned()));
    shop.waits(DEAD, 1);
    assert_eq!(wire.waiting("packed"), 0);
    // `EXCHANGE/KEY` names the way too.
    let moved = shop.answer(&["move", "--from", DEAD, "--to", "in/packed"]);
    assert_eq!(moved["moved"], 1, "{moved}");
    wire.refuse(WORK);
    shop.waits(DEAD, 1);
}

#[test]
fn a_canary_that_nobody_would_see_again_stops_the_replay() {
    let shop = Shop::open();
    let wire = &shop.wire;
    wire.declare(WORK);
    for number in 0..3 {
        let origin = [
            ("x-first-death-queue", "gone"),
            ("x-first-death-reason", "rejected"),
        ];
        let id = format!("m{number}");
        let sent = Sent {
            message_id: Some(&id),
            headers: &origin,
            body: b"{}",
            ..Sent::default()
        };
        wire.send(DEAD, &sent);
    }
    shop.answer(&["drain", "--queue", DEAD]);
    let replay = [
        "replay",
        "--all",
        "--to",
        WORK,
        "--canary",
        "1",
        "--canary-wait",
        "100ms",
    ];
    let said = shop.failed(&replay);
    assert!(said.contains("nobody can know"), "{said}");
    assert!(said.contains("without a dead-letter exchange"), "{said}");
    assert_eq!(wire.waiting(WORK), 1);
    let rest = shop.answer(&[&replay[..], &["--anyway"]].concat());
    assert_eq!(rest["replayed"], 2, "{rest}");
    // One line for all that are refused for the same reason.
    let said = shop.failed(&["replay", "--all", "--status", "replayed"]);
    assert_eq!(said.matches("replayed already").count(), 1, "{said}");
    assert!(said.contains("3 refused"), "{said}");
}

#[test]
fn a_look_costs_each_message_one_delivery_and_no_queue_its_messages() {
    let shop = Shop::open();
    let wire = &shop.wire;
    wire.declare(WORK);
    let quorum = |limit| {
        [
            ("x-queue-type", text("quorum")),
            ("x-delivery-limit", AMQPValue::LongInt(limit)),
        ]
    };
    for (queue, limit) in [("patient", 50), ("touchy", 2)] {
        wire.declare_with(queue, &quorum(limit));
        for _ in 0..20 {
            wire.send(
                queue,
                &Sent {
                    body: b"{}",
                    ..Sent::default()
                },
            );
        }
    }
    let look = |queue| ["move", "--from", queue, "--to", WORK, "--where", "false"];
    let looked = shop.answer(&look("patient"));
    assert_eq!(
        (&looked["moved"], &looked["left"]),
        (&json!(0), &json!(20)),
        "{looked}"
    );
    let dry = ["move", "--from", "patient", "--to", WORK, "--dry-run"];
    assert_eq!(shop.answer(&dry)["moved"], 20);
    assert_eq!(wire.delivery_counts("patient"), vec![2; 20]);

    let said = shop.failed(&look("touchy"));
    assert!(said.contains("BST-0057"), "{said}");
    for _ in 0..4 {
        let looked = shop.answer(&[&look("touchy")[..], &["--anyway"]].concat());
        assert_eq!(
            (&looked["left"], &looked["lost"]),
            (&json!(20), &json!(0)),
            "{looked}"
        );
        shop.waits("touchy", 20);
    }
    // All of them, and not one delivery of what is not moved.
    let some = ["move", "--from", "touchy", "--to", WORK, "--max", "5"];
    assert_eq!(shop.answer(&some)["moved"], 5);
    // The broker counts what was given back a moment later.
    shop.waits("touchy", 15);
    shop.waits(WORK, 5);
}

#[test]
fn a_header_that_fits_no_frame_is_dropped_from_many_letters_at_once() {
    let shop = Shop::open();
    let wire = &shop.wire;
    wire.declare(WORK);
    let trace = "x".repeat(70_000);
    let headers = [
        ("x-first-death-queue", WORK),
        ("x-first-death-reason", "rejected"),
        ("x-exception-stacktrace", trace.as_str()),
    ];
    for _ in 0..2 {
        wire.send(
            DEAD,
            &Sent {
                headers: &headers,
                body: b"{}",
                ..Sent::default()
            },
        );
    }
    shop.answer(&["drain", "--queue", DEAD]);
    let said = shop.failed(&["replay", "--all"]);
    assert!(
        said.contains("`x-exception-stacktrace` is the largest"),
        "{said}"
    );
    let edit = [
        "edit",
        "--all",
        "--drop-header",
        "x-exception-stacktrace",
        "--why",
        "too large",
    ];
    assert_eq!(shop.answer(&edit)["edited"], 2);
    assert_eq!(shop.answer(&["replay", "--all"])["replayed"], 2);
    shop.waits(WORK, 2);
}
