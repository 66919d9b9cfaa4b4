//! The relay alone, between the broker and the store of this process.

use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Queue, Topology};
use crate::environment::TokioEnvironment;
use crate::message::{Destination, Message, Properties};
use crate::store::memory::MemoryStore;
use crate::store::{Commit, Store};

fn row(environment: &dyn Environment, queue: &str) -> OutboxMessage {
    OutboxMessage {
        id: environment.new_id(),
        destination: Destination::queue(queue),
        message: Message {
            properties: Properties::default(),
            body: "{}".into(),
        },
        due_at: environment.now().after(Duration::from_mins(1)),
    }
}

#[tokio::test]
async fn unroutable_messages_that_nobody_takes_back_hold_up_no_other() {
    let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
    let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
    let queues = vec![Queue {
        name: "there".to_owned(),
        dead_letter_to: None,
    }];
    let topology = Topology {
        queues,
        ..Topology::default()
    };
    broker.declare(&topology).await.unwrap();
    let (returned, mut unroutable) = mpsc::channel(1);
    let relay = Relay::start(
        Arc::clone(&environment),
        Arc::new(broker.clone()),
        Arc::new(store.clone()),
        RelayOptions::default(),
        Some(returned),
    );
    let mut rows: Vec<_> = (0..20).map(|_| row(&*environment, "nowhere")).collect();
    rows.push(row(&*environment, "there"));
    let commit = Commit {
        outbox: rows.clone(),
        ..Commit::default()
    };
    store.commit(commit).await.unwrap();
    // One at a time, so that every publisher meets one that is not taken.
    for row in rows {
        relay.send(vec![row]).await;
    }
    let mut consumer = broker.consume("there", 1).await.unwrap();
    let next = consumer.deliveries.next_batch(1);
    let arrived = tokio::time::timeout(Duration::from_secs(10), next).await;
    assert_eq!(arrived.expect("it is held up").len(), 1);
    relay.stop().await;
    assert!(unroutable.try_recv().is_ok());
    let left = store.outbox_len().await.unwrap();
    assert_eq!(left, 20, "they wait for the sweep");
}

#[tokio::test]
async fn events_wait_for_their_exchange_and_commands_go_on() {
    let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
    let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
    let queue = |name: &str| Queue {
        name: name.to_owned(),
        dead_letter_to: None,
    };
    let mut topology = Topology {
        queues: vec![queue("there"), queue("listener")],
        topic_exchanges: vec![EVENT_EXCHANGE.to_owned()],
        bindings: vec![crate::broker::Binding {
            exchange: EVENT_EXCHANGE.to_owned(),
            queue: "listener".to_owned(),
            routing_key: "#".to_owned(),
        }],
        ..Topology::default()
    };
    broker.declare(&topology).await.unwrap();
    assert!(broker.delete_exchange(EVENT_EXCHANGE));
    let options = RelayOptions {
        grace: Duration::from_millis(50),
        sweep_every: Duration::from_millis(10),
        ..RelayOptions::default()
    };
    let relay = Relay::start(
        Arc::clone(&environment),
        Arc::new(broker.clone()),
        Arc::new(store.clone()),
        options,
        None,
    );
    let mut event = row(&*environment, "");
    event.destination = Destination::event("order.completed");
    event.due_at = environment.now();
    let rows = vec![event, row(&*environment, "there")];
    let commit = Commit {
        outbox: rows.clone(),
        ..Commit::default()
    };
    store.commit(commit).await.unwrap();
    relay.send(rows).await;
    let mut consumer = broker.consume("there", 1).await.unwrap();
    assert_eq!(consumer.deliveries.next_batch(1).await.len(), 1);
    assert_eq!(broker.queue_len("listener"), 0);
    topology.queues.clear();
    broker.declare(&topology).await.unwrap();
    let mut listener = broker.consume("listener", 1).await.unwrap();
    let next = listener.deliveries.next_batch(1);
    let arrived = tokio::time::timeout(Duration::from_secs(10), next).await;
    assert_eq!(arrived.expect("it was dropped").len(), 1);
    relay.stop().await;
}
