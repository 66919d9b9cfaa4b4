//! How long and how often commands are tried: `timeout`, `retry`, `suspend_after`, and what the
//! file's `defaults` say about them.

use std::time::Duration;

use super::bounds::STEP_TIMEOUT_RANGE;
use super::draft::{Defaults, Draft};
use super::duration::format_duration;
use super::fields::Fields;
use super::grammar::{DEFAULTS, RETRY};
use super::kinds::Retry;
use super::problem::{Position, Rule};

/// Most attempts, and most of them before a person is asked.
pub(super) const ATTEMPTS_MAX: u32 = 1_000;
/// Largest factor between two waits.
const FACTOR_MAX: f64 = 100.0;
/// Shortest and longest wait before another attempt.
const RETRY_WAIT_RANGE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_hours(24));

impl Draft<'_> {
    /// The top-level `defaults`.
    pub fn read_defaults(&mut self, fields: &Fields<'_>) {
        let Some(yaml) = fields.get("defaults") else {
            return;
        };
        let Some(fields) = Fields::of(yaml, "`defaults`", DEFAULTS, &mut self.findings) else {
            return;
        };
        let pace = self.pace(&fields, true);
        if let Some(yaml) = fields.get("timeout") {
            self.check_against_saga(yaml.at, pace.timeout);
        }
        self.defaults = Defaults {
            outcome_required: self.default_reply(&fields),
            ..pace
        };
    }

    /// `timeout`, `retry` and `suspend_after` of a step or of `defaults`. Waits of a step that
    /// runs behind the pivot are not `bounded` by the saga's timeout.
    pub fn pace(&mut self, fields: &Fields<'_>, bounded: bool) -> Defaults {
        let timeout = fields.duration("timeout", STEP_TIMEOUT_RANGE, &mut self.findings);
        let suspend_after = self.suspend_after(fields);
        Defaults {
            timeout: timeout.unwrap_or(self.defaults.timeout),
            retry: self.retry(fields, bounded),
            suspend_after,
            ..self.defaults
        }
    }

    /// `suspend_after`, or what the file says for all.
    pub fn suspend_after(&mut self, fields: &Fields<'_>) -> u32 {
        fields
            .whole("suspend_after", 1..=ATTEMPTS_MAX, &mut self.findings)
            .unwrap_or(self.defaults.suspend_after)
    }

    fn retry(&mut self, fields: &Fields<'_>, bounded: bool) -> Retry {
        let default = self.defaults.retry;
        let Some(yaml) = fields.get("retry") else {
            return default;
        };
        let Some(fields) = Fields::of(yaml, "`retry`", RETRY, &mut self.findings) else {
            return default;
        };
        let attempts = fields.whole("attempts", 1..=ATTEMPTS_MAX, &mut self.findings);
        let factor = fields.number("factor", 1.0..=FACTOR_MAX, &mut self.findings);
        let given_first = fields.duration("first", RETRY_WAIT_RANGE, &mut self.findings);
        let given_max = fields.duration("max", RETRY_WAIT_RANGE, &mut self.findings);
        // Where one is not given, it makes room for the other.
        let (first, max) = match (given_first, given_max) {
            (Some(first), Some(max)) => (first, max),
            (Some(first), None) => (first, default.max.max(first)),
            (None, Some(max)) => (default.first.min(max), max),
            (None, None) => (default.first, default.max),
        };
        if first > max {
            let at = fields.get("max").map_or(fields.at, |yaml| yaml.at);
            let message = format!(
                "`max` is the longest wait, so it can't be shorter than `first` ({})",
                format_duration(first)
            );
            self.findings.add(at, Rule::Contradiction, message);
        }
        if let (Some(first), Some(yaml), true) = (given_first, fields.get("first"), bounded) {
            self.check_against_saga(yaml.at, first);
        }
        Retry {
            attempts: attempts.unwrap_or(default.attempts),
            first,
            factor: factor.unwrap_or(default.factor),
            max,
        }
    }

    /// A wait inside a saga can't be longer than the saga.
    fn check_against_saga(&mut self, at: Position, wait: Duration) {
        let Some(saga) = self.saga_timeout.filter(|saga| wait > *saga) else {
            return;
        };
        let message = format!(
            "{} is longer than the saga's own timeout of {}; shorten it or give the saga more time",
            format_duration(wait),
            format_duration(saga)
        );
        self.findings.add(at, Rule::Deadline, message);
    }
}
