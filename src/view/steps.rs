//! A saga's steps in the definition's order: those that were reached, and those still to come.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::definition::{Block, BlockId, BlockKind, Definition, Forward, Sleep, Step, Wait};
use crate::id::{Phase, SagaId, StepPath};
use crate::saga::{BlockPath, Pass, Saga, StepState, StepStatus, Waiting};

/// Stands for the items of a `for_each` that nobody has counted yet.
const UNCOUNTED: &str = "…";

/// One step, or one instance of a step inside a `for_each`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepView {
    /// Its path, such as `stock[2]`; `stock[…]` while its list is not computed.
    pub step: String,
    /// How many blocks are around it, the outermost sequence not counted.
    pub depth: usize,
    /// Whether it runs beside its neighbours instead of after them.
    pub parallel: bool,
    /// Where it stands.
    pub status: StepStage,
    /// What will still be asked of it if all goes on as it stands.
    pub next: Vec<Phase>,
    /// The command that was sent last.
    pub phase: Option<Phase>,
    /// How often it was sent.
    pub attempt: u32,
    /// After how many attempts something else happens: roll-back, or a person is asked.
    pub attempts_max: Option<u32>,
    /// What it waits for.
    pub waiting: Option<WaitingFor>,
    /// The commands' payload.
    pub with: Option<Arc<Value>>,
    /// What the participant answered.
    pub reply: Option<Arc<Value>>,
    /// The newest trouble.
    pub reason: Option<String>,
    /// Of a `wait` that took a signal: when that came, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal_at: Option<String>,
    /// The commands by phase.
    pub commands: BTreeMap<&'static str, String>,
    /// The saga that it runs, once it was told to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildView>,
}

/// The saga that a step runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChildView {
    /// Its id.
    pub saga_id: SagaId,
    /// Its definition's name.
    pub saga: String,
}

/// Where a step stands, those not reached included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StepStage {
    /// It was reached.
    Reached(StepStatus),
    /// It was not.
    Not(NotReached),
}

/// Why a step was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotReached {
    /// Its turn is still to come.
    ToCome,
    /// Its turn will not come: the saga went another way.
    NotRun,
}

impl StepStage {
    const TO_COME: Self = Self::Not(NotReached::ToCome);
    const NOT_RUN: Self = Self::Not(NotReached::NotRun);
    const SKIPPED: Self = Self::Reached(StepStatus::Skipped);

    /// The name in JSON and in questions about steps.
    pub fn key(self) -> &'static str {
        match self {
            Self::Reached(StepStatus::Undelivered) => "undelivered",
            Self::Reached(status) => status.as_str(),
            Self::Not(NotReached::ToCome) => "to_come",
            Self::Not(NotReached::NotRun) => "not_run",
        }
    }

    /// The name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reached(status) => status.as_str(),
            Self::Not(NotReached::ToCome) => "to come",
            Self::Not(NotReached::NotRun) => "not run",
        }
    }
}

/// What a step waits for, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaitingFor {
    /// `reply`, `retry`, `person`, `signal` or `time`.
    pub r#for: &'static str,
    /// The signal's name, if it is one and the definition is at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// RFC 3339; none for a person, and for a signal that is waited for as long as it takes.
    pub until: Option<String>,
}

/// All steps, in the definition's order.
pub(super) fn all(definition: &Definition, saga: &Saga) -> Vec<StepView> {
    let mut walk = Walk {
        definition,
        saga,
        views: Vec::new(),
    };
    walk.visit(
        definition.block(Definition::ROOT),
        &Place {
            depth: 0,
            parallel: false,
            indices: Vec::new(),
            uncounted: 0,
            skipped: None,
        },
    );
    walk.views
}

/// The steps that were reached, when the definition is not at hand.
pub(super) fn reached(saga: &Saga) -> Vec<StepView> {
    saga.steps
        .iter()
        .map(|(path, state)| view_of(path.to_string(), state))
        .collect()
}

struct Walk<'a> {
    definition: &'a Definition,
    saga: &'a Saga,
    views: Vec<StepView>,
}

