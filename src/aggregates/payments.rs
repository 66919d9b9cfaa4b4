//! One customer's account, in integer cents: what is there, and what of it is free.
//!
//! Always: `actual + captured = deposited`, and `available = actual - reserved`, neither ever
//! below zero. There is no credit: what is not available can't be reserved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ReservationKey, id_field, not_handled, payload};
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const RESERVE: &str = "payments.reserve";
const CAPTURE: &str = "payments.capture";
const RELEASE: &str = "payments.release";
const DEPOSIT: &str = "payments.deposit";

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
    /// Paid into it, ever.
    pub deposited: u64,
    /// The open reservations and their amounts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reservations: BTreeMap<ReservationKey, u64>,
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
    },
    /// The held money is free again.
    Released {
        /// Whose.
        key: ReservationKey,
    },
}

#[derive(Deserialize)]
struct Wanted {
    amount: u64,
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
            CAPTURE => capture(state, key, &account),
            RELEASE => Ok(release(state, key, &account)),
            DEPOSIT => deposit(state, &account, &payload(command)?),
            _ => Err(not_handled(command)),
        }
    }

    // Sums can't overflow: `deposit` keeps `deposited` in bounds, and the others only move money
    // that was deposited. Saturating, because `apply` must be total.
    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Deposited { amount } => {
                state.deposited = state.deposited.saturating_add(*amount);
                state.actual = state.actual.saturating_add(*amount);
                state.available = state.available.saturating_add(*amount);
            }
            Event::Reserved { key, amount } => {
                state.available = state.available.saturating_sub(*amount);
                state.reservations.insert(key.clone(), *amount);
            }
            Event::Captured { key } => {
                let amount = state.reservations.remove(key).unwrap_or(0);
                state.actual = state.actual.saturating_sub(amount);
                state.captured = state.captured.saturating_add(amount);
            }
            Event::Released { key } => {
                let amount = state.reservations.remove(key).unwrap_or(0);
                state.available = state.available.saturating_add(amount);
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

fn capture(state: &State, key: ReservationKey, account: &str) -> Handled {
    let amount = *state
        .reservations
        .get(&key)
        .ok_or_else(|| Rejection::new(format!("this step holds no reservation on `{account}`")))?;
    // Can't underflow: the actual balance covers all that is reserved.
    let actual = state.actual.saturating_sub(amount);
    Ok((
        vec![Event::Captured { key }],
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
    if amount == 0 || state.deposited.checked_add(amount).is_none() {
        return Err(Rejection::new(format!(
            "`amount` must be at least 1 and at most {}",
            u64::MAX - state.deposited
        )));
    }
    // Can't overflow: actual <= deposited.
    let actual = state.actual.saturating_add(amount);
    Ok((
        vec![Event::Deposited { amount }],
        json!({ "account": account, "amount": amount, "actual": actual }),
    ))
}

#[cfg(test)]
#[path = "payments_tests.rs"]
mod tests;
