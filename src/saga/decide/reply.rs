//! A participant has answered, or has not.

use std::sync::Arc;

use serde_json::Value;

use super::retry::backoff;
use super::turn::Turn;
use crate::definition::{Forward, OnReject};
use crate::error::code;
use crate::id::{Phase, StepPath};
use crate::message::Outcome;
use crate::saga::event::Event;
use crate::saga::expiry::expiry_of;
use crate::saga::incoming::Reply;
use crate::saga::pass::Pass;
use crate::saga::portion::Move;
use crate::saga::refusal::Refusal;
use crate::saga::step::{StepStatus, Waiting};
use crate::saga::transition::{answered, asked};

impl Turn<'_> {
    pub(super) fn reply(&mut self, reply: Reply) -> Result<(), Refusal> {
        if self.saga.paused.is_some() {
            self.expects(&reply.step, reply.phase)?;
            let reply = self.kept_if_possible(reply);
            self.emit(Event::Held { reply });
            return Ok(());
        }
        let Reply {
            step,
            phase,
            mut outcome,
            stated,
            body,
            mut reason,
        } = reply;
        let waiting = self.expects(&step, phase)?;
        if let Some(why) = self.unusable(&step, phase, (outcome, stated), &body) {
            (outcome, reason) = (Outcome::Failed, Some(why));
        }
        // A second "try again" while a retry is planned, or a person is asked, says nothing new.
        let in_flight = matches!(waiting, Waiting::Reply(_));
        if outcome == Outcome::Failed && !in_flight
            || outcome == Outcome::Rejected && waiting == Waiting::Person
        {
            return Err(Refusal::Settled);
        }
        if self.heed_time() && self.expects(&step, phase).is_err() {
            // The roll-back has given it up already.
            return Ok(());
        }
        let reason = reason.unwrap_or_else(|| "no reason given".to_owned());
        match outcome {
            Outcome::Succeeded => match self.saga.has_room(&body) {
                Err(why) if self.saga.keeps_reply(&step, phase) => self.no_room(&step, phase, why),
                _ => self.succeeded(step, phase, body),
            },
            Outcome::Rejected => self.rejected(&step, phase, &reason),
            Outcome::Failed => self.trouble(&step, phase, reason),
        }
        Ok(())
    }

    /// Whether an answer to this command can still change anything, and what the step waits for.
    pub(super) fn expects(&self, path: &StepPath, phase: Phase) -> Result<Waiting, Refusal> {
        let never = || Refusal::NeverAsked {
            step: path.clone(),
            phase,
        };
        let state = self.saga.steps.get(path).ok_or_else(never)?;
        if self.saga.forced.is_some() {
            return Err(Refusal::Settled);
        }
        let step = self.definition.step(&path.name).ok_or_else(never)?;
        let was_asked = match phase {
            Phase::Reserve | Phase::Action => {
                let forward = step.forward.as_ref().map(Forward::phase);
                forward == Some(phase) && state.status != StepStatus::Skipped
            }
            Phase::Confirm | Phase::Compensate => state.status == answered(phase),
        };
        let is_asked = state.status == asked(phase);
        if is_asked && state.waiting != Waiting::Nothing {
            Ok(state.waiting)
        } else if was_asked || is_asked {
            Err(Refusal::Settled)
        } else {
            Err(never())
        }
    }

    pub(super) fn succeeded(&mut self, path: StepPath, phase: Phase, reply: Arc<Value>) {
        self.emit(Event::Succeeded {
            step: path.clone(),
            phase,
            reply,
        });
        match (phase, self.saga.pass) {
            (Phase::Reserve | Phase::Action, Pass::Rollback) => self.undo(&path),
            (Phase::Confirm, Pass::Confirm) => self.confirmed_all(),
            _ => self.step_done(&path),
        }
    }

    fn rejected(&mut self, path: &StepPath, phase: Phase, reason: &str) {
        match phase {
            // Behind the pivot nothing may be refused either.
            Phase::Reserve | Phase::Action if self.saga.pass == Pass::Finish => {
                self.suspend(path, phase, format!("rejected: {reason}"));
            }
            Phase::Reserve | Phase::Action => {
                self.emit(Event::Rejected {
                    step: path.clone(),
                    reason: reason.to_owned(),
                });
                if self.saga.pass == Pass::Rollback || self.goes_on_without(path) {
                    self.step_done(path);
                } else {
                    self.roll_back(format!("{path} rejected: {reason}"));
                }
            }
            // Neither may be refused: what was promised can't be kept. A person must look.
            Phase::Confirm | Phase::Compensate => {
                self.suspend(path, phase, format!("rejected: {reason}"));
            }
        }
    }

    /// An attempt failed or was not answered: plan the next one, or give up.
    pub(super) fn trouble(&mut self, path: &StepPath, phase: Phase, reason: String) {
        let Some(step) = self.definition.step(&path.name) else {
            return;
        };
        let attempt = self.saga.steps.get(path).map_or(1, |state| state.attempt);
        let forward =
            matches!(phase, Phase::Reserve | Phase::Action) && self.saga.pass != Pass::Finish;
        let attempts = if forward {
            step.retry.attempts
        } else {
            step.suspend_after
        };
        let rolling_back = self.saga.pass == Pass::Rollback;
        if attempt < attempts && !(forward && rolling_back) {
            let at = self
                .now
                .after(backoff(&step.retry, self.saga.id, path, phase, attempt));
            self.emit(Event::RetryPlanned {
                step: path.clone(),
                phase,
                at,
                reason,
            });
        } else if forward {
            let summary = format!("{path} {phase}: {reason}, after {attempt} attempt(s)");
            self.give_up(path, reason);
            if !rolling_back {
                self.roll_back(summary);
            }
        } else {
            self.suspend(path, phase, format!("{reason}, after {attempt} attempts"));
        }
    }

    fn goes_on_without(&self, path: &StepPath) -> bool {
        self.definition
            .step(&path.name)
            .is_some_and(|step| step.on_reject == OnReject::Continue)
    }

    /// Why an answer counts as a failed attempt although it says, or seems to say (`stated` is false), that
    /// it succeeded.
    pub(super) fn unusable(
        &self,
        path: &StepPath,
        phase: Phase,
        (outcome, stated): (Outcome, bool),
        body: &Value,
    ) -> Option<String> {
        if outcome != Outcome::Succeeded {
            return None;
        }
        let step = self.definition.step(&path.name);
        if let Some(why) = step.and_then(|step| step.objection(phase, stated, body)) {
            return Some(why);
        }
        if phase != Phase::Reserve || self.saga.pass != Pass::Forward {
            return None;
        }
        let why = expiry_of(body).err()?;
        Some(format!("{}: {why}", code::EXPIRY_UNREADABLE))
    }

    /// Takes the next of the answers that came while the saga was paused.
    pub(super) fn take_answer(&mut self) {
        if self.saga.paused.is_some() {
            return; // again: they are taken when it is resumed
        }
        let Some(reply) = self.saga.answers.front().cloned() else {
            return;
        };
        self.moves.push(Move::Answers);
        self.emit(Event::AnswerTaken);
        // What it answers may have been settled by the answer before it.
        let _: Result<(), Refusal> = self.reply(reply);
    }

    /// A yes whose body the saga can't hold. Before the pivot it counts like no answer at all: the
    /// step is compensated, and that without its reservation, as after a time-out.
    pub(super) fn no_room(&mut self, path: &StepPath, phase: Phase, why: String) {
        let goes_forward = self.saga.pass == Pass::Forward;
        if !goes_forward && self.saga.pass != Pass::Rollback {
            return self.suspend(path, phase, format!("it said yes, but {why}"));
        }
        self.emit(Event::OutcomeUnknown {
            step: path.clone(),
            reason: format!("it said yes, but {why}"),
        });
        if goes_forward {
            self.roll_back(format!("{path}: {why}"));
        } else {
            self.undo(path);
        }
    }

    /// An answer as it is kept while the saga is paused: without its body, it has to be given again.
    pub(super) fn kept_if_possible(&self, reply: Reply) -> Reply {
        match self.saga.has_room(&reply.body) {
            Ok(()) => reply,
            Err(why) => Reply {
                outcome: Outcome::Failed,
                body: Arc::default(),
                reason: Some(why),
                ..reply
            },
        }
    }
}
