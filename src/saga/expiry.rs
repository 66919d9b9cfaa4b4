//! Until when a reservation holds, as participants say it.
//!
//! What can't be read of a participant's `expires_at` is refused: a lease that nobody minds is worse
//! than a failed attempt.

use serde_json::Value;

use crate::id::Timestamp;

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
