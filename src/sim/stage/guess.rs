//! Values guessed from what their fields are called.

use serde_json::{Value, json};

use super::super::scheduler::{DAY, EPOCH};

/// Items of a list that may have any number.
pub(super) const ITEMS: usize = 2;
/// Largest number that is made up when nothing else is said.
pub(super) const NUMBER_MAX: i64 = 100;
/// Words in a field's name that make it a number.
pub(super) const NUMBERS: &[&str] = &[
    "age", "amount", "balance", "cents", "count", "days", "limit", "number", "price", "quantity",
    "seats", "size", "sum", "times", "total",
];
/// Words in a field's name that make it a time.
const TIMES: &[&str] = &["_at", "date", "deadline", "until"];

/// A value that fits a field's name.
pub(super) fn named(name: &str, random: &mut fastrand::Rng) -> Value {
    if NUMBERS.iter().any(|word| name.contains(word)) {
        json!(random.i64(1..=NUMBER_MAX))
    } else if TIMES.iter().any(|word| name.ends_with(word)) {
        json!(time(random))
    } else {
        json!(text(name, random))
    }
}

/// A text that says what it is for.
pub(super) fn text(name: &str, random: &mut fastrand::Rng) -> String {
    let name = if name.is_empty() { "text" } else { name };
    format!("{name}-{}", random.u32(1..10_000))
}

/// A time in the first month.
pub(super) fn time(random: &mut fastrand::Rng) -> String {
    EPOCH.after(DAY * random.u32(1..30)).to_string()
}
