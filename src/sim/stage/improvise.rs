//! Stand-ins without a script: what they answer is drawn from the seed.
//!
//! They keep the one promise that a participant makes: `confirm` and `compensate` succeed in the
//! end, and before a person would be asked.

use std::time::Duration;

use super::super::scheduler::Scheduler;
use super::answer::{Call, Does, Response, echoes, fails, rejects, silent};
use crate::definition::Step;
use crate::id::Phase;

/// Most times in a row that a `confirm` or `compensate` goes wrong.
const TROUBLE_IN_A_ROW_MAX: u32 = 3;
/// How likely a call goes wrong; one is drawn for each play, so that some go smoothly.
const MOODS: [f64; 5] = [0.0, 0.05, 0.15, 0.3, 0.6];
/// Longest time that an answer takes that is not late.
const LATENCY_MS_MAX: u64 = 400;

/// Draws answers.
pub(super) struct Improviser {
    scheduler: Scheduler,
    mood: f64,
}

impl Improviser {
    pub(super) fn new(scheduler: &Scheduler) -> Self {
        Self {
            scheduler: scheduler.clone(),
            mood: scheduler.random(|random| MOODS[random.usize(..MOODS.len())]),
        }
    }

    /// `is_final`: behind the pivot, where nothing may be refused.
    pub(super) fn respond(&self, call: &Call<'_>, step: Option<&Step>, is_final: bool) -> Response {
        let response = if self.scheduler.chance(self.mood) {
            self.trouble(call, step, is_final)
        } else {
            echoes()
        };
        if response.after > Duration::ZERO {
            return response;
        }
        let latency = self.scheduler.random(|random| random.u64(..LATENCY_MS_MAX));
        response.after(Duration::from_millis(latency))
    }

    fn trouble(&self, call: &Call<'_>, step: Option<&Step>, is_final: bool) -> Response {
        let must_succeed = is_final || matches!(call.phase, Phase::Confirm | Phase::Compensate);
        let patience = step.map_or(1, |step| step.suspend_after);
        if must_succeed && call.number >= TROUBLE_IN_A_ROW_MAX.min(patience) {
            return echoes();
        }
        let late = step.map_or(Duration::from_secs(1), |step| step.timeout);
        match self.scheduler.random(|random| random.u8(..6)) {
            0 | 1 if !must_succeed => rejects("the stand-in does not want to"),
            0..3 => fails("the stand-in stumbles"),
            3 => silent(),
            4 => echoes().lost(),
            _ => Response::of(Does::Succeed(None)).after(late + late / 2),
        }
    }
}
