//! How long participants take to answer, as this node saw it: by definition, step, phase and outcome.
//!
//! Counted when an answer is decided on, so a decision that loses its commit counts twice; that is rare, and
//! waiting for the commit would cost more than it is worth. Kept for the last hour in buckets whose bounds are a fifth
//! apart, and given to the metrics as well, each series' handle looked up once.
//! Bounded: [`SERIES_MAX`] series, each with as many slots as an hour has.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::Histogram;

use super::Engine;
use crate::definition::Definition;
use crate::id::{Phase, StepPath, Timestamp};
use crate::message::Outcome;
use crate::metric;
use crate::saga::{Event, Input, Saga, Waiting};

/// Most series of a node; what comes later is not counted.
pub const SERIES_MAX: usize = 500;
/// What a slot is about.
const SLOT: Duration = Duration::from_mins(5);
/// Slots that are looked back at: an hour, and the one that has just begun.
const SLOTS: u64 = 13;
/// The first bucket ends here; each next one at 2^(1/4) of the one before.
const FIRST: Duration = Duration::from_micros(100);
/// Up to nearly half an hour.
const BUCKETS: usize = 96;
/// Buckets to twice the time.
const BUCKETS_AN_OCTAVE: f64 = 4.0;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepOutcome {
    /// It was answered.
    Answered(AnswerKind),
    /// It was not, in time.
    TimedOut,
}

/// What an answer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnswerKind {
    /// It is done.
    Succeeded,
    /// A business no.
    Rejected,
    /// Try again.
    Failed,
}

impl StepOutcome {
    /// The name in metrics and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered(AnswerKind::Succeeded) => "succeeded",
            Self::Answered(AnswerKind::Rejected) => "rejected",
            Self::Answered(AnswerKind::Failed) => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}

impl From<Outcome> for StepOutcome {
    fn from(outcome: Outcome) -> Self {
        Self::Answered(match outcome {
            Outcome::Succeeded => AnswerKind::Succeeded,
            Outcome::Rejected => AnswerKind::Rejected,
            Outcome::Failed => AnswerKind::Failed,
        })
    }
}

/// Answers to one command of the last hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTimes {
    /// The definition.
    pub saga: String,
    /// The step, without indices.
    pub step: String,
    /// The command.
    pub phase: Phase,
    /// How the attempts ended.
    pub outcome: StepOutcome,
    /// How many there were.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: Duration,
    /// Of a hundred, one took longer.
    pub p99: Duration,
}

/// An attempt that has come to its end, and when its command was decided.
pub(super) struct Ended {
    step: String,
    phase: Phase,
    outcome: StepOutcome,
    took: Duration,
}

/// What was counted.
#[derive(Default)]
pub(super) struct Latency(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    /// By definition and step.
    steps: HashMap<String, HashMap<String, Vec<Series>>>,
    series: usize,
}

struct Series {
    phase: Phase,
    outcome: StepOutcome,
    exported: Histogram,
    /// Oldest first.
    slots: Vec<Slot>,
}

struct Slot {
    number: u64,
    counts: [u32; BUCKETS],
}

impl Ended {
    /// The attempt that an input is the answer to, if the step waits for it.
    pub(super) fn of(
        definition: &Definition,
        saga: &Saga,
        input: &Input,
        now: Timestamp,
    ) -> Option<Self> {
        let Input::Reply(reply) = input else {
            return None;
        };
        let state = saga.steps.get(&reply.step)?;
        let Waiting::Reply(due) = state.waiting else {
            return None;
        };
        if state.phase != reply.phase {
            return None;
        }
        // A command's answer is due when the step's time is over.
        let time = definition.step(&reply.step.name)?.timeout;
        Some(Self {
            step: reply.step.name.clone(),
            phase: reply.phase,
            outcome: reply.outcome.into(),
            took: time.saturating_sub(due.since(now)) + now.since(due),
        })
    }

