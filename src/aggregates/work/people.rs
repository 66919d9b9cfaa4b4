//! Who takes part in a work item, and as what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::aggregates::payload::{id_field, not_handled, payload};
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const ADD: &str = "work-people.add";
const REMOVE: &str = "work-people.remove";

/// Most people of one work item.
const PEOPLE_MAX: usize = 1_000;

/// The aggregate; its id is the `work_item`.
pub struct WorkPeople;

impl WorkPeople {
    /// The participant's name.
    pub const NAME: &str = "work-people";
}

/// Who takes part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// As what, by person.
    pub people: BTreeMap<String, String>,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Somebody takes part, or takes part as something else.
    Joined {
        /// Who.
        person: String,
        /// As what.
        role: String,
    },
    /// Somebody takes part no more.
    Left {
        /// Who.
        person: String,
    },
}

#[derive(Deserialize)]
struct Part {
    person: String,
    role: String,
}

impl Aggregate for WorkPeople {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "work-people";
    const COMMANDS: &'static [CommandSpec] = &[CommandSpec::new(ADD), CommandSpec::new(REMOVE)];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "work_item")
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let Part { person, role } = payload(command)?;
        let is_there = state.people.get(&person) == Some(&role);
        let reply = json!({ "person": person });
        let events = match command.name.as_str() {
            ADD if is_there => Vec::new(),
            ADD if state.people.len() >= PEOPLE_MAX => {
                let why = format!("at most {PEOPLE_MAX} people take part in a work item");
                return Err(Rejection::new(why));
            }
            ADD => vec![Event::Joined { person, role }],
            REMOVE if is_there => vec![Event::Left { person }],
            REMOVE => Vec::new(),
            _ => return Err(not_handled(command)),
        };
        Ok((events, reply))
    }

    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Joined { person, role } => {
                state.people.insert(person.clone(), role.clone());
            }
            Event::Left { person } => {
                state.people.remove(person);
            }
        }
    }
}
