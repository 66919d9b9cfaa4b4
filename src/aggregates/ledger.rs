//! Money between accounts, in pairs: what one account paid, another has received.
//!
//! Separate from the accounts because an account knows only its own half. The halves are read from
//! the accounts' events, belong together by the saga that moved the money, and must be of one
//! amount and name each other; what has no other half is money made or lost.
//! Deliberately absent: a stored ledger, which would be one hot aggregate for all accounts.

use std::collections::BTreeMap;

use super::payments::Event;
use super::reservation::ReservationKey;

/// A movement between two accounts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The account that paid.
    pub from: String,
    /// The account that received.
    pub to: String,
    /// In cents.
    pub amount: u64,
}

/// All movements between accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Those with both halves.
    pub entries: Vec<Entry>,
    /// The halves without another, as text for people: empty if the books are balanced.
    pub unbalanced: Vec<String>,
}

/// The halves of one saga's movement.
#[derive(Default)]
struct Halves {
    paid: Vec<Entry>,
    received: Vec<Entry>,
}

/// Pairs the halves in the events of all accounts.
pub fn ledger<'e>(accounts: impl IntoIterator<Item = (&'e str, &'e [Event])>) -> Ledger {
    let mut by_saga: BTreeMap<String, Halves> = BTreeMap::new();
    for (account, events) in accounts {
        collect(account, events, &mut by_saga);
    }
    let mut ledger = Ledger::default();
    for (saga, mut halves) in by_saga {
        halves.paid.sort();
        halves.received.sort();
        if halves.paid == halves.received {
            ledger.entries.append(&mut halves.paid);
        } else {
            ledger.unbalanced.push(format!(
                "saga {saga}: paid {:?}, received {:?}",
                halves.paid, halves.received
            ));
        }
    }
    ledger
}

/// One account's halves. Payments that name no account went to somebody outside.
fn collect(account: &str, events: &[Event], by_saga: &mut BTreeMap<String, Halves>) {
    let mut amounts: BTreeMap<&ReservationKey, u64> = BTreeMap::new();
    for event in events {
        match event {
            Event::Reserved { key, amount } | Event::Expected { key, amount } => {
                amounts.insert(key, *amount);
            }
            Event::Captured {
                key,
                counterpart: Some(to),
            } => by_saga
                .entry(key.saga().to_owned())
                .or_default()
                .paid
                .push(Entry {
                    from: account.to_owned(),
                    to: to.clone(),
                    amount: amounts.remove(key).unwrap_or(0),
                }),
            Event::Received { key, counterpart } => {
                let from = counterpart.clone().unwrap_or_default();
                by_saga
                    .entry(key.saga().to_owned())
                    .or_default()
                    .received
                    .push(Entry {
                        from,
                        to: account.to_owned(),
                        amount: amounts.remove(key).unwrap_or(0),
                    });
            }
            Event::Released { key } | Event::ExpectedNoMore { key } => {
                amounts.remove(key);
            }
            Event::Deposited { .. } | Event::Captured { .. } | Event::Refunded { .. } => {}
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
