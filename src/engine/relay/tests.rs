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

#[tokio::test]
async fn what_a_queue_refuses_for_a_moment_waits_for_no_sweep() {
    let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
    let broker = MemoryBroker::with_queue_limit(1);
    let store = MemoryStore::new();
    let topology = Topology {
        queues: vec![Queue {
            name: "there".to_owned(),
            dead_letter_to: None,
        }],
        ..Topology::default()
    };
    broker.declare(&topology).await.unwrap();
    let relay = Relay::start(
        Arc::clone(&environment),
        Arc::new(broker.clone()),
        Arc::new(store.clone()),
        RelayOptions {
            sweep_every: Duration::from_hours(1),
            ..RelayOptions::default()
        },
        None,
    );
    let rows = vec![row(&*environment, "there"), row(&*environment, "there")];
    let commit = Commit {
        outbox: rows.clone(),
        ..Commit::default()
    };
    store.commit(commit).await.unwrap();
    relay.send(rows).await;
    let mut consumer = broker.consume("there", 1).await.unwrap();
    for _ in 0..2 {
        let next = consumer.deliveries.next_batch(1);
        let arrived = tokio::time::timeout(Duration::from_secs(10), next).await;
        let arrived = arrived.expect("it waits for a sweep");
        consumer.acks.ack(&[arrived[0].tag]);
    }
    relay.stop().await;
    assert_eq!(store.outbox_len().await.unwrap(), 0);
}

#[test]
fn a_row_that_may_be_swept_is_left_to_the_sweep() {
    let environment = TokioEnvironment;
    let now = environment.now();
    let due_in = |seconds| OutboxMessage {
        due_at: now.after(Duration::from_secs(seconds)),
        ..row(&environment, "q")
    };
    let failed = vec![
        (due_in(10), Before::Nothing),
        (due_in(10), Before::LeftBehind),
        (due_in(0), Before::Nothing),
        (due_in(10), Before::Tried(20)),
        (due_in(3), Before::Tried(20)),
    ];
    let soon = again::soon(failed, now);
    let attempts: Vec<_> = soon.iter().map(|handed| handed.before).collect();
    assert_eq!(attempts, [Before::Tried(1), Before::Tried(21)]);
    assert!(soon.iter().all(|handed| handed.rows.len() == 1));
}

#[test]
fn no_more_bytes_wait_for_another_attempt_than_there_is_room_for() {
    let environment = TokioEnvironment;
    let (again, _failed) = again::channel();
    let sized = |mebibytes: usize| OutboxMessage {
        message: Message {
            properties: Properties::default(),
            body: vec![b'x'; mebibytes * 1024 * 1024].into(),
        },
        ..row(&environment, "q")
    };
    let put = |rows| {
        again.put(Handed {
            rows,
            before: Before::Tried(1),
        })
    };
    assert!(put(vec![sized(5), sized(2)]));
    assert!(
        !put(vec![sized(5), row(&environment, "q")]),
        "one is left to the sweep"
    );
    assert!(put(vec![row(&environment, "q")]));
    assert!(!put(vec![sized(9)]));
}
