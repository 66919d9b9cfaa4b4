//! What becomes of signals while one saga replaces another.

use serde_json::{Value, json};

use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Consumer, Outgoing, Published, Queue, Topology};
use crate::definition::parse;
use crate::engine::{
    Addressee, Engine, EngineOptions, EngineParts, SignalAnswer, SignalError, StartAnswer,
};
use crate::environment::TokioEnvironment;
use crate::id::SagaId;
use crate::message::{DOMAIN_EVENT_QUEUE, Destination, Message, Properties};
use crate::saga::Status;
use crate::store::memory::MemoryStore;
use crate::store::{LoadRequest, SagaKey, Store};
use std::sync::Arc;

const JOB: &str = "
saga: job
version: 1
key: ${ input.id }
start: { conflict: restart }
timeout: 30d
steps:
  - { step: a, reserve: p.r, confirm: p.c, compensate: p.u }
  - wait: said
  - wait: seen
    on: { exchange: depot, routing_key: seen, key: '${ event.id }', with: { by: '${ event.by }' } }
";

async fn publish(broker: &MemoryBroker, to: Destination, properties: Properties, body: &Value) {
    let outgoing = Outgoing {
        destination: to,
        message: Message {
            properties,
            body: body.to_string().into(),
        },
        mandatory: true,
    };
    let published = broker.publish(vec![outgoing]).await;
    assert_eq!(published, [Published::Confirmed]);
}

/// Says yes to the next command.
async fn agree(broker: &MemoryBroker, participant: &mut Consumer) {
    let asked = participant.deliveries.next_batch(1).await.remove(0);
    participant.acks.ack(&[asked.tag]);
    let asked = asked.message.properties;
    let properties = Properties {
        correlation_id: asked.correlation_id,
        ..Properties::default()
    };
    let to = Destination::queue(asked.reply_to.unwrap());
    publish(broker, to, properties, &json!({})).await;
}

async fn status(store: &MemoryStore, id: SagaId) -> Option<Status> {
    let loaded = store.load(&[LoadRequest { id, after: 0 }]).await.unwrap();
    Some(loaded.into_iter().next()??.head.status)
}

#[tokio::test]
async fn what_comes_for_the_key_during_the_roll_back_reaches_the_successor() {
    let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
    let topology = Topology {
        queues: vec![Queue {
            name: "p".to_owned(),
            dead_letter_to: None,
        }],
        ..Topology::default()
    };
    broker.declare(&topology).await.unwrap();
    let parts = EngineParts {
        environment: Arc::new(TokioEnvironment),
        store: Arc::new(store.clone()),
        broker: Arc::new(broker.clone()),
        definitions: vec![parse(JOB, "job.yaml").unwrap().into()],
        options: EngineOptions::default(),
    };
    let node = Engine::start(parts).await.unwrap();
    let mut participant = broker.consume("p", 1).await.unwrap();

    node.start_saga("job", json!({ "id": "k" })).await.unwrap();
    let restart = node.start_saga("job", json!({ "id": "k", "n": 2 })).await;
    let Ok(StartAnswer::Restarting { saga, replaces, .. }) = restart else {
        panic!("{restart:?}");
    };
    // The first one waits for its reservation's answer, to take it back.
    assert_eq!(status(&store, replaces).await, Some(Status::Compensating));
    let key = || {
        Addressee::Key(SagaKey {
            name: "job".to_owned(),
            key: "k".to_owned(),
        })
    };
    let said = || node.signal(key(), "said", "s".to_owned(), json!("yes"));
    assert_eq!(said().await, Ok(SignalAnswer::Accepted(saga)));
    assert_eq!(said().await, Ok(SignalAnswer::Duplicate(saga)));
    let unknown = node.signal(key(), "sung", "t".to_owned(), json!(1)).await;
    assert!(
        matches!(unknown, Err(SignalError::Refused(_))),
        "{unknown:?}"
    );
    let seen = Destination {
        exchange: "depot".to_owned(),
        routing_key: "seen".to_owned(),
    };
    let event = json!({ "id": "k", "by": "ann" });
    publish(&broker, seen, Properties::default(), &event).await;
    while broker.queue_len(DOMAIN_EVENT_QUEUE) + broker.unacked(DOMAIN_EVENT_QUEUE) > 0 {
        tokio::task::yield_now().await;
    }

    // Its reservation and the taking back, then the successor's reservation and confirmation.
    for _ in 0..4 {
        agree(&broker, &mut participant).await;
    }
    while status(&store, saga).await != Some(Status::Completed) {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&store, replaces).await, Some(Status::Compensated));
    node.stop().await;
}