/// Where in the tree the walk is.
#[derive(Clone)]
struct Place {
    depth: usize,
    parallel: bool,
    /// Positions in the `for_each` lists around, as far as they are counted.
    indices: Vec<u32>,
    /// Lists further in that are not.
    uncounted: usize,
    /// A block around was skipped, and why.
    skipped: Option<&'static str>,
}

impl Walk<'_> {
    // Recursion is bounded by the definition's DEPTH_MAX.
    fn visit(&mut self, node: &Block, place: &Place) {
        let block = BlockPath {
            block: node.id,
            indices: place.indices.clone(),
        };
        let known = (place.uncounted == 0)
            .then(|| self.saga.blocks.get(&block))
            .flatten();
        let mut inner = place.clone();
        if known.is_some_and(|known| known.skipped) {
            inner.skipped = Some("its block's `when` is false");
        }
        match &node.kind {
            BlockKind::Step(step) => self.step(step, place),
            BlockKind::Saga(block) => self.step(&block.step, place),
            BlockKind::Wait(Wait { name, signal, .. }) => self.pause(name, Some(signal), place),
            BlockKind::Sleep(Sleep { name, .. }) => {
                self.pause(name, None, place);
            }
            BlockKind::Sequence(children) => {
                if node.parent.is_some() {
                    inner.depth += 1;
                }
                self.children(children, &inner, false);
            }
            BlockKind::Parallel(children) => {
                inner.depth += 1;
                self.children(children, &inner, true);
            }
            BlockKind::ForEach { body, .. } => {
                inner.parallel = true;
                let body = self.definition.block(*body);
                match known.filter(|known| !known.skipped) {
                    Some(known) if known.children > 0 => {
                        for index in 0..known.children {
                            let mut item = inner.clone();
                            item.indices.push(index);
                            self.visit(body, &item);
                        }
                    }
                    opened => {
                        if opened.is_some() {
                            inner.skipped = Some("its list is empty");
                        }
                        inner.uncounted += 1;
                        self.visit(body, &inner);
                    }
                }
            }
        }
    }

    fn children(&mut self, children: &[BlockId], place: &Place, parallel: bool) {
        for child in children {
            let place = Place {
                parallel,
                ..place.clone()
            };
            self.visit(self.definition.block(*child), &place);
        }
    }

    /// A block that sends no command.
    fn pause(&mut self, name: &str, signal: Option<&String>, place: &Place) {
        let path = StepPath::at(name, &place.indices);
        let state = (place.uncounted == 0)
            .then(|| self.saga.steps.get(&path))
            .flatten();
        let mut view = match state {
            Some(state) => StepView {
                phase: None,
                ..view_of(path.to_string(), state)
            },
            None => {
                let running = matches!(self.saga.pass, Pass::New | Pass::Forward | Pass::Prepared);
                let shown = match place.skipped {
                    Some(_) => StepStage::SKIPPED,
                    None if running => StepStage::TO_COME,
                    None => StepStage::NOT_RUN,
                };
                StepView {
                    reason: place.skipped.map(str::to_owned),
                    ..blank(shown_path(&path, place.uncounted), shown)
                }
            }
        };
        if let Some(waiting) = &mut view.waiting {
            waiting.signal = signal.cloned();
        }
        view.depth = place.depth;
        view.parallel = place.parallel;
        self.views.push(view);
    }

    fn step(&mut self, step: &Step, place: &Place) {
        let path = StepPath::at(step.name.clone(), &place.indices);
        let state = (place.uncounted == 0)
            .then(|| self.saga.steps.get(&path))
            .flatten();
        let mut view = match state {
            Some(state) => view_of(path.to_string(), state),
            None => {
                let (status, reason) = self.unreached(step, place);
                StepView {
                    reason: reason.map(str::to_owned),
                    ..blank(shown_path(&path, place.uncounted), status)
                }
            }
        };
        view.depth = place.depth;
        view.parallel = place.parallel;
        view.next = next(step, view.status, self.saga.pass);
        view.attempts_max = view
            .phase
            .filter(|_| view.attempt > 0)
            .map(|phase| match phase {
                Phase::Reserve | Phase::Action => step.retry.attempts,
                Phase::Confirm | Phase::Compensate => step.suspend_after,
            });
        view.commands = commands(step);
        let asked = state.is_some_and(|state| state.attempt > 0);
        let block = self.definition.sub_saga(&step.name).filter(|_| asked);
        view.child = block.map(|block| ChildView {
            saga_id: self.saga.id.of_child(&path),
            saga: block.saga.clone(),
        });
        self.views.push(view);
    }

    fn unreached(&self, step: &Step, place: &Place) -> (StepStage, Option<&'static str>) {
        if place.skipped.is_some() {
            return (StepStage::SKIPPED, place.skipped);
        }
        let to_come = match self.saga.pass {
            Pass::New | Pass::Forward => true,
            Pass::Prepared | Pass::Confirm | Pass::Finish => step.forward.is_none(),
            Pass::Rollback | Pass::Completed | Pass::Compensated => false,
        };
        let stage = if to_come {
            StepStage::TO_COME
        } else {
            StepStage::NOT_RUN
        };
        (stage, None)
    }
}

