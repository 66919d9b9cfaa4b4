//! One order: opened, then confirmed or cancelled. A cancelled order may be opened again.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::payload::{id_field, not_handled, payload};
use super::reservation::ReservationKey;
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const OPEN: &str = "orders.open";
const CONFIRM: &str = "orders.confirm";
const CANCEL: &str = "orders.cancel";

/// The aggregate; its id is the `order_id`.
pub struct Orders;

impl Orders {
    /// The participant's name.
    pub const NAME: &str = "orders";
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Never opened.
    #[default]
    New,
    /// Wanted.
    Open,
    /// Sold.
    Confirmed,
    /// Given up.
    Cancelled,
}

impl OrderStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Open => "open",
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What is known of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it stands.
    pub status: OrderStatus,
    /// Who ordered.
    pub customer: Option<String>,
    /// The step that opened it: the only one that may confirm or cancel it.
    pub opened_by: Option<ReservationKey>,
    /// How often it was opened, for proofs.
    pub times_opened: u32,
    /// How often it was confirmed: never more than once.
    pub times_confirmed: u32,
    /// How often it was cancelled.
    pub times_cancelled: u32,
}

/// What can happen to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It is wanted.
    Opened {
        /// By which step.
        by: ReservationKey,
        /// By whom.
        customer: Option<String>,
    },
    /// It is sold.
    Confirmed,
    /// It is given up.
    Cancelled,
}

#[derive(Deserialize)]
struct Opening {
    customer: Option<String>,
}

impl Aggregate for Orders {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "orders";
    const COMMANDS: &'static [CommandSpec] = &[
        CommandSpec::new(OPEN),
        CommandSpec::new(CONFIRM),
        CommandSpec::new(CANCEL),
    ];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "order_id")
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let order_id = Self::id_of(command)?;
        let by = ReservationKey::of(command);
        let is_ours = state.status == OrderStatus::Open && state.opened_by.as_ref() == Some(&by);
        let refused = |wish: &str| {
            Rejection::new(format!(
                "order `{order_id}` can't be {wish} by this step: it is {}",
                state.status.as_str()
            ))
        };
        let (events, status) = match command.name.as_str() {
            OPEN => match state.status {
                OrderStatus::New | OrderStatus::Cancelled => {
                    let Opening { customer } = payload(command)?;
                    (vec![Event::Opened { by, customer }], OrderStatus::Open)
                }
                OrderStatus::Open | OrderStatus::Confirmed => return Err(refused("opened")),
            },
            CONFIRM if is_ours => (vec![Event::Confirmed], OrderStatus::Confirmed),
            CONFIRM => return Err(refused("confirmed")),
            CANCEL if is_ours => (vec![Event::Cancelled], OrderStatus::Cancelled),
            // What this step does not hold open it need not cancel.
            CANCEL => (Vec::new(), state.status),
            _ => return Err(not_handled(command)),
        };
        Ok((
            events,
            json!({ "order_id": order_id, "status": status.as_str() }),
        ))
    }

    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Opened { by, customer } => {
                state.status = OrderStatus::Open;
                state.opened_by = Some(by.clone());
                state.customer.clone_from(customer);
                state.times_opened = state.times_opened.saturating_add(1);
            }
            Event::Confirmed => {
                state.status = OrderStatus::Confirmed;
                state.times_confirmed = state.times_confirmed.saturating_add(1);
            }
            Event::Cancelled => {
                state.status = OrderStatus::Cancelled;
                state.times_cancelled = state.times_cancelled.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
