//! Drain and replay over the memory store and broker.

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Outgoing, Published, Queue, Topology};
use crate::dead_letters::desk::{Desk, Selection};
use crate::dead_letters::replay::{REPLAYS_MAX, ReplayOptions};
use crate::dead_letters::route::Wish;
use crate::dead_letters::shift::{Shift, shift};
use crate::definition::Expression;
use crate::environment::TokioEnvironment;
use crate::message::{DOMAIN_EVENT_QUEUE, Destination, Properties};
use crate::store::dead_letters::{LetterFilter, LetterHead, LetterPage, LetterStatus};
use crate::store::memory::MemoryStore;

pub(super) struct Bundle {
    pub(super) broker: MemoryBroker,
    pub(super) store: MemoryStore,
    handle: Arc<dyn Broker>,
    pub(super) desk: Desk,
    drain: Drain,
}

impl Bundle {
    pub(super) async fn new() -> Self {
        let broker = MemoryBroker::new();
        let queue = |name: &str| Queue {
            name: name.to_owned(),
            dead_letter_to: None,
        };
        let topology = Topology {
            queues: ["dlq", "orders", "other"].map(queue).to_vec(),
            ..Topology::default()
        };
        broker.declare(&topology).await.unwrap();
        let store = MemoryStore::new();
        let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
        let handle: Arc<dyn Broker> = Arc::new(broker.clone());
        Self {
            drain: Drain {
                environment: Arc::clone(&environment),
                broker: Arc::clone(&handle),
                letters: Arc::new(store.clone()),
                prefetch: 100,
            },
            desk: Desk {
                environment,
                letters: Arc::new(store.clone()),
                sagas: Arc::new(store.clone()),
            },
            broker,
            store,
            handle,
        }
    }

    pub(super) async fn publish(&self, queue: &str, messages: Vec<Message>) {
        let outgoing = messages.into_iter().map(|message| Outgoing {
            destination: Destination::queue(queue),
            message,
            mandatory: true,
        });
        let words = self.broker.publish(outgoing.collect()).await;
        assert!(words.iter().all(|word| *word == Published::Confirmed));
    }

    pub(super) async fn drain(&self) -> Drained {
        self.drain_of("dlq").await
    }

    pub(super) async fn drain_of(&self, queue: &str) -> Drained {
        let stop = Shutdown::default();
        self.drain
            .run(queue, DrainUntil::Empty, &stop, |_| {})
            .await
            .unwrap()
    }

    async fn replay(
        &self,
        change: impl FnOnce(&mut ReplayOptions),
    ) -> crate::dead_letters::replay::Replayed {
        let mut options = ReplayOptions {
            wish: Wish::default(),
            again: false,
            force: false,
            replays_max: REPLAYS_MAX,
            by: "ann".to_owned(),
            why: "mended".to_owned(),
            rate: None,
            canary: None,
            limit: None,
        };
        change(&mut options);
        let stop = Shutdown::default();
        let open = LetterFilter {
            status: Some(LetterStatus::Open),
            ..LetterFilter::default()
        };
        let all = Selection::Filter(Box::new(open));
        self.desk
            .replay(&self.handle, all, &options, &stop, |_| {})
            .await
            .unwrap()
    }

    pub(super) async fn heads(&self) -> Vec<LetterHead> {
        let page = LetterPage {
            after: None,
            oldest_first: true,
            limit: 100,
        };
        self.desk
            .letters
            .letters(&LetterFilter::default(), &page)
            .await
            .unwrap()
    }

    pub(super) async fn take(&self, queue: &str) -> Vec<Message> {
        let mut consumer = self.broker.consume(queue, 100).await.unwrap();
        let count = self.broker.queue_len(queue);
        let mut taken = Vec::new();
        while taken.len() < count {
            let batch = consumer.deliveries.next_batch(100).await;
            consumer
                .acks
                .ack(&batch.iter().map(|one| one.tag).collect::<Vec<_>>());
            taken.extend(batch.into_iter().map(|one| one.message));
        }
        taken
    }
}

pub(super) fn dead(id: Option<&str>, body: &'static [u8]) -> Message {
    Message {
        properties: Properties {
            message_id: id.map(str::to_owned),
            headers: serde_json::from_value(json!({
                "mine": 1, "x-first-death-queue": "orders", "x-first-death-reason": "rejected",
                "x-death": [{ "queue": "orders", "reason": "rejected", "count": 1 }],
            }))
            .unwrap(),
            ..Properties::default()
        },
        body: Bytes::from_static(body),
    }
}

