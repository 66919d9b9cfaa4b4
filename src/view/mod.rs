//! A saga as people look at it: where it stands, why, what is still to come, what happened.
//!
//! Separate from the core because it serves eyes, not decisions, and from the command line and the
//! HTTP API because both show the same thing. Pure but for [`read_history`], [`read_tasks`] and [`look_around`]: row, journal and
//! definition in, a value that serialises to the API's JSON out.
//!
//! Invariants: the view is built from the journal, never from a snapshot, and says whether the
//! journal's hash chain holds and whether the row agrees with it.
//! Deliberately absent: how it is laid out on a screen.

mod around;
mod found;
mod letter;
mod schedule;
mod spoken;
mod steps;
mod tasks;
mod timeline;
mod wait;
mod why;

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::definition::Definition;
use crate::id::{SagaId, Timestamp};
use crate::message::mask;
use crate::saga::journal::{self, JournalEntry, JournalError};
use crate::saga::{Pass, Saga, Signal, Status, holdup};
use crate::store::{LoadRequest, SagaHead, Store, StoreError};
use crate::verify::row_agrees;

pub use around::look_around;
pub use found::{CauseGroupView, CauseView, CountView, FoundView, ListView, SpotView};
pub use letter::{AuditView, GroupView, LetterHeadView, LetterListView, LetterView, MessageView};
pub use schedule::{MovedView, ScheduleView};
pub use spoken::spoken;
pub use steps::{ChildView, StepStage, StepView, WaitingFor};
pub use tasks::{TASKS_MAX, TaskListView, TaskView, read_tasks, tasks_of};
pub use timeline::{EventView, Moment};
pub use why::{QueueSeen, QueueView, Surroundings, WaitKind, WhyView};

/// Journal entries read at once.
const JOURNAL_PAGE: usize = 1_000;

/// A saga's row and its whole journal.
#[derive(Debug, Clone)]
pub struct History {
    /// The row.
    pub head: SagaHead,
    /// The entries that the row speaks of, from the first one.
    pub entries: Vec<JournalEntry>,
}

/// Reads a saga's row and whole journal; `None` if there is no such saga.
pub async fn read_history(store: &dyn Store, id: SagaId) -> Result<Option<History>, StoreError> {
    let Some(head) = read_head(store, id).await? else {
        return Ok(None);
    };
    let mut entries: Vec<JournalEntry> = Vec::new();
    // Entries that are written meanwhile belong to a later row than the one read above.
    while (entries.len() as u64) < head.revision {
        let after = entries.last().map_or(0, |entry| entry.seq);
        let page = store.journal(id, after, JOURNAL_PAGE).await?;
        if page.is_empty() {
            break;
        }
        entries.extend(page.into_iter().filter(|entry| entry.seq <= head.revision));
    }
    Ok(Some(History { head, entries }))
}

/// Reads a saga's row alone.
pub async fn read_head(store: &dyn Store, id: SagaId) -> Result<Option<SagaHead>, StoreError> {
    // No entry comes after the largest number that every database can hold.
    let after = i64::MAX.unsigned_abs();
    let loaded = store.load(&[LoadRequest { id, after }]).await?;
    Ok(loaded.into_iter().flatten().next().map(|saga| saga.head))
}

/// A saga's row, for lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeadView {
    /// The id.
    pub saga_id: SagaId,
    /// The definition's name.
    pub saga: String,
    /// Its version.
    pub version: u32,
    /// The business key.
    pub key: String,
    /// Where it stands.
    pub status: Status,
    /// Why it is compensating, compensated or suspended.
    pub reason: Option<String>,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaits: Option<SpotView>,
    /// What stands in its way, or why it did not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<CauseView>,
    /// The saga that runs it, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_by: Option<SagaId>,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// When the newest journal entry was written.
    pub updated_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// When it is looked at even if no message comes.
    pub wake_at: Option<String>,
    /// Entries in its journal.
    pub revision: u64,
    /// Whether it has ended and given up its key: it was replaced, or is a sub-saga rolled back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub superseded: bool,
}

impl HeadView {
    /// As people see a row.
    pub fn new(head: &SagaHead) -> Self {
        Self {
            saga_id: head.id,
            saga: head.name.clone(),
            version: head.version,
            key: head.key.clone(),
            status: head.status,
            reason: head.reason.as_deref().map(masked),
            awaits: head.awaits.as_ref().map(SpotView::new),
            cause: head.cause.as_ref().map(CauseView::new),
            run_by: head.parent,
            started_at: head.started_at.to_string(),
            updated_at: head.updated_at.to_string(),
            ended_at: text_of(head.ended_at),
            wake_at: text_of(head.wake_at),
            revision: head.revision,
            superseded: head.superseded,
        }
    }
}

