//! What the participants say: each aggregate, checked against its events, and from the events
//! what was done for each saga.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::join_all;
use uuid::Uuid;

use super::expected::Order;
use super::verdict::Verdict;
use crate::aggregates::{
    Inventory, Mailer, Orders, Payments, ReservationKey, inventory, mailer, orders, payments,
};
use crate::id::SagaId;
use crate::participant::Aggregate;
use crate::saga::Status;
use crate::store::StoreError;
use crate::store::participant::{AggregateKey, AggregateRow, ParticipantStore};

/// Aggregates, or events of one, read at once.
const PAGE_ROWS: usize = 500;
/// Aggregates whose events are read side by side.
const READS_AT_ONCE: usize = 8;

/// The shop's books.
#[derive(Debug, Default)]
pub(super) struct Shop {
    pub(super) articles: BTreeMap<String, inventory::State>,
    pub(super) accounts: BTreeMap<String, payments::State>,
    pub(super) orders: BTreeMap<String, orders::State>,
    pub(super) receipts: BTreeMap<String, mailer::State>,
    /// What was done and not undone, by the saga it was done for.
    pub(super) effects: HashMap<SagaId, Effects>,
}

impl Shop {
    /// How many aggregates there are.
    pub(super) fn len(&self) -> usize {
        self.articles.len() + self.accounts.len() + self.orders.len() + self.receipts.len()
    }
}

/// What was done for one saga.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Pieces sold, by article.
    sold: BTreeMap<String, u64>,
    /// In how many sales.
    sales: usize,
    /// Cents captured.
    captured: u64,
    /// In how many captures.
    captures: u64,
    /// Receipts sent.
    receipts: u64,
    /// Times its order was confirmed.
    confirmations: u64,
}

impl Effects {
    /// What should not be as it is, in words; `None` if all is well.
    pub(super) fn differs_from(&self, order: &Order, status: Status) -> Option<String> {
        let wanted = match status {
            Status::Completed => Self::of(order),
            Status::Compensated => Self::default(),
            _ => return None, // may be half done
        };
        (*self != wanted).then(|| format!("{status}, and this was done: {self}"))
    }

    fn of(order: &Order) -> Self {
        let mut sold = BTreeMap::new();
        for item in &order.items {
            *sold.entry(item.sku.clone()).or_default() += item.quantity;
        }
        Self {
            sold,
            sales: order.items.len(),
            captured: order.total,
            captures: 1,
            receipts: 1,
            confirmations: 1,
        }
    }
}

impl std::fmt::Display for Effects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} sales, {} captures of {} cents, {} confirmations, {} receipts",
            self.sales, self.captures, self.captured, self.confirmations, self.receipts
        )
    }
}

/// Reads all aggregates whose ids begin with `prefix`.
pub(super) async fn read(
    store: &dyn ParticipantStore,
    prefix: &str,
    folds: &mut Verdict,
) -> Result<Shop, StoreError> {
    let mut effects: HashMap<SagaId, Effects> = HashMap::new();
    let mut held: HashMap<ReservationKey, u64> = HashMap::new();
    let articles = fold_all::<Inventory>(store, prefix, folds, |sku, event| {
        use inventory::Event;
        let (key, pieces) = match event {
            Event::Reserved { key, reservation } => {
                held.insert(key.clone(), reservation.quantity);
                return;
            }
            Event::Confirmed { key } => (key, held.remove(key).unwrap_or(0)),
            Event::SoldAfterExpiry { key, quantity } => (key, *quantity),
            // Orders never put anything back; whoever does is no business of this proof.
            Event::Received { .. }
            | Event::Released { .. }
            | Event::Expired { .. }
            | Event::PutBack { .. } => return,
        };
        let done = effects.entry(saga_of(key)).or_default();
        *done.sold.entry(sku.to_owned()).or_default() += pieces;
        done.sales += 1;
    })
    .await?;
    held.clear();
    let accounts = fold_all::<Payments>(store, prefix, folds, |_, event| match event {
        payments::Event::Reserved { key, amount } => {
            held.insert(key.clone(), *amount);
        }
        payments::Event::Captured { key, .. } => {
            let done = effects.entry(saga_of(key)).or_default();
            done.captured += held.remove(key).unwrap_or(0);
            done.captures += 1;
        }
        // Orders only pay; transfers and refunds are no business of this proof.
        payments::Event::Deposited { .. }
        | payments::Event::Released { .. }
        | payments::Event::Expected { .. }
        | payments::Event::Received { .. }
        | payments::Event::ExpectedNoMore { .. }
        | payments::Event::Refunded { .. } => {}
    })
    .await?;
    let mut opened_by: Option<(String, SagaId)> = None;
    let orders = fold_all::<Orders>(store, prefix, folds, |id, event| match event {
        orders::Event::Opened { by, .. } => opened_by = Some((id.to_owned(), saga_of(by))),
        orders::Event::Confirmed => {
            let by = opened_by.as_ref().filter(|(opened, _)| opened == id);
            let saga = by.map_or(nobody(), |(_, saga)| *saga);
            effects.entry(saga).or_default().confirmations += 1;
        }
        orders::Event::Cancelled => {}
    })
    .await?;
    let receipts = fold_all::<Mailer>(store, prefix, folds, |_, event| match event {
        mailer::Event::ReceiptSent { by } => effects.entry(saga_of(by)).or_default().receipts += 1,
    })
    .await?;
    Ok(Shop {
        articles,
        accounts,
        orders,
        receipts,
        effects,
    })
}

