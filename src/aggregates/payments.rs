//! One customer's account, in integer cents: what is there, and what of it is free.
//!
//! Always: `actual + captured = deposited + received`, and `available = actual - reserved`, neither
//! ever below zero. There is no credit: what is not available can't be reserved.
//!
//! Money between accounts is captured from one and received by the other. The receiver is asked
//! first whether it has room (`expect`), so that it can't refuse once the payer has agreed. Both
//! halves name each other, and [`ledger`](super::ledger) pairs them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::payload::{id_field, not_handled, payload};
use super::reservation::ReservationKey;
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const RESERVE: &str = "payments.reserve";
const CAPTURE: &str = "payments.capture";
const RELEASE: &str = "payments.release";
const DEPOSIT: &str = "payments.deposit";
const EXPECT: &str = "payments.expect";
const RECEIVE: &str = "payments.receive";
const EXPECT_NO_MORE: &str = "payments.expect-no-more";
const REFUND: &str = "payments.refund";

/// The aggregate; its id is the `account`.
pub struct Payments;

impl Payments {
    /// The participant's name.
    pub const NAME: &str = "payments";
}

/// What is known of an account. All amounts in cents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The balance.
    pub actual: u64,
    /// The balance without what is reserved.
    pub available: u64,
    /// Paid out of it, ever.
    pub captured: u64,
    /// Paid into it from outside, ever.
    pub deposited: u64,
    /// Paid into it by other accounts, ever.
    #[serde(default)]
    pub received: u64,
    /// The open reservations and their amounts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reservations: BTreeMap<ReservationKey, u64>,
    /// What others have announced and their amounts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expected: BTreeMap<ReservationKey, u64>,
}

/// What can happen to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Money came in.
    Deposited {
        /// How much.
        amount: u64,
    },
    /// Money is held.
    Reserved {
        /// By whom.
        key: ReservationKey,
        /// How much.
        amount: u64,
    },
    /// The held money is paid.
    Captured {
        /// Whose.
        key: ReservationKey,
        /// To which account, if to one of ours.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counterpart: Option<String>,
    },
    /// The held money is free again.
    Released {
        /// Whose.
        key: ReservationKey,
    },
    /// Money of another account may come.
    Expected {
        /// By whom.
        key: ReservationKey,
        /// How much.
        amount: u64,
    },
    /// The money of another account has come.
    Received {
        /// Whose.
        key: ReservationKey,
        /// From which account.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counterpart: Option<String>,
    },
    /// The money of another account does not come.
    ExpectedNoMore {
        /// Whose.
        key: ReservationKey,
    },
    /// Money that was paid has come back.
    Refunded {
        /// By whom.
        key: ReservationKey,
        /// How much.
        amount: u64,
    },
}

#[derive(Deserialize)]
struct Wanted {
    amount: u64,
}

#[derive(Deserialize)]
struct Counterpart {
    counterpart: Option<String>,
}

impl State {
    fn add(&mut self, amount: u64) {
        self.actual = self.actual.saturating_add(amount);
        self.available = self.available.saturating_add(amount);
    }

    /// What can still come in without a sum that can't be counted.
    fn room(&self) -> u64 {
        let expected = self
            .expected
            .values()
            .fold(0, |sum: u64, amount| sum.saturating_add(*amount));
        u64::MAX
            .saturating_sub(self.deposited)
            .saturating_sub(self.received)
            .saturating_sub(expected)
    }
}

impl Aggregate for Payments {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "payments";
    const COMMANDS: &'static [CommandSpec] = &[
        CommandSpec::new(RESERVE),
        CommandSpec::new(CAPTURE),
        CommandSpec::new(RELEASE),
        CommandSpec::standalone(DEPOSIT),
        CommandSpec::new(EXPECT),
        CommandSpec::new(RECEIVE),
        CommandSpec::new(EXPECT_NO_MORE),
        CommandSpec::standalone(REFUND),
    ];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "account")
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let key = ReservationKey::of(command);
        let account = Self::id_of(command)?;
        match command.name.as_str() {
            RESERVE => reserve(state, key, &account, &payload(command)?),
            CAPTURE => capture(state, key, &account, payload(command)?),
            RELEASE => Ok(release(state, key, &account)),
            DEPOSIT => deposit(state, &account, &payload(command)?),
            EXPECT => expect(state, key, &account, &payload(command)?),
            RECEIVE => receive(state, key, &account, payload(command)?),
            EXPECT_NO_MORE => Ok(expect_no_more(state, key, &account)),
            REFUND => refund(state, key, &account, &payload(command)?),
            _ => Err(not_handled(command)),
        }
    }

    // Sums can't overflow: `deposit` and `expect` keep what comes in within bounds, and the others
    // only move money that came in. Saturating, because `apply` must be total.
    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Deposited { amount } => {
                state.deposited = state.deposited.saturating_add(*amount);
                state.add(*amount);
            }
            Event::Reserved { key, amount } => {
                state.available = state.available.saturating_sub(*amount);
                state.reservations.insert(key.clone(), *amount);
            }
            Event::Captured { key, .. } => {
                let amount = state.reservations.remove(key).unwrap_or(0);
                state.actual = state.actual.saturating_sub(amount);
                state.captured = state.captured.saturating_add(amount);
            }
            Event::Released { key } => {
                let amount = state.reservations.remove(key).unwrap_or(0);
                state.available = state.available.saturating_add(amount);
            }
            Event::Expected { key, amount } => {
                state.expected.insert(key.clone(), *amount);
            }
            Event::Received { key, .. } => {
                let amount = state.expected.remove(key).unwrap_or(0);
                state.received = state.received.saturating_add(amount);
                state.add(amount);
            }
            Event::ExpectedNoMore { key } => {
                state.expected.remove(key);
            }
            Event::Refunded { amount, .. } => {
                state.captured = state.captured.saturating_sub(*amount);
                state.add(*amount);
            }
        }
    }
}

