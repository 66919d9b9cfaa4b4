//! What happens in the simulated world: a shop opens, customers order, the books are checked.
//!
//! Stock and money are short on purpose, so that some orders must be turned down.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use serde_json::json;

use super::bundles::{self, Bundle};
use super::customers::publish_until_confirmed;
use super::network::SimBroker;
use super::now::now;
use super::releases;
use super::scenario::Workload;
use super::scheduler::Scheduler;
use crate::aggregates::{Inventory, Payments, inventory, payments, seed};
use crate::broker::memory::MemoryBroker;
use crate::environment::Environment;
use crate::message::{Message, Properties};
use crate::proof::{Expected, Item, Order, Proof, prove};
use crate::store::memory::MemoryStore;

/// The saga that is simulated: like the one we ship, but it gives up sooner.
pub(super) const DEFINITION: &str = include_str!("impatient-order.yaml");
pub(super) const SAGA: &str = "impatient-order";
/// What a careless customer calls it.
pub(super) const MISSPELT: &str = "impatient-ordre";
/// How all that this world is about is called first; what else there is (sub-sagas that never
/// began have no key of their own) is not.
const PREFIX: &str = "sim-";

const ARTICLES: u64 = 4;
const CUSTOMERS: u64 = 3;
const STOCK_EACH: u64 = 9;
const BALANCE_EACH: u64 = 3_000;
const PRICE: u64 = 100;

/// A shop and the orders that will be placed.
#[derive(Clone)]
pub(super) struct Shop {
    expected: Expected,
    /// Waits between the orders.
    pauses: Vec<Duration>,
    /// Orders that are placed together; empty if each is placed by itself.
    bundles: Vec<Bundle>,
    /// Which orders are placed under a name that no saga has.
    misspelt: Vec<bool>,
}

impl Shop {
    /// Draws the orders from the seed.
    pub(super) fn draw(scheduler: &Scheduler, orders: usize, workload: Workload) -> Self {
        let mut expected = Expected {
            saga: SAGA.to_owned(),
            prefix: PREFIX.to_owned(),
            stock: (0..ARTICLES)
                .map(|sku| (format!("{PREFIX}sku-{sku}"), STOCK_EACH))
                .collect(),
            balances: (0..CUSTOMERS)
                .map(|name| (format!("{PREFIX}cust-{name}"), BALANCE_EACH))
                .collect(),
            formats: releases::ALL,
            ..Expected::default()
        };
        let mut pauses = Vec::new();
        for number in 0..orders {
            let order = scheduler.random(|random| draw_order(random, number));
            expected.orders.insert(order.order_id.clone(), order);
            let pause = scheduler.random(|random| random.u64(0..2_000));
            pauses.push(Duration::from_millis(pause));
        }
        let bundles = match workload {
            Workload::Orders | Workload::Letters => Vec::new(),
            Workload::Bundles => bundles::tie(expected.orders.values()),
        };
        let misspelt = match workload {
            Workload::Orders | Workload::Bundles => vec![false; orders],
            Workload::Letters => (0..orders).map(|_| scheduler.chance(0.5)).collect(),
        };
        Self {
            expected,
            pauses,
            bundles,
            misspelt,
        }
    }

    /// Fills the shelves and the purses, then places the orders.
    pub(super) async fn open(
        self,
        environment: Arc<dyn Environment>,
        store: MemoryStore,
        broker: Arc<SimBroker<MemoryBroker>>,
    ) {
        let at = environment.now();
        let stock = self.expected.stock.iter().map(|(sku, quantity)| {
            (
                sku.clone(),
                inventory::Event::Received {
                    quantity: *quantity,
                },
            )
        });
        let balances = self.expected.balances.iter().map(|(account, amount)| {
            (
                account.clone(),
                payments::Event::Deposited { amount: *amount },
            )
        });
        let seeded = seed::<Inventory>(&store, at, stock).await.is_ok()
            && seed::<Payments>(&store, at, balances).await.is_ok();
        if !seeded {
            return;
        }
        for (bundle, pause) in self.bundles.iter().zip(&self.pauses) {
            environment.sleep(*pause).await;
            bundle.place(&broker).await;
        }
        if !self.bundles.is_empty() {
            return;
        }
        let orders = self.expected.orders.values().zip(self.misspelt);
        for ((order, misspelt), pause) in orders.zip(&self.pauses) {
            environment.sleep(*pause).await;
            let name = if misspelt { MISSPELT } else { SAGA };
            place(&broker, name, order).await;
        }
    }

    /// The sagas that were asked for: their definition, and how many.
    pub(super) fn asked_for(&self) -> (&'static str, u64) {
        if self.bundles.is_empty() {
            (SAGA, self.expected.orders.len() as u64)
        } else {
            (bundles::SAGA, self.bundles.len() as u64)
        }
    }

    /// What the books say in the end: all that does not hold.
    pub(super) fn wrong(&self, store: &MemoryStore, shop: &MemoryStore) -> Vec<String> {
        let mut expected = self.expected.clone();
        let Some(Ok(ends)) = bundles::compare(store, &self.bundles, SAGA).now_or_never() else {
            return vec!["the bundles can't be read".to_owned()];
        };
        for order in &ends.never_begun {
            expected.orders.remove(order);
        }
        let proofs: Vec<Proof> = now(prove(store, shop, &expected));
        let failed = proofs.into_iter().filter(|proof| !proof.held);
        let failed = failed.map(|proof| format!("{}: {}", proof.name, proof.detail));
        ends.wrong.into_iter().chain(failed).collect()
    }
}

fn draw_order(random: &mut fastrand::Rng, number: usize) -> Order {
    let mut skus: Vec<u64> = (0..ARTICLES).collect();
    random.shuffle(&mut skus);
    let items: Vec<Item> = skus
        .into_iter()
        .take(random.usize(1..=3))
        .map(|sku| Item {
            sku: format!("{PREFIX}sku-{sku}"),
            quantity: random.u64(1..=4),
        })
        .collect();
    let total = PRICE * items.iter().map(|item| item.quantity).sum::<u64>();
    Order {
        order_id: format!("{PREFIX}order-{number}"),
        customer: format!("{PREFIX}cust-{}", random.u64(..CUSTOMERS)),
        items,
        total,
    }
}

async fn place(broker: &SimBroker<MemoryBroker>, name: &str, order: &Order) {
    let body = json!(order);
    let message = Message {
        properties: Properties {
            message_id: Some(format!("start-{}", order.order_id)),
            kind: Some(name.to_owned()),
            ..Properties::default()
        },
        body: Bytes::from(body.to_string()),
    };
    publish_until_confirmed(broker, &message).await;
}
