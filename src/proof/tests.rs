//! A small shop is run for real, in memory; then one thing is put wrong at a time, and exactly
//! the sentences that speak of it must fail.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::aggregates::{
    Inventory, Mailer, Payments, inventory, mailer, participants, payments, seed,
};
use crate::broker::memory::MemoryBroker;
use crate::definition;
use crate::engine::{Engine, EngineOptions, EngineParts};
use crate::environment::{Environment, Shutdown, TokioEnvironment};
use crate::id::Timestamp;
use crate::participant::{Aggregate, ParticipantOptions, run_all};
use crate::store::memory::MemoryStore;
use crate::store::participant::{
    AggregateEvent, AggregateKey, AggregateRow, Origin, ParticipantWrites, Write,
};
use crate::store::{Commit, ListFilter, SagaWrite};

const ENDED: &str = "every order is one saga, and every saga ended";
const STOCK: &str = "stock: sold + left = what was there, and sold = what was bought";
const MONEY: &str = "money: paid + left = what was there, and paid = what was bought";
const RESERVED: &str = "no reservation is left over";
const ORDERS: &str = "every order is confirmed or cancelled, as its saga says";
const ONCE: &str = "each effect happened once, and none of what was undone";
const FOLDS: &str = "each article, account and order is the sum of its events";
const CHAINS: &str = "each journal is an unbroken chain that folds to its saga";

/// A shop in which two orders completed and two were compensated.
struct Ran {
    store: MemoryStore,
    expected: Expected,
}

impl Ran {
    async fn new() -> Self {
        let store = MemoryStore::new();
        let expected = expected();
        let now = TokioEnvironment.now();
        let stock = expected.stock.clone().into_iter();
        let stock = stock.map(|(sku, quantity)| (sku, inventory::Event::Received { quantity }));
        seed::<Inventory>(&store, now, stock).await.unwrap();
        let money = expected.balances.clone().into_iter();
        let money = money.map(|(account, amount)| (account, payments::Event::Deposited { amount }));
        seed::<Payments>(&store, now, money).await.unwrap();

        let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
        let broker = Arc::new(MemoryBroker::new());
        let stop = Shutdown::default();
        let participants_done = tokio::spawn(run_all(
            participants(),
            Arc::clone(&environment),
            Arc::new(store.clone()),
            broker.clone(),
            ParticipantOptions::default(),
            stop.clone(),
        ));
        let source = include_str!("../../sagas/place-order.yaml");
        let engine = Engine::start(EngineParts {
            environment,
            store: Arc::new(store.clone()),
            broker,
            definitions: vec![Arc::new(
                definition::parse(source, "place-order.yaml").unwrap(),
            )],
            options: EngineOptions::default(),
        })
        .await
        .unwrap();
        for order in expected.orders.values() {
            let input = serde_json::to_value(order).unwrap();
            engine.start_saga("place-order", input).await.unwrap();
        }
        while !all_ended(&store).await {
            tokio::task::yield_now().await;
        }
        engine.stop().await;
        stop.request();
        participants_done.await.unwrap().unwrap();
        Self { store, expected }
    }

    /// The names of the sentences that do not hold.
    async fn wrong(&self) -> Vec<&'static str> {
        let proofs = prove(&self.store, &self.store, &self.expected)
            .await
            .unwrap();
        let wrong = proofs.iter().filter(|proof| !proof.held);
        wrong.map(|proof| proof.name).collect()
    }

    /// Writes an event as if it had happened; `state` is what the row says then.
    async fn record<A: Aggregate>(&self, id: &str, event: Option<A::Event>, state: &A::State) {
        let key = AggregateKey {
            kind: A::KIND.to_owned(),
            id: id.to_owned(),
        };
        let mut transaction = self.store.begin().await.unwrap();
        let loaded = transaction
            .load(&[], std::slice::from_ref(&key))
            .await
            .unwrap();
        let seq = loaded.aggregates[0].revision + u64::from(event.is_some());
        let events = event.map(|event| AggregateEvent {
            key: key.clone(),
            seq,
            at: Timestamp::default(),
            valid_from: None,
            origin: Origin::default(),
            body: serde_json::to_vec(&event).unwrap().into(),
        });
        let row = AggregateRow {
            key,
            revision: seq,
            state: Bytes::from(serde_json::to_vec(state).unwrap()),
        };
        let writes = ParticipantWrites {
            aggregates: vec![Write::Update(row)],
            events: events.into_iter().collect(),
            ..ParticipantWrites::default()
        };
        transaction.commit(writes).await.unwrap();
    }
}

fn order(id: &str, customer: &str, sku: &str, quantity: u64, total: u64) -> (String, Order) {
    let order = Order {
        order_id: id.to_owned(),
        customer: customer.to_owned(),
        items: vec![Item {
            sku: sku.to_owned(),
            quantity,
        }],
        total,
    };
    (id.to_owned(), order)
}

