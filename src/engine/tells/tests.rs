//! Answers of which nothing can be made, and equal signals, through a node of this process.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Consumer, Outgoing, Queue, Topology};
use crate::definition::parse;
use crate::engine::signals::{Addressee, SignalRequest, What};
use crate::engine::work::{Job, Origin, Work};
use crate::engine::{Engine, EngineOptions, EngineParts, StartAnswer};
use crate::environment::TokioEnvironment;
use crate::id::SagaId;
use crate::limits;
use crate::message::{Destination, Message, Properties};
use crate::saga::{Signal, Status};
use crate::store::memory::MemoryStore;
use crate::store::{SagaHead, Store};
use crate::view::read_head;

/// Its step waits half an hour for an answer, so that nobody could wait for that here.
const ROOM: &str = "
saga: room
version: 1
key: ${ input.id }
timeout: 2h
steps:
  - step: room
    reserve: p.hold
    confirm: p.book
    compensate: p.free
    timeout: 30m
    retry: { attempts: 2, first: 10ms, factor: 1, max: 10ms }
  - { wait: paid, timeout: 1h }
";

struct Hotel {
    engine: Arc<Engine>,
    store: MemoryStore,
    broker: MemoryBroker,
    commands: Consumer,
}

impl Hotel {
    async fn open() -> Self {
        let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
        let topology = Topology {
            queues: vec![Queue {
                name: "p".to_owned(),
                dead_letter_to: None,
            }],
            ..Topology::default()
        };
        broker.declare(&topology).await.unwrap();
        let commands = broker.consume("p", 10).await.unwrap();
        let definition = parse(ROOM, "room.yaml").unwrap_or_else(|why| panic!("{why}"));
        let parts = EngineParts {
            environment: Arc::new(TokioEnvironment),
            store: Arc::new(store.clone()),
            broker: Arc::new(broker.clone()),
            definitions: vec![definition.into()],
            options: EngineOptions::default(),
        };
        Self {
            engine: Engine::start(parts).await.unwrap(),
            store,
            broker,
            commands,
        }
    }

    async fn begin(&self, id: &str) -> SagaId {
        match self.engine.start_saga("room", json!({ "id": id })).await {
            Ok(StartAnswer::Started(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    /// The next command's name, answered so.
    async fn answer(&mut self, outcome: &str, body: Vec<u8>) -> String {
        let delivery = self.commands.deliveries.next_batch(1).await.remove(0);
        self.commands.acks.ack(&[delivery.tag]);
        let asked = delivery.message.properties;
        let headers = [("outcome".to_owned(), Value::from(outcome))];
        let reply = Outgoing {
            destination: Destination::queue(asked.reply_to.unwrap()),
            message: Message {
                properties: Properties {
                    correlation_id: asked.correlation_id,
                    headers: headers.into(),
                    ..Properties::default()
                },
                body: body.into(),
            },
            mandatory: true,
        };
        self.broker.publish(vec![reply]).await;
        asked.kind.unwrap()
    }

    async fn until(&self, saga: SagaId, status: Status) -> SagaHead {
        loop {
            let head = read_head(&self.store, saga).await.unwrap().unwrap();
            if head.status == status {
                return head;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_worth_nothing_is_a_failed_attempt_at_once_and_a_letter() {
    let large = format!("\"{}\"", "x".repeat(limits::BODY.bytes));
    for (outcome, body, code) in [
        ("Succeeded", "{}", "BST-0024"),
        ("succeeded", "{", "BST-0010"),
        ("succeeded", &large, "BST-0011"),
    ] {
        let mut hotel = Hotel::open().await;
        let saga = hotel.begin("1").await;
        for _ in 0..2 {
            let asked = hotel.answer(outcome, body.as_bytes().to_vec()).await;
            assert_eq!(asked, "p.hold", "{code}");
        }
        // Nobody knows what was done: it is undone.
        assert_eq!(hotel.answer("succeeded", b"{}".to_vec()).await, "p.free");
        let head = hotel.until(saga, Status::Compensated).await;
        let reason = head.reason.unwrap();
        let letters = hotel.store.dead_letters(10).await.unwrap();
        assert_eq!(letters.len(), 2, "{code}");
        assert!(reason.contains(code), "{reason}");
        assert!(reason.contains(&letters[0].id.to_string()), "{reason}");
        for letter in letters {
            assert_eq!(letter.code.to_string(), code);
            let about = format!("saga {saga}, room reserve: ");
            assert!(letter.reason.starts_with(&about), "{}", letter.reason);
        }
        hotel.engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equal_signal_without_an_id_counts_unless_it_may_be_the_same_once_more() {
    let hotel = Hotel::open().await;
    let saga = hotel.begin("1").await;
    let send = async |uncertain: bool| {
        let request = SignalRequest {
            to: Addressee::Saga(saga),
            what: What::Sent(Signal {
                name: "paid".to_owned(),
                id: "hash:1".to_owned(),
                body: Arc::new(json!(1)),
                at: None,
            }),
            sender: None,
            by_content: true,
            uncertain: AtomicBool::new(uncertain),
        };
        let (sender, heard) = tokio::sync::oneshot::channel();
        let work = Work {
            job: Job::Signal(Arc::new(request)),
            origin: Origin::Signaller(sender),
        };
        hotel.engine.node.settle(vec![work]).await;
        let answer = heard.await.unwrap().unwrap();
        format!("{answer:?}").split('(').next().unwrap().to_owned()
    };
    let words = [
        send(true).await,
        send(false).await,
        send(true).await,
        send(false).await,
    ];
    assert_eq!(words, ["Accepted", "Accepted", "Duplicate", "Accepted"]);
    hotel.engine.stop().await;
}
