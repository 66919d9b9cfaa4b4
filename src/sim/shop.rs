//! What happens in the simulated world: a shop opens, customers order, the books are checked.
//!
//! Stock and money are short on purpose, so that some orders must be turned down.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::network::SimBroker;
use super::now;
use super::scheduler::Scheduler;
use crate::aggregates::{Inventory, Payments, inventory, payments, seed};
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Outgoing, Published};
use crate::environment::Environment;
use crate::message::{Destination, Message, Properties, START_QUEUE};
use crate::proof::{Expected, Item, Order, Proof, prove};
use crate::store::memory::MemoryStore;

/// The saga that is simulated: like the one we ship, but it gives up sooner.
pub(super) const DEFINITION: &str = include_str!("impatient-order.yaml");
const SAGA: &str = "impatient-order";

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
}

impl Shop {
    /// Draws the orders from the seed.
    pub(super) fn draw(scheduler: &Scheduler, orders: usize) -> Self {
        let mut expected = Expected {
            saga: SAGA.to_owned(),
            stock: (0..ARTICLES)
                .map(|sku| (format!("sku-{sku}"), STOCK_EACH))
                .collect(),
            balances: (0..CUSTOMERS)
                .map(|name| (format!("cust-{name}"), BALANCE_EACH))
                .collect(),
            ..Expected::default()
        };
        let mut pauses = Vec::new();
        for number in 0..orders {
            let order = scheduler.random(|random| draw_order(random, number));
            expected.orders.insert(order.order_id.clone(), order);
            let pause = scheduler.random(|random| random.u64(0..2_000));
            pauses.push(Duration::from_millis(pause));
        }
        Self { expected, pauses }
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
        for (order, pause) in self.expected.orders.values().zip(&self.pauses) {
            environment.sleep(*pause).await;
            place(&*broker, order).await;
        }
    }

    /// What the books say in the end.
    pub(super) fn prove(&self, store: &MemoryStore, shop: &MemoryStore) -> Vec<Proof> {
        now(prove(store, shop, &self.expected))
    }
}

fn draw_order(random: &mut fastrand::Rng, number: usize) -> Order {
    let mut skus: Vec<u64> = (0..ARTICLES).collect();
    random.shuffle(&mut skus);
    let items: Vec<Item> = skus
        .into_iter()
        .take(random.usize(1..=3))
        .map(|sku| Item {
            sku: format!("sku-{sku}"),
            quantity: random.u64(1..=4),
        })
        .collect();
    let total = PRICE * items.iter().map(|item| item.quantity).sum::<u64>();
    Order {
        order_id: format!("order-{number}"),
        customer: format!("cust-{}", random.u64(..CUSTOMERS)),
        items,
        total,
    }
}

/// Publishes until the broker says it has the message, as a careful client does.
async fn place(broker: &dyn Broker, order: &Order) {
    let body = json!(order);
    let message = Message {
        properties: Properties {
            message_id: Some(format!("start-{}", order.order_id)),
            kind: Some(SAGA.to_owned()),
            ..Properties::default()
        },
        body: Bytes::from(body.to_string()),
    };
    let outgoing = || Outgoing {
        destination: Destination::queue(START_QUEUE),
        message: message.clone(),
        mandatory: true,
    };
    while broker.publish(vec![outgoing()]).await != [Published::Confirmed] {}
}
