//! Messages on their way out that cost the connection: each is refused alone, in the broker's
//! words, and what was on its way with it arrives.

use std::sync::Arc;
use std::time::Duration;

use backstitch::broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use backstitch::broker::{Broker, Health, Outgoing, Published, Queue, Topology};
use backstitch::engine::relay::{Relay, RelayOptions};
use backstitch::environment::{Environment, TokioEnvironment};
use backstitch::message::{Destination, Message, Properties};
use backstitch::store::memory::MemoryStore;
use backstitch::store::{Commit, Outbox, OutboxMessage, Store};
use uuid::Uuid;

use crate::fixture::VirtualHost;

/// A name that RabbitMQ takes for a direct reply and can't read.
const RUBBISH: &str = "amq.rabbitmq.reply-to.rubbish";
const PATIENCE: Duration = Duration::from_secs(30);

fn message(id: &str) -> Message {
    Message {
        properties: Properties {
            message_id: Some(id.to_owned()),
            ..Properties::default()
        },
        body: "{}".into(),
    }
}

async fn broker(host: &VirtualHost) -> RabbitMqBroker {
    let options = RabbitMqOptions::default();
    let broker = RabbitMqBroker::connect(&host.url, options).await.unwrap();
    let queues = vec![Queue {
        name: "good".to_owned(),
        dead_letter_to: None,
    }];
    let topology = Topology {
        queues,
        ..Topology::default()
    };
    broker.declare(&topology).await.unwrap();
    broker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_costs_the_connection_is_refused_and_its_fellows_arrive() {
    let host = VirtualHost::create();
    let broker = broker(&host).await;
    let outgoing = |to: &str, id: &str| Outgoing {
        destination: Destination::queue(to),
        message: message(id),
        mandatory: to == "good",
    };
    let mut set: Vec<_> = (0..40).map(|n| outgoing("good", &n.to_string())).collect();
    set.insert(10, outgoing(RUBBISH, "poison 1"));
    set.insert(30, outgoing(RUBBISH, "poison 2"));
    let words = tokio::time::timeout(PATIENCE, broker.publish(set)).await;
    for (n, word) in words.expect("in time").iter().enumerate() {
        match n {
            // Newer servers just drop it.
            10 | 30 => assert!(
                matches!(word, Published::Refused(_) | Published::Confirmed),
                "{n}: {word:?}"
            ),
            _ => assert_eq!(*word, Published::Confirmed, "{n}"),
        }
    }
    // The next publish finds a connection.
    let words = broker.publish(vec![outgoing("good", "after")]).await;
    assert_eq!(words, [Published::Confirmed]);
    assert_eq!(broker.health(), Health::Up);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_row_that_the_broker_refuses_becomes_a_letter_with_its_words() {
    let host = VirtualHost::create();
    let broker = Arc::new(broker(&host).await);
    let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
    let store = MemoryStore::new();
    let row = |destination: Destination, id: &str| OutboxMessage {
        id: Uuid::now_v7(),
        destination,
        message: message(id),
        due_at: environment.now().after(Duration::from_secs(1)),
    };
    // A type longer than AMQP's short strings can't be sent to anybody.
    let mut poison = row(Destination::queue("good"), "poison");
    poison.message.properties.kind = Some("x".repeat(300));
    let rows = vec![row(Destination::queue("good"), "fine"), poison];
    let commit = Commit {
        outbox: rows.clone(),
        ..Commit::default()
    };
    store.commit(commit).await.unwrap();
    let relay = Relay::start(
        Arc::clone(&environment),
        Arc::clone(&broker) as _,
        Arc::new(store.clone()),
        RelayOptions::default(),
        None,
    );
    relay.send(rows).await;
    let emptied = async {
        while store.outbox_len().await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, emptied).await.unwrap();
    let letters = store.dead_letters(10).await.unwrap();
    let ids: Vec<_> = letters
        .iter()
        .map(|letter| (letter.code.0, letter.message.properties.message_id.clone()))
        .collect();
    assert_eq!(ids, [(78, Some("poison".to_owned()))]);
    relay.stop().await;
    broker.close().await;
}
