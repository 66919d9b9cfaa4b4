//! Nodes of two releases on real servers: what the older one can't read waits for the newer one.

use std::collections::BTreeSet;
use std::sync::Arc;

use backstitch::broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use backstitch::broker::{Broker, Outgoing, Published};
use backstitch::definition::parse;
use backstitch::engine::{Engine, EngineOptions, EngineParts, StartAnswer};
use backstitch::environment::TokioEnvironment;
use backstitch::id::SagaId;
use backstitch::message::{Destination, HEADER_SAGA, Message, Properties, SIGNAL_QUEUE};
use backstitch::saga::format::{Formats, READS};
use backstitch::store::postgres::{PostgresOptions, PostgresStore};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::fixture::{Backends, PATIENCE, eventually};

/// Waits for a signal.
const JOB: &str = "
saga: job
version: 1
key: ${ input.id }
input: { type: object, required: [id], properties: { id: { type: string } } }
timeout: 30d
steps:
  - wait: said
";
/// What a program reads and writes that is one release newer than this.
const NEXT: Formats = Formats {
    writes: READS + 1,
    reads: READS + 1,
};

async fn node(backends: &Backends, formats: Formats) -> (Arc<Engine>, Arc<dyn Broker>) {
    let options = PostgresOptions::default();
    let store = PostgresStore::open(&backends.database.url, options).await;
    let options = RabbitMqOptions::default();
    let broker = RabbitMqBroker::connect(&backends.virtual_host.url, options).await;
    let broker: Arc<dyn Broker> = Arc::new(broker.unwrap());
    let parts = EngineParts {
        environment: Arc::new(TokioEnvironment),
        store: Arc::new(store.unwrap()),
        broker: Arc::clone(&broker),
        definitions: vec![parse(JOB, "job.yaml").unwrap().into()],
        options: EngineOptions {
            formats,
            ..EngineOptions::default()
        },
    };
    (Engine::start(parts).await.unwrap(), broker)
}

fn signal(saga: SagaId) -> Outgoing {
    let headers = [(HEADER_SAGA.to_owned(), json!(saga))];
    Outgoing {
        destination: Destination::queue(SIGNAL_QUEUE),
        message: Message {
            properties: Properties {
                kind: Some("said".to_owned()),
                message_id: Some("1".to_owned()),
                headers: headers.into_iter().collect(),
                ..Properties::default()
            },
            body: "{}".into(),
        },
        mandatory: true,
    }
}

#[test]
fn a_signal_to_a_newer_saga_goes_round_until_a_newer_node_is_there_and_is_never_buried() {
    let runtime = Runtime::new().unwrap();
    let backends = Backends::create();
    let database = &backends.database;
    let (newer, _) = runtime.block_on(node(&backends, NEXT));
    let begun = runtime.block_on(newer.start_saga("job", json!({ "id": "k" })));
    let Ok(StartAnswer::Started(saga)) = begun else {
        panic!("{begun:?}");
    };
    // Rolled back: nobody here reads that saga.
    runtime.block_on(newer.stop());
    let (older, broker) = runtime.block_on(node(&backends, Formats::OURS));
    let published = runtime.block_on(broker.publish(vec![signal(saga)]));
    assert_eq!(published, [Published::Confirmed]);
    let mut rounds = BTreeSet::new();
    eventually("it comes back, again and again", PATIENCE, || {
        let rows = database.text("SELECT coalesce(string_agg(id::text, ' '), '') FROM outbox");
        rounds.extend(rows.split_whitespace().map(str::to_owned));
        (rounds.len() >= 3).then_some(())
    });
    assert!(older.newer().unwrap().contains("BST-0086"));
    assert_eq!(database.count("dead_letters"), 0);
    // Upgraded again, node by node: the older one still takes its share of the messages.
    let (newer, _) = runtime.block_on(node(&backends, NEXT));
    eventually("the saga has its signal", PATIENCE, || {
        (database.ended_sagas() == 1).then_some(())
    });
    eventually("nothing is left", PATIENCE, || {
        (database.count("outbox") == 0).then_some(())
    });
    assert_eq!(database.count("dead_letters"), 0);
    runtime.block_on(older.stop());
    runtime.block_on(newer.stop());
}
