//! A saga's state, and `apply`: how an event changes it.
//!
//! The state is the fold of the journal's events and of nothing else; it is never stored but as a
//! snapshot of that fold. Sums that a decision needs (how many children a block still waits for,
//! when the next timer is due) are kept here, so that a decision costs the same in a saga of ten
//! steps as in one of ten thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::{BlockPath, Event, Starter};
use super::status::Status;
use crate::definition::{SagaFacts, StepReplies};
use crate::id::{Phase, SagaId, StepPath, Timestamp};

/// A saga as the fold of its journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    /// `saga` in expressions.
    pub facts: SagaFacts,
    /// The id.
    pub id: SagaId,
    /// The definition's name.
    pub name: String,
    /// What it works on; null before the start.
    pub input: Arc<Value>,
    /// Who wants to hear of it.
    pub starter: Option<Starter>,
    /// What is being done.
    pub pass: Pass,
    /// Why it is being, or was, rolled back.
    pub reason: Option<String>,
    /// Past it, and before the pivot, it is rolled back.
    pub deadline: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The result, once completed.
    pub output: Option<Arc<Value>>,
    /// Steps that were reached.
    pub steps: BTreeMap<StepPath, StepState>,
    /// Counting blocks that were entered in this pass or before.
    #[serde(with = "block_map")]
    pub blocks: BTreeMap<BlockPath, BlockState>,
    /// When something of a step is due, earliest first.
    pub timers: BTreeSet<(Timestamp, StepPath)>,
    /// Confirms of reservations that are not answered yet.
    pub unconfirmed: u32,
    /// Steps that wait for a person.
    pub suspended: BTreeSet<StepPath>,
}

/// Which way a saga is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Not started.
    New,
    /// Reserving, in order.
    Forward,
    /// Past the pivot: confirming all reservations at once.
    Confirm,
    /// Then the confirm-only steps, in order.
    Finish,
    /// Undoing, in reverse order.
    Rollback,
    /// All done.
    Completed,
    /// All undone.
    Compensated,
}

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// What is known of it.
    pub status: StepStatus,
    /// The command that was sent last.
    pub phase: Phase,
    /// How often, in this phase.
    pub attempt: u32,
    /// What it waits for.
    pub waiting: Waiting,
    /// The payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Arc<Value>>,
    /// What the `reserve`, `action` or confirm-only `confirm` answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Arc<Value>>,
    /// The newest trouble, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is known of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Its `when` was false.
    Skipped,
    /// `reserve` or `action` was sent.
    Reserving,
    /// It was answered with yes.
    Reserved,
    /// It was answered with no.
    Rejected,
    /// It was not answered, and nobody asks any more.
    Unknown,
    /// `confirm` was sent.
    Confirming,
    /// It was answered with yes.
    Confirmed,
    /// `compensate` was sent.
    Compensating,
    /// It was answered with yes.
    Compensated,
}

impl StepStatus {
    /// The name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Reserving => "reserving",
            Self::Reserved => "reserved",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
            Self::Confirming => "confirming",
            Self::Confirmed => "confirmed",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
        }
    }
}

/// What a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for", content = "until")]
pub enum Waiting {
    /// Nothing: it is settled.
    Nothing,
    /// The answer, until then.
    Reply(Timestamp),
    /// The next attempt, at that time.
    Retry(Timestamp),
    /// A person.
    Person,
}

impl Waiting {
    fn timer(self) -> Option<Timestamp> {
        match self {
            Self::Reply(at) | Self::Retry(at) => Some(at),
            Self::Nothing | Self::Person => None,
        }
    }
}

/// What is known of a counting block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    /// How many children it has.
    pub children: u32,
    /// How many of them are not done in this pass.
    pub remaining: u32,
    /// Its `when` was false.
    pub skipped: bool,
}

impl Saga {
    /// A saga that has not started.
    pub fn new(id: SagaId, name: &str, key: &str, started_at: Timestamp) -> Self {
        Self {
            facts: SagaFacts {
                id: id.to_string(),
                key: key.to_owned(),
                started_at,
            },
            id,
            name: name.to_owned(),
            input: Arc::new(Value::Null),
            starter: None,
            pass: Pass::New,
            reason: None,
            deadline: None,
            ended_at: None,
            output: None,
            steps: BTreeMap::new(),
            blocks: BTreeMap::new(),
            timers: BTreeSet::new(),
            unconfirmed: 0,
            suspended: BTreeSet::new(),
        }
    }

