//! When a schedule's next tick is.
//!
//! Five fields as cron(5) has them, in a time zone. Where clocks change, a schedule keeps what its
//! author meant, as Vixie cron does: one with hours written down ticks once a day named, at the
//! end of the gap if its time is skipped, and the first time if it comes twice; one whose hour
//! field begins with `*` goes by elapsed time, so "every 15 minutes" is that.
//!
//! Deliberately absent: seconds, years, names such as `@daily`, and any clock.

use cronexpr::{Crontab, MakeTimestamp, parse_crontab};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::kinds::Every;
use super::problem::shortened;
use crate::id::Timestamp;

/// Longest schedule, in bytes.
const SCHEDULE_BYTES_MAX: usize = 200;
/// Most ticks that are looked at for one whose time is not yet over: what fits into a day that
/// comes twice.
const REPEATED_TICKS_MAX: usize = 1_500;
/// From when on no tick is looked for, in microseconds: the year 9000. Time ends in 9999.
const END_MICROS: i64 = 221_845_392_000_000_000;
/// Where the check begins to look for a tick: any time will do, and this one keeps it pure.
const SOME_TIME: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;

impl Every {
    /// The first tick after this time; `None` if there is none.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        if after.as_micros() >= END_MICROS {
            return None;
        }
        let zone = TimeZone::get(&self.timezone).ok()?;
        let after = jiff::Timestamp::from_microsecond(after.as_micros()).ok()?;
        let next = if self.goes_by_elapsed_time() {
            next(&self.crontab(&self.timezone).ok()?, after)?
        } else {
            self.next_by_clock(&zone, after)?
        };
        Some(Timestamp::from_micros(next.as_microsecond()))
    }

    /// What is wrong with it: the fields, and why.
    pub(super) fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if let Some(why) = self.why_no_schedule() {
            let shown = shortened(&self.schedule, 60);
            let example =
                "write minute, hour, day of month, month and day of week, as in `0 9 1 * *`";
            let why = format!("`{shown}` is not a schedule: {why}; {example}");
            wrong.push(("every", why));
        }
        if TimeZone::get(&self.timezone).is_err() {
            let name = shortened(&self.timezone, 60);
            let why = format!(
                "there is no time zone `{name}`; write an IANA name such as `Europe/Berlin` or `UTC`"
            );
            wrong.push(("timezone", why));
        }
        wrong
    }

    fn why_no_schedule(&self) -> Option<String> {
        if self.schedule.len() > SCHEDULE_BYTES_MAX || !self.schedule.is_ascii() {
            return Some("it is too long, or not plain text".to_owned());
        }
        let fields = self.schedule.split_ascii_whitespace().count();
        if fields != 5 {
            return Some(format!("it has {fields} fields, not five"));
        }
        match self.crontab("UTC") {
            Err(error) => {
                let text = error.to_string();
                // Its last line is a caret and the reason.
                let why = text.rsplit_once("^ ").map_or(text.as_str(), |(_, why)| why);
                Some(why.to_owned())
            }
            Ok(crontab) if next(&crontab, SOME_TIME).is_none() => {
                Some("there is no such day".to_owned())
            }
            Ok(_) => None,
        }
    }

    fn goes_by_elapsed_time(&self) -> bool {
        let hour = self.schedule.split_ascii_whitespace().nth(1);
        hour.is_some_and(|hour| hour.starts_with('*'))
    }

    fn crontab(&self, zone: &str) -> Result<Crontab, cronexpr::Error> {
        parse_crontab(&format!("{} {zone}", self.schedule))
    }

    /// Goes over what clocks show, as if it were UTC, and asks for each when that is.
    fn next_by_clock(&self, zone: &TimeZone, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let crontab = self.crontab("UTC").ok()?;
        let mut shown = zone.to_datetime(after);
        for _ in 0..REPEATED_TICKS_MAX {
            let as_utc = TimeZone::UTC.to_timestamp(shown).ok()?;
            shown = TimeZone::UTC.to_datetime(next(&crontab, as_utc)?);
            let time = instant(zone, shown)?;
            if time > after {
                return Some(time);
            }
        }
        None
    }
}

