//! Until when a saga may pass its pivot: its deadline, and the times at which what it has reserved
//! lapses.
//!
//! Every decision asks for itself whether it is too late. The clock's wake-up is a reminder for
//! sagas about which no message comes: it may be behind, after a pause, an outage or a backlog,
//! and a reply that is decided first must not find the pivot open. What can't be read of a
//! participant's `expires_at` is refused: a lease that nobody minds is worse than a failed attempt.

use serde_json::Value;

use super::decide::{PlantedBug, Turn};
use super::state::Pass;
use super::step::{StepStatus, Waiting};
use super::walk::block_named;
use crate::definition::{BlockKind, OnTimeout};
use crate::error::code;
use crate::id::{Phase, StepPath, Timestamp};
use crate::message::Outcome;

/// The field of a reservation that says until when it holds.
pub(super) const EXPIRES_AT: &str = "expires_at";

/// What stands for "never" in many languages. Its zone does not matter, and time ends before it.
const NEVER: &str = "9999-12-31";
/// Whole seconds since 1970 lie in here, from 2001 to 2286, and milliseconds a thousand times
/// higher: no number is both.
const EPOCH_SECONDS: std::ops::Range<f64> = 1e9..1e10;
/// As [`EPOCH_SECONDS`].
const EPOCH_MILLIS: std::ops::Range<f64> = 1e12..1e13;
/// Characters of a wrong value that are shown.
const SHOWN_CHARS_MAX: usize = 60;

/// Until when a reservation holds, if its reply says so.
///
/// # Errors
/// The reply says something of which no time can be made for certain; in words.
pub(super) fn expiry_of(reply: &Value) -> Result<Option<Timestamp>, String> {
    let said = match reply.get(EXPIRES_AT) {
        None | Some(Value::Null) => return Ok(None),
        Some(said) => said,
    };
    let at = match said {
        Value::String(text) => from_text(text.trim()),
        Value::Number(number) => number.as_f64().and_then(from_number),
        _ => None,
    };
    at.map(Some).ok_or_else(|| {
        let shown: String = said.to_string().chars().take(SHOWN_CHARS_MAX).collect();
        format!(
            "the reply's `{EXPIRES_AT}` is no point in time: {shown}; write RFC 3339 with an offset, as in `2026-01-31T12:00:00Z`, or seconds since 1970"
        )
    })
}

fn from_text(text: &str) -> Option<Timestamp> {
    if text.starts_with(NEVER) {
        return Some(Timestamp::from_micros(
            jiff::Timestamp::MAX.as_microsecond(),
        ));
    }
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    text.parse().ok().and_then(from_number)
}

/// What is unambiguous: seconds or milliseconds since 1970.
fn from_number(number: f64) -> Option<Timestamp> {
    let micros = if EPOCH_SECONDS.contains(&number) {
        number * 1e6
    } else if EPOCH_MILLIS.contains(&number) {
        number * 1e3
    } else {
        return None;
    };
    // The ranges leave no room for a loss.
    #[allow(clippy::cast_possible_truncation)]
    Some(Timestamp::from_micros(micros as i64))
}

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
}

/// Why a saga is rolled back after a `wait`; `trouble` is what `match` met, if it could not judge a
/// signal that came.
pub(super) fn no_signal_in_time(step: &StepPath, signal: &str, trouble: Option<&str>) -> String {
    let trouble = trouble.map_or_else(String::new, |trouble| {
        format!(" that `match` could judge; of one that came: {trouble}")
    });
    format!("{step}: no signal `{signal}` came in time{trouble}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_time_is_read_however_it_is_written_if_it_can_mean_only_one() {
        let at = "2026-01-31T12:00:00Z";
        for said in [
            json!(at),
            json!("2026-01-31T12:00:00.000000Z"),
            json!("2026-01-31T13:00:00+01:00"),
            json!("2026-01-31T12:00:00+0000"),
            json!("2026-01-31 12:00:00Z"),
            json!("2026-01-31t12:00:00z"),
            json!("2026-01-31T12:00Z"),
            json!(" 2026-01-31T12:00:00Z "),
            json!(1_769_860_800),
            json!(1_769_860_800.0),
            json!(1_769_860_800_000_u64),
            json!("1769860800"),
            json!("1769860800000"),
        ] {
            let read = expiry_of(&json!({ EXPIRES_AT: said })).unwrap();
            assert_eq!(read, Some(at.parse().unwrap()), "{said}");
        }
        for never in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.9999999"] {
            let read = expiry_of(&json!({ EXPIRES_AT: never })).unwrap().unwrap();
            assert!(
                read > "9999-12-01T00:00:00Z".parse().unwrap(),
                "{never}: {read}"
            );
        }
        for none in [
            json!({}),
            json!(null),
            json!([1]),
            json!({ EXPIRES_AT: null }),
        ] {
            assert_eq!(expiry_of(&none), Ok(None), "{none}");
        }
    }

    #[test]
    fn what_could_mean_several_times_or_none_is_refused() {
        for said in [
            json!("2026-01-31T12:00:00"),
            json!("2026-01-31"),
            json!("12:00"),
            json!("tomorrow"),
            json!(""),
            json!("31/01/2026 12:00:00Z"),
            json!(true),
            json!([2026]),
            json!({ "at": "2026-01-31T12:00:00Z" }),
            json!(0),
            json!(900),
            json!(-1_769_860_800),
            json!(1e300),
            json!("NaN"),
            json!("2026-13-31T12:00:00Z"),
        ] {
            let why = expiry_of(&json!({ EXPIRES_AT: said })).unwrap_err();
            assert!(why.contains("RFC 3339"), "{said}: {why}");
        }
    }
}
