//! What the use of a value tells about its type: what it is compared or reckoned with, and whether
//! something waits for it.
//!
//! Separate from `invent`, which makes the values up. Read from the text around the value, as far
//! as the expression goes; deliberately absent: types that take more than a look at the neighbours.

use serde_json::{Value, json};

use super::super::scheduler::{DAY, EPOCH};
use crate::definition::{BlockKind, Definition, Delay};

/// Comparisons, longest first.
const COMPARISONS: [&str; 6] = ["==", "!=", "<=", ">=", "<", ">"];
/// What only numbers are reckoned with; `+` joins texts too.
const ARITHMETIC: [&str; 5] = ["+", "-", "*", "/", "%"];
/// Longest time, in hours, that is made up for something to wait.
const HOURS_MAX: u32 = 72;

/// What a value is compared or reckoned with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hint {
    /// A whole number.
    Number(i64),
    /// A number with a fraction, of which this is the whole part.
    Fraction(i64),
    /// A text.
    Text(String),
    /// Yes or no.
    Truth,
}

impl Hint {
    /// From the line before the value, and from its name on.
    pub(super) fn of(before: &str, after: &str) -> Option<Self> {
        let before = before.rsplit("${").next().unwrap_or_default();
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let after = match after.strip_prefix('.') {
            Some(rest) => rest.trim_start_matches(is_name),
            None => after.split_once(']')?.1,
        };
        if after.starts_with(['.', '[']) {
            // It is about something within the value.
            return None;
        }
        let after = after.trim_start();
        let right = operator(|sign| after.strip_prefix(sign));
        right
            .and_then(|rest| literal(rest.trim_start()))
            .or_else(|| {
                let rest = operator(|sign| before.trim_end().strip_suffix(sign))?.trim_end();
                let is_end = |c: char| c.is_whitespace() || "(,{[".contains(c);
                literal(rest.rsplit(is_end).next()?)
            })
    }

    /// A value of this type, near to what it is compared with: sometimes it fits, sometimes not.
    pub(super) fn guess(&self, name: &str, random: &mut fastrand::Rng) -> Value {
        let near = |number: i64, random: &mut fastrand::Rng| {
            let number = number.saturating_add(random.i64(-1..=1));
            number.max(0)
        };
        match self {
            Self::Number(number) => json!(near(*number, random)),
            #[allow(clippy::cast_precision_loss)] // Near is enough.
            Self::Fraction(number) => json!(near(*number, random) as f64 + 0.5),
            Self::Text(text) if random.bool() => json!(text),
            Self::Text(_) => json!(format!("{name}-{}", random.u32(1..10_000))),
            Self::Truth => json!(random.bool()),
        }
    }
}

fn operator<'t>(strip: impl Fn(&str) -> Option<&'t str>) -> Option<&'t str> {
    COMPARISONS
        .iter()
        .chain(&ARITHMETIC)
        .find_map(|it| strip(it))
}

/// What a literal tells; of another value nothing is known.
fn literal(text: &str) -> Option<Hint> {
    if let Some(quote) = text.chars().next().filter(|c| "'\"".contains(*c)) {
        let inner = text[1..].split(quote).next()?;
        return Some(Hint::Text(inner.to_owned()));
    }
    let word: String = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || ".-".contains(*c))
        .collect();
    match word.as_str() {
        "true" | "false" => Some(Hint::Truth),
        number if number.contains('.') => {
            let whole = number.split('.').next()?.parse().ok()?;
            Some(Hint::Fraction(whole))
        }
        number => number.parse().ok().map(Hint::Number),
    }
}

/// What can be waited for, if `root.name` is what a block of the definition waits for: a time where
/// it says `until`, else a duration.
pub(super) fn delay(
    root: &str,
    name: &str,
    definition: &Definition,
    random: &mut fastrand::Rng,
) -> Option<Value> {
    let waited = definition
        .blocks
        .iter()
        .filter_map(|node| match &node.kind {
            BlockKind::Sleep(sleep) => Some(&sleep.delay),
            BlockKind::Wait(wait) => wait.timeout.as_ref(),
            _ => None,
        });
    let path = format!("{root}.{name}");
    let mut sources = waited.filter_map(|delay| match delay {
        Delay::Computed(expression) => Some(expression.source.trim()),
        Delay::Fixed(_) => None,
    });
    sources.find(|source| *source == path)?;
    let is_time = definition
        .source
        .lines()
        .filter_map(|line| line.split_once("until:"))
        .any(|(_, what)| what.contains(&path));
    let hours = random.u32(1..=HOURS_MAX);
    Some(if is_time {
        json!(EPOCH.after(DAY / 24 * hours).to_string())
    } else {
        json!(format!("{hours}h"))
    })
}
