//! What a person can do to a saga, and what follows from it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::turn::Turn;
use crate::definition::BlockKind;
use crate::id::{Phase, StepPath};
use crate::limits::BODY;
use crate::saga::event::Event;
use crate::saga::incoming::{OperatorAction, OperatorKind};
use crate::saga::pass::Pass;
use crate::saga::portion::Move;
use crate::saga::refusal::Refusal;
use crate::saga::step::Waiting;

impl Turn<'_> {
    pub(super) fn operate(&mut self, action: OperatorAction) -> Result<(), Refusal> {
        if self.saga.has_seen(&action.id) {
            return Err(Refusal::Settled);
        }
        if self.saga.status().is_ended() {
            return Err(Refusal::Ended);
        }
        match action.kind.clone() {
            OperatorKind::Cancel => self.cancel(action),
            OperatorKind::Retry { step, with } => self.retry(action, step.as_ref(), with.as_ref()),
            OperatorKind::Skip { step, reply } => self.skip_by_hand(action, &step, reply),
            OperatorKind::Pause if self.saga.paused.is_some() => Err(Refusal::Settled),
            OperatorKind::Pause => {
                self.emit(Event::Operated(action));
                self.notice("suspended");
                Ok(())
            }
            OperatorKind::Resume => self.resume(action),
            OperatorKind::ForceComplete | OperatorKind::ForceCompensated if self.is_promised() => {
                Err(self.only_the_parent_decides())
            }
            OperatorKind::ForceComplete => {
                self.emit(Event::Operated(action));
                self.release_children(Phase::Confirm);
                self.complete();
                Ok(())
            }
            OperatorKind::ForceCompensated => {
                self.emit(Event::Operated(action));
                self.release_children(Phase::Compensate);
                self.compensated();
                Ok(())
            }
        }
    }

    fn cancel(&mut self, action: OperatorAction) -> Result<(), Refusal> {
        match self.saga.pass {
            Pass::Forward if self.saga.paused.is_none() => {
                let reason = format!("cancelled by {}: {}", action.by, action.why);
                self.emit(Event::Operated(action));
                self.roll_back(reason);
                Ok(())
            }
            Pass::Forward => Err(Refusal::NotPossible("it is paused: resume it first".into())),
            Pass::Prepared => Err(self.only_the_parent_decides()),
            Pass::Rollback => Err(Refusal::NotPossible(
                "it is being rolled back already".into(),
            )),
            _ => Err(Refusal::NotPossible(
                "it is past the pivot and can only go forward".into(),
            )),
        }
    }

    /// Whether it has told the saga that runs it that it is prepared, and was not asked yet: to end
    /// it by hand would break its word, and leave the other sagas of its parent half done.
    fn is_promised(&self) -> bool {
        let family = self.saga.family.as_ref();
        self.saga.pass == Pass::Prepared && family.is_some_and(|family| family.asked.is_none())
    }

    fn only_the_parent_decides(&self) -> Refusal {
        let family = self.saga.family.as_ref();
        let parent = family.map_or_else(String::new, |family| format!(" {}", family.parent.saga));
        Refusal::NotPossible(
            format!(
                "it has told saga{parent}, which runs it, that it is prepared, so only that one decides: cancel or force that one"
            )
            .into(),
        )
    }

    /// Steps that wait for a person or for their next attempt.
    fn retry(
        &mut self,
        action: OperatorAction,
        step: Option<&StepPath>,
        with: Option<&Arc<Value>>,
    ) -> Result<(), Refusal> {
        if self.saga.paused.is_some() {
            return Err(Refusal::NotPossible("it is paused: resume it first".into()));
        }
        if let Some(with) = with {
            self.check_takes_payload(step)?;
            self.check_given(with)?;
        }
        let waits = |path: &StepPath| {
            let state = self.saga.steps.get(path);
            state.is_some_and(|it| matches!(it.waiting, Waiting::Person | Waiting::Retry(_)))
        };
        let any = match step {
            Some(step) => waits(step),
            None => self.saga.steps.keys().any(waits),
        };
        if !any {
            return Err(Refusal::NotPossible(
                "nothing of it waits for a person or a retry".into(),
            ));
        }
        self.emit(Event::Operated(action.clone()));
        if self.heed_time() {
            return Ok(());
        }
        let (step, with) = (step.cloned(), with.cloned());
        let OperatorAction { by, why, .. } = action;
        match step {
            Some(step) => self.try_step_again(&step, by, why, with),
            None => self.moves.push(Move::TryAgain {
                after: None,
                retries: true,
                by,
                why,
            }),
        }
        Ok(())
    }

    /// What a person gives is bounded like what comes from anywhere else.
    fn check_given(&self, value: &Value) -> Result<(), Refusal> {
        let excess = BODY.check_value(value).map_err(|excess| excess.to_string());
        excess
            .and_then(|()| self.saga.has_room(value))
            .map_err(|why| {
                Refusal::NotPossible(format!("what is given is too large: {why}").into())
            })
    }

    /// Another payload is for one step that sends one.
    fn check_takes_payload(&self, step: Option<&StepPath>) -> Result<(), Refusal> {
        let Some(step) = step else {
            let why = "other input is for one step: name it";
            return Err(Refusal::NotPossible(why.into()));
        };
        let name = &step.name;
        if self.definition.step(name).is_none() || self.definition.sub_saga(name).is_some() {
            let why = format!("`{step}` sends no command that could carry other input");
            return Err(Refusal::NotPossible(why.into()));
        }
        Ok(())
    }

    pub(super) fn try_step_again(
        &mut self,
        step: &StepPath,
        by: String,
        why: String,
        with: Option<Arc<Value>>,
    ) {
        self.emit(Event::Resumed {
            step: step.clone(),
            by,
            why,
        });
        self.ask_again(step, with);
    }

    fn skip_by_hand(
        &mut self,
        action: OperatorAction,
        step: &StepPath,
        reply: Option<Arc<Value>>,
    ) -> Result<(), Refusal> {
        if self.saga.paused.is_some() {
            return Err(Refusal::NotPossible("it is paused: resume it first".into()));
        }
        let suspended = self.saga.suspended.contains(step);
        let state = self.saga.steps.get(step).filter(|_| suspended);
        let Some(phase) = state.map(|state| state.phase) else {
            return Err(Refusal::NotPossible(
                "only a step that waits for a person can be skipped".into(),
            ));
        };
        if reply.is_some() && !self.gives_reply(step, phase) {
            let why = format!("nothing uses what `{step}` answers to {phase}; leave the reply out");
            return Err(Refusal::NotPossible(why.into()));
        }
        if let Some(reply) = &reply
            && let Some(rules) = self.definition.step(&step.name)
            && let Some(why) = rules.objection(phase, true, reply)
        {
            return Err(Refusal::NotPossible(why.into()));
        }
        if let Some(reply) = &reply {
            self.check_given(reply)?;
        }
        let reply = reply.unwrap_or_else(|| {
            Arc::new(json!({ "skipped": { "by": action.by, "evidence": action.why } }))
        });
        self.emit(Event::Operated(action));
        self.succeeded(step.clone(), phase, reply);
        Ok(())
    }

    /// Whether later blocks see what comes of this command: `steps.<name>` is the answer to the first
    /// one of a step.
    fn gives_reply(&self, step: &StepPath, phase: Phase) -> bool {
        let Some(known) = self.definition.named(&step.name) else {
            return false;
        };
        match (&known.kind, phase) {
            (BlockKind::Step(step), Phase::Confirm) => step.forward.is_none(),
            (BlockKind::Sleep(_), _) | (_, Phase::Confirm | Phase::Compensate) => false,
            (_, Phase::Reserve | Phase::Action) => true,
        }
    }

    fn resume(&mut self, action: OperatorAction) -> Result<(), Refusal> {
        if self.saga.paused.is_none() && self.saga.suspended.is_empty() {
            return Err(Refusal::NotPossible("it does not wait for a person".into()));
        }
        self.emit(Event::Operated(action.clone()));
        self.give_way();
        self.heed_time();
        self.moves.push(Move::Resume(action));
        self.moves.push(Move::Answers);
        self.go_on();
        Ok(())
    }

    /// The second part of a resume, once all answers are taken.
    pub(super) fn go_on_as_told(&mut self, action: OperatorAction) {
        let OperatorAction { by, why, .. } = action;
        self.offer_all_signals();
        self.do_as_asked();
        self.moves.push(Move::TryAgain {
            after: None,
            retries: false,
            by,
            why,
        });
        self.notice("resumed");
    }
}
