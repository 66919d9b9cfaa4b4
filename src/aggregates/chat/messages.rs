//! A message: posted, perhaps withdrawn.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::aggregates::payload::{id_field, not_handled, payload};
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const POST: &str = "chat.post";
const WITHDRAW: &str = "chat.withdraw";

/// The aggregate; its id is the `message`.
pub struct ChatMessages;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// In which chat.
    pub chat: String,
    /// By whom.
    pub from: String,
    /// To whom.
    pub to: String,
    /// What it says.
    pub text: String,
}

/// What is known of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The message, once it is posted.
    pub posted: Option<Posted>,
    /// Whether it was taken back.
    pub withdrawn: bool,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It was posted.
    Posted(Posted),
    /// It was taken back.
    Withdrawn {
        /// From which chat.
        chat: String,
        /// To whom it was.
        to: String,
    },
}

impl Aggregate for ChatMessages {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "chat-messages";
    const COMMANDS: &'static [CommandSpec] = &[CommandSpec::new(POST), CommandSpec::new(WITHDRAW)];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "message")
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let id = Self::id_of(command)?;
        let events = match (command.name.as_str(), &state.posted) {
            (POST, None) => vec![Event::Posted(payload(command)?)],
            (POST, Some(posted)) if *posted == payload::<Posted>(command)? && !state.withdrawn => {
                Vec::new()
            }
            (POST, Some(_)) => {
                let why = format!("message `{id}` was posted with another text, or taken back");
                return Err(Rejection::new(why));
            }
            (WITHDRAW, Some(posted)) if !state.withdrawn => vec![Event::Withdrawn {
                chat: posted.chat.clone(),
                to: posted.to.clone(),
            }],
            (WITHDRAW, _) => Vec::new(),
            _ => return Err(not_handled(command)),
        };
        Ok((events, json!({ "message": id })))
    }

    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Posted(posted) => state.posted = Some(posted.clone()),
            Event::Withdrawn { .. } => state.withdrawn = true,
        }
    }
}
