//! The clock has come: what is due.

use super::turn::Turn;
use crate::id::StepPath;
use crate::saga::refusal::Refusal;
use crate::saga::step::Waiting;

/// How the reason begins of an attempt that nobody answered.
pub const NO_ANSWER: &str = "no answer within";

impl Turn<'_> {
    pub(super) fn wake(&mut self) -> Result<(), Refusal> {
        if self.saga.paused.is_some() {
            return Err(Refusal::Settled);
        }
        let mut anything = self.turn_round_if_late();
        anything |= self.go_on();
        self.walk();
        while let Some((at, path)) = self.saga.timers.first().cloned()
            && at <= self.now
            && !self.is_full()
        {
            anything = true;
            self.timer_due(&path);
            self.walk();
        }
        if anything {
            Ok(())
        } else {
            Err(Refusal::Settled)
        }
    }

    fn timer_due(&mut self, path: &StepPath) {
        let Some(state) = self.saga.steps.get(path) else {
            return;
        };
        let (phase, attempt) = (state.phase, state.attempt);
        if matches!(state.waiting, Waiting::Signal(_) | Waiting::Sleep(_)) {
            self.waited(path);
        } else if matches!(state.waiting, Waiting::Retry(_)) {
            self.ask_next(path);
        } else if self.was_sent_late(path) {
            // It has all its time, from now on.
        } else if self.is_at_work(path, phase) {
            self.ask(path, phase, attempt, None);
        } else {
            let timeout = self
                .definition
                .step(&path.name)
                .map_or(std::time::Duration::ZERO, |step| step.timeout);
            self.trouble(path, phase, format!("{NO_ANSWER} {timeout:?}"));
        }
    }
}
