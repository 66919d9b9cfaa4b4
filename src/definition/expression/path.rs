//! The expressions that only name a value: `input.items[0].sku`, `steps["send-receipt"].id`.
//!
//! They mean what they mean in CEL, but are read from the JSON in place: no context, no conversion
//! of the whole input. Whatever is not obviously such a path is left to CEL.

use serde_json::Value;

use super::presence::Presence;
use super::references::{GIVEN, References};
use super::scope::{EvaluationScope, SagaFacts};

/// Names that CEL does not allow as a field after a dot.
const RESERVED: [&str; 4] = ["true", "false", "null", "in"];

/// A root and the way from it.
#[derive(Debug)]
pub(super) struct Path {
    root: Root,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Input,
    Item,
    Steps,
    Saga,
    /// `signal`, `event` or `tick`.
    Given(&'static str),
}

impl Root {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Item => "item",
            Self::Steps => "steps",
            Self::Saga => "saga",
            Self::Given(name) => name,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Field(String),
    Index(usize),
}

impl Path {
    /// `input`.
    pub fn input() -> Self {
        Self {
            root: Root::Input,
            segments: Vec::new(),
        }
    }

    /// The path, if the source is nothing else.
    pub fn parse(source: &str) -> Option<Self> {
        let (root, mut rest) = identifier(source)?;
        let root = match root {
            "input" => Root::Input,
            "item" => Root::Item,
            "steps" => Root::Steps,
            "saga" => Root::Saga,
            other => Root::Given(GIVEN.into_iter().find(|name| *name == other)?),
        };
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let segment;
            (segment, rest) = if let Some(rest) = rest.strip_prefix('.') {
                let (name, rest) = identifier(rest)?;
                if RESERVED.contains(&name) {
                    return None;
                }
                (Segment::Field(name.to_owned()), rest)
            } else {
                bracketed(rest.strip_prefix('[')?)?
            };
            segments.push(segment);
        }
        Some(Self { root, segments })
    }

    /// What it refers to; an error if the root can't be used like that.
    pub fn references(&self) -> Result<References, String> {
        let mut references = References::default();
        let first = match self.segments.first() {
            Some(Segment::Field(name)) => Some(name.as_str()),
            Some(Segment::Index(_)) | None => None,
        };
        references.read(self.root.name(), first, &Presence::default())?;
        Ok(references)
    }

    /// Reads the value.
    pub fn evaluate(&self, scope: &EvaluationScope<'_>) -> Result<Value, String> {
        match self.root {
            Root::Input => self.read(scope.input, 0),
            Root::Item => self.read(scope.item.ok_or_else(no_item)?, 0),
            Root::Given(name) => self.read(given(scope, name)?, 0),
            Root::Steps => match self.segments.first() {
                Some(Segment::Field(step)) => {
                    let reply = scope.steps.reply(step).ok_or_else(|| no_reply(step))?;
                    if self.segments.len() == 1 {
                        return Ok(reply);
                    }
                    self.read(&reply, 1)
                }
                // Refused when it was compiled.
                _ => Err(no_reply("?")),
            },
            Root::Saga => {
                let facts = scope.saga.ok_or_else(no_saga)?;
                match self.segments.as_slice() {
                    [] => Ok(whole_saga(facts)),
                    [Segment::Field(name)] => facts
                        .field(name)
                        .map(Value::String)
                        .ok_or_else(|| format!("`saga` has no field `{name}`")),
                    _ => Err("the fields of `saga` are text".to_owned()),
                }
            }
        }
    }

    fn read(&self, root: &Value, skip: usize) -> Result<Value, String> {
        let mut at = root;
        for (depth, segment) in self.segments.iter().enumerate().skip(skip) {
            let inner = match segment {
                Segment::Field(name) => at.as_object().and_then(|fields| fields.get(name)),
                Segment::Index(index) => at.as_array().and_then(|items| items.get(*index)),
            };
            at = inner.ok_or_else(|| self.missing(depth, at))?;
        }
        Ok(at.clone())
    }

    /// Why the segment at `depth` is not in `around`.
    fn missing(&self, depth: usize, around: &Value) -> String {
        let place = self.written(depth);
        match (&self.segments[depth], around) {
            (Segment::Field(name), Value::Object(_)) => format!("`{place}` has no field `{name}`"),
            (Segment::Index(index), Value::Array(items)) => format!(
                "`{place}` has {} items, so there is no item {index}",
                items.len()
            ),
            (Segment::Field(name), other) => {
                format!("`{place}` is {}, so it has no field `{name}`", kind(other))
            }
            (Segment::Index(index), other) => {
                format!("`{place}` is {}, so it has no item {index}", kind(other))
            }
        }
    }

    /// The first `depth` segments as they would be written.
    fn written(&self, depth: usize) -> String {
        let segments = self.segments[..depth].iter().map(|segment| match segment {
            Segment::Field(name) if identifier(name).is_some_and(|(_, rest)| rest.is_empty()) => {
                format!(".{name}")
            }
            Segment::Field(name) => format!("[{name:?}]"),
            Segment::Index(index) => format!("[{index}]"),
        });
        std::iter::once(self.root.name().to_owned())
            .chain(segments)
            .collect()
    }
}

/// `saga` as an object.
pub(super) fn whole_saga(facts: &SagaFacts) -> Value {
    SagaFacts::FIELDS
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), Value::String(facts.field(name)?))))
        .collect()
}

/// The value of `signal`, `event` or `tick`.
pub(super) fn given<'v>(scope: &EvaluationScope<'v>, name: &str) -> Result<&'v Value, String> {
    scope
        .given
        .filter(|(known, _)| *known == name)
        .map(|(_, value)| value)
        .ok_or_else(|| format!("there is no `{name}` here"))
}

pub(super) fn no_item() -> String {
    "there is no `item` outside a for_each".to_owned()
}

pub(super) fn no_saga() -> String {
    "`saga` is not known before the saga has started".to_owned()
}

pub(super) fn no_reply(step: &str) -> String {
    format!("step `{step}` has no reply: it has not succeeded yet, or was skipped")
}

/// What a JSON value is, in words.
pub(in crate::definition) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The identifier at the start, and what follows it.
fn identifier(text: &str) -> Option<(&str, &str)> {
    let end = text
        .bytes()
        .position(|b| !b.is_ascii_alphanumeric() && b != b'_')
        .unwrap_or(text.len());
    let starts_well = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    (end > 0 && starts_well).then(|| text.split_at(end))
}

/// What stands between `[` and `]`: a number, or a quoted name without escapes.
fn bracketed(text: &str) -> Option<(Segment, &str)> {
    let quote = text.chars().next().filter(|c| *c == '"' || *c == '\'');
    if let Some(quote) = quote {
        let (name, rest) = text[1..].split_once(quote)?;
        if name.is_empty() || name.contains(['\\', '\n', '\r']) {
            return None;
        }
        return Some((Segment::Field(name.to_owned()), rest.strip_prefix(']')?));
    }
    let (digits, rest) = text.split_once(']')?;
    // A leading zero means something else in CEL.
    let plain = digits == "0" || !digits.starts_with('0');
    if !plain || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Segment::Index(digits.parse().ok()?), rest))
}
