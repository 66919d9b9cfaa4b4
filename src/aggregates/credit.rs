//! What one customer may owe in one year, in integer cents.
//!
//! Always: `used + reserved <= limit`. Without a grant the limit is nothing. The year is that of the
//! command's `at`, not of the clock: a purchase that begins on New Year's Eve is confirmed in
//! the new year, and must find its reservation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::payload::{id_field, not_handled, payload};
use super::reservation::ReservationKey;
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const RESERVE: &str = "credit.reserve";
const USE: &str = "credit.use";
const RELEASE: &str = "credit.release";
const GRANT: &str = "credit.grant";

/// Digits of a year.
const YEAR_DIGITS: usize = 4;

/// The aggregate; its id is `<year>/<customer>`.
pub struct Credit;

impl Credit {
    /// The participant's name.
    pub const NAME: &str = "credit";

    /// The id of a customer's credit in a year.
    pub fn id(year: u16, customer: &str) -> String {
        format!("{year:04}/{customer}")
    }

    /// The id of a customer's credit in the year of this time.
    pub fn id_at(at: Timestamp, customer: &str) -> String {
        // A timestamp's text begins with its year; before the year 0 nobody owes anything.
        Self::id(year_of(&at.to_string()).unwrap_or(0), customer)
    }
}

/// What is known of a customer's credit in one year. All amounts in cents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The most that may be owed.
    pub limit: u64,
    /// Owed for good.
    pub used: u64,
    /// Held by open reservations.
    pub reserved: u64,
    /// The open reservations and their amounts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reservations: BTreeMap<ReservationKey, u64>,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The limit is this from now on.
    Granted {
        /// How much may be owed.
        limit: u64,
    },
    /// A part of the limit is held.
    Reserved {
        /// By whom.
        key: ReservationKey,
        /// How much.
        amount: u64,
    },
    /// What was held is owed.
    Used {
        /// Whose.
        key: ReservationKey,
    },
    /// What was held is free again.
    Released {
        /// Whose.
        key: ReservationKey,
    },
}

#[derive(Deserialize)]
struct Wanted {
    amount: u64,
}

#[derive(Deserialize)]
struct Grant {
    limit: u64,
}

impl State {
    /// What may still be reserved.
    pub fn left(&self) -> u64 {
        self.limit
            .saturating_sub(self.used)
            .saturating_sub(self.reserved)
    }
}

impl Aggregate for Credit {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "credit";
    const COMMANDS: &'static [CommandSpec] = &[
        CommandSpec::new(RESERVE),
        CommandSpec::new(USE),
        CommandSpec::new(RELEASE),
        CommandSpec::standalone(GRANT),
    ];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        Ok(Self::id(
            year_of(&id_field(command, "at")?)?,
            &id_field(command, "customer")?,
        ))
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let key = ReservationKey::of(command);
        let customer = id_field(command, "customer")?;
        let year = year_of(&id_field(command, "at")?)?;
        match command.name.as_str() {
            RESERVE => {
                let Wanted { amount } = payload(command)?;
                reserve(state, key, &customer, year, amount)
            }
            USE => {
                let amount = *state.reservations.get(&key).ok_or_else(|| {
                    Rejection::new(format!("this step holds no credit of `{customer}`"))
                })?;
                let used = state.used.saturating_add(amount);
                let reply =
                    json!({ "customer": customer, "year": year, "amount": amount, "used": used });
                Ok((vec![Event::Used { key }], reply))
            }
            // Never refused: with nothing held there is nothing to give back.
            RELEASE => {
                let held = state.reservations.get(&key).copied();
                let reply =
                    json!({ "customer": customer, "year": year, "released": held.unwrap_or(0) });
                let events = held.map(|_| Event::Released { key });
                Ok((events.into_iter().collect(), reply))
            }
            GRANT => grant(state, &customer, year, &payload(command)?),
            _ => Err(not_handled(command)),
        }
    }

    // Saturating, because `apply` must be total; what is held and used never exceeds a limit.
    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Granted { limit } => state.limit = *limit,
            Event::Reserved { key, amount } => {
                state.reserved = state.reserved.saturating_add(*amount);
                state.reservations.insert(key.clone(), *amount);
            }
            Event::Used { key } => {
                let amount = state.settle(key);
                state.used = state.used.saturating_add(amount);
            }
            Event::Released { key } => {
                state.settle(key);
            }
        }
    }
}

impl State {
    /// Takes a reservation out of the snapshot; 0 if it is not there.
    fn settle(&mut self, key: &ReservationKey) -> u64 {
        let amount = self.reservations.remove(key).unwrap_or(0);
        self.reserved = self.reserved.saturating_sub(amount);
        amount
    }
}

type Handled = Result<(Vec<Event>, Value), Rejection>;

fn reserve(state: &State, key: ReservationKey, customer: &str, year: u16, amount: u64) -> Handled {
    if state.reservations.contains_key(&key) {
        return Err(Rejection::new(format!(
            "this step already holds credit of `{customer}`"
        )));
    }
    let left = state.left().checked_sub(amount).ok_or_else(|| {
        Rejection::new(format!(
            "over the credit limit of `{customer}` for {year}: {amount} cents wanted, {} of {} left",
            state.left(),
            state.limit
        ))
    })?;
    Ok((
        vec![Event::Reserved { key, amount }],
        json!({ "customer": customer, "year": year, "amount": amount, "left": left }),
    ))
}

/// A limit below what is owed already would be broken as soon as it is set.
fn grant(state: &State, customer: &str, year: u16, grant: &Grant) -> Handled {
    let least = state.used.saturating_add(state.reserved);
    if grant.limit < least {
        return Err(Rejection::new(format!(
            "`{customer}` has already used {least} cents of {year}; the limit can't be lower"
        )));
    }
    let limit = grant.limit;
    Ok((
        vec![Event::Granted { limit }],
        json!({ "customer": customer, "year": year, "limit": limit }),
    ))
}

/// The year of a time as RFC 3339 has it.
fn year_of(at: &str) -> Result<u16, Rejection> {
    let year = at.get(..YEAR_DIGITS).filter(|digits| {
        digits.bytes().all(|digit| digit.is_ascii_digit())
            && matches!(at.as_bytes().get(YEAR_DIGITS), None | Some(b'-'))
    });
    year.and_then(|digits| digits.parse().ok()).ok_or_else(|| {
        Rejection::new("`at` must be a time, as in `2026-01-31T09:00:00Z`, or a year")
    })
}

#[cfg(test)]
#[path = "credit_tests.rs"]
mod tests;
