//! A saga whole: its row, its steps, what happened, and whether that is what was written.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::head::{HeadView, text_of};
use super::history::{History, fold};
use super::steps::{self, StepView};
use super::timeline::{self, Moment};
use super::wait;
use super::why::WhyView;
use crate::definition::Definition;
use crate::id::SagaId;
use crate::saga::journal::{self, JournalEntry, JournalError};
use crate::saga::{Pass, Saga, Signal, holdup};
use crate::store::SagaHead;
use crate::verify::row_agrees;

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
        let journal = check(head, entries, &saga, trouble);
        Self::of(head, &saga, entries, definition, journal)
    }

    /// Of a saga and the entries that are to be shown.
    pub(super) fn of(
        head: &SagaHead,
        saga: &Saga,
        entries: &[JournalEntry],
        definition: Option<&Definition>,
        journal: JournalView,
    ) -> Self {
        let steps = match definition {
            Some(definition) => steps::all(definition, saga),
            None => steps::reached(saga),
        };
        let timeline = timeline::moments(definition, head.started_at, entries);
        let known = wait::Known {
            saga,
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
            journal,
        }
    }
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
