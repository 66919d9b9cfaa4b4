//! Receipts of one order. It sends nothing: it counts, so that a proof can tell whether each
//! receipt went out once. The example of a confirm-only step.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::payload::{id_field, not_handled};
use super::reservation::ReservationKey;
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const SEND_RECEIPT: &str = "mailer.send-receipt";

/// The aggregate; its id is the `order_id`.
pub struct Mailer;

impl Mailer {
    /// The participant's name.
    pub const NAME: &str = "mailer";
}

/// What is known of an order's receipts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How many were sent.
    pub count: u64,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A receipt was sent.
    ReceiptSent {
        /// For which step.
        by: ReservationKey,
    },
}

impl Aggregate for Mailer {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "mailer";
    const COMMANDS: &'static [CommandSpec] = &[CommandSpec::standalone(SEND_RECEIPT)];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "order_id")
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        if command.name != SEND_RECEIPT {
            return Err(not_handled(command));
        }
        let by = ReservationKey::of(command);
        let order_id = Self::id_of(command)?;
        let receipt = state.count.saturating_add(1);
        Ok((
            vec![Event::ReceiptSent { by }],
            json!({ "order_id": order_id, "receipt": receipt }),
        ))
    }

    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::ReceiptSent { .. } => state.count = state.count.saturating_add(1),
        }
    }
}
