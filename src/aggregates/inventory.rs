//! Stock of one article: on hand, held by reservations, sold.
//!
//! Always: `on_hand + reserved + sold = received`. A reservation may expire; that is noticed at
//! the article's next command, so no timer is needed and replay needs no clock. A confirm that
//! comes after the expiry takes the stock again if it is still there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::payload::{id_field, not_handled, payload};
use super::reservation::ReservationKey;
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const RESERVE: &str = "inventory.reserve";
const CONFIRM: &str = "inventory.confirm";
const RELEASE: &str = "inventory.release";
const RECEIVE: &str = "inventory.receive";
const PUT_BACK: &str = "inventory.put-back";

/// The aggregate; its id is the article's number, `sku`.
pub struct Inventory;

impl Inventory {
    /// The participant's name.
    pub const NAME: &str = "inventory";
}

/// What is known of an article.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Can be reserved.
    pub on_hand: u64,
    /// Held by open reservations.
    pub reserved: u64,
    /// Confirmed, and not put back.
    pub sold: u64,
    /// Added to stock, ever.
    pub received: u64,
    /// The open reservations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reservations: BTreeMap<ReservationKey, Reservation>,
    /// Those that expire, by when.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    expiring: BTreeSet<(Timestamp, ReservationKey)>,
}

/// An open reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// How many pieces.
    pub quantity: u64,
    /// When it lapses, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// What can happen to an article.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Stock came in.
    Received {
        /// How many pieces.
        quantity: u64,
    },
    /// Pieces are held.
    Reserved {
        /// By whom.
        key: ReservationKey,
        /// How many, until when.
        #[serde(flatten)]
        reservation: Reservation,
    },
    /// The held pieces are sold.
    Confirmed {
        /// Whose.
        key: ReservationKey,
    },
    /// The held pieces are back on hand.
    Released {
        /// Whose.
        key: ReservationKey,
    },
    /// The held pieces are back on hand because nobody confirmed in time.
    Expired {
        /// Whose.
        key: ReservationKey,
    },
    /// Pieces whose reservation had expired were still there, and are sold.
    SoldAfterExpiry {
        /// To whom.
        key: ReservationKey,
        /// How many.
        quantity: u64,
    },
    /// Pieces that were sold have come back.
    PutBack {
        /// By whom.
        key: ReservationKey,
        /// How many.
        quantity: u64,
    },
}

#[derive(Deserialize)]
struct Wanted {
    quantity: u64,
    expires_in_s: Option<u64>,
}

impl State {
    /// The reservations that have lapsed, other than `except`, and the pieces they held.
    fn lapsed(&self, now: Timestamp, except: &ReservationKey) -> (Vec<Event>, u64) {
        let mut freed: u64 = 0;
        let events = self
            .expiring
            .iter()
            .take_while(|(expires_at, _)| *expires_at <= now)
            .filter(|(_, key)| key != except)
            .map(|(_, key)| {
                let quantity = self.reservations.get(key).map_or(0, |held| held.quantity);
                freed = freed.saturating_add(quantity);
                Event::Expired { key: key.clone() }
            })
            .collect();
        (events, freed)
    }

    /// Takes a reservation out of the snapshot; 0 if it is not there.
    fn settle(&mut self, key: &ReservationKey) -> u64 {
        let Some(held) = self.reservations.remove(key) else {
            return 0;
        };
        if let Some(expires_at) = held.expires_at {
            self.expiring.remove(&(expires_at, key.clone()));
        }
        self.reserved = self.reserved.saturating_sub(held.quantity);
        held.quantity
    }
}

impl Aggregate for Inventory {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "inventory";
    const COMMANDS: &'static [CommandSpec] = &[
        CommandSpec::new(RESERVE),
        CommandSpec::new(CONFIRM),
        CommandSpec::new(RELEASE),
        CommandSpec::standalone(RECEIVE),
        CommandSpec::standalone(PUT_BACK),
    ];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "sku")
    }

    fn handle(
        state: &State,
        command: &Command,
        now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let key = ReservationKey::of(command);
        let sku = Self::id_of(command)?;
        match command.name.as_str() {
            RESERVE => reserve(state, key, &sku, payload(command)?, now),
            CONFIRM => confirm(state, key, &sku, payload(command)?, now),
            RELEASE => Ok(release(state, key, &sku, now)),
            RECEIVE => receive(state, &sku, &payload(command)?),
            PUT_BACK => put_back(state, key, &sku, &payload(command)?),
            _ => Err(not_handled(command)),
        }
    }

    // Sums can't overflow: `receive` keeps `received` in bounds, and the others only move pieces
    // that were received. Saturating, because `apply` must be total.
    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Received { quantity } => {
                state.received = state.received.saturating_add(*quantity);
                state.on_hand = state.on_hand.saturating_add(*quantity);
            }
            Event::Reserved { key, reservation } => {
                state.on_hand = state.on_hand.saturating_sub(reservation.quantity);
                state.reserved = state.reserved.saturating_add(reservation.quantity);
                if let Some(expires_at) = reservation.expires_at {
                    state.expiring.insert((expires_at, key.clone()));
                }
                state.reservations.insert(key.clone(), reservation.clone());
            }
            Event::Confirmed { key } => {
                let quantity = state.settle(key);
                state.sold = state.sold.saturating_add(quantity);
            }
            Event::Released { key } | Event::Expired { key } => {
                let quantity = state.settle(key);
                state.on_hand = state.on_hand.saturating_add(quantity);
            }
            Event::SoldAfterExpiry { quantity, .. } => {
                state.on_hand = state.on_hand.saturating_sub(*quantity);
                state.sold = state.sold.saturating_add(*quantity);
            }
            Event::PutBack { quantity, .. } => {
                state.on_hand = state.on_hand.saturating_add(*quantity);
                state.sold = state.sold.saturating_sub(*quantity);
            }
        }
    }
}

