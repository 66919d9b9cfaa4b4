//! What a node refuses, end to end on the broker and store of this process: each time a letter of its
//! own, also when it is sent again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Outgoing, Published};
use crate::dead_letters::replay::{REPLAYS_MAX, ReplayOptions, Replayed};
use crate::dead_letters::route::Wish;
use crate::dead_letters::{Desk, Selection};
use crate::definition::parse;
use crate::engine::{
    Addressee, Engine, EngineOptions, EngineParts, SignalAnswer, SignalError, StartAnswer,
};
use crate::environment::{Shutdown, TokioEnvironment};
use crate::error::code;
use crate::message::{
    DOMAIN_EVENT_QUEUE, Destination, Message, Properties, REPLY_QUEUE, SIGNAL_QUEUE, START_QUEUE,
};
use crate::store::dead_letters::{
    DeadLetterStore, LetterFilter, LetterHead, LetterPage, LetterStatus,
};
use crate::store::memory::MemoryStore;

const HELLO: &str = "
saga: NAME
version: 1
key: ${ input.id }
timeout: 30d
input: { type: object, required: [id] }
start:
  on: { exchange: notices, routing_key: hello, with: { id: '${ event.id }' } }
steps:
  - wait: go
    timeout: 20d
  - step: greet
    confirm: greeter.greet
";

struct Shop {
    node: Arc<Engine>,
    broker: MemoryBroker,
    store: MemoryStore,
    desk: Desk,
}

impl Shop {
    async fn open(sagas: &[&str]) -> Self {
        let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
        let parsed = |name: &&str| {
            let source = HELLO.replace("NAME", name);
            let definition = parse(&source, "hello.yaml").unwrap_or_else(|why| panic!("{why}"));
            Arc::new(definition)
        };
        let parts = EngineParts {
            environment: Arc::new(TokioEnvironment),
            store: Arc::new(store.clone()),
            broker: Arc::new(broker.clone()),
            definitions: sagas.iter().map(parsed).collect(),
            options: EngineOptions::default(),
        };
        let desk = Desk {
            environment: Arc::new(TokioEnvironment),
            letters: Arc::new(store.clone()),
            sagas: Arc::new(store.clone()),
        };
        Self {
            node: Engine::start(parts).await.unwrap(),
            broker,
            store,
            desk,
        }
    }

    /// Sends a message, and waits until it was dealt with.
    async fn send(&self, to: Destination, message: Message) {
        let outgoing = Outgoing {
            destination: to,
            message,
            mandatory: true,
        };
        let published = self.broker.publish(vec![outgoing]).await;
        assert_eq!(published, [Published::Confirmed]);
        self.until_quiet().await;
    }

