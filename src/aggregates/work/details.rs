//! All that is known of a work item, folded from the three aggregates that keep it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::actions::{self, WorkActions};
use super::items::{self, WorkItems};
use super::people::{self, WorkPeople};
use crate::participant::Aggregate;
use crate::projection::{Projection, Recorded};

/// Actions that are shown; of the older ones only the number is.
const ACTIONS_SHOWN_MAX: usize = 20;

/// A page about a work item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Where it stands.
    pub status: items::Status,
    /// What it is about.
    pub title: String,
    /// Who takes part, and as what.
    pub people: BTreeMap<String, String>,
    /// How many actions were recorded and not revoked.
    pub actions: u64,
    /// The latest of them, the newest last.
    pub latest: Vec<Latest>,
    /// How many events it was made of.
    pub events: u64,
}

/// An action as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// Its id.
    pub action: String,
    /// When it was recorded, in microseconds since 1970.
    pub at: i64,
    /// Who did it.
    pub by: String,
    /// What was done.
    pub text: String,
}

/// The projection, by the work item's id.
pub struct WorkItemDetails;

impl Projection for WorkItemDetails {
    type Document = Details;

    const NAME: &'static str = "work-item-details";
    const KINDS: &'static [&'static str] = &[WorkItems::KIND, WorkPeople::KIND, WorkActions::KIND];

    fn apply(details: &mut Details, event: &Recorded<'_>) {
        details.events += 1;
        if let Some(event) = event.of::<WorkItems>() {
            details.status = match event {
                items::Event::Opened { title } => {
                    details.title = title;
                    items::Status::Open
                }
                items::Event::Closed => items::Status::Closed,
                items::Event::Withdrawn => items::Status::Withdrawn,
            };
        }
        match event.of::<WorkPeople>() {
            Some(people::Event::Joined { person, role }) => {
                details.people.insert(person, role);
            }
            Some(people::Event::Left { person }) => {
                details.people.remove(&person);
            }
            None => {}
        }
        match event.of::<WorkActions>() {
            Some(actions::Event::Recorded(action)) => {
                details.actions += 1;
                if details.latest.len() == ACTIONS_SHOWN_MAX {
                    details.latest.remove(0);
                }
                details.latest.push(Latest {
                    action: event.id().to_owned(),
                    at: event.at().as_micros(),
                    by: action.by,
                    text: action.text,
                });
            }
            Some(actions::Event::Revoked) => {
                details.actions = details.actions.saturating_sub(1);
                details.latest.retain(|latest| latest.action != event.id());
            }
            None => {}
        }
    }
}