type Handled = Result<(Vec<Event>, Value), Rejection>;

fn reserve(
    state: &State,
    key: ReservationKey,
    sku: &str,
    wanted: Wanted,
    now: Timestamp,
) -> Handled {
    if wanted.quantity == 0 {
        return Err(Rejection::new("`quantity` must be at least 1"));
    }
    if state.reservations.contains_key(&key) {
        return Err(Rejection::new(format!(
            "this step already holds a reservation of `{sku}`"
        )));
    }
    let (mut events, freed) = state.lapsed(now, &key);
    let available = state.on_hand.saturating_add(freed);
    let left = available.checked_sub(wanted.quantity).ok_or_else(|| {
        Rejection::new(format!(
            "not enough stock: {} of `{sku}` wanted, {available} left",
            wanted.quantity
        ))
    })?;
    let expires_at = wanted
        .expires_in_s
        .map(|seconds| now.after(Duration::from_secs(seconds)));
    let mut reply = json!({ "sku": sku, "quantity": wanted.quantity, "left": left });
    if let Some(expires_at) = expires_at {
        reply["expires_at"] = expires_at.to_string().into();
    }
    events.push(Event::Reserved {
        key,
        reservation: Reservation {
            quantity: wanted.quantity,
            expires_at,
        },
    });
    Ok((events, reply))
}

fn confirm(
    state: &State,
    key: ReservationKey,
    sku: &str,
    wanted: Wanted,
    now: Timestamp,
) -> Handled {
    let (mut events, freed) = state.lapsed(now, &key);
    if let Some(held) = state.reservations.get(&key) {
        // Perhaps past its time, but nobody has needed the pieces in between.
        let reply = json!({ "sku": sku, "quantity": held.quantity });
        events.push(Event::Confirmed { key });
        return Ok((events, reply));
    }
    // The barrier has seen the reserve succeed, so it can only have expired; and only one with a
    // time limit does.
    if wanted.expires_in_s.is_none() {
        return Err(Rejection::new(format!(
            "this step holds no reservation of `{sku}`"
        )));
    }
    let available = state.on_hand.saturating_add(freed);
    if available < wanted.quantity {
        return Err(Rejection::new(format!(
            "the reservation expired and the stock is gone: {} of `{sku}` wanted, {available} left",
            wanted.quantity
        )));
    }
    events.push(Event::SoldAfterExpiry {
        key,
        quantity: wanted.quantity,
    });
    Ok((
        events,
        json!({ "sku": sku, "quantity": wanted.quantity, "expired": true }),
    ))
}

/// Never refused: what has expired is back on hand already.
fn release(state: &State, key: ReservationKey, sku: &str, now: Timestamp) -> (Vec<Event>, Value) {
    let (mut events, _) = state.lapsed(now, &key);
    let released = state.reservations.get(&key).map_or(0, |held| held.quantity);
    if released > 0 {
        events.push(Event::Released { key });
    }
    (events, json!({ "sku": sku, "released": released }))
}

fn receive(state: &State, sku: &str, wanted: &Wanted) -> Handled {
    let received = state.received.checked_add(wanted.quantity);
    if wanted.quantity == 0 || received.is_none() {
        return Err(Rejection::new(format!(
            "`quantity` must be at least 1 and at most {}",
            u64::MAX - state.received
        )));
    }
    let quantity = wanted.quantity;
    // Can't overflow: on_hand <= received.
    let on_hand = state.on_hand.saturating_add(quantity);
    Ok((
        vec![Event::Received { quantity }],
        json!({ "sku": sku, "quantity": quantity, "on_hand": on_hand }),
    ))
}

fn put_back(state: &State, key: ReservationKey, sku: &str, wanted: &Wanted) -> Handled {
    let quantity = wanted.quantity;
    if quantity > state.sold {
        return Err(Rejection::new(format!(
            "{quantity} of `{sku}` can't be put back: {} were sold",
            state.sold
        )));
    }
    // Can't overflow: on_hand + sold <= received.
    let on_hand = state.on_hand.saturating_add(quantity);
    Ok((
        vec![Event::PutBack { key, quantity }],
        json!({ "sku": sku, "quantity": quantity, "on_hand": on_hand }),
    ))
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
