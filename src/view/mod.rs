//! A saga as people look at it: where it stands, why, what is still to come, what happened.
//!
//! Separate from the core because it serves eyes, not decisions, and from the command line and the
//! HTTP API because both show the same thing. Pure but for [`read_history`], [`read_tasks`] and [`look_around`]: row, journal and
//! definition in, a value that serialises to the API's JSON out.
//!
//! Invariants: a [`SagaView`] is built from the journal, never from a snapshot, and says whether the
//! journal's hash chain holds and whether the row agrees with it; a [`SummaryView`] says that it does not know.
//! Deliberately absent: how it is laid out on a screen.

mod around;
mod definition;
mod found;
mod head;
mod history;
mod letter;
mod saga;
mod schedule;
mod spoken;
mod standing;
mod steps;
mod tasks;
mod timeline;
mod wait;
mod why;

use serde::Serialize;

use head::masked;

pub use around::look_around;
pub use definition::{CommandView, DefinitionView, LabelView, NodeView};
pub use found::{CauseGroupView, CountView, FoundView, ListView};
pub use head::{CauseView, HeadView, SpotView};
pub use history::{History, folded, read_head, read_history};
pub use letter::{AuditView, GroupView, LetterHeadView, LetterListView, LetterView, MessageView};
pub use saga::{JournalView, ParentView, ReplacedBy, SagaView, SignalView};
pub use schedule::{MovedView, ScheduleView};
pub use spoken::spoken;
pub use standing::{StagesView, Standing, SummaryView, moments_of};
pub use steps::{ChildView, StepStage, StepView, WaitingFor};
pub use tasks::{TASKS_MAX, TaskListView, TaskView, read_tasks, tasks_of};
pub use timeline::{EventView, Moment};
pub use why::{QueueSeen, QueueView, Surroundings, WaitKind, WhyView};

/// JSON of a view, as people may see it: a participant may have put its correlation id into an answer, and
/// whoever knows one can speak for it.
///
/// # Errors
/// The view can't be written, which none of ours does.
pub fn json_of(view: &impl Serialize) -> serde_json::Result<String> {
    Ok(masked(&serde_json::to_string(view)?))
}

#[cfg(test)]
pub(crate) mod tests;
