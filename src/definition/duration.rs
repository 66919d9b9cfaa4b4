//! Durations as people write them: `200ms`, `5s`, `10m`, `2h`, `3d`, `1w`.
//!
//! One number, one unit. Deliberately absent: fractions, sums (`1h30m`), months and years, whose
//! length depends on when they start.

use std::time::Duration;

/// Milliseconds in each unit, longest first.
const UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Longest number that is read; with it no unit overflows.
const DIGITS_MAX: usize = 10;

/// Reads a duration, or says what one looks like.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis_each = UNITS
        .iter()
        .find_map(|(name, millis)| (*name == unit).then_some(*millis));
    match (number.parse::<u64>(), millis_each) {
        (Ok(number), Some(millis_each)) if digits <= DIGITS_MAX => {
            Ok(Duration::from_millis(number * millis_each))
        }
        _ => Err(format!(
            "`{}` is not a duration; write a whole number and a unit (ms, s, m, h, d or w), as in `200ms` or `5s`",
            super::problem::shortened(text, 40)
        )),
    }
}

/// Writes a duration in the longest unit that loses nothing.
pub(super) fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    UNITS
        .iter()
        .find(|(_, each)| millis > 0 && millis.is_multiple_of(u128::from(*each)))
        .map_or_else(
            || format!("{millis}ms"),
            |(unit, each)| format!("{}{unit}", millis / u128::from(*each)),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        let cases = [
            ("200ms", Some(200)),
            ("5s", Some(5_000)),
            ("10m", Some(600_000)),
            ("2h", Some(7_200_000)),
            ("3d", Some(259_200_000)),
            ("2w", Some(1_209_600_000)),
            ("0s", Some(0)),
            ("9999999999w", Some(9_999_999_999 * 604_800_000)),
            ("99999999999ms", None),
            ("5", None),
            ("s", None),
            ("", None),
            ("-5s", None),
            ("1.5s", None),
            ("5 s", None),
            ("1h30m", None),
            ("5S", None),
            ("５s", None),
        ];
        for (text, millis) in cases {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(parse_duration(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_are_written_in_the_longest_unit_that_loses_nothing() {
        for text in ["200ms", "5s", "10m", "2h", "3d", "90s", "0ms", "2w", "30d"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }
}
