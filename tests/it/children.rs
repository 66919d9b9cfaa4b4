//! Sub-sagas on PostgreSQL and RabbitMQ: trips of two orders each, sold together or not at all,
//! by two nodes of which one is killed.

use std::collections::BTreeMap;

use backstitch::id::{Phase, SagaId};
use backstitch::message::correlation::{Correlation, Secret};
use backstitch::message::{REPLY_QUEUE, START_QUEUE};
use backstitch::proof::{Expected, Item, Order, prove};
use backstitch::store::postgres::{PostgresOptions, PostgresStore};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{
    Backends, Command, Node, PATIENCE, Sent, Wire, blocking, eventually, get_json, post, repository,
};

/// Sagas that run two others each.
const BUNDLES: u64 = 30;

/// How all that is ordered is called first. A part that was refused before it began is not.
const PREFIX: &str = "it-";

const BUNDLE: &str = r#"
saga: bundle
version: 1
key: ${ input.bundle_id }
steps:
  - saga: part
    for_each: ${ input.orders }
    run: place-order
    with: ${ item }
    timeout: 1m
output: { paid: "${ steps.part }" }
"#;

#[test]
fn sagas_and_what_they_run_are_all_or_nothing_though_a_node_is_killed() {
    let backends = Backends::create();
    let directory = definitions();
    let mut nodes = [
        Node::serve(&backends, directory.path()),
        Node::serve(&backends, directory.path()),
    ];
    let mut expected = shop();
    let participants = Node::start(&seeded_participants(&expected, &backends));
    // One whose second part finds its key taken: the first part is rolled back too.
    let taken = order(1_000, &customer(0));
    place(&nodes[0], "place-order", &json!(taken));
    expected
        .orders
        .insert(taken.order_id.clone(), taken.clone());

    let mut bundles = BTreeMap::new();
    let orders: Vec<Order> = expected.orders.values().cloned().collect();
    for number in 0..BUNDLES {
        let at = usize::try_from(number * 2).unwrap();
        let pair = &orders[at..at + 2];
        let input = json!({ "bundle_id": format!("bundle-{number}"), "orders": pair });
        let id = place(
            &nodes[usize::try_from(number % 2).unwrap()],
            "bundle",
            &input,
        );
        bundles.insert(id, pair.to_vec());
        if number == 15 {
            nodes[0].kill9();
            nodes[0] = Node::serve(&backends, directory.path());
        }
    }
    let clash = order(1_001, &customer(0));
    let input = json!({ "bundle_id": "clash", "orders": [clash, taken] });
    let clashing = place(&nodes[1], "bundle", &input);
    expected.orders.insert(clash.order_id.clone(), clash);

    // Each bundle and its two parts, and the order by itself.
    let all = usize::try_from(3 * (BUNDLES + 1) + 1).unwrap();
    eventually("every saga ends", PATIENCE * 2, || {
        (backends.database.ended_sagas() == all).then_some(())
    });
    eventually("every message is published", PATIENCE, || {
        (backends.database.count("outbox") == 0).then_some(())
    });
    let url = nodes[1].url.clone();
    let (mut completed, mut compensated) = (0, 0);
    for id in bundles.keys() {
        let statuses = ended_alike(&url, id);
        assert_eq!(statuses[0], statuses[1], "{id}: {statuses:?}");
        assert_eq!(statuses[0], statuses[2], "{id}: {statuses:?}");
        if statuses[0] == "completed" {
            completed += 1;
        } else {
            compensated += 1;
        }
    }
    assert!(
        completed > 3 && compensated > 3,
        "{completed}, {compensated}"
    );
    assert_eq!(ended_alike(&url, &clashing), ["compensated"; 3]);
    let clash = get_json(&format!("{url}/sagas/{clashing}"));
    let reason = clash["reason"].as_str().unwrap();
    assert!(reason.contains("is there already"), "{reason}");

    drop(participants);
    proven(&backends, &expected);
    assert_eq!(backends.database.dead_letter_codes(), [0; 0]);
}