    /// The attempts that the clock has ended.
    pub(super) fn by_the_clock<'a>(
        definition: &'a Definition,
        events: &'a [Event],
    ) -> impl Iterator<Item = Self> {
        let of = |step: &StepPath, phase: Phase| {
            Some(Self {
                step: step.name.clone(),
                phase,
                outcome: StepOutcome::TimedOut,
                took: definition.step(&step.name)?.timeout,
            })
        };
        let is_silence = |reason: &str| reason.contains(crate::saga::NO_ANSWER);
        events.iter().filter_map(move |event| match event {
            Event::RetryPlanned {
                step,
                phase,
                reason,
                ..
            }
            | Event::Suspended {
                step,
                phase,
                reason,
            } if is_silence(reason) => of(step, *phase),
            Event::OutcomeUnknown { step, reason } if is_silence(reason) => {
                let forward = definition.step(&step.name)?.forward.as_ref()?;
                of(step, forward.phase())
            }
            _ => None,
        })
    }
}

impl Latency {
    /// Counts attempts that have ended.
    pub(super) fn note(&self, saga: &str, now: Timestamp, ended: impl IntoIterator<Item = Ended>) {
        let mut ended = ended.into_iter().peekable();
        if ended.peek().is_none() {
            return;
        }
        let slot = slot_of(now);
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ended in ended {
            if let Some(series) = counted.series_of(saga, &ended) {
                series.add(slot, ended.took);
            }
        }
    }

    /// What was counted in the last hour, in order.
    fn lines(&self, now: Timestamp) -> Vec<StepTimes> {
        let oldest = slot_of(now).saturating_sub(SLOTS - 1);
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Vec::new();
        for (saga, steps) in &counted.steps {
            for (step, all) in steps {
                lines.extend(all.iter().filter_map(|series| {
                    let (count, p50, p99) = series.quantiles(oldest)?;
                    Some(StepTimes {
                        saga: saga.clone(),
                        step: step.clone(),
                        phase: series.phase,
                        outcome: series.outcome,
                        count,
                        p50,
                        p99,
                    })
                }));
            }
        }
        drop(counted);
        lines.sort_by(|a, b| {
            let key = |it: &StepTimes| (it.phase.as_str(), it.outcome);
            (&a.saga, &a.step, key(a)).cmp(&(&b.saga, &b.step, key(b)))
        });
        lines
    }
}

impl Counted {
    fn series_of(&mut self, saga: &str, ended: &Ended) -> Option<&mut Series> {
        // No text is copied for what is known.
        let is_known = self
            .steps
            .get(saga)
            .is_some_and(|steps| steps.contains_key(&ended.step));
        if !is_known {
            if self.series >= SERIES_MAX {
                return None;
            }
            let steps = self.steps.entry(saga.to_owned()).or_default();
            steps.entry(ended.step.clone()).or_default();
        }
        let all = self.steps.get_mut(saga)?.get_mut(&ended.step)?;
        let place = all
            .iter()
            .position(|it| (it.phase, it.outcome) == (ended.phase, ended.outcome));
        if let Some(place) = place {
            return all.get_mut(place);
        }
        if self.series >= SERIES_MAX {
            return None;
        }
        self.series += 1;
        let (phase, outcome) = (ended.phase, ended.outcome);
        all.push(Series {
            phase,
            outcome,
            exported: metric::step(saga, &ended.step, phase.as_str(), outcome.as_str()),
            slots: Vec::new(),
        });
        all.last_mut()
    }
}

impl Series {
    fn add(&mut self, slot: u64, took: Duration) {
        self.exported.record(took.as_secs_f64());
        if self.slots.last().is_none_or(|last| last.number < slot) {
            self.slots.retain(|it| it.number + SLOTS > slot);
            let counts = [0; BUCKETS];
            self.slots.push(Slot {
                number: slot,
                counts,
            });
        }
        if let Some(last) = self.slots.last_mut() {
            let count = &mut last.counts[bucket_of(took)];
            *count = count.saturating_add(1);
        }
    }

