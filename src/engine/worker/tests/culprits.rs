//! One message of many that takes too long, panics, or ends the node: it alone is set aside.

use std::time::Duration;

use super::*;
use crate::broker::Outgoing;
use crate::error::code;
use crate::message::{Destination, Message, Properties, START_QUEUE};
use crate::saga::PlantedBug;

/// Sends sixty starts, and one more in their middle.
async fn send_starts(broker: &MemoryBroker, culprit: &str) {
    let mut keys: Vec<String> = (0..60).map(|n| format!("k{n}")).collect();
    keys.insert(30, culprit.to_owned());
    let starts = keys.iter().map(|key| Outgoing {
        destination: Destination::queue(START_QUEUE),
        message: Message {
            properties: Properties {
                kind: Some("job".to_owned()),
                message_id: Some(key.clone()),
                ..Properties::default()
            },
            body: json!({ "id": key }).to_string().into(),
        },
        mandatory: true,
    });
    broker.publish(starts.collect()).await;
}

/// Has starts sent as messages and waits until all but one are stored and that one is a letter.
async fn one_of_many_becomes_a_letter(culprit: &str, flaw: Sabotage) -> DeadLetter {
    let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
    let picky = Picky::new(store.clone());
    let node = sabotaged(Arc::new(picky), &broker, JOB, flaw).await;
    send_starts(&broker, culprit).await;
    let letter = only_letter(&broker, &store);
    let letter = tokio::time::timeout(Duration::from_secs(30), letter);
    let letter = letter.await.expect("it comes to an end");
    assert_eq!(
        letter.message.properties.message_id.as_deref(),
        Some(culprit)
    );
    node.stop().await;
    letter
}

#[tokio::test]
async fn a_decision_that_panics_costs_its_message_alone() {
    let flaw = Sabotage::with(PlantedBug::PanicOver("culprit"));
    let letter = one_of_many_becomes_a_letter("culprit", flaw).await;
    assert_eq!(letter.code, code::HANDLING_PANICKED);
    assert!(letter.reason.contains("sabotaged"), "{}", letter.reason);
}

#[tokio::test]
async fn a_worker_that_panics_goes_on_and_finds_the_message_it_was_about() {
    let letter = one_of_many_becomes_a_letter("panic", Sabotage::default()).await;
    assert_eq!(letter.code, code::HANDLING_PANICKED);
    assert!(letter.reason.contains("store panics"), "{}", letter.reason);
}

#[tokio::test]
async fn what_takes_too_long_is_set_aside_and_all_others_are_done() {
    let letter = one_of_many_becomes_a_letter("dawdle", Sabotage::default()).await;
    assert_eq!(letter.code, code::STORE_TOO_SLOW);
}

/// Waits until sixty sagas have begun and everything else is one letter.
async fn only_letter(broker: &MemoryBroker, store: &MemoryStore) -> DeadLetter {
    loop {
        tokio::task::yield_now().await;
        let letters = store.dead_letters(10).await.unwrap();
        let counts = store.counts().await.unwrap();
        let started: u64 = counts.iter().map(|it| it.count).sum();
        let done = broker.queue_len(START_QUEUE) == 0 && broker.unacked(START_QUEUE) == 0;
        if started == 60 && done && letters.len() == 1 {
            return letters[0].clone();
        }
    }
}

#[test]
fn a_message_that_ends_every_node_is_set_aside_and_its_neighbours_are_done() {
    const LIVES_MAX: usize = 10;
    let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
    for life in 1..=LIVES_MAX {
        let died = Arc::new(Notify::new());
        let picky = Picky {
            died: Arc::clone(&died),
            ..Picky::new(store.clone())
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let letter = runtime.block_on(async {
            let _node = engine(Arc::new(picky), &broker, JOB).await;
            if life == 1 {
                send_starts(&broker, "deadly").await;
            }
            let letter = only_letter(&broker, &store);
            tokio::select! {
                () = died.notified() => None,
                letter = tokio::time::timeout(Duration::from_secs(20), letter) => Some(letter),
            }
        });
        // As a process that is killed: all its tasks are gone, and its messages come again.
        drop(runtime);
        if let Some(letter) = letter {
            let letter = letter.expect("it comes to an end");
            assert_eq!(letter.code, code::NODE_ENDED);
            let id = letter.message.properties.message_id;
            assert_eq!(id.as_deref(), Some("deadly"));
            return;
        }
    }
    panic!("{LIVES_MAX} nodes ended");
}
