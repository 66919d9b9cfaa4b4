//! A node that is asked for what only definitions say that were stored after it had started.

use std::time::Duration;

use super::*;
use crate::broker::Outgoing;
use crate::error::code;
use crate::message::{Destination, Message, Properties, START_QUEUE};

/// Another definition, as another node stores it.
async fn store_another(store: &MemoryStore) {
    let source = JOB.replace("saga: job", "saga: task");
    let definition = parse(&source, "task.yaml").unwrap_or_else(|why| panic!("{why}"));
    let row = DefinitionRow {
        name: definition.name,
        version: definition.version,
        hash: definition.hash,
        source: definition.source,
        stored_at: Timestamp::default(),
    };
    store.put_definition(row).await.unwrap();
}

async fn older_node(broker: &MemoryBroker) -> (Picky, Arc<Engine>) {
    let picky = Picky::new(MemoryStore::new());
    let node = engine(Arc::new(picky.clone()), broker, JOB).await;
    picky.looks.count.store(0, Ordering::Relaxed);
    (picky, node)
}

#[tokio::test]
async fn a_start_is_not_refused_before_the_database_was_asked() {
    let (picky, node) = older_node(&MemoryBroker::new()).await;
    store_another(&picky.inner).await;
    picky.looks.refused.store(1, Ordering::Relaxed);
    let input = json!({ "id": "1" });
    let away = node.start_saga("task", input.clone()).await;
    assert!(matches!(away, Err(StartError::Unavailable(_))), "{away:?}");
    let started = node.start_saga("task", input).await;
    assert!(
        matches!(started, Ok(StartAnswer::Started(_))),
        "{started:?}"
    );
    let unknown = node.start_saga("nothing", json!({})).await;
    let Err(StartError::Refused(wrong)) = unknown else {
        panic!("{unknown:?}");
    };
    assert_eq!(wrong.code, code::SAGA_UNKNOWN);
    node.stop().await;
}

#[tokio::test]
async fn a_message_waits_while_the_database_can_not_be_asked() {
    let broker = MemoryBroker::new();
    let (picky, node) = older_node(&broker).await;
    store_another(&picky.inner).await;
    picky.looks.refused.store(1, Ordering::Relaxed);
    let start = Outgoing {
        destination: Destination::queue(START_QUEUE),
        message: Message {
            properties: Properties {
                kind: Some("task".to_owned()),
                ..Properties::default()
            },
            body: json!({ "id": "1" }).to_string().into(),
        },
        mandatory: true,
    };
    broker.publish(vec![start]).await;
    let started = async {
        while picky.inner.counts().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let started = tokio::time::timeout(Duration::from_secs(30), started).await;
    assert!(started.is_ok(), "{:?}", picky.inner.dead_letters(9).await);
    assert!(picky.inner.dead_letters(9).await.unwrap().is_empty());
    node.stop().await;
}

#[tokio::test]
async fn however_much_is_refused_the_database_is_asked_now_and_then() {
    let (picky, node) = older_node(&MemoryBroker::new()).await;
    let looks = || picky.looks.count.load(Ordering::Relaxed);
    for _ in 0..10 {
        let hour = Duration::from_hours(1);
        node.node.look_for_news(hour).await.unwrap();
    }
    assert_eq!(looks(), 1);
    node.node.look_for_news(Duration::ZERO).await.unwrap();
    assert_eq!(looks(), 2);
    node.stop().await;
}