fn next(crontab: &Crontab, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let next = crontab.find_next(MakeTimestamp(after)).ok()?;
    Some(next.timestamp())
}

/// When clocks show this: the end of the gap if they never do, the first time if they do twice.
fn instant(zone: &TimeZone, shown: DateTime) -> Option<jiff::Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    let offset = ambiguous.offset();
    let time = ambiguous.compatible().ok()?;
    match offset {
        AmbiguousOffset::Gap { .. } => {
            let gap = zone.preceding(time).next()?;
            Some(gap.timestamp())
        }
        _ => Some(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::CatchUp;

    fn every(schedule: &str, timezone: &str) -> Every {
        Every {
            schedule: schedule.to_owned(),
            timezone: timezone.to_owned(),
            catch_up: CatchUp::Last,
            with: None,
        }
    }

    /// The ticks after a time, as clocks in that zone show them.
    fn ticks(schedule: &str, timezone: &str, after: &str, count: usize) -> Vec<String> {
        let every = every(schedule, timezone);
        assert_eq!(every.check(), [], "{schedule} {timezone}");
        let zone = TimeZone::get(timezone).unwrap();
        let first: Timestamp = after.parse().unwrap();
        std::iter::successors(Some(first), |after| every.next_after(*after))
            .skip(1)
            .take(count)
            .map(|tick| {
                let tick = jiff::Timestamp::from_microsecond(tick.as_micros()).unwrap();
                let shown = tick.to_zoned(zone.clone());
                shown.strftime("%d.%m. %H:%M %:z").to_string()
            })
            .collect()
    }

    #[test]
    fn a_schedule_ticks_when_the_clocks_of_its_zone_show_it() {
        let cases = [
            (
                "0 9 1 * *",
                "Europe/Berlin",
                "2026-01-15T00:00:00Z",
                [
                    "01.02. 09:00 +01:00",
                    "01.03. 09:00 +01:00",
                    "01.04. 09:00 +02:00",
                ],
            ),
            // A tick is strictly after the time that is asked about.
            (
                "0 9 * * *",
                "UTC",
                "2026-01-15T09:00:00Z",
                [
                    "16.01. 09:00 +00:00",
                    "17.01. 09:00 +00:00",
                    "18.01. 09:00 +00:00",
                ],
            ),
            (
                "30 8 * * MON-FRI",
                "America/New_York",
                "2026-07-03T00:00:00Z",
                [
                    "03.07. 08:30 -04:00",
                    "06.07. 08:30 -04:00",
                    "07.07. 08:30 -04:00",
                ],
            ),
            (
                "0 0 L * *",
                "Asia/Kolkata",
                "2026-01-01T00:00:00Z",
                [
                    "31.01. 00:00 +05:30",
                    "28.02. 00:00 +05:30",
                    "31.03. 00:00 +05:30",
                ],
            ),
            (
                "0 0 29 2 *",
                "UTC",
                "2026-01-01T00:00:00Z",
                [
                    "29.02. 00:00 +00:00",
                    "29.02. 00:00 +00:00",
                    "29.02. 00:00 +00:00",
                ],
            ),
        ];
        for (schedule, zone, after, expected) in cases {
            assert_eq!(
                ticks(schedule, zone, after, 3),
                expected,
                "{schedule} {zone}"
            );
        }
    }

    /// In Berlin clocks went from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on
    /// 2026-10-25.
    #[test]
    fn a_time_that_is_skipped_ticks_at_the_end_of_the_gap_and_one_that_comes_twice_ticks_once() {
        let zone = "Europe/Berlin";
        assert_eq!(
            ticks("30 2 * * *", zone, "2026-03-27T22:00:00Z", 3),
            [
                "28.03. 02:30 +01:00",
                "29.03. 03:00 +02:00",
                "30.03. 02:30 +02:00"
            ]
        );
        // Monthly, on that very day: it is late, not lost.
        assert_eq!(
            ticks("15 2 29 * *", zone, "2026-03-01T00:00:00Z", 2),
            ["29.03. 03:00 +02:00", "29.04. 02:15 +02:00"]
        );
        assert_eq!(
            ticks("30 2 * * *", zone, "2026-10-23T22:00:00Z", 3),
            [
                "24.10. 02:30 +02:00",
                "25.10. 02:30 +02:00",
                "26.10. 02:30 +01:00"
            ]
        );
        // Asked about between the two: the day has had its tick.
        assert_eq!(
            ticks("30 2 * * *", zone, "2026-10-25T00:45:00Z", 1),
            ["26.10. 02:30 +01:00"]
        );
        assert_eq!(
            ticks("0-59 2 * * *", zone, "2026-10-25T01:10:00Z", 1),
            ["26.10. 02:00 +01:00"]
        );
        // Half an hour, in Australia.
        assert_eq!(
            ticks(
                "15 2 4 10 *",
                "Australia/Lord_Howe",
                "2026-09-01T00:00:00Z",
                1
            ),
            ["04.10. 02:30 +11:00"]
        );
    }

    #[test]
    fn an_interval_goes_by_elapsed_time_where_clocks_change() {
        let zone = "Europe/Berlin";
        assert_eq!(
            ticks("*/30 * * * *", zone, "2026-03-29T00:00:00Z", 3),
            [
                "29.03. 01:30 +01:00",
                "29.03. 03:00 +02:00",
                "29.03. 03:30 +02:00"
            ]
        );
        assert_eq!(
            ticks("*/30 * * * *", zone, "2026-10-25T00:00:00Z", 4),
            [
                "25.10. 02:30 +02:00",
                "25.10. 02:00 +01:00",
                "25.10. 02:30 +01:00",
                "25.10. 03:00 +01:00"
            ]
        );
    }

    #[test]
    fn ticks_are_in_order_and_none_is_found_twice() {
        for (schedule, zone) in [
            ("* * * * *", "Europe/Berlin"),
            ("*/7 1-3 * * *", "Europe/Berlin"),
            ("59 23 * * *", "America/Sao_Paulo"),
            ("0 0 * * *", "Africa/Cairo"),
            ("30 0 * * *", "Asia/Beirut"),
        ] {
            let every = every(schedule, zone);
            let mut at: Timestamp = "2026-03-27T00:00:00Z".parse().unwrap();
            for _ in 0..5_000 {
                let next = every.next_after(at).unwrap();
                assert!(next > at, "{schedule} {zone}");
                let between = Timestamp::from_micros(next.as_micros() - 1);
                assert_eq!(every.next_after(between), Some(next), "{schedule} {zone}");
                at = next;
            }
        }
    }

    #[test]
    fn what_never_ticks_is_refused_and_time_has_an_end() {
        let cases = [
            ("", "UTC", "every"),
            ("@daily", "UTC", "every"),
            ("0 9 1 *", "UTC", "every"),
            ("0 9 1 * * *", "UTC", "every"),
            ("60 9 1 * *", "UTC", "every"),
            ("0 0 30 2 *", "UTC", "every"),
            ("H 9 1 * *", "UTC", "every"),
            ("0 9 1 * \u{e4}", "UTC", "every"),
            ("0 9 1 * *", "Mars/Olympus", "timezone"),
            ("0 9 1 * *", "", "timezone"),
            ("0 9 1 * *", "../../etc/passwd", "timezone"),
        ];
        for (schedule, zone, field) in cases {
            let found = every(schedule, zone).check();
            let fields: Vec<_> = found.iter().map(|(field, _)| *field).collect();
            assert_eq!(fields, [field], "{schedule} {zone}: {found:?}");
        }
        let hourly = every("0 * * * *", "UTC");
        for micros in [i64::MAX, END_MICROS, i64::MIN] {
            assert_eq!(hourly.next_after(Timestamp::from_micros(micros)), None);
        }
    }
}
