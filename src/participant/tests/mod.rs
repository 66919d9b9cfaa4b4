//! A participant end to end, over the memory store and the memory broker: the fixture.

mod commands;
mod faults;
mod follow_ups;
mod own_handler;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::aggregates::{self, Inventory, inventory};
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Consumer, Outgoing, Published, Queue, Topology};
use crate::environment::{Environment, Shutdown, TokioEnvironment};
use crate::id::{MessageId, Phase, SagaId, StepPath, Timestamp};
use crate::message::correlation::{Correlation, Secret};
use crate::message::{Destination, HEADER_OUTCOME, HEADER_REASON, Message};
use crate::store::memory::MemoryStore;
use crate::store::participant::ParticipantStore;
use crate::store::{DeadLetter, Store};

const REPLIES: &str = "replies";

/// A participant's world: what survives its crashes, and how to talk to it.
struct Bundle {
    store: MemoryStore,
    broker: MemoryBroker,
    replies: Consumer,
}

/// A reply as the saga would read it.
#[derive(Debug, Clone, PartialEq)]
struct Reply {
    outcome: String,
    reason: Option<String>,
    body: Value,
}

impl Bundle {
    async fn new() -> Self {
        let (store, broker) = (MemoryStore::new(), MemoryBroker::new());
        for name in ["inventory", "mailer", "offers", "plain"] {
            let topology = Participant::new(name).topology();
            broker.declare(&topology).await.unwrap();
        }
        let topology = Topology {
            queues: vec![Queue {
                name: REPLIES.to_owned(),
                dead_letter_to: None,
            }],
            ..Topology::default()
        };
        broker.declare(&topology).await.unwrap();
        let replies = broker.consume(REPLIES, 1_000).await.unwrap();
        let stock = [("a".to_owned(), inventory::Event::Received { quantity: 10 })];
        let seeded = aggregates::seed::<Inventory>(&store, Timestamp::default(), stock);
        assert_eq!(seeded.await.unwrap(), 1);
        Self {
            store,
            broker,
            replies,
        }
    }

    /// Starts a participant; it stops when told to.
    fn start(&self, participant: Participant) -> Running {
        Running::start(
            participant,
            Arc::new(self.store.clone()),
            Arc::new(self.broker.clone()),
        )
    }

    async fn send(&self, queue: &str, messages: Vec<Message>) {
        let outgoing = messages.into_iter().map(|message| Outgoing {
            destination: Destination::queue(queue),
            message,
            mandatory: true,
        });
        for published in self.broker.publish(outgoing.collect()).await {
            assert_eq!(published, Published::Confirmed);
        }
    }

    async fn replies(&mut self, count: usize) -> Vec<Reply> {
        let mut replies = Vec::new();
        while replies.len() < count {
            let batch = self.replies.deliveries.next_batch(count - replies.len());
            for delivery in within_bounds(batch).await {
                self.replies.acks.ack(&[delivery.tag]);
                let message = delivery.message;
                replies.push(Reply {
                    outcome: message.header(HEADER_OUTCOME).unwrap().to_owned(),
                    reason: message.header(HEADER_REASON).map(str::to_owned),
                    body: serde_json::from_slice(&message.body).unwrap(),
                });
            }
        }
        replies
    }

    /// Sends one command and waits for its reply.
    async fn ask(&mut self, queue: &str, message: Message) -> Reply {
        self.send(queue, vec![message]).await;
        self.replies(1).await.remove(0)
    }

    async fn stock(&self) -> (u64, u64, u64) {
        let states = states::<Inventory>(&self.store).await.unwrap();
        let (id, state) = states.into_iter().next().unwrap();
        let key = key_of::<Inventory>(id).unwrap();
        let rebuilt = rebuild::<Inventory>(&self.store, &key).await.unwrap();
        assert_eq!(rebuilt, state, "replaying the events gives the snapshot");
        (state.on_hand, state.reserved, state.sold)
    }

    async fn dead_letters(&self) -> Vec<DeadLetter> {
        self.store.dead_letters(100).await.unwrap()
    }
}

/// Waits, but not for ever: a test that hangs says nothing.
async fn within_bounds<T>(wanted: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    let result = tokio::time::timeout(limit, wanted).await;
    result.expect("it happens in time")
}

struct Running {
    node: Arc<Node>,
    shutdown: Shutdown,
    run: tokio::task::JoinHandle<Result<(), ParticipantError>>,
}

impl Running {
    fn start(
        participant: Participant,
        store: Arc<dyn ParticipantStore>,
        broker: Arc<dyn Broker>,
    ) -> Self {
        let node = Arc::new(Node::default());
        let shutdown = Shutdown::default();
        let options = ParticipantOptions {
            reply_grace: Duration::ZERO,
            ..ParticipantOptions::default()
        };
        let run = run_all(
            vec![participant],
            Arc::clone(&node) as Arc<dyn Environment>,
            store,
            broker,
            options,
            shutdown.clone(),
        );
        let run = tokio::spawn(run);
        Self {
            node,
            shutdown,
            run,
        }
    }

    async fn stop(self) {
        self.shutdown.request();
        self.run.await.unwrap().unwrap();
    }

    /// Drops every future it has, at whatever await it stands.
    async fn crash(self) {
        self.run.abort();
        let _ = self.run.await;
        self.node.crash().await;
    }
}

/// A tokio environment whose tasks can all be dropped at once.
#[derive(Default)]
struct Node {
    tasks: Mutex<tokio::task::JoinSet<()>>,
}

impl Node {
    async fn crash(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        tasks.shutdown().await;
    }
}

impl Environment for Node {
    fn now(&self) -> Timestamp {
        TokioEnvironment.now()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        TokioEnvironment.sleep(duration)
    }
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        self.tasks.lock().unwrap().spawn(task);
    }
    fn new_id(&self) -> Uuid {
        TokioEnvironment.new_id()
    }
}

fn command(name: &str, saga: u128, phase: Phase, payload: &Value) -> Message {
    let (saga, step) = (SagaId(Uuid::from_u128(saga)), StepPath::plain("stock"));
    let mut message = Message {
        body: payload.to_string().into(),
        ..Message::default()
    };
    let properties = &mut message.properties;
    properties.kind = Some(name.to_owned());
    properties.message_id = Some(MessageId::of_command(saga, &step, phase).to_string());
    properties.reply_to = Some(REPLIES.to_owned());
    let correlation = Correlation { saga, step, phase };
    properties.correlation_id = Some(correlation.sign(&Secret::new([7; 32])));
    message
}

fn reserve(saga: u128, quantity: u64) -> Message {
    let payload = json!({ "sku": "a", "quantity": quantity });
    command("inventory.reserve", saga, Phase::Reserve, &payload)
}

fn confirm(saga: u128, quantity: u64) -> Message {
    let payload = json!({ "sku": "a", "quantity": quantity, "reservation": {} });
    command("inventory.confirm", saga, Phase::Confirm, &payload)
}

fn release(saga: u128, quantity: u64) -> Message {
    let payload = json!({ "sku": "a", "quantity": quantity, "reservation": null });
    command("inventory.release", saga, Phase::Compensate, &payload)
}

fn shop() -> Participant {
    Participant::new("inventory").aggregate::<Inventory>()
}