fn expected() -> Expected {
    let named = |id: &str, amount| (id.to_owned(), amount);
    Expected {
        saga: "place-order".to_owned(),
        stock: BTreeMap::from([named("lamp", 10), named("vase", 1)]),
        balances: BTreeMap::from([named("alice", 10_000), named("bob", 5)]),
        orders: BTreeMap::from([
            order("1-good", "alice", "lamp", 2, 700),
            order("2-good", "alice", "lamp", 1, 350),
            order("3-no-stock", "alice", "vase", 2, 900),
            order("4-no-money", "bob", "lamp", 1, 350),
        ]),
        ..Expected::default()
    }
}

async fn all_ended(store: &MemoryStore) -> bool {
    let counts = store.counts().await.unwrap();
    counts.iter().all(|count| count.status.is_ended())
}

#[tokio::test]
async fn a_shop_where_nothing_went_wrong_adds_up() {
    let ran = Ran::new().await;
    let proofs = prove(&ran.store, &ran.store, &ran.expected).await.unwrap();
    let wrong: Vec<&Proof> = proofs.iter().filter(|proof| !proof.held).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(proofs[0].detail, "2 completed, 2 compensated");
    assert_eq!(proofs[1].detail, "2 articles: 3 sold + 8 left = 11");
    assert_eq!(
        proofs[2].detail,
        "2 accounts: 10.50 paid + 89.55 left = 100.05"
    );
    assert!(prove_drained(&[&ran.store]).await.unwrap().held);
}

#[tokio::test]
async fn another_expectation_fails_where_it_differs() {
    type Change = fn(&mut Expected);
    let cases: [(Change, &[&str]); 6] = [
        (
            |expected| *expected.stock.get_mut("lamp").unwrap() += 1,
            &[STOCK],
        ),
        (
            |expected| *expected.balances.get_mut("bob").unwrap() += 1,
            &[MONEY],
        ),
        (
            |expected| {
                expected
                    .orders
                    .extend([order("5-lost", "alice", "lamp", 1, 350)]);
            },
            &[ENDED, ORDERS],
        ),
        (
            |expected| drop(expected.orders.remove("3-no-stock")),
            &[ENDED, ORDERS],
        ),
        (
            |expected| expected.orders.get_mut("1-good").unwrap().total = 1,
            &[MONEY, ONCE],
        ),
        (
            |expected| expected.orders.get_mut("1-good").unwrap().items[0].quantity = 1,
            &[STOCK, ONCE],
        ),
    ];
    let mut ran = Ran::new().await;
    for (change, wrong) in cases {
        ran.expected = expected();
        change(&mut ran.expected);
        assert_eq!(ran.wrong().await, wrong);
    }
}

#[tokio::test]
async fn a_receipt_sent_twice_is_found() {
    let ran = Ran::new().await;
    let saga = ran.store.list(&of_order("1-good")).await.unwrap()[0].id;
    let again = serde_json::json!({ "event": "receipt_sent", "by": format!("{saga}/receipt") });
    let again = serde_json::from_value(again).unwrap();
    let state = mailer::State { count: 2 };
    ran.record::<Mailer>("1-good", Some(again), &state).await;
    assert_eq!(ran.wrong().await, [ONCE]);
}

#[tokio::test]
async fn a_reservation_that_is_left_over_is_found() {
    let ran = Ran::new().await;
    let event = serde_json::json!({ "event": "reserved", "key": "nobody/stock", "quantity": 3 });
    let event: inventory::Event = serde_json::from_value(event).unwrap();
    let state = serde_json::json!({ "on_hand": 7, "reserved": 0, "sold": 3, "received": 10 });
    let mut state = serde_json::from_value(state).unwrap();
    Inventory::apply(&mut state, &event);
    ran.record::<Inventory>("lamp", Some(event), &state).await;
    assert_eq!(ran.wrong().await, [STOCK, RESERVED]);
}

#[tokio::test]
async fn a_state_that_is_not_the_sum_of_its_events_is_found() {
    let ran = Ran::new().await;
    let state = mailer::State { count: 2 };
    ran.record::<Mailer>("1-good", None, &state).await;
    assert_eq!(ran.wrong().await, [FOLDS]);
}

#[tokio::test]
async fn a_row_that_its_journal_does_not_lead_to_is_found() {
    let ran = Ran::new().await;
    let mut head = ran
        .store
        .list(&of_order("4-no-money"))
        .await
        .unwrap()
        .remove(0);
    head.head_hash[0] ^= 1;
    let write = SagaWrite {
        expected: head.revision,
        head,
        entries: Vec::new(),
        snapshot: None,
        outbox: Vec::new(),
        labels: Vec::new(),
    };
    let commit = Commit {
        sagas: vec![write],
        ..Commit::default()
    };
    ran.store.commit(commit).await.unwrap();
    assert_eq!(ran.wrong().await, [CHAINS]);
}

#[tokio::test]
async fn what_does_not_begin_with_the_prefix_is_another_run() {
    let mut ran = Ran::new().await;
    ran.expected = Expected {
        saga: "place-order".to_owned(),
        prefix: "5-".to_owned(),
        ..Expected::default()
    };
    assert_eq!(ran.wrong().await, Vec::<&str>::new());
}

fn of_order(key: &str) -> ListFilter {
    ListFilter {
        key: Some(key.to_owned()),
        limit: 1,
        ..ListFilter::default()
    }
}
