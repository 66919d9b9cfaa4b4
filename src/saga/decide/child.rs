//! Sub-sagas: a saga that is a participant of another one.
//!
//! The parent treats the block that runs another saga as a step with `reserve`, `confirm` and
//! `compensate`: sending, retrying, giving up and rolling back are those of any step. Here is what
//! differs, and the child's side: it runs its forward pass at once, stops before its pivot
//! (*prepared*), and passes it or rolls back as its parent says.
//!
//! Invariants:
//! * What a child answers follows from its state alone ([`answer_to_parent`]), so the same question
//!   gets the same answer however often it comes, and a lost answer is asked for again.
//! * A child that has said that it is prepared neither times out nor lets itself be cancelled.
//!   That its reservations lapse is its parent's business: the answer says when.
//! * A child that is told to compensate before it was told to reserve is born compensated, and
//!   refuses to be reserved afterwards.
//!
//! Deliberately absent: how the two find one another and what signs their messages (the engine).

use std::sync::Arc;

use serde_json::{Map, Value};

use super::turn::Turn;
use crate::definition::Definition;
use crate::id::{Phase, StepPath};
use crate::limits::BODY;
use crate::message::Outcome;
use crate::saga::emission::Emission;
use crate::saga::event::Event;
use crate::saga::expiry::{EXPIRES_AT, expiry_of};
use crate::saga::family::{ChildAnswer, Parent, ParentOrder};
use crate::saga::pass::Pass;
use crate::saga::refusal::Refusal;
use crate::saga::sabotage::PlantedBug;
use crate::saga::state::Saga;
use crate::saga::step::StepStatus;

/// What the saga answers to its parent's `phase`, as it stands; `None` while it is at work on it.
pub fn answer_to_parent(saga: &Saga, phase: Phase) -> Option<ChildAnswer> {
    let family = saga.family.as_ref()?;
    let why = || saga.status_reason().unwrap_or_default();
    let output = || saga.output.clone().unwrap_or_default();
    let (outcome, reason, body) = match (phase, saga.pass) {
        (Phase::Reserve | Phase::Action, Pass::Compensated) => {
            (Outcome::Rejected, Some(why()), Arc::default())
        }
        (
            Phase::Reserve | Phase::Action,
            Pass::Prepared | Pass::Confirm | Pass::Finish | Pass::Completed,
        ) => {
            let prepared = family.prepared.clone().unwrap_or_else(output);
            (Outcome::Succeeded, None, prepared)
        }
        (Phase::Confirm, Pass::Completed) => (Outcome::Succeeded, None, output()),
        (Phase::Confirm, Pass::New | Pass::Forward) => {
            let reason = "it has not reached its pivot".to_owned();
            (Outcome::Failed, Some(reason), Arc::default())
        }
        // To try again would not help.
        (Phase::Confirm, Pass::Rollback | Pass::Compensated) => {
            let reason = format!("it was rolled back: {}", why());
            (Outcome::Rejected, Some(reason), Arc::default())
        }
        (Phase::Compensate, Pass::Compensated) => (Outcome::Succeeded, None, Arc::default()),
        (Phase::Compensate, Pass::Confirm | Pass::Finish | Pass::Completed) => {
            let reason = "it is past its pivot and can't be undone".to_owned();
            (Outcome::Rejected, Some(reason), Arc::default())
        }
        _ => return None,
    };
    Some(ChildAnswer {
        phase,
        outcome,
        reason,
        body,
    })
}

