//! How far a customer has read, in each chat.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::aggregates::payload::{id_field, not_handled, payload};
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const MARK_READ: &str = "chat.mark-read";

/// Most chats of one customer.
const CHATS_MAX: usize = 10_000;

/// The aggregate; its id is the `customer`.
pub struct ReadMarks;

/// How far a customer has read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last message that was read, by chat.
    pub upto: BTreeMap<String, String>,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// All messages of a chat up to one were read.
    Read {
        /// Which chat.
        chat: String,
        /// The last message that was read.
        upto: String,
    },
}

#[derive(Deserialize)]
struct Mark {
    chat: String,
    upto: String,
}

impl Aggregate for ReadMarks {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "read-marks";
    const COMMANDS: &'static [CommandSpec] = &[CommandSpec::standalone(MARK_READ)];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "customer")
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        if command.name != MARK_READ {
            return Err(not_handled(command));
        }
        let Mark { chat, upto } = payload(command)?;
        let reply = json!({ "chat": chat, "upto": upto });
        let known = state.upto.get(&chat);
        if known == Some(&upto) {
            return Ok((Vec::new(), reply));
        }
        if known.is_none() && state.upto.len() >= CHATS_MAX {
            return Err(Rejection::new(format!(
                "at most {CHATS_MAX} chats are kept"
            )));
        }
        Ok((vec![Event::Read { chat, upto }], reply))
    }

    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Read { chat, upto } => {
                state.upto.insert(chat.clone(), upto.clone());
            }
        }
    }
}
