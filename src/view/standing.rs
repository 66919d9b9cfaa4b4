//! A saga as its newest snapshot and the entries after it say, for those who want to see quickly where a long
//! one stands. Nothing is verified by it: whoever wants to know whether the journal is what was written reads
//! it whole ([`read_history`](super::read_history)).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::saga::{JournalView, SagaView};
use super::steps::{self, StepView};
use super::timeline::{self, Moment};
use super::why::WhyView;
use crate::definition::Definition;
use crate::saga::Saga;
use crate::saga::format::Formats;
use crate::saga::journal::{self, JournalEntry};
use crate::store::{LoadedSaga, SagaHead};

/// A saga's row, and what it stands for.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The row.
    pub head: SagaHead,
    /// The saga.
    pub saga: Saga,
    /// About how much was read to know it, in bytes.
    pub bytes: usize,
}

impl Standing {
    /// What was loaded, after what was known before.
    ///
    /// # Errors
    /// Says what can't be read.
    pub fn fold(loaded: LoadedSaga, before: Option<&Self>) -> Result<Self, String> {
        let LoadedSaga {
            head,
            snapshot,
            entries,
            ..
        } = loaded;
        let (mut saga, revision, mut bytes) = match (before, snapshot) {
            (Some(before), _) => (before.saga.clone(), before.head.revision, before.bytes),
            (None, Some(snapshot)) => {
                let plain = Formats::OURS.read(&snapshot.body);
                let (plain, _) = plain.map_err(|newer| newer.to_string())?;
                let saga = serde_json::from_slice(&plain);
                let saga = saga.map_err(|error| format!("snapshot: {error}"))?;
                (saga, snapshot.revision, snapshot.body.len())
            }
            (None, None) => {
                let saga = Saga::new(head.id, &head.name, &head.key, head.started_at);
                (saga, 0, 0)
            }
        };
        journal::fold(&mut saga, revision, &entries).map_err(|error| error.to_string())?;
        let last = revision + entries.len() as u64;
        if last != head.revision {
            return Err(format!(
                "its row is at entry {}, its journal ends at {last}",
                head.revision
            ));
        }
        bytes += entries.iter().map(|entry| entry.body.len()).sum::<usize>();
        Ok(Self { head, saga, bytes })
    }

    /// Its steps in the definition's order.
    pub fn steps(&self, definition: Option<&Definition>) -> Vec<StepView> {
        match definition {
            Some(definition) => steps::all(definition, &self.saga),
            None => steps::reached(&self.saga),
        }
    }
}

/// All there is to know of a saga but its steps one by one and what happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SummaryView {
    #[serde(flatten)]
    about: Map<String, Value>,
    /// What it waits for; none once it has ended.
    pub why: Option<WhyView>,
    stages: StagesView,
    journal: JournalPart,
}

/// How many steps stand where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StagesView {
    /// Of all of them.
    all: BTreeMap<&'static str, u64>,
    /// By name, in the definition's order.
    steps: Vec<StepStages>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct StepStages {
    step: String,
    count: u64,
    stages: BTreeMap<&'static str, u64>,
}

/// The journal, as far as it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct JournalPart {
    entries: u64,
    /// None: it was not looked at.
    verified: Option<bool>,
    problem: Option<String>,
    head: String,
}

impl SummaryView {
    /// Of a saga that was not verified. `recent` are its newest entries, for when what it waits for began.
    pub fn new(
        standing: &Standing,
        recent: &[JournalEntry],
        definition: Option<&Definition>,
    ) -> Self {
        let Standing { head, saga, .. } = standing;
        let unknown = JournalView {
            entries: head.revision,
            verified: false,
            problem: None,
            head: hex::encode(head.head_hash),
        };
        let view = SagaView::of(head, saga, recent, definition, unknown);
        let mut summary = Self::of(view);
        summary.journal.verified = None;
        summary
    }

    /// Of all that is known.
    pub fn of(mut view: SagaView) -> Self {
        let stages = StagesView::of(&std::mem::take(&mut view.steps));
        view.timeline.clear();
        let journal = JournalPart {
            entries: view.journal.entries,
            verified: Some(view.journal.verified),
            problem: view.journal.problem.take(),
            head: view.journal.head.clone(),
        };
        let why = view.why.take();
        let mut about = match serde_json::to_value(&view) {
            Ok(Value::Object(about)) => about,
            // A view is an object.
            _ => Map::new(),
        };
        for part in ["why", "steps", "timeline", "journal"] {
            about.remove(part);
        }
        Self {
            about,
            why,
            stages,
            journal,
        }
    }
}

impl StagesView {
    fn of(steps: &[StepView]) -> Self {
        let mut view = Self::default();
        let mut places = BTreeMap::<&str, usize>::new();
        for step in steps {
            let name = name_of(step);
            let stage = step.status.key();
            *view.all.entry(stage).or_default() += 1;
            let place = *places.entry(name).or_insert_with(|| {
                view.steps.push(StepStages {
                    step: name.to_owned(),
                    count: 0,
                    stages: BTreeMap::new(),
                });
                view.steps.len() - 1
            });
            view.steps[place].count += 1;
            *view.steps[place].stages.entry(stage).or_default() += 1;
        }
        view
    }
}

/// A step's name, without indices.
fn name_of(step: &StepView) -> &str {
    step.step.split('[').next().unwrap_or_default()
}

impl StepView {
    /// Whether it is, or is an instance of, what is asked for: `stock` or `stock[2]`.
    pub fn is_at(&self, path: &str) -> bool {
        self.step == path || name_of(self) == path
    }
}

/// Journal entries in words.
pub fn moments_of(
    definition: Option<&Definition>,
    head: &SagaHead,
    entries: &[JournalEntry],
) -> Vec<Moment> {
    timeline::moments(definition, head.started_at, entries)
}