/// The child's side.
impl Turn<'_> {
    /// Does what the parent wants. Refused as settled if that is done or being done: the answer is
    /// then [`answer_to_parent`]'s.
    pub(super) fn obey(&mut self, order: ParentOrder) -> Result<(), Refusal> {
        if self.saga.pass != Pass::New {
            return match order {
                ParentOrder::Reserve { .. } => Err(Refusal::Settled),
                ParentOrder::Confirm => self.asked(Phase::Confirm),
                ParentOrder::Compensate { .. } => self.asked(Phase::Compensate),
            };
        }
        match order {
            ParentOrder::Reserve {
                parent,
                input,
                refused: None,
            } => {
                self.emit(Event::ChildOf(parent));
                self.start(input, None)
            }
            ParentOrder::Reserve {
                parent,
                input,
                refused: Some(reason),
            } => {
                self.never_begin(parent, input, reason, Phase::Reserve);
                Ok(())
            }
            ParentOrder::Compensate { parent } => {
                let reason = format!("rolled back by saga {} before it began", parent.saga);
                self.never_begin(parent, Arc::default(), reason, Phase::Compensate);
                Ok(())
            }
            ParentOrder::Confirm => Err(Refusal::Settled),
        }
    }

    /// Born compensated: so that what comes late finds that it is too late.
    fn never_begin(&mut self, parent: Parent, input: Arc<Value>, reason: String, phase: Phase) {
        self.emit(Event::ChildOf(parent));
        self.emit(Event::Started {
            input,
            at: self.now,
            deadline: None,
            starter: None,
        });
        self.emit(Event::RollbackStarted { reason });
        self.emit(Event::Compensated { at: self.now });
        self.answer_parent_about(phase);
    }

    fn asked(&mut self, phase: Phase) -> Result<(), Refusal> {
        let can_follow = match phase {
            Phase::Confirm => self.saga.pass == Pass::Prepared,
            _ => matches!(
                self.saga.pass,
                Pass::Forward | Pass::Prepared | Pass::Rollback
            ),
        };
        let Some(family) = &self.saga.family else {
            return Err(Refusal::NotPossible("no saga runs it".into()));
        };
        if !can_follow || family.asked.is_some() {
            return Err(Refusal::Settled);
        }
        self.emit(Event::ParentAsked { phase });
        if self.saga.paused.is_none() {
            self.do_as_asked();
        }
        Ok(())
    }

    /// Does what the parent has asked for, unless that is under way.
    pub(super) fn do_as_asked(&mut self) {
        let Some(family) = &self.saga.family else {
            return;
        };
        match (family.asked, self.saga.pass) {
            (Some(Phase::Confirm), Pass::Prepared) => self.pass_pivot(),
            (Some(Phase::Compensate), Pass::Forward | Pass::Prepared) => {
                let reason = format!("rolled back by saga {}, which runs it", family.parent.saga);
                self.roll_back(reason);
            }
            _ => {}
        }
    }

    pub(super) fn must_wait_for_parent(&self) -> bool {
        let family = self.saga.family.as_ref();
        family.is_some_and(|family| family.asked != Some(Phase::Confirm))
            && !self.sabotage.has(PlantedBug::RushChildren)
    }

    /// Everything before the pivot is done: tells the parent, and waits for it.
    pub(super) fn prepare(&mut self) {
        match self.prepared_output() {
            Ok(output) => {
                let output = Arc::new(output);
                self.emit(Event::Prepared { output });
                self.notice("prepared");
                self.answer_parent();
            }
            // Unlike at the end, there is still a way back.
            Err(why) => self.roll_back(why),
        }
    }

    /// The output, with the time at which the first of the reservations lapses. That is said as
    /// early as this saga itself would want to be past the pivot, for each saga between the first
    /// one and the participant adds a message to the confirm's way.
    fn prepared_output(&mut self) -> Result<Value, String> {
        self.focus = (Definition::ROOT, Vec::new());
        let mut output = match &self.definition.output {
            None => Value::Null,
            Some(template) => template
                .render_within(&self.scope(None), &BODY)
                .map_err(|error| format!("its output can't be computed at its pivot: {error}"))?,
        };
        let own = expiry_of(&output)
            .map_err(|why| format!("its output says when it lapses, but {why}"))?;
        if let Some(lapses) = self.saga.lapses_at() {
            if output.is_null() {
                output = Value::Object(Map::new());
            }
            let fields = output.as_object_mut().ok_or(
                "its output must have fields, so that it can say when its reservations lapse",
            )?;
            let earliest = own.map_or(lapses, |own| lapses.min(own));
            fields.insert(EXPIRES_AT.to_owned(), earliest.to_string().into());
        }
        BODY.check_value(&output).map_err(|excess| {
            format!("its output is more than the saga that runs it can take: {excess}")
        })?;
        Ok(output)
    }

    /// Tells the parent, if there is one, what it asked for last.
    pub(super) fn answer_parent(&mut self) {
        let asked = self.saga.family.as_ref().and_then(|family| family.asked);
        self.answer_parent_about(asked.unwrap_or(Phase::Reserve));
    }

    fn answer_parent_about(&mut self, phase: Phase) {
        let Some(family) = &self.saga.family else {
            return;
        };
        let parent = family.parent.clone();
        let answer = answer_to_parent(self.saga, phase);
        self.emissions
            .extend(answer.map(|answer| Emission::ToParent { parent, answer }));
    }
}

/// The parent's side, where a child differs from other participants.
impl Turn<'_> {
    /// Whether silence only means that a child is at work. What comes behind its pivot may take
    /// years, and if it waits for a person, it says so itself; its commands can't be refused, only
    /// get lost, so they are sent again.
    pub(super) fn is_at_work(&self, path: &StepPath, phase: Phase) -> bool {
        matches!(phase, Phase::Confirm | Phase::Compensate)
            && self.definition.sub_saga(&path.name).is_some()
    }

    /// A child that is still at work need not be heard out: it is told to turn round, and hears
    /// out its own participants.
    pub(super) fn undo_child_if_needed(&mut self, path: &StepPath) {
        let status = self.saga.steps.get(path).map(|state| state.status);
        if status != Some(StepStatus::Reserving) {
            return self.undo_if_needed(path);
        }
        self.emit(Event::OutcomeUnknown {
            step: path.clone(),
            reason: "it had not reached its pivot when the roll-back came".to_owned(),
        });
        self.undo(path);
    }

    /// A person ends this saga by hand. What it runs would wait for its word for ever, so each
    /// hears it now: `reserved` is the word for those that are prepared. What was begun either way
    /// goes on that way, and what has not reached its pivot is rolled back, also if it is prepared
    /// meanwhile. Nobody waits for an answer, or asks again: the outbox delivers each once.
    pub(super) fn release_children(&mut self, reserved: Phase) {
        let words: Vec<(StepPath, Phase)> = self
            .saga
            .steps
            .iter()
            .filter(|(path, _)| self.definition.sub_saga(&path.name).is_some())
            .filter_map(|(path, state)| {
                let word = match state.status {
                    StepStatus::Reserved => reserved,
                    StepStatus::Confirming => Phase::Confirm,
                    StepStatus::Reserving | StepStatus::Unknown | StepStatus::Compensating => {
                        Phase::Compensate
                    }
                    _ => return None,
                };
                Some((path.clone(), word))
            })
            .collect();
        for (path, phase) in words {
            let Some(step) = self.definition.step(&path.name) else {
                continue;
            };
            let due = self.now.after(step.timeout);
            self.command(&path, phase, 1, due, None);
        }
    }
}
