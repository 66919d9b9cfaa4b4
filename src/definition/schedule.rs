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

use super::Every;
use super::problem::shortened;
use crate::id::Timestamp;

/// Longest schedule, in bytes.
const SCHEDULE_BYTES_MAX: usize = 200;
/// Most ticks that are looked at for one whose time is not yet over: what fits into a day that
/// comes twice.
const REPEATED_TICKS_MAX: usize = 1_500;
/// From when on no tick is looked for, in microseconds: the year 9000. Time ends in 9999.
const END_MICROS: i64 = 221_845_392_000_000_000;
/// Where [`Every::check`] begins to look: any time will do, and this one keeps it pure.
const SOME_TIME: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

impl Every {
    /// The first tick after this time; `None` if there is none.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        if after.as_micros() >= END_MICROS {
            return None;
        }
        let zone = TimeZone::get(&self.timezone).ok()?;
        let after = jiff::Timestamp::from_microsecond(after.as_micros()).ok()?;
        let next = if self.goes_by_elapsed_time() {
            next(&self.crontab(&self.timezone)?, after)?
        } else {
            self.next_by_clock(&zone, after)?
        };
        Some(Timestamp::from_micros(next.as_microsecond()))
    }

    /// What is wrong with it: the field, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let shown = shortened(&self.schedule, 60);
        let fields = self.schedule.split_ascii_whitespace().count();
        let refuse = |why: &str| {
            let example =
                "write minute, hour, day of month, month and day of week, as in `0 9 1 * *`";
            Err((
                "every",
                format!("`{shown}` is not a schedule: {why}; {example}"),
            ))
        };
        if self.schedule.len() > SCHEDULE_BYTES_MAX || !self.schedule.is_ascii() {
            return refuse("it is too long, or not plain text");
        }
        if fields != 5 {
            return refuse(&format!("it has {fields} fields, not five"));
        }
        if let Err(error) = parse_crontab(&format!("{} UTC", self.schedule)) {
            let text = error.to_string();
            // Its last line is a caret and the reason.
            let why = text.rsplit_once("^ ").map_or(text.as_str(), |(_, why)| why);
            return refuse(why);
        }
        if TimeZone::get(&self.timezone).is_err() {
            let name = shortened(&self.timezone, 60);
            let why = format!(
                "there is no time zone `{name}`; write an IANA name such as `Europe/Berlin` or `UTC`"
            );
            return Err(("timezone", why));
        }
        if self.next_after(SOME_TIME).is_none() {
            return refuse("there is no such day");
        }
        Ok(())
    }

    fn goes_by_elapsed_time(&self) -> bool {
        let hour = self.schedule.split_ascii_whitespace().nth(1);
        hour.is_some_and(|hour| hour.starts_with('*'))
    }

    fn crontab(&self, zone: &str) -> Option<Crontab> {
        parse_crontab(&format!("{} {zone}", self.schedule)).ok()
    }

    /// Goes over what clocks show, as if it were UTC, and asks for each when that is.
    fn next_by_clock(&self, zone: &TimeZone, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let crontab = self.crontab("UTC")?;
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
