//! Commands that the broker did not take in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, BrokerError, Consumer, Health, Outgoing, Published, Queue, Topology};
use crate::definition::parse;
use crate::engine::{Engine, EngineOptions, EngineParts, StartAnswer};
use crate::environment::{Environment, TokioEnvironment};
use crate::id::{SagaId, Timestamp};
use crate::message::{Destination, Message, Properties};
use crate::saga::Status;
use crate::store::Store;
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
const PATIENCE: Duration = Duration::from_secs(30);

/// A clock that is set forward.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn forward(&self, duration: Duration) {
        self.0.fetch_add(duration.as_secs(), Ordering::SeqCst);
    }
}

impl Environment for Clock {
    fn now(&self) -> Timestamp {
        let ahead = Duration::from_secs(self.0.load(Ordering::SeqCst));
        TokioEnvironment.now().after(ahead)
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

/// A broker that takes no commands for a while.
#[derive(Clone, Default)]
struct Deaf {
    inner: MemoryBroker,
    is_deaf: Arc<AtomicBool>,
}

#[async_trait]
impl Broker for Deaf {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.inner.declare(topology).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        self.inner.consume(queue, prefetch).await
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Published> {
        if self.is_deaf.load(Ordering::SeqCst) {
            return vec![Published::Failed("deaf".to_owned()); messages.len()];
        }
        self.inner.publish(messages).await
    }

    async fn queue_len(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        Broker::queue_len(&self.inner, queue).await
    }

    fn health(&self) -> Health {
        self.inner.health()
    }
}

struct Bundle {
    store: MemoryStore,
    broker: Deaf,
    clock: Clock,
    commands: Consumer,
}

impl Bundle {
    /// A participant that nobody can reach.
    async fn new() -> Self {
        let broker = Deaf::default();
        let queues = vec![Queue {
            name: "p".to_owned(),
            dead_letter_to: None,
        }];
        let topology = Topology {
            queues,
            ..Topology::default()
        };
        broker.declare(&topology).await.unwrap();
        let commands = broker.consume("p", 1).await.unwrap();
        broker.is_deaf.store(true, Ordering::SeqCst);
        Self {
            store: MemoryStore::new(),
            broker,
            clock: Clock::default(),
            commands,
        }
    }

    async fn node(&self) -> Arc<Engine> {
        let definition = parse(ROOM, "room.yaml").unwrap_or_else(|why| panic!("{why}"));
        let parts = EngineParts {
            environment: Arc::new(self.clock.clone()),
            store: Arc::new(self.store.clone()),
            broker: Arc::new(self.broker.clone()),
            definitions: vec![definition.into()],
            options: EngineOptions {
                look_every: Duration::from_millis(20),
                ..EngineOptions::default()
            },
        };
        Engine::start(parts).await.unwrap()
    }

    /// Waits for an event in the saga's journal.
    async fn wait_for(&self, saga: SagaId, event: &str) {
        let wanted = format!("\"event\":\"{event}\"");
        let is_there = async {
            loop {
                let entries = self.store.journal(saga, 0, 100).await.unwrap();
                let texts = entries.iter().map(|it| String::from_utf8_lossy(&it.body));
                if texts.into_iter().any(|text| text.contains(&wanted)) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, is_there).await;
        came.unwrap_or_else(|_| panic!("no {event} in the journal"));
    }

    /// The next command, and what it is answered with.
    async fn command(&mut self) -> (String, Outgoing) {
        let next = self.commands.deliveries.next_batch(1);
        let next = tokio::time::timeout(PATIENCE, next).await;
        let delivery = next.expect("no command came").remove(0);
        self.commands.acks.ack(&[delivery.tag]);
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

    /// The command comes, late, and everything goes well.
    async fn goes_well(&mut self, saga: SagaId) {
        let (kind, reply) = self.command().await;
        assert_eq!(kind, "p.hold");
        self.wait_for(saga, "sent_late").await;
        self.broker.publish(vec![reply]).await;
        let (kind, reply) = self.command().await;
        assert_eq!(kind, "p.book");
        self.broker.publish(vec![reply]).await;
        self.wait_for(saga, "completed").await;
        let counts = self.store.counts().await.unwrap();
        assert!(counts.iter().all(|it| it.status == Status::Completed));
    }
}

async fn start(node: &Engine) -> SagaId {
    match node.start_saga("room", json!({ "id": "k" })).await {
        Ok(StartAnswer::Started(saga)) => saga,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_not_sent_is_not_taken_for_unanswered() {
    let mut world = Bundle::new().await;
    let node = world.node().await;
    let saga = start(&node).await;
    world.clock.forward(Duration::from_mins(31));
    world.wait_for(saga, "unsent").await;
    world.broker.is_deaf.store(false, Ordering::SeqCst);
    // The row is due again.
    world.clock.forward(Duration::from_mins(1));
    world.goes_well(saga).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_sent_after_its_time_has_all_its_time() {
    let mut world = Bundle::new().await;
    let node = world.node().await;
    let saga = start(&node).await;
    node.stop().await;
    world.broker.is_deaf.store(false, Ordering::SeqCst);
    world.clock.forward(Duration::from_hours(1));
    let node = world.node().await;
    world.goes_well(saga).await;
    node.stop().await;
}