    /// How many, and the times of the middle one and the ninety-ninth of a hundred.
    fn quantiles(&self, oldest: u64) -> Option<(u64, Duration, Duration)> {
        let mut counts = [0_u64; BUCKETS];
        for slot in self.slots.iter().filter(|slot| slot.number >= oldest) {
            for (sum, count) in counts.iter_mut().zip(slot.counts) {
                *sum += u64::from(count);
            }
        }
        let all: u64 = counts.iter().sum();
        let at = |hundredths: u64| {
            let rank = (all * hundredths).div_ceil(100).max(1);
            let mut seen = 0;
            let place = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            middle_of(place.unwrap_or(BUCKETS - 1))
        };
        (all > 0).then(|| (all, at(50), at(99)))
    }
}

impl Engine {
    /// How long participants took to answer in the last hour, as this node saw it.
    pub fn step_times(&self) -> Vec<StepTimes> {
        self.node.latency.lines(self.now())
    }
}

fn slot_of(now: Timestamp) -> u64 {
    let micros = now.as_micros().max(0).unsigned_abs();
    micros / u64::try_from(SLOT.as_micros()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float is brought into the range of buckets by the cast itself"
)]
fn bucket_of(took: Duration) -> usize {
    let octaves = (took.as_secs_f64() / FIRST.as_secs_f64()).log2();
    ((octaves * BUCKETS_AN_OCTAVE).ceil() as usize).min(BUCKETS - 1)
}

/// The time in the middle of a bucket, as ratios go.
#[expect(clippy::cast_precision_loss, reason = "there are a hundred buckets")]
fn middle_of(bucket: usize) -> Duration {
    FIRST.mul_f64(((bucket as f64 - 0.5) / BUCKETS_AN_OCTAVE).exp2())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(step: &str, millis: u64) -> Ended {
        Ended {
            step: step.to_owned(),
            phase: Phase::Reserve,
            outcome: Outcome::Succeeded.into(),
            took: Duration::from_millis(millis),
        }
    }

    fn minutes(minutes: u64) -> Timestamp {
        Timestamp::default().after(Duration::from_mins(minutes))
    }

    #[test]
    fn half_and_ninety_nine_of_a_hundred_are_told_to_a_fifth() {
        let latency = Latency::default();
        latency.note(
            "s",
            minutes(0),
            (1..=1_000).map(|millis| ended("a", millis)),
        );
        let lines = latency.lines(minutes(59));
        assert_eq!((lines.len(), lines[0].count), (1, 1_000));
        for (found, true_one) in [(lines[0].p50, 500.0), (lines[0].p99, 990.0)] {
            let ratio = found.as_secs_f64() * 1_000.0 / true_one;
            assert!((0.8..1.2).contains(&ratio), "{found:?} for {true_one} ms");
        }
    }

    #[test]
    fn what_is_longer_ago_than_an_hour_does_not_count() {
        let latency = Latency::default();
        latency.note("s", minutes(0), [ended("a", 1)]);
        latency.note("s", minutes(62), [ended("a", 1), ended("b", 1)]);
        let count = |now| -> Vec<u64> {
            let lines = latency.lines(minutes(now));
            lines.iter().map(|line| line.count).collect()
        };
        assert_eq!(count(62), [2, 1]);
        assert_eq!(count(66), [1, 1]);
        assert!(count(200).is_empty());
    }

    #[test]
    fn no_more_series_are_made_than_there_may_be() {
        let latency = Latency::default();
        let many = (0..2 * SERIES_MAX).map(|number| ended(&number.to_string(), 1));
        latency.note("s", minutes(0), many);
        assert_eq!(latency.lines(minutes(0)).len(), SERIES_MAX);
        latency.note("s", minutes(0), [ended("0", 1)]);
        assert_eq!(latency.lines(minutes(0))[0].count, 2);
    }

    #[test]
    fn every_time_has_a_bucket() {
        for time in [
            Duration::ZERO,
            FIRST,
            Duration::from_hours(9),
            Duration::MAX,
        ] {
            let bucket = bucket_of(time);
            assert!(bucket < BUCKETS, "{time:?}");
        }
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }
}