    /// Where it stands, for the row and for people.
    pub fn status(&self) -> Status {
        match self.pass {
            Pass::Completed => Status::Completed,
            Pass::Compensated => Status::Compensated,
            _ if !self.suspended.is_empty() => Status::Suspended,
            Pass::New | Pass::Forward => Status::Running,
            Pass::Confirm | Pass::Finish => Status::Confirming,
            Pass::Rollback => Status::Compensating,
        }
    }

    /// Why it stands there: what a person asks first.
    pub fn status_reason(&self) -> Option<String> {
        match self
            .suspended
            .first()
            .and_then(|step| Some((step, self.steps.get(step)?)))
        {
            Some((path, step)) => {
                let why = step.reason.as_deref().unwrap_or("no reason given");
                Some(format!("{path} {}: {why}", step.phase))
            }
            None => self.reason.clone(),
        }
    }

    /// When something is due: the earliest timer, or the deadline while it still counts.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let deadline = self.deadline.filter(|_| self.pass == Pass::Forward);
        let timer = self.timers.first().map(|(at, _)| *at);
        match (timer, deadline) {
            (Some(timer), Some(deadline)) => Some(timer.min(deadline)),
            (timer, deadline) => timer.or(deadline),
        }
    }

    fn update(&mut self, step: &StepPath, change: impl FnOnce(&mut StepState)) {
        // Every event about a step follows one that created it.
        let Some(state) = self.steps.get_mut(step) else {
            return;
        };
        let before = state.waiting.timer();
        change(state);
        let after = state.waiting.timer();
        if before != after {
            if let Some(at) = before {
                self.timers.remove(&(at, step.clone()));
            }
            if let Some(at) = after {
                self.timers.insert((at, step.clone()));
            }
        }
        if state.waiting != Waiting::Person {
            self.suspended.remove(step);
        }
    }
}

/// Changes the saga as the event says. Folding a journal with it rebuilds the saga.
pub fn apply(saga: &mut Saga, event: &Event) {
    match event {
        Event::Started {
            input,
            at,
            deadline,
            starter,
        } => {
            saga.input = Arc::clone(input);
            saga.facts.started_at = *at;
            saga.deadline = *deadline;
            saga.starter.clone_from(starter);
            saga.pass = Pass::Forward;
        }
        Event::Asked {
            step,
            phase,
            attempt,
            with,
            due,
        } => {
            apply_asked(saga, step, *phase, *attempt, with.as_ref(), *due);
        }
        Event::Skipped { step } => {
            let state = StepState {
                status: StepStatus::Skipped,
                ..StepState::asked(Phase::Confirm, 0, Waiting::Nothing)
            };
            saga.steps.insert(step.clone(), state);
        }
        Event::BlockSkipped { at } => {
            let skipped = BlockState {
                children: 0,
                remaining: 0,
                skipped: true,
            };
            saga.blocks.insert(at.clone(), skipped);
        }
        Event::Opened { at, children } => {
            let open = BlockState {
                children: *children,
                remaining: *children,
                skipped: false,
            };
            saga.blocks.insert(at.clone(), open);
        }
        Event::Advanced { at } => {
            if let Some(block) = saga.blocks.get_mut(at) {
                block.remaining = block.remaining.saturating_sub(1);
            }
        }
        Event::Succeeded { step, phase, reply } => apply_succeeded(saga, step, *phase, reply),
        Event::Rejected { step, reason } => saga.update(step, |state| {
            state.settle(StepStatus::Rejected, Some(reason.clone()));
        }),
        Event::RetryPlanned {
            step, at, reason, ..
        } => saga.update(step, |state| {
            state.waiting = Waiting::Retry(*at);
            state.reason = Some(reason.clone());
        }),
        Event::OutcomeUnknown { step, reason } => saga.update(step, |state| {
            state.settle(StepStatus::Unknown, Some(reason.clone()));
        }),
        Event::Suspended {
            step,
            phase,
            reason,
        } => apply_suspended(saga, step, *phase, reason),
        Event::Resumed { step, .. } => saga.update(step, |state| {
            state.waiting = Waiting::Nothing;
            state.attempt = 0;
        }),
        Event::PivotPassed => saga.pass = Pass::Confirm,
        Event::ReservationsConfirmed => saga.pass = Pass::Finish,
        Event::RollbackStarted { reason } => {
            saga.pass = Pass::Rollback;
            saga.reason = Some(reason.clone());
        }
        Event::Completed { output, at } => {
            saga.pass = Pass::Completed;
            saga.output = Some(Arc::clone(output));
            saga.ended_at = Some(*at);
        }
        Event::Compensated { at } => {
            saga.pass = Pass::Compensated;
            saga.ended_at = Some(*at);
        }
    }
}

