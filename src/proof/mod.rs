//! The proof that it all adds up: what was put into a shop against what came out of it.
//!
//! Separate from the demo because the simulator and the tests ask for the same proof: whatever
//! was thrown at the nodes, once everything has come to rest these sentences must hold. They are
//! read from the stores alone, with nothing that the run itself believed.
//!
//! Only rows whose ids begin with [`Expected::prefix`] are looked at, so that several runs on one
//! database don't disturb each other. Read in pages; a hundred thousand sagas fit in memory as a
//! few numbers each. Deliberately absent: waiting. Whoever asks too early is told what is open.

mod expected;
mod journals;
mod shop;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;

use crate::aggregates::orders;
use crate::saga::Status;
use crate::store::participant::ParticipantStore;
use crate::store::{Outbox, Store, StoreError};
pub use expected::{Expected, Item, Order};
use journals::{Sagas, Seen};
use shop::Shop;
pub use verdict::Proof;
use verdict::Verdict;

/// Proves that a run left everything in order.
///
/// # Errors
/// If a store can't be read.
pub async fn prove(
    store: &dyn Store,
    participants: &dyn ParticipantStore,
    expected: &Expected,
) -> Result<Vec<Proof>, StoreError> {
    let mut chains = Verdict::new("each journal is an unbroken chain that folds to its saga");
    let sagas = journals::read(store, expected, &mut chains).await?;
    let mut folds = Verdict::new("each article, account and order is the sum of its events");
    let shop = shop::read(participants, &expected.prefix, &mut folds).await?;
    let facts = Facts {
        expected,
        sagas,
        shop,
    };
    Ok(vec![
        facts.every_saga_ended(),
        facts.stock_adds_up(),
        facts.money_adds_up(),
        facts.nothing_is_reserved(),
        facts.orders_agree(),
        facts.each_effect_once(),
        folds.close(format!("{} of them", facts.shop.len())),
        chains.close(format!(
            "{} journals, {} entries",
            facts.sagas.journals, facts.sagas.entries
        )),
    ])
}

/// Proves that no message waits to be published. Ask again if it does not hold yet.
///
/// # Errors
/// If a store can't be read.
pub async fn prove_drained(outboxes: &[&dyn Outbox]) -> Result<Proof, StoreError> {
    let mut waiting = 0;
    for outbox in outboxes {
        waiting += outbox.outbox_len().await?;
    }
    let mut verdict = Verdict::new("every message that was committed was published");
    verdict.require(waiting == 0, || format!("{waiting} wait in the outbox"));
    Ok(verdict.close("the outbox is empty".to_owned()))
}

/// What was put in, and what both sides say came of it.
struct Facts<'a> {
    expected: &'a Expected,
    sagas: Sagas,
    shop: Shop,
}

