//! A work item: opened, then closed or withdrawn.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::aggregates::payload::{id_field, not_handled, payload};
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const OPEN: &str = "work-items.open";
const WITHDRAW: &str = "work-items.withdraw";
const CLOSE: &str = "work-items.close";

/// The aggregate; its id is the `work_item`.
pub struct WorkItems;

impl WorkItems {
    /// The participant's name.
    pub const NAME: &str = "work-items";
}

/// Where a work item stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Never opened.
    #[default]
    New,
    /// To be done.
    Open,
    /// Done.
    Closed,
    /// Taken back.
    Withdrawn,
}

/// What is known of a work item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it stands.
    pub status: Status,
    /// What it is about.
    pub title: String,
}

/// What can happen to a work item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It is to be done.
    Opened {
        /// What it is about.
        title: String,
    },
    /// It is done.
    Closed,
    /// It was taken back.
    Withdrawn,
}

#[derive(Deserialize)]
struct Opening {
    title: String,
}

impl Aggregate for WorkItems {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "work-items";
    const COMMANDS: &'static [CommandSpec] = &[
        CommandSpec::new(OPEN),
        CommandSpec::new(WITHDRAW),
        CommandSpec::standalone(CLOSE),
    ];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "work_item")
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let id = Self::id_of(command)?;
        let events = match (command.name.as_str(), state.status) {
            (OPEN, Status::New) => {
                let Opening { title } = payload(command)?;
                vec![Event::Opened { title }]
            }
            // Asked again by somebody else, for the same.
            (OPEN, Status::Open) if payload::<Opening>(command)?.title == state.title => Vec::new(),
            (OPEN, _) => return Err(Rejection::new(format!("work item `{id}` is there already"))),
            (WITHDRAW, Status::Open) => vec![Event::Withdrawn],
            (CLOSE, Status::Open) => vec![Event::Closed],
            (WITHDRAW, _) | (CLOSE, Status::Closed) => Vec::new(),
            (CLOSE, _) => return Err(Rejection::new(format!("work item `{id}` is not open"))),
            _ => return Err(not_handled(command)),
        };
        Ok((events, json!({ "work_item": id })))
    }

    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Opened { title } => {
                state.status = Status::Open;
                state.title.clone_from(title);
            }
            Event::Closed => state.status = Status::Closed,
            Event::Withdrawn => state.status = Status::Withdrawn,
        }
    }
}