impl StepState {
    fn asked(phase: Phase, attempt: u32, waiting: Waiting) -> Self {
        Self {
            status: StepStatus::Reserving,
            phase,
            attempt,
            waiting,
            with: None,
            reply: None,
            reason: None,
        }
    }

    fn settle(&mut self, status: StepStatus, reason: Option<String>) {
        self.status = status;
        self.reason = reason;
        self.waiting = Waiting::Nothing;
    }
}

fn apply_asked(
    saga: &mut Saga,
    step: &StepPath,
    phase: Phase,
    attempt: u32,
    with: Option<&Arc<Value>>,
    due: Timestamp,
) {
    if saga.pass == Pass::Confirm
        && saga
            .steps
            .get(step)
            .is_some_and(|state| state.status == StepStatus::Reserved)
    {
        saga.unconfirmed += 1;
    }
    let new = StepState::asked(phase, attempt, Waiting::Nothing);
    saga.steps.entry(step.clone()).or_insert(new);
    saga.update(step, |state| {
        state.status = match phase {
            Phase::Reserve | Phase::Action => StepStatus::Reserving,
            Phase::Confirm => StepStatus::Confirming,
            Phase::Compensate => StepStatus::Compensating,
        };
        state.phase = phase;
        state.attempt = attempt;
        state.waiting = Waiting::Reply(due);
        if let Some(with) = with {
            state.with = Some(Arc::clone(with));
        }
    });
}

fn apply_succeeded(saga: &mut Saga, step: &StepPath, phase: Phase, reply: &Arc<Value>) {
    if saga.pass == Pass::Confirm && phase == Phase::Confirm {
        saga.unconfirmed = saga.unconfirmed.saturating_sub(1);
    }
    saga.update(step, |state| {
        let status = match phase {
            Phase::Reserve | Phase::Action => StepStatus::Reserved,
            Phase::Confirm => StepStatus::Confirmed,
            Phase::Compensate => StepStatus::Compensated,
        };
        // Later steps and the output speak of the reservation; a confirm-only step has just this.
        if status == StepStatus::Reserved || state.reply.is_none() && phase == Phase::Confirm {
            state.reply = Some(Arc::clone(reply));
        }
        state.settle(status, None);
    });
}

fn apply_suspended(saga: &mut Saga, step: &StepPath, phase: Phase, reason: &str) {
    // A confirm-only step whose payload can't be computed is suspended before it was ever asked.
    let new = StepState::asked(phase, 0, Waiting::Nothing);
    saga.steps.entry(step.clone()).or_insert(new);
    saga.update(step, |state| {
        if phase == Phase::Confirm {
            state.status = StepStatus::Confirming;
        }
        state.phase = phase;
        state.waiting = Waiting::Person;
        state.reason = Some(reason.to_owned());
    });
    saga.suspended.insert(step.clone());
}

impl StepReplies for Saga {
    fn reply(&self, step: &str) -> Option<Value> {
        let value = |state: &StepState| state.reply.as_deref().cloned();
        if let Some(state) = self.steps.get(&StepPath::plain(step)) {
            return value(state);
        }
        let instances = self
            .steps
            .range(StepPath::plain(step)..)
            .take_while(|(path, _)| path.name == step)
            .map(|(_, state)| value(state).unwrap_or(Value::Null))
            .collect::<Vec<_>>();
        (!instances.is_empty()).then_some(Value::Array(instances))
    }
}

/// JSON keys must be text, so the map is stored as a list of pairs.
mod block_map {
    use super::{BTreeMap, BlockPath, BlockState};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        map: &BTreeMap<BlockPath, BlockState>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<BlockPath, BlockState>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
