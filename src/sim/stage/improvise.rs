//! Stand-ins without a script: what they answer is drawn from the seed.
//!
//! They keep the one promise that a participant makes: `confirm` and `compensate` succeed in the
//! end, and before a person would be asked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::scheduler::{DAY, Scheduler};
use super::answer::{Call, Does, Response, echoes, fails, rejects, silent};
use super::cue::{Cue, Entrance};
use super::invent;
use crate::definition::{BlockKind, Definition, Delay, Step, Wait};
use crate::id::Phase;

/// Most times in a row that a `confirm` or `compensate` goes wrong.
const TROUBLE_IN_A_ROW_MAX: u32 = 3;
/// How likely a call goes wrong; one is drawn for each play, so that some go smoothly.
const MOODS: [f64; 5] = [0.0, 0.05, 0.15, 0.3, 0.6];
/// How likely a signal that a saga may wait for is sent.
const SIGNAL_CHANCE: f64 = 0.7;
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

    /// Adds to an answer what the definition's expressions want of it.
    pub(super) fn embellish(&self, body: &mut Value, definition: &Definition, step: &str) {
        let root = format!("steps.{step}");
        self.scheduler
            .random(|random| invent::fill_in(body, &root, definition, random));
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

/// Sends signals to sagas of their own accord.
pub(super) struct Usher {
    scheduler: Scheduler,
    definitions: Vec<Arc<Definition>>,
    /// Name and key of the sagas that were seen to.
    seen: Mutex<BTreeSet<(String, String)>>,
}

impl Usher {
    pub(super) fn new(scheduler: &Scheduler, definitions: &[Arc<Definition>]) -> Self {
        Self {
            scheduler: scheduler.clone(),
            definitions: definitions.to_vec(),
            seen: Mutex::default(),
        }
    }

    /// Signals that may come for the sagas that will be started.
    pub(super) fn before_starts(&self, starts: &[Entrance]) -> Vec<Entrance> {
        let mut signals = Vec::new();
        for Entrance { at, cue } in starts {
            let Cue::Start { saga, input } = cue else {
                continue;
            };
            let key = self.newest(saga).and_then(|it| it.key_of(input).ok());
            let drawn = key.map(|key| self.signals(saga, &key)).unwrap_or_default();
            signals.extend(drawn.into_iter().map(|signal| Entrance {
                at: *at + signal.at,
                ..signal
            }));
        }
        signals
    }

    /// Signals that may come for a saga: most of them in time, some late. None if there were some
    /// before.
    pub(super) fn signals(&self, saga: &str, key: &str) -> Vec<Entrance> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = seen.insert((saga.to_owned(), key.to_owned()));
        drop(seen);
        let Some(definition) = self.newest(saga).filter(|_| is_new) else {
            return Vec::new();
        };
        let waits = definition
            .blocks
            .iter()
            .filter_map(|node| match &node.kind {
                BlockKind::Wait(wait) => Some(wait),
                _ => None,
            });
        let scheduler = &self.scheduler;
        waits
            .filter(|_| scheduler.chance(SIGNAL_CHANCE))
            .map(|wait| {
                scheduler.random(|random| Entrance {
                    at: drawn(patience(wait), random),
                    cue: Cue::Signal {
                        saga: saga.to_owned(),
                        key: key.to_owned(),
                        signal: wait.signal.clone(),
                        body: payload(wait, definition, random),
                    },
                })
            })
            .collect()
    }

    fn newest(&self, saga: &str) -> Option<&Definition> {
        let named = self.definitions.iter().filter(|it| it.name == saga);
        named.max_by_key(|it| it.version).map(|it| &**it)
    }
}

fn patience(wait: &Wait) -> Duration {
    match wait.timeout {
        Some(Delay::Fixed(timeout)) => timeout,
        _ => DAY,
    }
}

/// A time within a little more than `most`.
fn drawn(most: Duration, random: &mut fastrand::Rng) -> Duration {
    most.mul_f64(random.f64() * 1.2)
}

fn payload(wait: &Wait, definition: &Definition, random: &mut fastrand::Rng) -> Value {
    let mut body = json!({});
    for root in ["signal".to_owned(), format!("steps.{}", wait.name)] {
        invent::fill_in(&mut body, &root, definition, random);
    }
    body
}
