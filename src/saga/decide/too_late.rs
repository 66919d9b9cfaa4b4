//! Until when a saga may pass its pivot: its deadline, and the times at which what it has reserved
//! lapses.
//!
//! Every decision asks for itself whether it is too late. The clock's wake-up is a reminder for
//! sagas about which no message comes: it may be behind, after a pause, an outage or a backlog,
//! and a reply that is decided first must not find the pivot open.

use super::turn::Turn;
use super::walk::block_named;
use crate::definition::{BlockKind, OnTimeout};
use crate::id::StepPath;
use crate::saga::pass::Pass;
use crate::saga::sabotage::PlantedBug;
use crate::saga::step::{StepStatus, Waiting};

impl Turn<'_> {
    /// Why the saga may not pass its pivot any more, if it is before it and that is so.
    pub(super) fn too_late(&self) -> Option<String> {
        if self.saga.pass != Pass::Forward {
            return None;
        }
        if self.saga.lapses_at().is_some_and(|at| at <= self.now)
            && let Some((at, step)) = self.saga.leases.first()
        {
            return Some(format!("the reservation of {step} lapses at {at}"));
        }
        let deadline = self.saga.deadline?;
        (deadline <= self.now).then(|| {
            let timeout = self.definition.timeout.unwrap_or_default();
            format!("timed out: not past the pivot within {timeout:?}")
        })
    }

    /// Turns round if it is too late, so that nothing more is begun. Says whether it has.
    pub(super) fn heed_time(&mut self) -> bool {
        if self.saga.paused.is_some() || self.sabotage.has(PlantedBug::ConfirmLapsed) {
            return false;
        }
        self.turn_round_if_late()
    }

    /// As [`Self::heed_time`], for the clock.
    pub(super) fn turn_round_if_late(&mut self) -> bool {
        let Some(reason) = self.too_late() else {
            return false;
        };
        self.roll_back(reason);
        self.walk();
        true
    }

    /// Why the saga is rolled back, or will be as soon as the clock is looked at.
    pub(super) fn goes_back(&self) -> Option<String> {
        if self.saga.pass == Pass::Rollback {
            return Some(self.saga.reason.clone().unwrap_or_default());
        }
        if self.saga.paused.is_some() {
            return None;
        }
        self.too_late().or_else(|| {
            let mut overdue = self.saga.timers.iter();
            overdue.find_map(|(at, step)| (*at <= self.now).then(|| self.fails_overdue(step))?)
        })
    }

    /// Why the saga is rolled back if this is a `wait` whose time is over.
    fn fails_overdue(&self, step: &StepPath) -> Option<String> {
        let state = self.saga.steps.get(step)?;
        let waits = matches!(state.waiting, Waiting::Signal(_));
        let block = block_named(self.definition, &step.name)?;
        match &self.definition.block(block).kind {
            BlockKind::Wait(wait)
                if waits
                    && wait.on_timeout == OnTimeout::Fail
                    && self.saga.pass == Pass::Forward
                    && state.status == StepStatus::Waiting =>
            {
                let trouble = state.reason.as_deref();
                Some(no_signal_in_time(step, &wait.signal, trouble))
            }
            _ => None,
        }
    }
}

/// Why a saga is rolled back after a `wait`; `trouble` is what `match` met, if it could not judge a
/// signal that came.
pub(super) fn no_signal_in_time(step: &StepPath, signal: &str, trouble: Option<&str>) -> String {
    let trouble = trouble.map_or_else(String::new, |trouble| {
        format!(" that `match` could judge; of one that came: {trouble}")
    });
    format!("{step}: no signal `{signal}` came in time{trouble}")
}