#[test]
fn a_start_that_claims_to_be_a_sub_saga_is_refused() {
    let backends = Backends::create();
    let directory = definitions();
    let node = Node::serve(&backends, directory.path());
    let wire = Wire::connect(&backends.virtual_host.url);
    let body = json!(order(1, &customer(0))).to_string();
    let correlation = Correlation {
        saga: SagaId(Uuid::from_u128(7)),
        step: "stock".parse().unwrap(),
        phase: Phase::Reserve,
    };
    // What a participant knows: the correlation id of its own command.
    let correlation = correlation.sign(&Secret::new(backends.database.secret()));
    let mac = correlation.rsplit_once('/').unwrap().1;
    wire.send(
        START_QUEUE,
        &Sent {
            kind: Some("place-order"),
            correlation_id: Some(&correlation),
            reply_to: Some(REPLY_QUEUE),
            headers: &[("child-seal", mac), ("child-depth", "1")],
            body: body.as_bytes(),
            ..Sent::default()
        },
    );
    eventually("the forgery is kept as a dead letter", PATIENCE, || {
        (backends.database.dead_letter_codes() == [21]).then_some(())
    });
    assert_eq!(backends.database.count("sagas"), 0);
    drop(node);
}

// ---------------------------------------------------------------- fixture

/// The statuses of a bundle and its two parts, which name one another.
#[track_caller]
fn ended_alike(url: &str, bundle: &str) -> [String; 3] {
    let view = get_json(&format!("{url}/sagas/{bundle}"));
    let status = |view: &Value| view["status"].as_str().unwrap().to_owned();
    let part = |index: usize| {
        let child = view["steps"][index]["child"]["saga_id"].as_str().unwrap();
        let id: SagaId = bundle.parse().unwrap();
        let derived = id.of_child(&format!("part[{index}]").parse().unwrap());
        assert_eq!(child, derived.to_string());
        let child = get_json(&format!("{url}/sagas/{child}"));
        assert_eq!(child["parent"]["saga_id"], *bundle);
        assert_eq!(child["parent"]["step"], format!("part[{index}]"));
        assert_eq!(child["journal"]["verified"], true);
        status(&child)
    };
    [status(&view), part(0), part(1)]
}

fn definitions() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("bundle.yaml", BUNDLE);
    let order = std::fs::read_to_string(repository("sagas").join("place-order.yaml")).unwrap();
    write("place-order.yaml", &order);
    directory
}

fn customer(number: u64) -> String {
    format!("{PREFIX}customer-{number}")
}

fn article(number: u64) -> String {
    format!("{PREFIX}article-{number}")
}

fn order(number: u64, customer: &str) -> Order {
    Order {
        order_id: format!("{PREFIX}order-{number:04}"),
        customer: customer.to_owned(),
        items: vec![Item {
            sku: article(number % 5),
            quantity: 1 + number % 3,
        }],
        total: 100 + number,
    }
}

/// Some customers have no money, so that about half of the bundles fail.
fn shop() -> Expected {
    let orders = (0..2 * BUNDLES).map(|number| {
        let order = order(number, &customer(number % 7));
        (order.order_id.clone(), order)
    });
    let stock = (0..5).map(|number| (article(number), 1_000));
    let balances = (0..7).map(|number| {
        let balance = if number < 5 { 1_000_000 } else { 0 };
        (customer(number), balance)
    });
    Expected {
        saga: "place-order".to_owned(),
        stock: stock.collect(),
        balances: balances.collect(),
        orders: orders.collect(),
        prefix: PREFIX.to_owned(),
        ..Expected::default()
    }
}

fn seeded_participants(expected: &Expected, backends: &Backends) -> Command {
    let mut command = Command::backstitch(["participants"]).on(backends);
    for (flag, amounts) in [
        ("--stock", &expected.stock),
        ("--balance", &expected.balances),
    ] {
        for (name, amount) in amounts {
            command = command.with(flag).with(format!("{name}={amount}"));
        }
    }
    command
}

/// Starts a saga and returns its id.
#[track_caller]
fn place(node: &Node, saga: &str, input: &Value) -> String {
    let answer = post(&format!("{}/sagas/{saga}", node.url), input);
    let Ok((201, body)) = answer else {
        panic!("{answer:?}");
    };
    body["saga_id"].as_str().unwrap().to_owned()
}

/// Everything that was put in came out once, and nothing is left over.
#[track_caller]
fn proven(backends: &Backends, expected: &Expected) {
    let proofs = blocking(async || {
        let url = &backends.database.url;
        let store = PostgresStore::open(url, PostgresOptions::default()).await?;
        prove(&store, &store, expected).await
    });
    let proofs = proofs.unwrap();
    assert!(proofs.iter().all(|proof| proof.held), "{proofs:#?}");
}