type Handled = Result<(Vec<Event>, Value), Rejection>;

fn reserve(state: &State, key: ReservationKey, account: &str, wanted: &Wanted) -> Handled {
    if state.reservations.contains_key(&key) {
        return Err(Rejection::new(format!(
            "this step already holds a reservation on `{account}`"
        )));
    }
    let amount = wanted.amount;
    let available = state.available.checked_sub(amount).ok_or_else(|| {
        Rejection::new(format!(
            "not enough money: {amount} cents wanted, {} available on `{account}`",
            state.available
        ))
    })?;
    Ok((
        vec![Event::Reserved { key, amount }],
        json!({ "account": account, "amount": amount, "available": available }),
    ))
}

fn capture(state: &State, key: ReservationKey, account: &str, to: Counterpart) -> Handled {
    let amount = *state
        .reservations
        .get(&key)
        .ok_or_else(|| Rejection::new(format!("this step holds no reservation on `{account}`")))?;
    // Can't underflow: the actual balance covers all that is reserved.
    let actual = state.actual.saturating_sub(amount);
    Ok((
        vec![Event::Captured {
            key,
            counterpart: to.counterpart,
        }],
        json!({ "account": account, "amount": amount, "actual": actual }),
    ))
}

/// Never refused: with nothing held there is nothing to give back.
fn release(state: &State, key: ReservationKey, account: &str) -> (Vec<Event>, Value) {
    let (events, released) = match state.reservations.get(&key) {
        Some(amount) => (vec![Event::Released { key }], *amount),
        None => (Vec::new(), 0),
    };
    (events, json!({ "account": account, "released": released }))
}

fn deposit(state: &State, account: &str, wanted: &Wanted) -> Handled {
    let amount = wanted.amount;
    if amount == 0 || amount > state.room() {
        return Err(Rejection::new(format!(
            "`amount` must be at least 1 and at most {}",
            state.room()
        )));
    }
    // Can't overflow: actual <= deposited + received.
    let actual = state.actual.saturating_add(amount);
    Ok((
        vec![Event::Deposited { amount }],
        json!({ "account": account, "amount": amount, "actual": actual }),
    ))
}

fn expect(state: &State, key: ReservationKey, account: &str, wanted: &Wanted) -> Handled {
    if state.expected.contains_key(&key) {
        return Err(Rejection::new(format!(
            "`{account}` already expects the money of this step"
        )));
    }
    // An account that nobody ever paid into is most likely a slip of the pen.
    if state.deposited == 0 && state.received == 0 {
        return Err(Rejection::new(format!("there is no account `{account}`")));
    }
    let amount = wanted.amount;
    if amount > state.room() {
        return Err(Rejection::new(format!(
            "`{account}` can take at most {} cents more",
            state.room()
        )));
    }
    Ok((
        vec![Event::Expected { key, amount }],
        json!({ "account": account, "amount": amount }),
    ))
}

fn receive(state: &State, key: ReservationKey, account: &str, from: Counterpart) -> Handled {
    let amount = *state.expected.get(&key).ok_or_else(|| {
        Rejection::new(format!(
            "`{account}` does not expect the money of this step"
        ))
    })?;
    // Can't overflow: `expect` has kept room for it.
    let actual = state.actual.saturating_add(amount);
    Ok((
        vec![Event::Received {
            key,
            counterpart: from.counterpart,
        }],
        json!({ "account": account, "amount": amount, "actual": actual }),
    ))
}

/// Never refused: what is not expected need not be called off.
fn expect_no_more(state: &State, key: ReservationKey, account: &str) -> (Vec<Event>, Value) {
    let events = if state.expected.contains_key(&key) {
        vec![Event::ExpectedNoMore { key }]
    } else {
        Vec::new()
    };
    (events, json!({ "account": account }))
}

fn refund(state: &State, key: ReservationKey, account: &str, wanted: &Wanted) -> Handled {
    let amount = wanted.amount;
    if amount > state.captured {
        return Err(Rejection::new(format!(
            "{amount} cents can't be paid back to `{account}`: it has paid {}",
            state.captured
        )));
    }
    // Can't overflow: what was captured was there before.
    let actual = state.actual.saturating_add(amount);
    Ok((
        vec![Event::Refunded { key, amount }],
        json!({ "account": account, "amount": amount, "actual": actual }),
    ))
}

#[cfg(test)]
#[path = "payments_tests.rs"]
mod tests;
