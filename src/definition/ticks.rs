//! Which ticks of a schedule are to start sagas, given how far it has come.
//!
//! Separate from [`super::schedule`], which says when a schedule ticks: here stands what its author
//! wants done about ticks that nobody was there for. Pure; the time is an argument.

use std::time::Duration;

use serde_json::{Value, json};

use super::expression::{EvaluationError, EvaluationScope};
use super::kinds::{CatchUp, Every};
use crate::id::Timestamp;
use crate::limits::BODY;

/// How late a tick may be and still not count as missed: a node restarts within it.
pub const TICK_GRACE: Duration = Duration::from_mins(1);

/// Most ticks that are counted beforehand.
pub const TICKS_COUNTED_MAX: usize = 1_000;

impl Every {
    /// All that decides when it ticks and which ticks count, in words. How far a schedule has come
    /// means nothing under another one.
    pub fn rhythm(&self) -> String {
        let fields: Vec<&str> = self.schedule.split_ascii_whitespace().collect();
        let catch_up = match self.catch_up {
            CatchUp::All => "all",
            CatchUp::Last => "last",
            CatchUp::None => "none",
        };
        format!(
            "{} {}, catch_up {catch_up}",
            fields.join(" "),
            self.timezone
        )
    }

    /// How many sagas would be started at once, at most [`TICKS_COUNTED_MAX`].
    pub fn count_due(&self, settled: Timestamp, now: Timestamp) -> usize {
        self.due(settled, now, TICKS_COUNTED_MAX).len()
    }

    /// The ticks to start sagas for, the oldest first and at most `most`, given that all up to
    /// `settled` are done with. What `catch_up` gives up is passed over.
    pub fn due(&self, settled: Timestamp, now: Timestamp, most: usize) -> Vec<Timestamp> {
        let after = match self.catch_up {
            CatchUp::All => settled,
            CatchUp::Last => return self.newest(settled, now).into_iter().collect(),
            CatchUp::None => settled.max(now.before(TICK_GRACE)),
        };
        let next = |tick: &Timestamp| self.next_after(*tick);
        std::iter::successors(self.next_after(after), next)
            .take_while(|tick| *tick <= now)
            .take(most)
            .collect()
    }

    /// When to look again, given that all ticks up to now are done with.
    pub fn next_due(&self, settled: Timestamp, now: Timestamp) -> Option<Timestamp> {
        match self.catch_up {
            CatchUp::All | CatchUp::Last => self.next_after(settled),
            CatchUp::None => self.next_after(settled.max(now.before(TICK_GRACE))),
        }
    }

    /// The newest tick after `settled` that is not in the future, however many there were.
    fn newest(&self, settled: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let until_now = |after: i64| {
            let tick = self.next_after(Timestamp::from_micros(after));
            tick.filter(|tick| *tick <= now)
        };
        // After `early` there is a tick until now, after `late` there is none.
        let mut early = settled.as_micros();
        let mut late = now.as_micros();
        let mut newest = until_now(early)?;
        while early + 1 < late {
            let middle = early + (late - early) / 2;
            match until_now(middle) {
                Some(tick) => {
                    newest = tick;
                    early = tick.as_micros().saturating_sub(1).max(middle);
                }
                None => late = middle,
            }
        }
        Some(newest)
    }

    /// The input of the saga that a tick starts.
    pub fn input_of(&self, tick: Timestamp) -> Result<Value, EvaluationError> {
        let tick = Value::String(tick.to_string());
        let Some(with) = &self.with else {
            return Ok(json!({ "tick": tick }));
        };
        let scope = EvaluationScope {
            input: &Value::Null,
            steps: &(),
            item: None,
            given: Some(("tick", &tick)),
            saga: None,
        };
        with.render_within(&scope, &BODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(schedule: &str, catch_up: CatchUp) -> Every {
        Every {
            schedule: schedule.to_owned(),
            timezone: "UTC".to_owned(),
            catch_up,
            with: None,
        }
    }

    fn at(text: &str) -> Timestamp {
        format!("2026-{text}:00Z").parse().unwrap()
    }

    #[test]
    fn missed_ticks_are_caught_up_as_the_definition_says() {
        let (all, last, none) = (CatchUp::All, CatchUp::Last, CatchUp::None);
        let cases: [(CatchUp, &str, &str, usize, &[&str]); 11] = [
            (all, "01-01T00:00", "01-01T00:00", 9, &[]),
            (all, "01-01T00:00", "01-01T01:00", 9, &["01-01T01:00"]),
            (
                all,
                "01-01T00:00",
                "01-01T02:59",
                9,
                &["01-01T01:00", "01-01T02:00"],
            ),
            (
                all,
                "01-01T00:00",
                "12-31T00:00",
                2,
                &["01-01T01:00", "01-01T02:00"],
            ),
            (last, "01-01T00:00", "01-01T00:59", 9, &[]),
            (last, "01-01T00:00", "01-01T01:00", 9, &["01-01T01:00"]),
            (last, "01-01T00:00", "12-31T05:30", 9, &["12-31T05:00"]),
            (none, "01-01T00:00", "12-31T05:30", 9, &[]),
            (none, "01-01T00:00", "12-31T05:00", 9, &["12-31T05:00"]),
            // A node ahead of us has settled what we think is still to come.
            (all, "01-01T01:00", "01-01T00:59", 9, &[]),
            (last, "01-01T01:00", "01-01T00:59", 9, &[]),
        ];
        for (catch_up, settled, now, most, expected) in cases {
            let due = every("0 * * * *", catch_up).due(at(settled), at(now), most);
            let expected: Vec<Timestamp> = expected.iter().map(|text| at(text)).collect();
            assert_eq!(due, expected, "{catch_up:?} {settled} {now}");
        }
    }

    #[test]
    fn the_newest_of_many_ticks_is_found_whatever_their_rhythm() {
        for schedule in ["* * * * *", "*/7 3 1-9 2 *", "0 0 29 2 *", "59 23 L * *"] {
            let every = every(schedule, CatchUp::Last);
            let settled: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
            let now = at("03-05T07:08");
            let [newest] = every.due(settled, now, 9)[..] else {
                panic!("{schedule}");
            };
            assert!(newest <= now);
            assert!(every.next_after(newest).unwrap() > now, "{schedule}");
            let before = Timestamp::from_micros(newest.as_micros() - 1);
            assert_eq!(every.next_after(before), Some(newest), "{schedule}");
        }
    }

    #[test]
    fn a_rhythm_is_all_that_decides_which_ticks_count() {
        let base = every("0  9 * * *", CatchUp::Last);
        assert_eq!(base.rhythm(), "0 9 * * * UTC, catch_up last");
        assert_eq!(every(" 0 9 * * * ", CatchUp::Last).rhythm(), base.rhythm());
        let mut zone = every("0 9 * * *", CatchUp::Last);
        zone.timezone = "Europe/Berlin".to_owned();
        for other in [
            every("0 9 * * *", CatchUp::All),
            every("0 8 * * *", CatchUp::Last),
            zone,
        ] {
            assert_ne!(other.rhythm(), base.rhythm());
        }
    }

    #[test]
    fn a_tick_is_the_input_unless_something_is_computed_from_it() {
        let every = every("0 * * * *", CatchUp::Last);
        let input = every.input_of(at("01-01T01:00")).unwrap();
        assert_eq!(input, json!({ "tick": "2026-01-01T01:00:00Z" }));
    }
}
