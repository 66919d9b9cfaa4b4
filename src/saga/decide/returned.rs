//! Commands that found no queue, so that it is known that they were not delivered.
//!
//! The participant is away, for as long as its deployment takes or for good. That is waited for as a
//! slow answer is: the command is sent again, in growing intervals, until the attempt's time is up,
//! and only then does the attempt count as failed. A step none of whose commands was delivered was
//! not done; its roll-back has nothing to undo. A command that *may* have been delivered (it was
//! published twice, or an attempt before it got no answer) leaves the outcome unknown, as ever.

use std::time::Duration;

use super::turn::Turn;
use crate::id::{Phase, StepPath};
use crate::saga::event::Event;
use crate::saga::incoming::Returned;
use crate::saga::pass::Pass;
use crate::saga::refusal::Refusal;
use crate::saga::step::{StepState, Waiting};

/// The first and the longest interval in which a command is sent again that found no queue.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

impl Turn<'_> {
    /// A command found no queue. Refused as settled if nobody waits for its answer any more, or the
    /// saga is paused: then the attempt's time runs out.
    pub(super) fn returned(&mut self, returned: Returned) -> Result<(), Refusal> {
        let Returned {
            step: path,
            phase,
            attempt,
            to,
            certain,
        } = returned;
        if self.saga.paused.is_some() {
            return Err(Refusal::Settled);
        }
        let waiting = self.expects(&path, phase)?;
        let state = self.saga.steps.get(&path).ok_or(Refusal::Settled)?;
        let Waiting::Reply(due) = waiting else {
            return Err(Refusal::Settled);
        };
        if state.attempt != attempt {
            return Err(Refusal::Settled);
        }
        let times = state.returns.min(8);
        // What was sent late has all its time from now on.
        let due = match (state.unsent_since, self.definition.step(&path.name)) {
            (Some(_), Some(step)) => self.now.after(step.timeout),
            _ => due,
        };
        let pause = (AGAIN.0 * 2_u32.pow(times)).min(AGAIN.1);
        let reason = format!("no queue: nobody listens at {to}");
        self.emit(Event::Returned {
            step: path.clone(),
            phase,
            again: self.now.after(pause).min(due),
            due,
            certain,
            reason: reason.clone(),
        });
        let forward = matches!(phase, Phase::Reserve | Phase::Action);
        if forward && self.saga.pass == Pass::Rollback {
            // Nobody wants it done any more.
            self.give_up(&path, reason);
        }
        Ok(())
    }

    /// It is time to send a command again, as the next attempt or as the same one.
    pub(super) fn ask_next(&mut self, path: &StepPath) {
        let Some(state) = self.saga.steps.get(path) else {
            return;
        };
        let (phase, attempt) = (state.phase, state.attempt);
        match state.returned_until {
            None => self.ask(path, phase, attempt + 1, None),
            Some(due) if due > self.now => self.ask_until(path, phase, attempt, None, due),
            Some(_) => {
                let reason = state.reason.clone().unwrap_or_default();
                self.trouble(path, phase, reason);
            }
        }
    }

    /// Nobody asks for a forward command any more: was it done, or may it have been?
    pub(super) fn give_up(&mut self, path: &StepPath, reason: String) {
        let state = self.saga.steps.get(path);
        let step = path.clone();
        if state.is_some_and(StepState::undelivered) {
            self.emit(Event::NeverDelivered { step, reason });
            if self.saga.pass == Pass::Rollback {
                self.step_done(path);
            }
            return;
        }
        self.emit(Event::OutcomeUnknown { step, reason });
        if self.saga.pass == Pass::Rollback {
            self.undo(path);
        }
    }
}
