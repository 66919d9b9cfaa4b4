//! Notifications to a customer's phone. It sends nothing: it counts, so that a test can tell that each
//! went out once, and that nothing goes out when events are replayed.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::aggregates::payload::{id_field, not_handled, payload};
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const SEND: &str = "push.send";

/// The aggregate; its id is the `customer`.
pub struct Pushes;

impl Pushes {
    /// The participant's name.
    pub const NAME: &str = "push";
}

/// What a customer's phone was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How many notifications it got.
    pub sent: u64,
    /// The number on the badge as of the last one.
    pub badge: u64,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A notification was sent.
    Sent {
        /// The number on the badge.
        badge: u64,
        /// What it says; a silent one says nothing.
        text: Option<String>,
    },
}

#[derive(Deserialize)]
struct Notification {
    badge: u64,
    text: Option<String>,
}

impl Aggregate for Pushes {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "pushes";
    const COMMANDS: &'static [CommandSpec] = &[CommandSpec::standalone(SEND)];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "customer")
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        if command.name != SEND {
            return Err(not_handled(command));
        }
        let Notification { badge, text } = payload(command)?;
        let number = state.sent.saturating_add(1);
        Ok((
            vec![Event::Sent { badge, text }],
            json!({ "notification": number }),
        ))
    }

    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Sent { badge, .. } => {
                state.sent = state.sent.saturating_add(1);
                state.badge = *badge;
            }
        }
    }
}
