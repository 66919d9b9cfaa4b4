//! One invoice that several people edit: one edit at a time, and only of what its editor saw.
//!
//! A save raises the revision; an edit names the one that was on the screen and is refused if that
//! is no longer the newest, or if somebody else's edit is under way. So no edit is lost, and nobody
//! waits: whoever was slower is told who was faster and looks again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::payload::{id_field, not_handled, payload};
use super::reservation::ReservationKey;
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const EDIT: &str = "invoices.edit";
const SAVE: &str = "invoices.save";
const DISCARD: &str = "invoices.discard";

/// The aggregate; its id is the number of the `invoice`.
pub struct Invoices;

impl Invoices {
    /// The participant's name.
    pub const NAME: &str = "invoices";
}

/// Pieces of each article.
pub type Lines = BTreeMap<String, u64>;

/// What is known of an invoice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How often it was saved.
    pub revision: u64,
    /// What is on it.
    pub lines: Lines,
    /// Who saved it last.
    pub editor: Option<String>,
    /// The edit under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<Edit>,
}

/// An edit that is not saved yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The step that will save or discard it.
    pub key: ReservationKey,
    /// Whose.
    pub editor: String,
    /// What would be on the invoice.
    pub lines: Lines,
}

/// What can happen to an invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Somebody is about to change it.
    Edited {
        /// How.
        #[serde(flatten)]
        edit: Edit,
    },
    /// The edit under way is what the invoice is.
    Saved,
    /// The edit under way is forgotten.
    Discarded,
}

#[derive(Deserialize)]
struct Wanted {
    editor: String,
    revision: u64,
    #[serde(default)]
    more: Vec<Line>,
    #[serde(default)]
    fewer: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    sku: String,
    quantity: u64,
}

impl Aggregate for Invoices {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "invoices";
    const COMMANDS: &'static [CommandSpec] = &[
        CommandSpec::new(EDIT),
        CommandSpec::new(SAVE),
        CommandSpec::new(DISCARD),
    ];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "invoice")
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let key = ReservationKey::of(command);
        let invoice = Self::id_of(command)?;
        let is_ours = state.edit.as_ref().is_some_and(|edit| edit.key == key);
        match command.name.as_str() {
            EDIT => edit(state, key, &invoice, payload(command)?),
            SAVE if is_ours => Ok((
                vec![Event::Saved],
                json!({ "invoice": invoice, "revision": next(state) }),
            )),
            SAVE => Err(Rejection::new(format!(
                "this step has no edit of invoice `{invoice}` under way"
            ))),
            // What this step is not editing it need not discard.
            DISCARD => {
                let events = if is_ours {
                    vec![Event::Discarded]
                } else {
                    Vec::new()
                };
                let reply = json!({ "invoice": invoice, "revision": state.revision });
                Ok((events, reply))
            }
            _ => Err(not_handled(command)),
        }
    }

    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Edited { edit } => state.edit = Some(edit.clone()),
            Event::Saved => {
                state.revision = next(state);
                if let Some(edit) = state.edit.take() {
                    state.lines = edit.lines;
                    state.editor = Some(edit.editor);
                }
            }
            Event::Discarded => state.edit = None,
        }
    }
}

fn next(state: &State) -> u64 {
    state.revision.saturating_add(1)
}

fn edit(
    state: &State,
    key: ReservationKey,
    invoice: &str,
    wanted: Wanted,
) -> Result<(Vec<Event>, Value), Rejection> {
    if let Some(edit) = &state.edit {
        return Err(Rejection::new(format!(
            "invoice `{invoice}` is being edited by {}; look again when that is done",
            edit.editor
        )));
    }
    if wanted.revision != state.revision {
        return Err(Rejection::new(format!(
            "invoice `{invoice}` was changed by {}: it is at revision {}, not {}",
            state.editor.as_deref().unwrap_or("nobody"),
            state.revision,
            wanted.revision
        )));
    }
    let lines = changed(&state.lines, &wanted)
        .map_err(|why| Rejection::new(format!("invoice `{invoice}`: {why}")))?;
    let edit = Edit {
        key,
        editor: wanted.editor,
        lines,
    };
    Ok((
        vec![Event::Edited { edit }],
        json!({ "invoice": invoice, "revision": next(state) }),
    ))
}

/// The lines with the changes. One article may stand in a list several times, but not in both.
fn changed(lines: &Lines, wanted: &Wanted) -> Result<Lines, String> {
    let mut lines = lines.clone();
    for Line { sku, quantity } in &wanted.fewer {
        if wanted.more.iter().any(|line| line.sku == *sku) {
            return Err(format!("`{sku}` can't become more and fewer at once"));
        }
        let there = lines.get(sku).copied().unwrap_or(0);
        let left = there
            .checked_sub(*quantity)
            .ok_or_else(|| format!("{quantity} of `{sku}` off, but there are {there}"))?;
        if left == 0 {
            lines.remove(sku);
        } else {
            lines.insert(sku.clone(), left);
        }
    }
    for Line { sku, quantity } in &wanted.more {
        let line = lines.entry(sku.clone()).or_default();
        *line = line
            .checked_add(*quantity)
            .ok_or_else(|| format!("{quantity} more of `{sku}` are too many"))?;
    }
    Ok(lines)
}

#[cfg(test)]
#[path = "invoices_tests.rs"]
mod tests;
