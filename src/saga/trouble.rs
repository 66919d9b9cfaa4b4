//! What a saga waits for, and what stands in its way: what a person looks for among thousands.
//!
//! Both follow from the state, and from where it was looked last. A saga of ten thousand steps is not
//! searched at each decision: the place of the decision before is looked at first, then the events of
//! this one, then the earliest timer.

use std::fmt;
use std::str::FromStr;

use super::event::Event;
use super::pass::Pass;
use super::state::Saga;
use super::status::Status;
use super::step::{StepState, StepStatus, Waiting};
use crate::id::{Phase, StepPath};

/// A step and its command, as in `stock[2]/reserve`. A `wait` or `sleep` has the phase `action`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPhase {
    /// The step.
    pub step: StepPath,
    /// Which command.
    pub phase: Phase,
}

impl fmt::Display for StepPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.step, self.phase)
    }
}

impl FromStr for StepPhase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a step and a phase, as in `stock[2]/reserve`");
        let (step, phase) = text.rsplit_once('/').ok_or_else(wrong)?;
        Ok(Self {
            step: step.parse().map_err(|_| wrong())?,
            phase: phase.parse()?,
        })
    }
}

/// What stands in a saga's way, or why it did not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Where, if it is a matter of one step.
    pub spot: Option<StepPhase>,
    /// In words.
    pub reason: String,
}

impl Saga {
    /// What it waits for, given what it waited for before and what has happened since: of several steps
    /// one that is in trouble, else the newest. `None` also if it waits for its parent's word.
    pub fn awaits(&self, before: Option<&StepPhase>, events: &[Event]) -> Option<StepPhase> {
        if self.status().is_ended() {
            return None;
        }
        if let Some(step) = self.suspended.first() {
            return self.spot(step);
        }
        let before = before.map(|spot| &spot.step);
        let touched = || events.iter().rev().filter_map(Event::step);
        let in_trouble = before.into_iter().chain(touched()).find(|step| {
            let state = self.steps.get(step);
            state.is_some_and(is_in_trouble)
        });
        let waits = || {
            let newest = touched().chain(before);
            let mut all = newest.chain(self.timers.first().map(|(_, step)| step));
            all.find(|step| {
                let state = self.steps.get(step);
                state.is_some_and(|state| state.waiting != Waiting::Nothing)
            })
        };
        self.spot(in_trouble.or_else(waits)?)
    }

    /// What stands in its way, where it waits (see [`Self::awaits`]); or why it did not complete.
    pub fn trouble(&self, awaits: Option<&StepPhase>) -> Option<Obstacle> {
        let status = self.status();
        if status == Status::Suspended && self.paused.is_none() {
            let spot = self.spot(self.suspended.first()?)?;
            let reason = self.steps.get(&spot.step)?.reason.clone();
            return Some(Obstacle {
                reason: reason.unwrap_or_else(|| "no reason given".to_owned()),
                spot: Some(spot),
            });
        }
        if !status.is_ended()
            && self.paused.is_none()
            && let Some(spot) = awaits
            && let Some(state) = self.steps.get(&spot.step)
            && is_in_trouble(state)
        {
            return Some(Obstacle {
                reason: state.reason.clone()?,
                spot: Some(spot.clone()),
            });
        }
        let turned_round = matches!(self.pass, Pass::Rollback | Pass::Compensated);
        let of_roll_back = turned_round && self.forced.is_none() && self.paused.is_none();
        let reason = self.status_reason()?;
        Some(Obstacle {
            spot: self.culprit(&reason).filter(|_| of_roll_back),
            reason,
        })
    }

    fn spot(&self, step: &StepPath) -> Option<StepPhase> {
        let phase = self.steps.get(step)?.phase;
        let step = step.clone();
        Some(StepPhase { step, phase })
    }

    /// The step over which it was rolled back, which the reason then begins with.
    fn culprit(&self, reason: &str) -> Option<StepPhase> {
        let end = reason.find([' ', ':'])?;
        let (step, rest) = reason.split_at(end);
        let step: StepPath = step.parse().ok()?;
        let state = self.steps.get(&step)?;
        let word = rest.trim_start().split([' ', ':']).next();
        let named = word.and_then(|word| word.parse().ok());
        let failed = match state.status {
            StepStatus::Rejected => Some(state.phase),
            _ => named,
        };
        let phase = failed.unwrap_or(state.phase);
        Some(StepPhase { step, phase })
    }
}

/// Whether something went wrong with what it waits for.
fn is_in_trouble(state: &StepState) -> bool {
    state.reason.is_some()
        && match state.waiting {
            Waiting::Retry(_) | Waiting::Person | Waiting::Signal(_) => true,
            Waiting::Reply(_) => state.attempt > 1,
            Waiting::Nothing | Waiting::Sleep(_) => false,
        }
}