/// All there is to know of a saga.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SagaView {
    /// Its row.
    #[serde(flatten)]
    pub head: HeadView,
    /// What it waits for; none once it has ended.
    pub why: Option<WhyView>,
    /// The definition's description.
    pub description: Option<String>,
    /// What it works on.
    pub input: Arc<Value>,
    /// The result, once completed.
    pub output: Option<Arc<Value>>,
    /// Why the result could not be computed; `output` is null then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_error: Option<String>,
    /// Past it, and before the pivot, it is rolled back.
    pub deadline: Option<String>,
    /// The saga that gave way to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<SagaId>,
    /// The saga that takes its key over once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<ReplacedBy>,
    /// The saga that runs it, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentView>,
    /// Its steps in the definition's order, those still to come included.
    pub steps: Vec<StepView>,
    /// Signals that came and that no `wait` has taken yet, oldest first.
    pub signals: Vec<SignalView>,
    /// What happened, in order.
    pub timeline: Vec<Moment>,
    /// Whether the journal is what was written.
    pub journal: JournalView,
}

/// A signal that is kept unread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignalView {
    /// Its name.
    pub name: String,
    /// What it is deduplicated by.
    pub id: String,
    /// Its payload.
    pub body: Arc<Value>,
    /// When it came, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

impl SignalView {
    fn new(signal: &Signal) -> Self {
        Self {
            name: signal.name.clone(),
            id: signal.id.clone(),
            body: Arc::clone(&signal.body),
            at: signal.at.map(|at| at.to_string()),
        }
    }
}

/// A restart, seen from the saga that gives way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplacedBy {
    /// The saga to come; there is none by this id before this one has ended.
    pub saga_id: SagaId,
    /// When it was asked for, RFC 3339.
    pub asked_at: String,
    /// What it waits for.
    pub waiting: &'static str,
}

/// The saga that runs another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParentView {
    /// Its id.
    pub saga_id: SagaId,
    /// Its block.
    pub step: String,
    /// Whether the saga is prepared: it waits for this one to confirm it or to roll it back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub awaited: bool,
}

/// What checking the journal found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalView {
    /// Entries read.
    pub entries: u64,
    /// Whether the hash chain holds and leads to the row.
    pub verified: bool,
    /// What is wrong.
    pub problem: Option<String>,
    /// Hash of the newest entry, in hexadecimal.
    pub head: String,
}

impl SagaView {
    /// The view of a saga. Without its definition (lost, or of a newer Backstitch) the steps that
    /// were reached are shown in the order of their names.
    pub fn new(history: &History, definition: Option<&Definition>) -> Self {
        let History { head, entries } = history;
        let (saga, trouble) = fold(history);
        let steps = match definition {
            Some(definition) => steps::all(definition, &saga),
            None => steps::reached(&saga),
        };
        let timeline = timeline::moments(definition, head.started_at, entries);
        let known = wait::Known {
            saga: &saga,
            awaits: head.awaits.as_ref(),
            definition,
            steps: &steps,
            timeline: &timeline,
        };
        Self {
            why: known.why(),
            head: HeadView::new(head),
            description: definition.and_then(|definition| definition.description.clone()),
            input: Arc::clone(&saga.input),
            output: saga.output.clone(),
            output_error: saga.output_error.clone(),
            // Once it is prepared, only its parent's counts.
            deadline: text_of(saga.deadline.filter(|_| saga.pass != Pass::Prepared)),
            replaces: saga.line.replaces,
            replaced_by: saga.line.successor.as_ref().map(|successor| ReplacedBy {
                saga_id: successor.saga,
                asked_at: successor.at.to_string(),
                waiting: holdup(saga.status()),
            }),
            parent: saga.family.as_ref().map(|family| ParentView {
                saga_id: family.parent.saga,
                step: family.parent.step.to_string(),
                awaited: saga.pass == Pass::Prepared && family.asked.is_none(),
            }),
            steps,
            signals: saga.signals.iter().map(SignalView::new).collect(),
            timeline,
            journal: check(head, entries, &saga, trouble),
        }
    }
}

/// What the journal says, as far as it can be read; [`JournalView`] tells if that is not all of it.
pub fn folded(history: &History) -> Saga {
    fold(history).0
}

/// The same, and why it is not all of it.
fn fold(History { head, entries }: &History) -> (Saga, Result<(), JournalError>) {
    let mut saga = Saga::new(head.id, &head.name, &head.key, head.started_at);
    let all = journal::fold(&mut saga, 0, entries);
    (saga, all)
}

fn check(
    head: &SagaHead,
    entries: &[JournalEntry],
    saga: &Saga,
    folded: Result<(), JournalError>,
) -> JournalView {
    let chain = journal::verify(head.id, entries).and_then(|chain| folded.map(|()| chain));
    let problem = match chain {
        Err(error) => Some(error.to_string()),
        Ok(chain) => row_agrees(head, &chain, saga)
            .err()
            .map(|flaw| flaw.to_string()),
    };
    JournalView {
        entries: entries.len() as u64,
        verified: problem.is_none(),
        problem,
        head: hex::encode(head.head_hash),
    }
}

/// Text from outside, as people may see it.
fn masked(text: &str) -> String {
    mask::text(text).into_owned()
}

/// JSON of a view, as people may see it: a participant may have put its correlation id into an answer, and
/// whoever knows one can speak for it.
///
/// # Errors
/// The view can't be written, which none of ours does.
pub fn json_of(view: &impl Serialize) -> serde_json::Result<String> {
    Ok(masked(&serde_json::to_string(view)?))
}

fn text_of(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

#[cfg(test)]
pub(crate) mod tests;
