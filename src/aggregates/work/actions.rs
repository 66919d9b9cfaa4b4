//! What was done for a work item: one aggregate an action, so that any number can be recorded at once.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::aggregates::payload::{id_field, not_handled, payload};
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const RECORD: &str = "work-actions.record";
const REVOKE: &str = "work-actions.revoke";

/// The aggregate; its id is the `action`.
pub struct WorkActions;

impl WorkActions {
    /// The participant's name.
    pub const NAME: &str = "work-actions";
}

/// An action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// For which work item.
    pub work_item: String,
    /// Who did it.
    pub by: String,
    /// What was done.
    pub text: String,
}

/// What is known of an action.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What was done; nothing before it is recorded and after it is revoked.
    pub action: Option<Action>,
    /// Whether it was recorded, be it revoked since.
    pub recorded: bool,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It was done.
    Recorded(Action),
    /// It is not to count.
    Revoked,
}

impl Aggregate for WorkActions {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "work-actions";
    const COMMANDS: &'static [CommandSpec] = &[CommandSpec::new(RECORD), CommandSpec::new(REVOKE)];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "action")
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let id = Self::id_of(command)?;
        let events = match command.name.as_str() {
            RECORD => {
                let action: Action = payload(command)?;
                match &state.action {
                    Some(known) if *known == action => Vec::new(),
                    None if !state.recorded => vec![Event::Recorded(action)],
                    _ => {
                        let why = format!("action `{id}` was recorded as something else");
                        return Err(Rejection::new(why));
                    }
                }
            }
            REVOKE if state.action.is_some() => vec![Event::Revoked],
            REVOKE => Vec::new(),
            _ => return Err(not_handled(command)),
        };
        Ok((events, json!({ "action": id })))
    }

    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Recorded(action) => {
                state.action = Some(action.clone());
                state.recorded = true;
            }
            Event::Revoked => state.action = None,
        }
    }
}
