//! Numbers as JSON has them: any length, any exponent, and one value however it is spelled.
//!
//! Values that are only carried keep their digits and their spelling (`serde_json` is built to hold
//! a number as it is written). Wherever two numbers are compared, or one becomes a key or part of a
//! text, its *value* counts: `50`, `50.0` and `5e1` are one number. Separate from expressions, because
//! fingerprints, keys and signals must agree with them on what is equal.
//!
//! Deliberately absent: doubles, so that nothing is rounded on the way; and reckoning, which is the
//! expressions' business.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Number;

/// Longest number that is written with all its digits, before the exponent is written instead.
const PLAIN_DIGITS_MAX: i128 = 40;
/// Most zeros between the point and the first digit, before the exponent is written instead.
const PLAIN_ZEROS_MAX: i128 = 6;

/// The one spelling of a number's value: no sign of zero, no zeros that say nothing, an exponent only
/// if it is much shorter. Two numbers have it in common if, and only if, they are equal.
///
/// (An exponent of more than 38 digits is left as it is written: nobody means one.)
pub fn canonical(number: &Number) -> Cow<'_, str> {
    let text = number.as_str();
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain && text != "-0" && digits.len() as i128 <= PLAIN_DIGITS_MAX {
        return Cow::Borrowed(text);
    }
    match Parts::of(text) {
        Some(parts) => Cow::Owned(parts.to_string()),
        None => Cow::Borrowed(text),
    }
}

/// Whether two numbers have the same value.
pub fn equal(one: &Number, other: &Number) -> bool {
    one == other || canonical(one) == canonical(other)
}

/// A whole number that fits, also if it is written `3.0` or `3e0`.
pub fn whole_u64(number: &Number) -> Option<u64> {
    number
        .as_u64()
        .or_else(|| canonical(number).parse::<u64>().ok())
}

/// The digits of a whole number, as they would be a key; `None` for a fraction, or for one that is too
/// long to be written out.
pub fn whole_text(number: &Number) -> Option<String> {
    let text = canonical(number);
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then(|| text.into_owned())
}

/// So many seconds, fractions included; `None` for a negative number. What is longer than a duration
/// can be is as long as one can be.
pub fn seconds(number: &Number) -> Option<Duration> {
    if let Some(seconds) = whole_u64(number) {
        return Some(Duration::from_secs(seconds));
    }
    if number.as_str().starts_with('-') {
        return None;
    }
    let seconds = number.as_f64();
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Some(duration.unwrap_or(Duration::MAX))
}

/// A number taken apart: `digits × 10^exponent`, the digits without zeros at either end.
struct Parts<'t> {
    is_negative: bool,
    digits: Cow<'t, str>,
    exponent: i128,
}

impl<'t> Parts<'t> {
    /// Of a number's text; `None` if its exponent is beyond reckoning.
    fn of(text: &'t str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let exponent = exponent.strip_prefix('+').unwrap_or(exponent);
                (mantissa, exponent.parse::<i128>().ok())
            }
            None => (text, Some(0)),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = if fraction.is_empty() {
            Cow::Borrowed(whole)
        } else {
            Cow::Owned(format!("{whole}{fraction}"))
        };
        let kept = all.trim_end_matches('0');
        let shifted = all.len() as i128 - kept.len() as i128 - fraction.len() as i128;
        let digits = kept.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self {
                is_negative: false,
                digits: Cow::Borrowed("0"),
                exponent: 0,
            });
        }
        Some(Self {
            is_negative,
            digits: Cow::Owned(digits),
            exponent: exponent?.checked_add(shifted)?,
        })
    }
}

