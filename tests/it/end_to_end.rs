//! The whole program as people run it: `demo`, on the embedded default and on PostgreSQL and
//! RabbitMQ, and with a `kill -9` in the middle.

use std::process::Output;

use serde_json::{Value, json};

use crate::fixture::{
    Backends, Command, Node, PATIENCE, eventually, finish, get, post, repository,
};

#[test]
fn the_demo_proves_its_totals_on_the_embedded_default() {
    let demo = Command::backstitch(["demo", "--orders", "300", "--seed", "1", "--json"]);
    proven(&finish(&demo), 300);
}

#[test]
fn the_demo_proves_its_totals_on_postgresql_and_rabbitmq() {
    let backends = Backends::create();
    let demo = Command::backstitch(["demo", "--orders", "300", "--seed", "2", "--json"]);
    proven(&finish(&demo.on(&backends)), 300);
}

#[test]
fn a_demo_killed_in_the_middle_ends_with_all_proofs_when_started_again() {
    let backends = Backends::create();
    let orders = ["demo", "--orders", "600", "--seed", "3", "--json"];
    let mut first = Node::start(&Command::backstitch(orders).on(&backends));
    eventually("some sagas have ended", PATIENCE, || {
        (backends.database.ended_sagas() > 50).then_some(())
    });
    first.kill9();
    let ended = backends.database.ended_sagas();
    assert!(ended < 600, "killed too late to mean anything: {ended}");

    proven(&finish(&Command::backstitch(orders).on(&backends)), 600);
}

#[test]
fn participants_in_a_process_of_their_own_answer() {
    let backends = Backends::create();
    let node = Node::serve(&backends, &repository("sagas"));
    let mut participants = Node::participants(&backends);
    let order = json!({
        "order_id": "1",
        "customer": "nobody",
        "total": 100,
        "items": [{ "sku": "no such article", "quantity": 1 }],
    });
    let (status, started) = post(&format!("{}/sagas/place-order", node.url), &order).unwrap();
    assert!((200..300).contains(&status), "{started}");
    let id = started["saga_id"].as_str().unwrap();

    // Nobody has the article, so there is a no to undo the order for.
    let saga = eventually("the saga ends", PATIENCE, || {
        let (_, saga) = get(&format!("{}/sagas/{id}", node.url)).ok()?;
        (!saga["ended_at"].is_null()).then_some(saga)
    });
    assert_eq!(saga["status"], "compensated", "{saga}");
    assert!(participants.terminate().success(), "{}", participants.log());
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

/// The demo ended well, and its summary on stdout is JSON about this many orders.
#[track_caller]
fn proven(output: &Output, orders: u64) {
    assert!(output.status.success(), "{}", told(output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["orders"], orders, "{summary}");
    let completed = summary["completed"].as_u64().unwrap();
    let compensated = summary["compensated"].as_u64().unwrap();
    assert_eq!(completed + compensated, orders, "{summary}");
    assert!(completed > 0 && compensated > 0, "{summary}");
}

/// What a command printed.
fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}
