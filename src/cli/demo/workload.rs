//! The orders: made up from a seed, about a fifth of them bound to fail, and known beforehand
//! *why* and how many, whatever order they arrive in.
//!
//! * Scarce articles have half the pieces that are asked for, and each buyer asks for one: whoever
//!   comes late goes away empty, so exactly half of these orders fail.
//! * Poor customers have less money than anything costs.
//! * For a few orders the payment never answers: nobody knows whether the money was reserved, so
//!   it must be released.
//!
//! All else is plentiful: plenty even while doomed orders hold some of it.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use crate::id::Timestamp;
use crate::proof::{Expected, Item, Order};

/// The definition that is run.
pub(super) const SAGA: &str = "place-order";

/// One article in this many is scarce, one customer in this many is poor.
const ONE_IN: u32 = 10;
/// Orders of a thousand that ask for a scarce article; half of them in vain.
const SCARCE_PER_MILLE: u64 = 180;
/// Orders of a thousand by poor customers.
const POOR_PER_MILLE: u64 = 90;
/// Orders of a thousand whose payment never answers.
const SILENT_PER_MILLE: u64 = 15;
/// What a poor customer has, in cents; less than the cheapest article.
const POOR_CENTS: u64 = 100;
/// Price of the cheapest article in cents, and how much dearer each further one is.
const PRICE_CENTS: (u64, u64) = (499, 37);
/// Most pieces of one article in an order.
const PIECES_MAX: u64 = 3;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Orders.
    pub(super) orders: u32,
    /// Customers.
    pub(super) customers: u32,
    /// Articles.
    pub(super) articles: u32,
}

/// What to place, and what is known beforehand.
#[derive(Debug)]
pub(super) struct Workload {
    /// The orders, in the order they are placed.
    pub(super) orders: Vec<Order>,
    /// Keys of those whose payment never answers.
    pub(super) silent: HashSet<String>,
    /// Keys of those that faults may hit: the first half, so that time-outs run their course
    /// while the others come in.
    pub(super) stormy: HashSet<String>,
    /// What the proof starts from.
    pub(super) expected: Expected,
}

/// What an order is bound for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Scarce,
    Poor,
    Silent,
}

impl Workload {
    /// Makes it up. `run` tells runs on one database apart.
    pub(super) fn make(
        sizes: Sizes,
        seed: u64,
        run: Uuid,
        now: Timestamp,
        with_silence: bool,
    ) -> Self {
        // The end of a UUIDv7 is random.
        let prefix = format!("{}-", &run.simple().to_string()[20..]);
        let mut maker = Maker {
            random: fastrand::Rng::with_seed(seed),
            sizes,
            prefix,
        };
        let kinds = maker.kinds(with_silence);
        let orders: Vec<Order> = (0..)
            .zip(&kinds)
            .map(|(n, kind)| maker.order(n, *kind))
            .collect();
        let silent = orders
            .iter()
            .zip(&kinds)
            .filter(|(_, kind)| **kind == Kind::Silent)
            .map(|(order, _)| order.order_id.clone())
            .collect();
        let stormy = orders[..stormy_orders(orders.len())]
            .iter()
            .map(|order| order.order_id.clone())
            .collect();
        let expected = Expected {
            saga: SAGA.to_owned(),
            stock: maker.stock(&orders),
            balances: maker.balances(&orders),
            since: now,
            orders: orders
                .iter()
                .map(|order| (order.order_id.clone(), order.clone()))
                .collect(),
            prefix: maker.prefix,
            ..Expected::default()
        };
        Self {
            orders,
            silent,
            stormy,
            expected,
        }
    }
}

/// How many orders, from the first, faults may hit.
fn stormy_orders(orders: usize) -> usize {
    orders.div_ceil(2)
}

struct Maker {
    random: fastrand::Rng,
    sizes: Sizes,
    prefix: String,
}

