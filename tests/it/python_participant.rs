//! Sagas whose participant is a stranger: `examples/python-participant/`, its own AMQP library, its
//! own database, its own dedupe. Because it shares no code with us, what it counts is a proof.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

use crate::fixture::{
    Backends, Command, Node, PATIENCE, Sent, VirtualHost, Wire, blocking, eventually, get,
    get_json, post, python, repository,
};

/// The address to which `shipping.py` refuses to deliver.
const NOWHERE: &str = "nowhere";

#[test]
fn a_saga_completes_or_is_undone_with_a_participant_of_another_language() {
    let backends = Backends::create();
    let shipping = Shipping::start(&backends.virtual_host);
    let node = Node::serve(&backends, &sagas());

    let sent = start(&node, "good", "2 Bank Street");
    assert_eq!(ended(&node, &sent)["status"], "completed");
    let refused = start(&node, "bad", NOWHERE);
    assert_eq!(ended(&node, &refused)["status"], "compensated");

    let shipments = shipping.shipments();
    let status = |id: &str| shipments.get(id).map(String::as_str);
    assert_eq!(status("good-parcel"), Some("confirmed"));
    assert_eq!(status("good-invoice"), Some("confirmed"));
    assert_eq!(status("bad-parcel"), Some("released"));
    assert_eq!(status("bad-invoice"), None);
}

#[test]
fn a_command_that_comes_twice_is_done_once_and_answered_twice() {
    let virtual_host = VirtualHost::create();
    let shipping = Shipping::start(&virtual_host);
    let wire = Wire::connect(&virtual_host.url);
    let replies = wire.own_queue();

    // The first answer must survive a refusal that would come of doing it again.
    let reserve = Sent {
        kind: Some("shipping.reserve"),
        message_id: Some("0192d5a0-0000-5000-8000-000000000001"),
        correlation_id: Some("kept as it is"),
        reply_to: Some(&replies),
        body: br#"{"shipment": "1-parcel", "address": "1 Harbour Road"}"#,
        ..Sent::default()
    };
    wire.send("shipping", &reserve);
    wire.send("shipping", &reserve);
    let first = wire.wait_for(&replies);
    let second = wire.wait_for(&replies);

    assert_eq!(first.headers["outcome"], "succeeded");
    assert_eq!(first.correlation_id.as_deref(), Some("kept as it is"));
    assert_eq!(first, second);
    assert_eq!(shipping.shipments().len(), 1);
}

#[test]
fn a_node_killed_among_others_leaves_nothing_half_done() {
    const ORDERS: usize = 120;
    let backends = Backends::create();
    let shipping = Shipping::start(&backends.virtual_host);
    let mut killed = Node::serve(&backends, &sagas());
    let survivor = Node::serve(&backends, &sagas());

    // Every fifth order can't be delivered.
    for number in 0..ORDERS {
        let node = if number % 2 == 0 { &killed } else { &survivor };
        let address = if number % 5 == 4 {
            NOWHERE
        } else {
            "2 Bank Street"
        };
        start(node, &number.to_string(), address);
        if number == ORDERS / 2 {
            // In the middle: some have ended, more have not.
            killed.kill9();
            killed = Node::serve(&backends, &sagas());
        }
    }
    eventually("every saga ends", PATIENCE * 2, || {
        (backends.database.ended_sagas() == ORDERS).then_some(())
    });

    let shipments = shipping.shipments();
    for number in 0..ORDERS {
        let of = |what: &str| {
            shipments
                .get(&format!("{number}-{what}"))
                .map(String::as_str)
        };
        let expected = if number % 5 == 4 {
            (Some("released"), None)
        } else {
            (Some("confirmed"), Some("confirmed"))
        };
        assert_eq!((of("parcel"), of("invoice")), expected, "order {number}");
    }
    assert!(killed.terminate().success());
}

// ---------------------------------------------------------------- fixture

/// The running participant and its database.
struct Shipping {
    _node: Node,
    directory: TempDir,
}

impl Shipping {
    fn start(virtual_host: &VirtualHost) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = repository("examples/python-participant/shipping.py");
        let command = Command::program(python(), [script])
            .with(&virtual_host.url)
            .with(directory.path().join("shipping.db"));
        let node = Node::start(&command);
        virtual_host.wait_for_consumer("shipping");
        Self {
            _node: node,
            directory,
        }
    }

    /// What it keeps: the status of each shipment.
    fn shipments(&self) -> BTreeMap<String, String> {
        let path = self.directory.path().join("shipping.db");
        blocking(async || {
            let mut connection = SqliteConnection::connect(&path.to_string_lossy()).await?;
            let rows: Vec<(String, String)> = sqlx::query_as("SELECT id, status FROM shipment")
                .fetch_all(&mut connection)
                .await?;
            Ok::<_, sqlx::Error>(rows.into_iter().collect())
        })
        .unwrap()
    }
}

fn sagas() -> PathBuf {
    repository("examples/python-participant")
}

/// Starts a `ship-order` saga and gives its id.
#[track_caller]
fn start(node: &Node, order: &str, invoice_address: &str) -> String {
    let input = json!({
        "order_id": order,
        "address": "1 Harbour Road",
        "invoice_address": invoice_address,
    });
    let answer = post(&format!("{}/sagas/ship-order", node.url), &input);
    match &answer {
        Ok((200..300, body)) => body["saga_id"].as_str().or(body["id"].as_str()),
        _ => None,
    }
    .unwrap_or_else(|| panic!("the start of order {order} was answered {answer:?}"))
    .to_owned()
}

/// Waits for a saga's end and gives what the node says of it.
#[track_caller]
fn ended(node: &Node, id: &str) -> Value {
    let url = format!("{}/sagas/{id}", node.url);
    eventually("the saga ends", PATIENCE, || match get(&url) {
        Ok((200, body)) => {
            let over = ["completed", "compensated"].map(Value::from);
            over.contains(&body["status"]).then_some(())
        }
        _ => None,
    });
    get_json(&url)
}
