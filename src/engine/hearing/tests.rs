//! Answers that were given while no node could take them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Consumer, Outgoing, Queue, Topology};
use crate::definition::parse;
use crate::engine::{Engine, EngineOptions, EngineParts, StartAnswer};
use crate::environment::{Environment, TokioEnvironment};
use crate::id::Timestamp;
use crate::message::{Destination, Message, Properties};
use crate::store::memory::MemoryStore;

/// Nobody asks twice.
const ROOM: &str = "
saga: room
version: 1
key: ${ input.id }
steps:
  - step: room
    reserve: p.hold
    confirm: p.book
    compensate: p.free
    timeout: 30m
    retry: { attempts: 1 }
";
const SAGAS: usize = 50;

/// Some time after now.
struct Later(Duration);

impl Environment for Later {
    fn now(&self) -> Timestamp {
        TokioEnvironment.now().after(self.0)
    }

    fn elapsed(&self) -> Duration {
        TokioEnvironment.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        TokioEnvironment.sleep(duration)
    }

    fn pause(&self, duration: Duration) -> BoxFuture<'static, ()> {
        TokioEnvironment.pause(duration)
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        TokioEnvironment.spawn(name, task);
    }

    fn new_id(&self) -> Uuid {
        TokioEnvironment.new_id()
    }
}

async fn node(store: &MemoryStore, broker: &MemoryBroker, later: Duration) -> Arc<Engine> {
    let definition = parse(ROOM, "room.yaml").unwrap_or_else(|why| panic!("{why}"));
    let parts = EngineParts {
        environment: Arc::new(Later(later)),
        store: Arc::new(store.clone()),
        broker: Arc::new(broker.clone()),
        definitions: vec![definition.into()],
        options: EngineOptions::default(),
    };
    Engine::start(parts).await.unwrap()
}

/// Takes one command; gives its name and the answer to it.
async fn answer(commands: &mut Consumer) -> (String, Outgoing) {
    let delivery = commands.deliveries.next_batch(1).await.remove(0);
    commands.acks.ack(&[delivery.tag]);
    let asked = delivery.message.properties;
    let headers = [("outcome".to_owned(), Value::from("succeeded"))];
    let message = Message {
        properties: Properties {
            correlation_id: asked.correlation_id,
            headers: headers.into(),
            ..Properties::default()
        },
        body: "{}".into(),
    };
    let reply = Outgoing {
        destination: Destination::queue(asked.reply_to.unwrap()),
        message,
        mandatory: true,
    };
    (asked.kind.unwrap(), reply)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_waited_for_a_node_comes_before_the_time_out() {
    let (store, broker) = (MemoryStore::new(), MemoryBroker::new());
    let topology = Topology {
        queues: vec![Queue {
            name: "p".to_owned(),
            dead_letter_to: None,
        }],
        ..Topology::default()
    };
    broker.declare(&topology).await.unwrap();
    let mut commands = broker.consume("p", 1).await.unwrap();
    let first = node(&store, &broker, Duration::ZERO).await;
    for number in 0..SAGAS {
        let started = first.start_saga("room", json!({ "id": number.to_string() }));
        assert!(matches!(started.await, Ok(StartAnswer::Started(_))));
    }
    let mut replies = Vec::new();
    for _ in 0..SAGAS {
        let (kind, reply) = answer(&mut commands).await;
        assert_eq!(kind, "p.hold");
        replies.push(reply);
    }
    first.stop().await;
    broker.publish(replies).await;
    let second = node(&store, &broker, Duration::from_hours(1)).await;
    for _ in 0..SAGAS {
        let (kind, reply) = answer(&mut commands).await;
        assert_eq!(kind, "p.book");
        broker.publish(vec![reply]).await;
    }
    second.stop().await;
}
