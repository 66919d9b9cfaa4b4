//! Replays that are not taken, and letters that could not be sent.

use async_trait::async_trait;
use serde_json::json;

use super::tests::{Bundle, dead};
use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::{BrokerError, Health, Outgoing, Published, Queue, Topology};
use crate::dead_letters::desk::{Desk, Selection};
use crate::dead_letters::edit::{document, from_document};
use crate::dead_letters::replay::{REPLAYS_MAX, ReplayOptions, Replayed};
use crate::dead_letters::route::Wish;
use crate::dead_letters::transfer::{LetterLine, Macs};
use crate::engine::relay::{Relay, RelayOptions};
use crate::id::Timestamp;
use crate::message::Destination;
use crate::store::Outbox as _;
use crate::store::dead_letters::{LetterFilter, LetterStatus};
use crate::store::memory::MemoryStore;

const WORDS: &str = "PRECONDITION_FAILED - no such thing";

/// Refuses, for good, every message of this type.
struct Choosy(MemoryBroker);

#[async_trait]
impl Broker for Choosy {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.0.declare(topology).await
    }
    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        self.0.consume(queue, prefetch).await
    }
    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Published> {
        let mut words = Vec::new();
        for message in messages {
            words.extend(match message.message.properties.kind.as_deref() {
                Some("bad") => vec![Published::Refused(WORDS.to_owned())],
                _ => self.0.publish(vec![message]).await,
            });
        }
        words
    }
    async fn queue_len(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        Broker::queue_len(&self.0, queue).await
    }
    fn health(&self) -> Health {
        self.0.health()
    }
}

fn options(to: Option<&str>) -> ReplayOptions {
    ReplayOptions {
        wish: Wish {
            to: to.map(Destination::queue),
            ..Wish::default()
        },
        again: false,
        force: false,
        replays_max: REPLAYS_MAX,
        by: "ann".to_owned(),
        why: "mended".to_owned(),
        rate: None,
        canary: None,
        limit: None,
    }
}

fn open_letters() -> Selection {
    Selection::Filter(Box::new(LetterFilter {
        status: Some(LetterStatus::Open),
        ..LetterFilter::default()
    }))
}

/// A letter of each type, drained.
async fn with_letters(kinds: &[&str]) -> Bundle {
    let bundle = Bundle::new().await;
    let of_kind = |kind: &&str| {
        let mut message = dead(None, b"{}");
        message.properties.kind = Some((*kind).to_owned());
        message
    };
    bundle
        .publish("dlq", kinds.iter().map(of_kind).collect())
        .await;
    bundle.drain().await;
    bundle
}

async fn replay_by(desk: &Desk, broker: Arc<dyn Broker>) -> Replayed {
    let stop = Shutdown::default();
    desk.replay(&broker, open_letters(), &options(None), &stop, |_| {})
        .await
        .unwrap()
}

async fn history(bundle: &Bundle, letter: Uuid) -> Vec<(String, String)> {
    let letters = &bundle.desk.letters;
    let entries = letters.letter_audit(Some(letter), 0, 99).await.unwrap();
    entries
        .into_iter()
        .map(|entry| (entry.action.clone(), entry.body))
        .collect()
}

#[tokio::test]
async fn a_replay_that_the_broker_refuses_opens_its_letter_and_holds_up_no_other() {
    let bundle = with_letters(&["bad", "good"]).await;
    let choosy: Arc<dyn Broker> = Arc::new(Choosy(bundle.broker.clone()));
    let total = replay_by(&bundle.desk, choosy).await;
    assert_eq!(
        (total.replayed, total.returned, total.on_their_way),
        (1, 1, 0)
    );
    let heads = bundle.heads().await;
    let bad = heads.iter().find(|one| one.kind.as_deref() == Some("bad"));
    let bad = bad.unwrap();
    assert_eq!(bad.status, LetterStatus::Open);
    let (action, body) = history(&bundle, bad.id).await.pop().unwrap();
    assert_eq!(action, "return");
    assert!(body.contains(WORDS), "{body}");
}

#[tokio::test]
async fn a_node_opens_letters_again_whose_replays_are_not_taken() {
    let bundle = with_letters(&["bad", "good"]).await;
    let desk = &bundle.desk;
    let nowhere = options(Some("nowhere"));
    desk.replay_by_nodes(None, open_letters(), &nowhere, |_| {})
        .await
        .unwrap();
    let relay = Relay::start(
        Arc::clone(&desk.environment),
        Arc::new(Choosy(bundle.broker.clone())),
        Arc::new(bundle.store.clone()) as Arc<MemoryStore>,
        RelayOptions {
            sweep_every: Duration::from_millis(1),
            ..RelayOptions::default()
        },
        None,
    );
    loop {
        let heads = bundle.heads().await;
        assert_eq!(heads.len(), 2, "the same letters, and no new ones");
        if heads.iter().all(|head| head.status == LetterStatus::Open) {
            break;
        }
        tokio::task::yield_now().await;
    }
    relay.stop().await;
    assert_eq!(desk.letters.outbox_len().await.unwrap(), 0);
    for head in bundle.heads().await {
        let (action, body) = history(&bundle, head.id).await.pop().unwrap();
        assert_eq!(action, "return");
        let expected = match head.kind.as_deref() {
            Some("bad") => WORDS,
            _ => "no queue takes it",
        };
        assert!(body.contains(expected), "{body}");
    }
}