/// Reads the aggregates of a kind; `visit` sees all their events, one aggregate after the other.
async fn fold_all<A: Aggregate<State: PartialEq>>(
    store: &dyn ParticipantStore,
    prefix: &str,
    folds: &mut Verdict,
    mut visit: impl FnMut(&str, &A::Event),
) -> Result<BTreeMap<String, A::State>, StoreError> {
    let mut states = BTreeMap::new();
    // What begins with the prefix stands right behind it.
    let mut after = Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty());
    loop {
        let page = store
            .aggregates(A::KIND, after.as_deref(), PAGE_ROWS)
            .await?;
        let read = page.len();
        after = page.last().map(|row| row.key.id.clone());
        let beyond = page.iter().position(|row| !row.key.id.starts_with(prefix));
        let ours = &page[..beyond.unwrap_or(read)];
        for some in ours.chunks(READS_AT_ONCE) {
            let histories = join_all(some.iter().map(|row| events::<A>(store, &row.key))).await;
            for (row, events) in some.iter().zip(histories) {
                let events = events?;
                let mut state = A::State::default();
                for event in &events {
                    A::apply(&mut state, event);
                    visit(&row.key.id, event);
                }
                let kept = state_of::<A>(row)?;
                folds.require(kept == state && row.revision == events.len() as u64, || {
                    format!("{} {}", A::KIND, row.key.id)
                });
                states.insert(row.key.id.clone(), kept);
            }
        }
        if read < PAGE_ROWS || beyond.is_some() {
            return Ok(states);
        }
    }
}

async fn events<A: Aggregate>(
    store: &dyn ParticipantStore,
    key: &AggregateKey,
) -> Result<Vec<A::Event>, StoreError> {
    let mut events = Vec::new();
    let mut after = 0;
    loop {
        let page = store.aggregate_events(key, after, PAGE_ROWS).await?;
        for row in &page {
            let event = serde_json::from_slice(&row.body)
                .map_err(|error| corrupt(&format!("event {} of", row.seq), key, &error))?;
            events.push(event);
            after = row.seq;
        }
        if page.len() < PAGE_ROWS {
            return Ok(events);
        }
    }
}

fn state_of<A: Aggregate>(row: &AggregateRow) -> Result<A::State, StoreError> {
    serde_json::from_slice(&row.state).map_err(|error| corrupt("state of", &row.key, &error))
}

fn corrupt(what: &str, key: &AggregateKey, error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt {
        what: format!("{what} {} `{}`", key.kind, key.id),
        why: error.to_string(),
    }
}

/// The saga a reservation was made for; the nil id if the key names none, which no saga has.
fn saga_of(key: &ReservationKey) -> SagaId {
    let key = key.to_string();
    let saga = key.split_once('/').and_then(|(saga, _)| saga.parse().ok());
    saga.unwrap_or_else(nobody)
}

/// An id that no saga has.
fn nobody() -> SagaId {
    SagaId(Uuid::nil())
}