impl std::fmt::Display for Parts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (digits, exponent) = (&*self.digits, self.exponent);
        let count = digits.len() as i128;
        if self.is_negative {
            f.write_str("-")?;
        }
        // Where the point stands, counted from before the first digit.
        let point = count.saturating_add(exponent);
        let room = |digits: i128| usize::try_from(digits).unwrap_or(0);
        if exponent >= 0 && point <= PLAIN_DIGITS_MAX {
            write!(f, "{digits}{}", "0".repeat(room(exponent)))
        } else if exponent < 0 && point > 0 {
            let (whole, fraction) = digits.split_at(room(point));
            write!(f, "{whole}.{fraction}")
        } else if exponent < 0 && point >= -PLAIN_ZEROS_MAX {
            write!(f, "0.{}{digits}", "0".repeat(room(-point)))
        } else {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            write!(f, "{first}{dot}{rest}e{}", point - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_value_has_one_spelling() {
        for (canonically, spellings) in [
            (
                "0",
                &["0", "-0", "0.0", "-0.000", "0e17", "-0E-999999999999"][..],
            ),
            ("50", &["50", "50.0", "5e1", "5E+1", "500e-1", "0.5e2"]),
            ("-1.1", &["-1.1", "-1.10", "-11e-1", "-0.11e1"]),
            ("0.1", &["0.1", "1e-1", "0.10"]),
            ("0.000001", &["0.000001", "1e-6"]),
            ("1e-10", &["1e-10", "0.0000000001"]),
            (
                "20000000000000000000",
                &["20000000000000000000", "2e19", "20000000000000000000.0"],
            ),
            (
                "12345678901234567.89",
                &["12345678901234567.89", "1234567890123456789e-2"],
            ),
            ("1e400", &["1e400", "10E399", "0.1e+401"]),
            ("1.5e400", &["1.5e400", "15e399"]),
        ] {
            for spelling in spellings {
                assert_eq!(canonical(&number(spelling)), canonically, "{spelling}");
                assert!(equal(&number(spelling), &number(canonically)), "{spelling}");
            }
        }
        let odd = format!("1e+{}", "9".repeat(60));
        assert_eq!(canonical(&number(&odd)), odd);
    }

    #[test]
    fn whole_numbers_are_whole_however_they_are_written() {
        for (text, whole) in [
            ("3", Some(3)),
            ("3.0", Some(3)),
            ("30e-1", Some(3)),
            ("3.5", None),
            ("-3", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
        ] {
            assert_eq!(whole_u64(&number(text)), whole, "{text}");
        }
        assert_eq!(whole_text(&number("-7.0")).as_deref(), Some("-7"));
        assert_eq!(
            whole_text(&number("1e30")),
            Some(format!("1{}", "0".repeat(30)))
        );
        for text in ["1.5", "1e400", "-0.25"] {
            assert_eq!(whole_text(&number(text)), None, "{text}");
        }
        assert_eq!(seconds(&number("1.5")), Some(Duration::from_millis(1_500)));
        assert_eq!(seconds(&number("90.0")), Some(Duration::from_secs(90)));
        assert_eq!(seconds(&number("1e400")), Some(Duration::MAX));
        assert_eq!(seconds(&number("-0.5")), None);
    }

    /// A JSON number's text.
    fn text() -> impl Strategy<Value = String> {
        let fraction = proptest::option::of("[0-9]{1,25}");
        let exponent = proptest::option::of((any::<bool>(), "[+-]?", 0..3_000_u32));
        (any::<bool>(), "0|[1-9][0-9]{0,34}", fraction, exponent).prop_map(
            |(is_negative, whole, fraction, exponent)| {
                let sign = if is_negative { "-" } else { "" };
                let fraction = fraction.map_or_else(String::new, |digits| format!(".{digits}"));
                let exponent = exponent.map_or_else(String::new, |(capital, sign, number)| {
                    let e = if capital { 'E' } else { 'e' };
                    format!("{e}{sign}{number}")
                });
                format!("{sign}{whole}{fraction}{exponent}")
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_carried_keeps_its_digits(text in text()) {
            let value: serde_json::Value = serde_json::from_str(&format!("[{text}]")).unwrap();
            let read = serde_json::to_string(&value).unwrap();
            let kept = serde_json::from_str::<serde_json::Value>(&read).unwrap();
            prop_assert_eq!(&value, &kept);
            let exponent_sign = text.replace('+', "").to_lowercase();
            prop_assert_eq!(read.replace('+', "").to_lowercase(), format!("[{exponent_sign}]"));
        }

        #[test]
        fn canonical_spellings_agree_exactly_when_values_do(one in text(), other in text()) {
            use std::str::FromStr;
            let exact = |text: &str| bigdecimal::BigDecimal::from_str(text).unwrap();
            let (a, b) = (number(&one), number(&other));
            prop_assert_eq!(exact(&canonical(&a)), exact(&one));
            prop_assert_eq!(equal(&a, &b), exact(&one) == exact(&other));
            let again = number(&canonical(&a));
            prop_assert_eq!(canonical(&again), canonical(&a));
        }
    }
}
