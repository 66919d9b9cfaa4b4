//! How labels and causes are written in columns, the same in every database.
//!
//! A label's `value` is one text whose order is that of what it stands for: `t` and the text, `n` and
//! a number, `d` and a point in time, the last two as sixteen hexadecimal digits. So one index finds
//! texts, numbers and times, and ranges of them.

use super::dead_letters::fingerprint;
use crate::definition::{Label, LabelValue};
use crate::id::Timestamp;
use crate::saga::{Obstacle, StepPhase};

/// Longest text of a label, in bytes; what is longer is kept and searched by its beginning.
pub const LABEL_BYTES_MAX: usize = 255;
/// Longest reason that is kept with a cause, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// What stands in the way of a saga, as its row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaCause {
    /// The same for all sagas of a definition that have the same trouble in the same place: a short
    /// hash of the definition's name, the step without its item, the phase, and the reason without its
    /// numbers, ids and quoted values.
    pub id: String,
    /// Where, if it is a matter of one step.
    pub spot: Option<StepPhase>,
    /// In words.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

impl SagaCause {
    /// Of a saga of this definition; `before` is what stood in its way until now.
    pub fn of(saga: &str, trouble: Obstacle, before: Option<&Self>, now: Timestamp) -> Self {
        let Obstacle { spot, reason } = trouble;
        let step = spot.as_ref().map_or("", |spot| spot.step.name.as_str());
        let phase = spot.as_ref().map_or("", |spot| spot.phase.as_str());
        let id = fingerprint(&[saga, step, phase], &without_quoted(&reason));
        let before = before.filter(|before| before.id == id);
        Self {
            since: before.map_or(now, |before| before.since),
            reason: readable(shortened(&reason, REASON_BYTES_MAX)),
            id,
            spot,
        }
    }
}

/// A reason with an empty pair of quotes in the place of each quoted value.
fn without_quoted(reason: &str) -> String {
    let mut text = String::with_capacity(reason.len());
    let mut rest = reason;
    while let Some(start) = rest.find(['`', '"', '\'']) {
        let quote = rest[start..].chars().next().unwrap_or('"');
        // An apostrophe stands in a word: can't, node's.
        let in_word = rest[..start].ends_with(char::is_alphanumeric);
        let inside = &rest[start + quote.len_utf8()..];
        let end = inside.find(quote).filter(|_| !in_word);
        text.push_str(&rest[..start]);
        text.push(quote);
        rest = match end {
            Some(end) => {
                text.push(quote);
                &inside[end + quote.len_utf8()..]
            }
            None => inside,
        };
    }
    text.push_str(rest);
    text
}

/// Labels as they are written, by name.
pub(super) fn columns(labels: &[Label]) -> impl Iterator<Item = (&str, String)> {
    labels
        .iter()
        .map(|label| (label.name.as_str(), encoded(&label.value)))
}

/// What stands in the column `value`.
pub(super) fn encoded(value: &LabelValue) -> String {
    match value {
        LabelValue::Text(text) => format!("t{}", readable(shortened(text, LABEL_BYTES_MAX))),
        LabelValue::Number(number) => {
            // Zero has two forms, which are equal.
            let bits = (number + 0.0).to_bits();
            let sign = 1 << 63;
            let sortable = if bits & sign == 0 { bits | sign } else { !bits };
            format!("n{sortable:016x}")
        }
        LabelValue::Time(at) => format!("d{:016x}", at.as_micros().cast_unsigned() ^ (1 << 63)),
    }
}

/// A row's label; `None` if it is not ours.
pub(super) fn label(name: String, value: &str) -> Option<Label> {
    decoded(value).map(|value| Label { name, value })
}

/// What it stands for; `None` if it is not ours.
fn decoded(text: &str) -> Option<LabelValue> {
    let (kind, rest) = text.split_at_checked(1)?;
    let bits = || u64::from_str_radix(rest, 16).ok();
    let sign = 1 << 63;
    match kind {
        "t" => Some(LabelValue::Text(rest.to_owned())),
        "n" => {
            let bits = bits()?;
            let bits = if bits & sign == 0 { !bits } else { bits ^ sign };
            Some(LabelValue::Number(f64::from_bits(bits)))
        }
        "d" => Some(LabelValue::Time(Timestamp::from_micros(
            (bits()? ^ sign).cast_signed(),
        ))),
        _ => None,
    }
}

fn shortened(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Text without the one character that PostgreSQL can't keep.
fn readable(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Phase, StepPath};

    #[test]
    fn values_sort_as_what_they_stand_for_and_come_back() {
        let numbers = [f64::MIN, -2.5, -1.0, 0.0, 1e-9, 1.0, 9.0, 10.0, 1e300];
        let times = [-5, 0, 1_700_000_000_000_000].map(Timestamp::from_micros);
        let numbers = numbers.map(LabelValue::Number);
        let times = times.map(LabelValue::Time);
        for values in [&numbers[..], &times[..]] {
            let written: Vec<String> = values.iter().map(encoded).collect();
            assert!(written.is_sorted(), "{written:?}");
            let read: Vec<_> = written.iter().filter_map(|text| decoded(text)).collect();
            assert_eq!(read, values);
        }
        let zero = LabelValue::Number(-0.0);
        assert_eq!(encoded(&zero), encoded(&LabelValue::Number(0.0)));
        let long = LabelValue::Text("é".repeat(200));
        assert_eq!(encoded(&long).len(), 255);
    }

    fn cause(saga: &str, step: &str, reason: &str) -> String {
        let spot = StepPhase {
            step: step.parse::<StepPath>().unwrap(),
            phase: Phase::Confirm,
        };
        let trouble = Obstacle {
            spot: Some(spot),
            reason: reason.to_owned(),
        };
        SagaCause::of(saga, trouble, None, Timestamp::default()).id
    }

    #[test]
    fn a_cause_is_the_same_whatever_the_item_the_number_and_the_quoted_value() {
        let one = cause("s", "stock[1]", "can't find 'lamp' in shelf 7");
        assert_eq!(
            one,
            cause("s", "stock[20]", "can't find 'a red chair' in shelf 12")
        );
        for other in [
            cause("s", "stock[1]", "can't reach 'lamp' in shelf 7"),
            cause("s", "payment", "can't find 'lamp' in shelf 7"),
            cause("t", "stock[1]", "can't find 'lamp' in shelf 7"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_cause_that_stays_keeps_its_time() {
        let of = |reason: &str, before: Option<&SagaCause>, at| {
            let trouble = Obstacle {
                spot: None,
                reason: reason.to_owned(),
            };
            SagaCause::of("s", trouble, before, Timestamp::from_micros(at))
        };
        let first = of("no answer within 5s", None, 1);
        let again = of("no answer within 6s", Some(&first), 2);
        assert_eq!(again.since, first.since);
        assert_eq!(of("refused", Some(&again), 3).since.as_micros(), 3);
    }
}