#[tokio::test]
async fn equal_messages_without_an_id_are_letters_of_their_own() {
    let bundle = Bundle::new().await;
    bundle
        .publish(
            "dlq",
            vec![dead(None, b"x"), dead(None, b"x"), dead(None, b"y")],
        )
        .await;
    let drained = bundle.drain().await;
    assert_eq!((drained.taken, drained.new), (3, 3));
    assert_eq!(bundle.broker.queue_len("dlq"), 0);
    let reasons: Vec<_> = bundle
        .heads()
        .await
        .into_iter()
        .map(|head| head.reason)
        .collect();
    assert_eq!(reasons, ["rejected by a consumer of queue `orders`"; 3]);
}

#[tokio::test]
async fn a_delivery_that_was_stored_but_not_acknowledged_is_no_second_letter() {
    let bundle = Bundle::new().await;
    bundle
        .publish(
            "dlq",
            vec![dead(Some("1"), b"x"), dead(None, b"x"), dead(None, b"x")],
        )
        .await;
    let mut consumer = bundle.broker.consume("dlq", 10).await.unwrap();
    let batch = consumer.deliveries.next_batch(10).await;
    let mut session = Session::default();
    let letters: Vec<_> = batch
        .iter()
        .map(|one| bundle.drain.letter("dlq", one, &mut session))
        .collect();
    let now = bundle.desk.environment.now();
    // One of the two equal ones, and the one with an id; then the drain crashes.
    bundle
        .desk
        .letters
        .store_drained("dlq", now, &letters[..2])
        .await
        .unwrap();
    drop(consumer);
    let drained = bundle.drain().await;
    assert_eq!((drained.taken, drained.new), (3, 1));
}

#[tokio::test]
async fn a_replay_goes_where_it_died_with_its_identity_and_without_the_brokers_books() {
    let bundle = Bundle::new().await;
    bundle
        .publish("dlq", vec![dead(Some("1"), b"\xff\x00")])
        .await;
    bundle.drain().await;
    let total = bundle.replay(|_| {}).await;
    assert_eq!((total.replayed, total.on_their_way), (1, 0));
    let head = bundle.heads().await.remove(0);
    assert_eq!(head.status, LetterStatus::Replayed);
    let sent = bundle.take("orders").await.remove(0);
    assert_eq!(&sent.body[..], b"\xff\x00");
    assert_eq!(sent.properties.message_id.as_deref(), Some("1"));
    let expected = json!({
        "mine": 1, "backstitch-letter": head.id.to_string(), "backstitch-replays": 1,
        "backstitch-origin": "orders",
    });
    assert_eq!(json!(sent.properties.headers), expected);

    // Not twice; and what comes back is linked, and counted until it is enough.
    assert_eq!(bundle.replay(|_| {}).await.replayed, 0);
    let mut parent = head.id;
    let mut message = sent;
    for round in 1..=REPLAYS_MAX {
        bundle.publish("dlq", vec![message.clone()]).await;
        bundle.drain().await;
        let back = bundle.heads().await.pop().unwrap();
        assert_eq!((back.came_back_from, back.replays), (Some(parent), round));
        let total = bundle
            .replay(|options| options.wish.to = Some(Destination::queue("orders")))
            .await;
        let refused = u64::from(round == REPLAYS_MAX);
        assert_eq!((total.replayed, total.refused), (1 - refused, refused));
        if refused == 0 {
            message = bundle.take("orders").await.remove(0);
            parent = back.id;
        }
    }
}

#[tokio::test]
async fn a_domain_event_is_replayed_with_what_it_was_published_to() {
    let bundle = Bundle::new().await;
    let mut event = dead(Some("1"), b"{}");
    let deaths = json!([{
        "count": 1, "exchange": "shop", "queue": DOMAIN_EVENT_QUEUE, "reason": "delivery_limit",
        "routing-keys": ["order.placed"],
    }]);
    event.properties.headers = [("x-death".to_owned(), deaths)].into();
    bundle.publish("dlq", vec![event]).await;
    bundle.drain().await;
    let to_orders =
        |options: &mut ReplayOptions| options.wish.to = Some(Destination::queue("orders"));
    assert_eq!(bundle.replay(to_orders).await.replayed, 1);
    let sent = bundle.take("orders").await.remove(0);
    assert_eq!(sent.header("event-exchange"), Some("shop"));
    assert_eq!(sent.header("event-routing-key"), Some("order.placed"));
}

