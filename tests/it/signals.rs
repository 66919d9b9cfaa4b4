//! Signals and domain events on PostgreSQL and RabbitMQ: two nodes, one of them killed in the middle,
//! a shop that knows nothing of Backstitch.

use backstitch::message::SIGNAL_QUEUE;
use serde_json::json;

use crate::fixture::{
    Backends, Command, Node, PATIENCE, Sent, Wire, eventually, finish, get_json, told,
};

/// Events start it, an event and a signal bring it to its end.
const PARCEL: &str = "
saga: parcel
version: 1
key: ${ input.order }
timeout: 30d
start:
  on: { exchange: shop, routing_key: order.placed, with: { order: '${ event.id }' } }
steps:
  - wait: packed
    on: { exchange: depot, routing_key: 'parcel.#', key: '${ event.order }' }
  - wait: arrived
    timeout: 20d
output: { packed: '${ steps.packed.by }' }
";

/// Enough that a kill finds events under way.
const ORDERS: i64 = 60;

#[test]
fn events_start_sagas_and_end_their_waits_though_a_node_is_killed() {
    let backends = Backends::create();
    let sagas = tempfile::tempdir().unwrap();
    std::fs::write(sagas.path().join("parcel.yaml"), PARCEL).unwrap();
    let mut nodes = [
        Node::serve(&backends, sagas.path()),
        Node::serve(&backends, sagas.path()),
    ];
    let wire = Wire::connect(&backends.virtual_host.url);
    for number in 0..ORDERS {
        let order = format!("o-{number}");
        let placed = json!({ "id": order }).to_string();
        let packed = json!({ "order": order, "by": "ann" }).to_string();
        // Each event twice, and each packed right behind its order.
        for _ in 0..2 {
            event(&wire, "shop", "order.placed", &placed);
            event(&wire, "depot", "parcel.de.packed", &packed);
        }
        event(&wire, "depot", "parcel.de.packed", r#"{"order":"others"}"#);
        if number == ORDERS / 2 {
            // The one that takes the events.
            nodes[0].kill9();
        }
    }
    eventually("every order has its saga", PATIENCE, || {
        (backends.database.count("sagas") == ORDERS).then_some(())
    });
    nodes[0] = Node::serve(&backends, sagas.path());

    for number in 0..ORDERS - 1 {
        let key = format!("o-{number}");
        let signal = Sent {
            kind: Some("arrived"),
            // What has no id is a signal of its own each time.
            message_id: Some(&key),
            headers: &[("saga", "parcel"), ("saga-key", &key)],
            body: b"{}",
            ..Sent::default()
        };
        wire.send(SIGNAL_QUEUE, &signal);
        wire.send(SIGNAL_QUEUE, &signal);
    }
    let last = format!("o-{}", ORDERS - 1);
    let url = nodes[1].url.clone();
    let words = [
        "signal", "parcel", &last, "arrived", "--id", "s-1", "--url", &url,
    ];
    for expected in ["accepted", "duplicate"] {
        let said = finish(&Command::backstitch(words));
        assert_eq!(told(&said).trim(), expected);
    }
    eventually("every saga has completed", PATIENCE, || {
        let completed = backends.database.count("sagas WHERE status = 'completed'");
        (completed == ORDERS).then_some(())
    });
    assert_eq!(backends.database.dead_letter_codes(), Vec::<i32>::new());
    let sagas = get_json(&format!("{url}/sagas?key={last}"));
    let id = sagas["sagas"][0]["saga_id"].as_str().unwrap();
    let saga = get_json(&format!("{url}/sagas/{id}"));
    assert_eq!(saga["output"], json!({ "packed": "ann" }));

    let late = Sent {
        kind: Some("arrived"),
        headers: &[("saga", id)],
        body: b"\"again\"",
        ..Sent::default()
    };
    wire.send(SIGNAL_QUEUE, &late);
    eventually("the late signal is kept", PATIENCE, || {
        (backends.database.dead_letter_codes() == [62]).then_some(())
    });
}

#[track_caller]
fn event(wire: &Wire, exchange: &str, routing_key: &str, body: &str) {
    let message = Sent {
        body: body.as_bytes(),
        ..Sent::default()
    };
    wire.publish(exchange, routing_key, &message);
}