    async fn until_quiet(&self) {
        for queue in [START_QUEUE, REPLY_QUEUE, SIGNAL_QUEUE, DOMAIN_EVENT_QUEUE] {
            while self.broker.queue_len(queue) + self.broker.unacked(queue) > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// All letters, oldest first.
    async fn letters(&self) -> Vec<LetterHead> {
        let page = LetterPage {
            after: None,
            oldest_first: true,
            limit: 100,
        };
        let all = LetterFilter::default();
        self.store.letters(&all, &page).await.unwrap()
    }

    async fn replay(&self, letter: &LetterHead, canary: bool) -> Replayed {
        let options = ReplayOptions {
            wish: Wish::default(),
            again: false,
            force: false,
            replays_max: REPLAYS_MAX,
            by: "ann".to_owned(),
            why: "perhaps now".to_owned(),
            rate: None,
            canary: canary.then_some((1, Duration::from_mins(1))),
            limit: None,
        };
        let broker: Arc<dyn Broker> = Arc::new(self.broker.clone());
        let this = Selection::Ids(vec![letter.id]);
        let stop = Shutdown::default();
        let replayed = self.desk.replay(&broker, this, &options, &stop, |_| {});
        let replayed = replayed.await.unwrap();
        self.until_quiet().await;
        replayed
    }
}

fn message(kind: Option<&str>, id: Option<&str>, headers: Value, body: &str) -> Message {
    Message {
        properties: Properties {
            kind: kind.map(str::to_owned),
            message_id: id.map(str::to_owned),
            headers: serde_json::from_value(headers).unwrap(),
            ..Properties::default()
        },
        body: body.to_owned().into(),
    }
}

fn event() -> Destination {
    Destination {
        exchange: "notices".to_owned(),
        routing_key: "hello".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_again_is_an_open_letter_that_says_what_it_came_back_from() {
    let nobody = json!({ "saga": "hello", "saga-key": "nobody" });
    for (to, kind, headers, body) in [
        (Destination::queue(START_QUEUE), "nosuch", json!({}), "{}"),
        (Destination::queue(START_QUEUE), "hello", json!({}), "nope"),
        (Destination::queue(SIGNAL_QUEUE), "go", nobody, "{}"),
        (Destination::queue(REPLY_QUEUE), "reply", json!({}), "nope"),
        (event(), "event", json!({}), "{\"wrong\":1}"),
    ] {
        for (id, canary) in [(Some("m-1"), false), (Some("m-1"), true), (None, false)] {
            let shop = Shop::open(&["hello"]).await;
            let sent = message(Some(kind), id, headers.clone(), body);
            shop.send(to.clone(), sent.clone()).await;
            let first = shop.letters().await.remove(0);
            let replayed = shop.replay(&first, canary).await;
            let came_back = if canary { vec![first.id] } else { vec![] };
            assert_eq!((replayed.replayed, replayed.came_back), (1, came_back));
            let letters = shop.letters().await;
            let [first, second] = &letters[..] else {
                panic!("{to}: {letters:?}");
            };
            assert_eq!(first.status, LetterStatus::Replayed, "{to}");
            assert_eq!(
                (second.status, second.came_back_from, second.replays),
                (LetterStatus::Open, Some(first.id), 1),
                "{to}"
            );
            // Its sender sends it again, after somebody has let it go.
            let this = Selection::Ids(vec![second.id]);
            shop.desk.discard(this, "ann", "nonsense").await.unwrap();
            shop.send(to.clone(), sent).await;
            let third = shop.letters().await.pop().unwrap();
            assert_eq!(third.status, LetterStatus::Open);
            assert_ne!(third.id, second.id);
            assert!(third.came_back_from.is_some(), "{to} {id:?}");
            shop.node.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_differ_only_in_type_or_headers_and_copies_are_letters_of_their_own() {
    let shop = Shop::open(&["hello"]).await;
    let start = |kind: &str, headers| message(Some(kind), Some("m-1"), headers, "{}");
    for sent in [
        start("one", json!({})),
        start("two", json!({})),
        start("one", json!({ "tenant": "b" })),
        start("one", json!({})),
    ] {
        shop.send(Destination::queue(START_QUEUE), sent).await;
    }
    let letters = shop.letters().await;
    assert_eq!(letters.len(), 4);
    assert!(letters.iter().all(|head| head.status == LetterStatus::Open));
    shop.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_a_letter_for_each_definition_that_can_not_use_it_and_is_replayed_for_that_one()
{
    let shop = Shop::open(&["hello", "goodbye"]).await;
    let sent = message(None, Some("e-1"), json!({}), "{\"wrong\":1}");
    shop.send(event(), sent).await;
    let letters = shop.letters().await;
    assert_eq!(letters.len(), 2);
    let mut reasons: Vec<_> = letters.iter().map(|head| head.reason.as_str()).collect();
    reasons.sort_unstable();
    assert!(reasons[0].contains("`goodbye`") && reasons[1].contains("`hello`"));

    shop.replay(&letters[0], false).await;
    let after = shop.letters().await;
    assert_eq!(after.len(), 3, "one came back, for one of both");
    assert_eq!(after[2].came_back_from, Some(letters[0].id));
    assert_eq!(after[2].reason, letters[0].reason);
    shop.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_signal_with_a_known_id_is_a_conflict_and_a_letter() {
    let shop = Shop::open(&["hello"]).await;
    let started = shop.node.start_saga("hello", json!({ "id": "7" }));
    let Ok(StartAnswer::Started(saga)) = started.await else {
        panic!("it starts");
    };
    let tell = |payload| {
        let id = "evt_1001".to_owned();
        shop.node.signal(Addressee::Saga(saga), "go", id, payload)
    };
    // Somebody is first with an id that is not his.
    assert_eq!(tell(json!(0)).await, Ok(SignalAnswer::Accepted(saga)));
    let Err(SignalError::Refused(wrong)) = tell(json!(1)).await else {
        panic!("it is another one");
    };
    assert_eq!(wrong.code, code::SIGNAL_CONFLICT);
    let headers = json!({ "saga": saga });
    for body in ["1", "0"] {
        let sent = message(Some("go"), Some("evt_1001"), headers.clone(), body);
        shop.send(Destination::queue(SIGNAL_QUEUE), sent).await;
    }
    // The last one says the same as the first.
    let letters = shop.letters().await;
    let codes: Vec<_> = letters.iter().map(|head| head.code).collect();
    assert_eq!(codes, [code::SIGNAL_CONFLICT]);
    shop.node.stop().await;
}
