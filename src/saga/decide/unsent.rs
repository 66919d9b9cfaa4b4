//! Commands that still lie in our outbox when their answer is due: the silence is ours.
//!
//! While the broker is away, commands wait in the outbox, and by the clock the time of their answers
//! passes. Whoever was not asked can't be called silent. So before a time-out is decided, whoever runs
//! the saga looks whether the command's outbox row is still there, and says so ([`Input::Unsent`]); then
//! the step waits on. A command that is sent at last is said to be, too ([`Input::Sent`]): most of the time
//! that its answer may take is over, or all of it, so it begins anew.
//!
//! Separate from `returned`: that a command found no queue is known of it; here
//! nothing is known but that the broker has not confirmed it. So what was unsent may yet have arrived.
//!
//! [`Input::Unsent`]: crate::saga::Input::Unsent
//! [`Input::Sent`]: crate::saga::Input::Sent

use std::time::Duration;

use super::turn::Turn;
use crate::id::{Phase, StepPath};
use crate::saga::event::Event;
use crate::saga::refusal::Refusal;
use crate::saga::step::Waiting;

/// The shortest and the longest time until it is looked again whether a command was sent.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

impl Turn<'_> {
    /// The commands of these steps, whose answers are due, are still in the outbox.
    pub(super) fn unsent(&mut self, steps: &[StepPath]) -> Result<(), Refusal> {
        if self.saga.paused.is_some() {
            return Err(Refusal::Settled);
        }
        let mut waits_on = false;
        for step in steps {
            let Some(state) = self.saga.steps.get(step) else {
                continue;
            };
            let (phase, since) = (state.phase, state.unsent_since);
            let Waiting::Reply(due) = state.waiting else {
                continue;
            };
            if due > self.now {
                continue;
            }
            let so_far = self.now.since(since.unwrap_or(due));
            let pause = so_far.clamp(LOOK_AGAIN.0, LOOK_AGAIN.1);
            waits_on = true;
            self.emit(Event::Unsent {
                step: step.clone(),
                phase,
                until: self.now.after(pause),
            });
        }
        if waits_on {
            Ok(())
        } else {
            Err(Refusal::Settled)
        }
    }

    /// A command may have been sent only now. Whoever is asked so late has less time than was meant, so
    /// the time counts from now on.
    pub(super) fn sent(
        &mut self,
        path: &StepPath,
        phase: Phase,
        attempt: u32,
    ) -> Result<(), Refusal> {
        if self.saga.paused.is_some() {
            return Err(Refusal::Settled);
        }
        let Waiting::Reply(due) = self.expects(path, phase)? else {
            return Err(Refusal::Settled);
        };
        let state = self.saga.steps.get(path).ok_or(Refusal::Settled)?;
        let step = self.definition.step(&path.name).ok_or(Refusal::Settled)?;
        let enough = due.since(self.now) >= step.timeout / 2;
        if state.attempt != attempt || enough && state.unsent_since.is_none() {
            return Err(Refusal::Settled);
        }
        self.emit(Event::SentLate {
            step: path.clone(),
            phase,
            due: self.now.after(step.timeout),
        });
        Ok(())
    }

    /// A command was sent so late that its answer was due before: from now on the time counts. Says
    /// whether it was so.
    pub(super) fn was_sent_late(&mut self, path: &StepPath) -> bool {
        let state = self.saga.steps.get(path);
        let Some(state) = state.filter(|state| state.unsent_since.is_some()) else {
            return false;
        };
        let phase = state.phase;
        let Some(step) = self.definition.step(&path.name) else {
            return false;
        };
        self.emit(Event::SentLate {
            step: path.clone(),
            phase,
            due: self.now.after(step.timeout),
        });
        true
    }
}
