//! The whole program as people run it, on PostgreSQL and RabbitMQ: nodes and participants in
//! processes of their own, orders over HTTP, `kill -9` in the middle, and the proof that it adds up.

use std::collections::BTreeMap;

use backstitch::proof::{Expected, Item, Order, prove};
use backstitch::store::postgres::{PostgresOptions, PostgresStore};
use serde_json::json;

use crate::fixture::{
    Backends, Command, Node, PATIENCE, blocking, eventually, finish, post, repository, told,
};

/// Orders of one run; enough that a kill finds sagas in every state.
const ORDERS: u64 = 200;

#[test]
fn orders_are_all_or_nothing_though_a_node_and_the_participants_are_killed() {
    let backends = Backends::create();
    let expected = shop();
    let mut nodes = [
        Node::serve(&backends, &repository("sagas")),
        Node::serve(&backends, &repository("sagas")),
    ];
    let mut participants = Node::start(&seeded_participants(&expected, &backends));

    for (number, order) in expected.orders.values().enumerate() {
        place(&nodes[number % 2], order);
        if number == 80 {
            nodes[0].kill9();
            nodes[0] = Node::serve(&backends, &repository("sagas"));
        }
        if number == 120 {
            participants.kill9();
            participants = Node::start(&seeded_participants(&expected, &backends));
        }
    }
    let all = usize::try_from(ORDERS).unwrap();
    eventually("every saga ends", PATIENCE * 2, || {
        (backends.database.ended_sagas() == all).then_some(())
    });
    // What the killed ones had committed and not yet published is swept up after a grace period.
    eventually("every message is published", PATIENCE, || {
        (backends.database.count("outbox") == 0).then_some(())
    });
    for node in nodes.iter_mut().chain([&mut participants]) {
        assert!(node.terminate().success(), "{}", node.log());
    }
    proven(&backends, &expected);
}

#[test]
fn check_accepts_the_shipped_sagas_and_says_where_a_broken_one_is_wrong() {
    let good = finish(&Command::backstitch([
        "check",
        "sagas/",
        "examples/python-participant/",
    ]));
    assert!(good.status.success(), "{}", told(&good));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broken.yaml");
    let text =
        "saga: broken\nversion: 1\nkey: ${ input.id }\nsteps:\n  - step: a\n    reserve: b.c\n";
    std::fs::write(&file, text).unwrap();
    let bad = finish(&Command::backstitch(["check"]).with(&file));
    assert_eq!(bad.status.code().map(|code| code != 0), Some(true));
    // Line 5 or 6: `reserve` without `compensate`.
    let said = told(&bad);
    assert!(
        said.contains("broken.yaml:") && said.contains("compensate"),
        "{said}"
    );
}

#[test]
fn a_node_asked_to_stop_finishes_and_says_so_with_its_status() {
    let backends = Backends::create();
    let mut node = Node::serve(&backends, &repository("sagas"));
    assert!(node.terminate().success(), "{}", node.log());
}

// ---------------------------------------------------------------- fixture

/// Articles, customers and orders: some articles run short, one customer has no money.
fn shop() -> Expected {
    let named = |what: &str, count: u64, amount: u64| -> BTreeMap<String, u64> {
        let name = |number| (format!("{what}-{number}"), amount);
        (0..count).map(name).collect()
    };
    let mut stock = named("article", 10, 1_000);
    stock.insert("article-9".to_owned(), 5);
    let mut balances = named("customer", 8, 1_000_000);
    balances.insert("customer-7".to_owned(), 0);
    let order = |number: u64| {
        let item = |number: u64| Item {
            sku: format!("article-{}", number % 10),
            quantity: 1 + number % 3,
        };
        let order = Order {
            order_id: format!("order-{number:04}"),
            customer: format!("customer-{}", number % 8),
            items: vec![item(number), item(number + 3)],
            total: 100 + number,
        };
        (order.order_id.clone(), order)
    };
    Expected {
        saga: "place-order".to_owned(),
        stock,
        balances,
        orders: (0..ORDERS).map(order).collect(),
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

#[track_caller]
fn place(node: &Node, order: &Order) {
    let answer = post(&format!("{}/sagas/place-order", node.url), &json!(order));
    assert!(matches!(answer, Ok((201, _))), "{answer:?}");
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
    let completed = backends.database.count("sagas WHERE status = 'completed'");
    let compensated = backends
        .database
        .count("sagas WHERE status = 'compensated'");
    assert!(
        completed > 20 && compensated > 20,
        "{completed} completed, {compensated} compensated"
    );
}