impl Maker {
    /// What each order is bound for: fixed shares, shuffled; the silent ones early.
    fn kinds(&mut self, with_silence: bool) -> Vec<Kind> {
        let orders = usize::try_from(self.sizes.orders).unwrap_or(usize::MAX);
        let share = |per_mille: u64| {
            let share = u64::from(self.sizes.orders) * per_mille / 1_000;
            usize::try_from(share).unwrap_or(orders)
        };
        let silent = if with_silence {
            share(SILENT_PER_MILLE)
        } else {
            0
        };
        let mut kinds = vec![Kind::Plain; orders - silent];
        let scarce = share(SCARCE_PER_MILLE);
        let poor = share(POOR_PER_MILLE);
        kinds[..scarce].fill(Kind::Scarce);
        kinds[scarce..scarce + poor].fill(Kind::Poor);
        self.random.shuffle(&mut kinds);
        for _ in 0..silent {
            let at = self.random.usize(..=stormy_orders(orders) / 2);
            kinds.insert(at.min(kinds.len()), Kind::Silent);
        }
        kinds
    }

    fn order(&mut self, number: u32, kind: Kind) -> Order {
        let scarce_articles = (self.sizes.articles / ONE_IN).max(1);
        let poor_customers = (self.sizes.customers / ONE_IN).max(1);
        let customer = match kind {
            Kind::Poor => self.random.u32(..poor_customers),
            _ => self.random.u32(poor_customers..self.sizes.customers),
        };
        let items = match kind {
            Kind::Scarce => vec![(self.random.u32(..scarce_articles), 1)],
            _ => self.plain_items(scarce_articles),
        };
        Order {
            order_id: format!("{}order-{number:07}", self.prefix),
            customer: self.account(customer),
            total: items
                .iter()
                .map(|(article, pieces)| price(*article) * pieces)
                .sum(),
            items: items
                .iter()
                .map(|(article, quantity)| Item {
                    sku: self.sku(*article),
                    quantity: *quantity,
                })
                .collect(),
        }
    }

    /// One to three different articles that are not scarce, mostly one.
    fn plain_items(&mut self, scarce_articles: u32) -> Vec<(u32, u64)> {
        let wanted = match self.random.u32(..100) {
            0..70 => 1,
            70..95 => 2,
            _ => 3,
        };
        let mut items: BTreeMap<u32, u64> = BTreeMap::new();
        for _ in 0..wanted {
            let article = self.random.u32(scarce_articles..self.sizes.articles);
            items.insert(article, self.random.u64(1..=PIECES_MAX));
        }
        items.into_iter().collect()
    }

    /// Enough of everything, even if all orders hold theirs at once; of what is scarce, half.
    fn stock(&self, orders: &[Order]) -> BTreeMap<String, u64> {
        let scarce_articles = (self.sizes.articles / ONE_IN).max(1);
        let mut stock: BTreeMap<String, u64> = (0..self.sizes.articles)
            .map(|article| (self.sku(article), 0))
            .collect();
        for item in orders.iter().flat_map(|order| &order.items) {
            *stock.entry(item.sku.clone()).or_default() += item.quantity;
        }
        for article in 0..scarce_articles {
            if let Some(pieces) = stock.get_mut(&self.sku(article)) {
                *pieces /= 2;
            }
        }
        // Nothing is seeded with nothing: an article without stock has no first event.
        for pieces in stock.values_mut() {
            *pieces = (*pieces).max(1);
        }
        stock
    }

    /// Enough for all a customer orders; the poor can afford nothing.
    fn balances(&self, orders: &[Order]) -> BTreeMap<String, u64> {
        let poor_customers = (self.sizes.customers / ONE_IN).max(1);
        let mut balances: BTreeMap<String, u64> = (0..self.sizes.customers)
            .map(|customer| (self.account(customer), POOR_CENTS))
            .collect();
        for order in orders {
            *balances.entry(order.customer.clone()).or_default() += order.total;
        }
        for customer in 0..poor_customers {
            balances.insert(self.account(customer), POOR_CENTS);
        }
        balances
    }

    fn sku(&self, article: u32) -> String {
        format!("{}article-{article:05}", self.prefix)
    }

    fn account(&self, customer: u32) -> String {
        format!("{}customer-{customer:05}", self.prefix)
    }
}

fn price(article: u32) -> u64 {
    PRICE_CENTS.0 + PRICE_CENTS.1 * u64::from(article)
}