fn shown_path(path: &StepPath, uncounted: usize) -> String {
    if uncounted == 0 {
        return path.to_string();
    }
    let counted = path.indices.iter().map(u32::to_string);
    let all: Vec<String> = counted
        .chain(std::iter::repeat_n(UNCOUNTED.to_owned(), uncounted))
        .collect();
    format!("{}[{}]", path.name, all.join(","))
}

fn blank(step: String, status: StepStage) -> StepView {
    StepView {
        step,
        depth: 0,
        parallel: false,
        status,
        next: Vec::new(),
        phase: None,
        attempt: 0,
        attempts_max: None,
        waiting: None,
        with: None,
        reply: None,
        reason: None,
        signal_at: None,
        commands: BTreeMap::new(),
        child: None,
    }
}

fn view_of(step: String, state: &StepState) -> StepView {
    let waiting = |r#for, until: Option<crate::id::Timestamp>| WaitingFor {
        r#for,
        signal: None,
        until: until.map(|at| at.to_string()),
    };
    StepView {
        phase: (state.status != StepStatus::Skipped).then_some(state.phase),
        attempt: state.attempt,
        waiting: match state.waiting {
            Waiting::Nothing => None,
            Waiting::Reply(at) => Some(waiting("reply", Some(at))),
            Waiting::Retry(at) => Some(waiting("retry", Some(at))),
            Waiting::Person => Some(waiting("person", None)),
            Waiting::Signal(until) => Some(waiting("signal", until)),
            Waiting::Sleep(until) => Some(waiting("time", Some(until))),
        },
        with: state.with.clone(),
        reply: state.reply.clone(),
        reason: state.reason.clone(),
        signal_at: state.signal_at.map(|at| at.to_string()),
        ..blank(step, StepStage::Reached(state.status))
    }
}

/// The commands that follow for a step, given where it and the saga stand.
fn next(step: &Step, status: StepStage, pass: Pass) -> Vec<Phase> {
    let forward = step.forward.as_ref().map(Forward::phase);
    let confirm = step.confirm.as_ref().map(|_| Phase::Confirm);
    let compensate = step.compensate.as_ref().map(|_| Phase::Compensate);
    let rolling_back = pass == Pass::Rollback;
    match status {
        StepStage::Not(NotReached::ToCome) => forward.into_iter().chain(confirm).collect(),
        StepStage::Reached(StepStatus::Reserving | StepStatus::Reserved | StepStatus::Unknown)
            if rolling_back =>
        {
            compensate.into_iter().collect()
        }
        StepStage::Reached(StepStatus::Reserving | StepStatus::Reserved)
            if matches!(pass, Pass::Forward | Pass::Prepared | Pass::Confirm) =>
        {
            confirm.into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn commands(step: &Step) -> BTreeMap<&'static str, String> {
    let forward = step
        .forward
        .as_ref()
        .map(|forward| (forward.phase(), forward.call()));
    let confirm = step.confirm.as_ref().map(|call| (Phase::Confirm, call));
    let compensate = step.compensate.as_ref();
    let compensate = compensate.map(|call| (Phase::Compensate, call));
    [forward, confirm, compensate]
        .into_iter()
        .flatten()
        .map(|(phase, call)| (phase.as_str(), call.command.clone()))
        .collect()
}