#[tokio::test]
async fn what_rabbitmq_would_refuse_is_neither_edited_in_nor_imported() {
    let bundle = with_letters(&["good"]).await;
    let id = bundle.heads().await[0].id;
    let letter = bundle.desk.letter(id).await.unwrap();
    for (pointer, value) in [
        ("expiration", json!("5m")),
        ("delivery_mode", json!(9)),
        ("message_id", json!("x".repeat(256))),
    ] {
        let mut wanted = document(letter.message());
        wanted["properties"][pointer] = value.clone();
        let edited = from_document(&wanted, letter.message()).unwrap();
        let refused = bundle.desk.edit(&letter, edited, "ann", "why").await;
        assert!(refused.is_err(), "{pointer}");
        let mut line = json!(LetterLine::new(&letter, Macs::Shown));
        line["id"] = json!(bundle.desk.environment.new_id());
        line["properties"][pointer] = value;
        assert!(
            bundle
                .desk
                .import(&line.to_string(), "ann", "why")
                .await
                .is_err(),
            "{pointer}"
        );
    }
    let mut wanted = document(letter.message());
    wanted["properties"]["headers"]["large"] = json!("x".repeat(70_000));
    let edited = from_document(&wanted, letter.message()).unwrap();
    let refused = bundle.desk.edit(&letter, edited, "ann", "why").await;
    assert!(refused.is_err_and(|error| error.to_string().contains("headers")));
    assert_eq!(bundle.heads().await.len(), 1);
}

#[tokio::test]
async fn a_command_of_ours_that_is_dead_lettered_is_answered_in_its_participants_place() {
    let bundle = Bundle::new().await;
    let queue = |name: &str| Queue {
        name: name.to_owned(),
        dead_letter_to: None,
    };
    let topology = Topology {
        queues: [DEAD_LETTER_QUEUE, REPLY_QUEUE].map(queue).to_vec(),
        ..Topology::default()
    };
    bundle.broker.declare(&topology).await.unwrap();
    let message = |reply_to: Option<&str>| Message {
        properties: Properties {
            correlation_id: Some("saga/step/reserve/mac".to_owned()),
            reply_to: reply_to.map(str::to_owned),
            headers: [
                ("x-first-death-reason".to_owned(), json!("rejected")),
                ("x-first-death-queue".to_owned(), json!("rooms")),
            ]
            .into(),
            ..Properties::default()
        },
        body: "{}".into(),
    };
    // Somebody else's request, and a letter without anybody who waits, are none of ours.
    let messages = [Some(REPLY_QUEUE), Some("theirs"), None].map(message);
    bundle.publish(DEAD_LETTER_QUEUE, messages.to_vec()).await;
    let drained = bundle.drain_of(DEAD_LETTER_QUEUE).await;
    assert_eq!((drained.taken, drained.new), (3, 3));
    let mut replies = bundle.broker.consume(REPLY_QUEUE, 10).await.unwrap();
    let answers = replies.deliveries.next_batch(10).await;
    assert_eq!(answers.len(), 1);
    let answer = &answers[0].message;
    let correlation = answer.properties.correlation_id.as_deref();
    assert_eq!(correlation, Some("saga/step/reserve/mac"));
    assert_eq!(answer.header("outcome"), Some("failed"));
    let reason = answer.header("reason").unwrap();
    assert!(
        reason.contains("rejected by a consumer of queue `rooms`"),
        "{reason}"
    );
    assert!(reason.contains("it is dead letter "), "{reason}");
}

#[tokio::test]
async fn what_nodes_send_again_at_a_rate_is_due_by_and_by() {
    let bundle = with_letters(&["good"; 20]).await;
    let desk = &bundle.desk;
    let slowly = ReplayOptions {
        rate: Some(1),
        ..options(Some("elsewhere"))
    };
    let total = desk
        .replay_by_nodes(None, open_letters(), &slowly, |_| {})
        .await
        .unwrap();
    assert_eq!(total.replayed, 20);
    // The last is due 19 seconds after the first.
    let (now, later) = (desk.environment.now(), Duration::from_mins(1));
    let sweep = async |now: Timestamp| {
        let rows = bundle.store.sweep_outbox(now, now.after(later), 99).await;
        rows.unwrap().len()
    };
    let at_once = sweep(now).await;
    assert!((1..20).contains(&at_once), "{at_once}");
    let rest = sweep(now.after(Duration::from_secs(20))).await;
    assert_eq!(at_once + rest, 20);
}
