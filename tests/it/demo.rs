//! `backstitch demo` as a stranger runs it: on the embedded default, on PostgreSQL and RabbitMQ, and
//! with a `kill -9` in the middle.

use std::process::Output;

use serde_json::Value;

use crate::fixture::{Backends, Command, Node, PATIENCE, eventually, finish, repository, told};

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
fn a_node_killed_in_the_middle_of_the_demo_and_started_again_changes_no_total() {
    const ORDERS: u64 = 600;
    let backends = Backends::create();
    let sagas = repository("sagas");
    let mut node = Node::serve(&backends, &sagas);
    let _participants = Node::start(&Command::backstitch(["participants"]).on(&backends));
    backends.virtual_host.wait_for_consumer("payments");
    let demo = Command::backstitch(["demo", "--attach", "--orders", "600", "--json"]).on(&backends);

    let output = std::thread::scope(|scope| {
        let running = scope.spawn(|| finish(&demo));
        eventually("a tenth of the sagas have ended", PATIENCE, || {
            (backends.database.ended_sagas() >= 60).then_some(())
        });
        node.kill9();
        let ended = backends.database.ended_sagas();
        assert!(ended < 600, "killed too late to mean anything: {ended}");
        node = Node::serve(&backends, &sagas);
        running.join().unwrap()
    });
    proven(&output, ORDERS);
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