#[tokio::test]
async fn a_replay_that_no_queue_takes_leaves_its_letter_open() {
    let bundle = Bundle::new().await;
    bundle.publish("dlq", vec![dead(Some("1"), b"x")]).await;
    bundle.drain().await;
    let total = bundle
        .replay(|options| options.wish.to = Some(Destination::queue("nowhere")))
        .await;
    assert_eq!((total.replayed, total.returned), (0, 1));
    assert_eq!(bundle.heads().await[0].status, LetterStatus::Open);
    assert_eq!(bundle.desk.letters.outbox_len().await.unwrap(), 0);
}

#[tokio::test]
async fn canaries_that_come_back_keep_the_others_at_home() {
    let bundle = Bundle::new().await;
    let messages = ["1", "2", "3", "4"].map(|id| dead(Some(id), b"x")).to_vec();
    bundle.publish("dlq", messages).await;
    bundle.drain().await;
    let canary = |options: &mut ReplayOptions| {
        options.canary = Some((2, Duration::from_millis(200)));
        // Straight back into the dead letters.
        options.wish.to = Some(Destination::queue("dlq"));
    };
    let total = bundle.replay(canary).await;
    assert_eq!((total.replayed, total.came_back.len()), (2, 2));
    let well = |options: &mut ReplayOptions| options.canary = Some((2, Duration::ZERO));
    let total = bundle.replay(well).await;
    assert_eq!((total.replayed, total.came_back.len()), (4, 0));
}

#[tokio::test]
async fn letters_of_one_saga_go_one_after_the_other() {
    let bundle = Bundle::new().await;
    let saga = bundle.desk.environment.new_id();
    let of_saga = |id: &'static str| {
        let mut message = dead(Some(id), b"x");
        message.properties.correlation_id = Some(format!("{saga}/stock/reserve/00"));
        message
    };
    let messages = vec![
        of_saga("1"),
        dead(Some("2"), b"x"),
        of_saga("3"),
        of_saga("4"),
    ];
    bundle.publish("dlq", messages).await;
    bundle.drain().await;
    assert_eq!(bundle.replay(|_| {}).await.replayed, 4);
    let sent = bundle.take("orders").await;
    let ids: Vec<_> = sent
        .iter()
        .filter_map(|one| one.properties.message_id.as_deref())
        .collect();
    assert_eq!(ids, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_move_takes_what_is_wanted_and_ends() {
    let bundle = Bundle::new().await;
    let typed = |kind: &str, body| {
        let mut message = dead(None, body);
        message.properties.kind = Some(kind.to_owned());
        message
    };
    let messages = vec![
        typed("a", b"{\"n\":1}"),
        typed("b", b"{}"),
        typed("a", b"{\"n\":2}"),
    ];
    bundle.publish("dlq", messages).await;
    let mut wanted = Shift {
        from: "dlq".to_owned(),
        to: Destination::queue("dlq"),
        dry_run: false,
        anyway: false,
        condition: Some(Expression::of_command("input.type == 'a' && input.body.n > 1").unwrap()),
        rate: None,
        most: None,
    };
    let stop = Shutdown::default();
    let environment = &bundle.desk.environment;
    let done = shift(environment, &bundle.handle, &wanted, &stop, |_| {})
        .await
        .unwrap();
    assert_eq!((done.seen_at_start, done.moved, done.left), (3, 1, 2));
    assert_eq!(bundle.broker.queue_len("dlq"), 3);
    wanted.to = Destination::queue("other");
    wanted.condition = None;
    let done = shift(environment, &bundle.handle, &wanted, &stop, |_| {})
        .await
        .unwrap();
    assert_eq!((done.moved, done.left), (3, 0));
    assert_eq!(bundle.broker.queue_len("other"), 3);
    wanted.to = Destination::queue("nowhere");
    assert!(
        shift(environment, &bundle.handle, &wanted, &stop, |_| {})
            .await
            .is_err()
    );
}