impl Facts<'_> {
    fn every_saga_ended(&self) -> Proof {
        let mut verdict = Verdict::new("every order is one saga, and every saga ended");
        let (mut completed, mut compensated) = (0_u64, 0_u64);
        for key in self.expected.orders.keys() {
            match self.sagas.by_key.get(key) {
                None => verdict.wrong(|| format!("{key} has no saga")),
                Some(seen) if seen.status == Status::Completed => completed += 1,
                Some(seen) if seen.status == Status::Compensated => compensated += 1,
                Some(seen) => verdict.wrong(|| format!("{key} is {}", seen.status)),
            }
        }
        for key in self.sagas.by_key.keys() {
            verdict.require(self.expected.orders.contains_key(key), || {
                format!("{key} was never ordered")
            });
        }
        verdict.close(format!("{completed} completed, {compensated} compensated"))
    }

    fn stock_adds_up(&self) -> Proof {
        let mut verdict =
            Verdict::new("stock: sold + left = what was there, and sold = what was bought");
        let mut bought: BTreeMap<&str, u64> = BTreeMap::new();
        for item in self.completed().flat_map(|order| &order.items) {
            *bought.entry(&item.sku).or_default() += item.quantity;
        }
        let (mut sold, mut left) = (0_u64, 0_u64);
        for (sku, start) in &self.expected.stock {
            let Some(article) = self.shop.articles.get(sku) else {
                verdict.wrong(|| format!("{sku} is gone"));
                continue;
            };
            let bought = bought.remove(sku.as_str()).unwrap_or(0);
            verdict.require(
                article.sold + article.on_hand == *start && article.sold == bought,
                || {
                    format!(
                        "{sku}: {} sold + {} left of {start}, {bought} bought",
                        article.sold, article.on_hand
                    )
                },
            );
            sold += article.sold;
            left += article.on_hand;
        }
        for (sku, pieces) in bought {
            verdict.wrong(|| format!("{pieces} bought of {sku}, which was never there"));
        }
        let articles = self.expected.stock.len();
        let start: u64 = self.expected.stock.values().sum();
        verdict.close(format!(
            "{articles} articles: {sold} sold + {left} left = {start}"
        ))
    }

    fn money_adds_up(&self) -> Proof {
        let mut verdict =
            Verdict::new("money: paid + left = what was there, and paid = what was bought");
        let mut owed: BTreeMap<&str, u64> = BTreeMap::new();
        for order in self.completed() {
            *owed.entry(&order.customer).or_default() += order.total;
        }
        let (mut paid, mut left) = (0_u64, 0_u64);
        for (account, start) in &self.expected.balances {
            let Some(state) = self.shop.accounts.get(account) else {
                verdict.wrong(|| format!("{account} is gone"));
                continue;
            };
            let owed = owed.remove(account.as_str()).unwrap_or(0);
            verdict.require(
                state.captured + state.actual == *start && state.captured == owed,
                || {
                    format!(
                        "{account}: {} paid + {} left of {start}, {owed} owed",
                        state.captured, state.actual
                    )
                },
            );
            paid += state.captured;
            left += state.actual;
        }
        for (account, cents) in owed {
            verdict.wrong(|| format!("{account} owes {cents} and never had an account"));
        }
        let accounts = self.expected.balances.len();
        let start: u64 = self.expected.balances.values().sum();
        verdict.close(format!(
            "{accounts} accounts: {} paid + {} left = {}",
            Cents(paid),
            Cents(left),
            Cents(start)
        ))
    }

    fn nothing_is_reserved(&self) -> Proof {
        let mut verdict = Verdict::new("no reservation is left over");
        for (sku, article) in &self.shop.articles {
            verdict.require(
                article.reserved == 0 && article.reservations.is_empty(),
                || format!("{} of {sku}", article.reserved),
            );
        }
        for (account, state) in &self.shop.accounts {
            verdict.require(
                state.available == state.actual && state.reservations.is_empty(),
                || {
                    format!(
                        "{} on {account}",
                        Cents(state.actual - state.available.min(state.actual))
                    )
                },
            );
        }
        let (articles, accounts) = (self.shop.articles.len(), self.shop.accounts.len());
        verdict.close(format!(
            "none on {articles} articles and {accounts} accounts"
        ))
    }

    fn orders_agree(&self) -> Proof {
        let mut verdict = Verdict::new("every order is confirmed or cancelled, as its saga says");
        let (mut confirmed, mut cancelled) = (0_u64, 0_u64);
        for key in self.expected.orders.keys() {
            let saga = self.sagas.by_key.get(key).map(|seen| seen.status);
            let order = self.shop.orders.get(key);
            match (saga, order.map(|order| order.status)) {
                (Some(Status::Completed), Some(orders::OrderStatus::Confirmed)) => confirmed += 1,
                // None: the cancel came before the open, which was then refused.
                (Some(Status::Compensated), Some(orders::OrderStatus::Cancelled) | None) => {
                    cancelled += 1;
                }
                (saga, order) => verdict.wrong(|| {
                    let saga = saga.map_or("missing", Status::as_str);
                    format!("{key}: the saga is {saga}, the order {order:?}")
                }),
            }
        }
        for key in self.shop.orders.keys() {
            verdict.require(self.expected.orders.contains_key(key), || {
                format!("{key} was never ordered")
            });
        }
        verdict.close(format!("{confirmed} confirmed, {cancelled} cancelled"))
    }

    fn each_effect_once(&self) -> Proof {
        let mut verdict = Verdict::new("each effect happened once, and none of what was undone");
        let mut effects = self.shop.effects.clone();
        for (key, order) in &self.expected.orders {
            let Some(Seen { id, status }) = self.sagas.by_key.get(key) else {
                continue; // found by the first proof
            };
            let found = effects.remove(id).unwrap_or_default();
            if let Some(wrong) = found.differs_from(order, *status) {
                verdict.wrong(|| format!("{key}: {wrong}"));
            }
        }
        for saga in effects.keys() {
            verdict.wrong(|| format!("something was done for saga {saga}, which is not there"));
        }
        let receipts: u64 = self.shop.receipts.values().map(|mail| mail.count).sum();
        verdict.close(format!("{receipts} receipts, as many captures"))
    }

    fn completed(&self) -> impl Iterator<Item = &Order> {
        self.expected.orders.iter().filter_map(|(key, order)| {
            let seen = self.sagas.by_key.get(key)?;
            (seen.status == Status::Completed).then_some(order)
        })
    }
}

/// Money, written with its point.
struct Cents(u64);

impl std::fmt::Display for Cents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}
