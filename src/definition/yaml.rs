//! YAML as a tree in which every value knows where it was written.
//!
//! Separate from the walk that gives it meaning, because that walk must go on after the first
//! problem, which a typed deserializer can't. Everything is bounded before it is built: a file may
//! come from anyone, and aliases can make a small file a huge tree.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{DefaultMessageFormatter, Error, Location, MessageFormatter, Spanned};

use super::bounds::SOURCE_BYTES_MAX;
use super::problem::{Findings, Position, Rule, shortened};

/// Most values in a file.
const VALUES_MAX: usize = 20_000;
/// Deepest nesting of lists and maps: four levels a block, and room for data.
const NESTING_MAX: usize = 96;
/// Most aliases in a file.
const ALIASES_MAX: usize = 200;
/// Most values that aliases may repeat.
const REPEATED_MAX: usize = 5_000;
/// Longest text, key included. With the bound above, aliases can't fill the memory.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Yaml {
    pub at: Position,
    pub content: Content,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<Entry>),
}

/// One field of a map. Maps keep repeated fields; [`report_repeated_fields`] refuses them.
#[derive(Debug)]
pub(super) struct Entry {
    pub at: Position,
    pub key: String,
    pub value: Yaml,
}

/// Reads one document. What is wrong with the syntax ends the reading, so it is the only problem.
pub(super) fn read(source: &str, findings: &mut Findings<'_>) -> Option<Yaml> {
    if source.len() > SOURCE_BYTES_MAX {
        findings.add(
            Position::START,
            Rule::TooLarge,
            format!("the file is larger than {SOURCE_BYTES_MAX} bytes"),
        );
        return None;
    }
    match serde_saphyr::from_str_with_options::<Yaml>(source, options()) {
        Ok(mut yaml) => {
            let lines: Vec<&str> = source.lines().collect();
            spell_numbers(&mut yaml, &lines);
            report_repeated_fields(&yaml, findings);
            Some(yaml)
        }
        Err(error) => {
            let error = error.without_snippet();
            let at = error.location().map_or(Position::START, position);
            let (code, message) = explain(error);
            findings.add(at, code, message);
            None
        }
    }
}

/// What stopped the reading, and what to do.
fn explain(error: &Error) -> (Rule, String) {
    match error {
        Error::Budget {
            breach: BudgetBreach::Documents { .. },
            ..
        } => (
            Rule::Syntax,
            "a file holds one definition; put what follows this `---` into a file of its own"
                .to_owned(),
        ),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            let message = format!(
                "the file is too much: at most {VALUES_MAX} values, nested {NESTING_MAX} deep, {ALIASES_MAX} aliases that repeat {REPEATED_MAX} values"
            );
            (Rule::TooLarge, message)
        }
        other => {
            let what = DefaultMessageFormatter.format_message(other);
            (
                Rule::Syntax,
                format!("not readable: {}", shortened(&what, 200)),
            )
        }
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_nodes: VALUES_MAX,
            max_events: VALUES_MAX * 3,
            max_depth: NESTING_MAX,
            flow_nesting_limit: NESTING_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_recorded_anchor_events: VALUES_MAX * 3,
            max_recorded_anchor_bytes: SOURCE_BYTES_MAX,
            max_merge_keys: ALIASES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPEATED_MAX,
            max_replay_stack_depth: 8,
        },
        // Passed through to be reported along with everything else.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // `no` is a country and `on` will be a field, not booleans.
        strict_booleans: true,
        // `007` is an identifier.
        leading_zero_numbers_as_strings: true,
    }
}

fn position(location: Location) -> Position {
    let place = |number: u64| usize::try_from(number).unwrap_or(1).max(1);
    Position {
        line: place(location.line()),
        column: place(location.column()),
        chars: usize::try_from(location.span().len()).unwrap_or(0),
    }
}

/// The reader gives numbers as doubles; a constant is to be sent as it is written in the file.
fn spell_numbers(yaml: &mut Yaml, lines: &[&str]) {
    match &mut yaml.content {
        Content::Number(number) => {
            let at = yaml.at;
            let line = at.line.checked_sub(1).and_then(|line| lines.get(line));
            let written: Option<String> =
                line.map(|line| line.chars().skip(at.column - 1).take(at.chars).collect());
            if let Some(Ok(exact)) = written.map(|text| text.trim_end().parse()) {
                *number = exact;
            }
        }
        Content::List(items) => {
            for item in items {
                spell_numbers(item, lines);
            }
        }
        Content::Map(entries) => {
            for entry in entries {
                spell_numbers(&mut entry.value, lines);
            }
        }
        Content::Null | Content::Bool(_) | Content::Text(_) => {}
    }
}

/// YAML wants the fields of a map to be different.
fn report_repeated_fields(yaml: &Yaml, findings: &mut Findings<'_>) {
    match &yaml.content {
        Content::Map(entries) => {
            let mut seen = std::collections::BTreeMap::new();
            for entry in entries {
                if let Some(line) = seen.insert(entry.key.as_str(), entry.at.line) {
                    findings.add(
                        entry.at,
                        Rule::DuplicateField,
                        format!("`{}` is already given in line {line}; keep one", entry.key),
                    );
                }
                report_repeated_fields(&entry.value, findings);
            }
        }
        Content::List(items) => {
            for item in items {
                report_repeated_fields(item, findings);
            }
        }
        _ => {}
    }
}

impl Yaml {
    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Null => "nothing",
            Content::Bool(_) => "a boolean",
            Content::Number(_) => "a number",
            Content::Text(_) => "text",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }

    /// The text, if it is text.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same without positions.
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(value) => Value::Number(value.clone()),
            Content::Text(value) => Value::String(value.clone()),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect(),
        }
    }

    /// Where the value at a JSON pointer below this one stands, or the nearest one around it.
    pub fn locate(&self, pointer: &str) -> Position {
        let mut at = self;
        for segment in pointer.split('/').skip(1) {
            let name = segment.replace("~1", "/").replace("~0", "~");
            let inner = match &at.content {
                Content::Map(entries) => entries
                    .iter()
                    .find(|entry| entry.key == name)
                    .map(|entry| &entry.value),
                Content::List(items) => name.parse::<usize>().ok().and_then(|i| items.get(i)),
                _ => None,
            };
            match inner {
                Some(inner) => at = inner,
                None => break,
            }
        }
        at.at
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self {
            // Of an aliased value the definition: that is where the text to change stands.
            at: position(spanned.defined),
            content: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Content, E> {
        Number::from_f64(value)
            .map(Content::Number)
            .ok_or_else(|| E::custom("infinities and NaN have no JSON form"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Content, E> {
        bounded(value).map(|text| Content::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = fields.next_key::<Spanned<String>>()? {
            bounded::<A::Error>(&key.value)?;
            let mut value: Yaml = fields.next_value()?;
            let at = position(key.defined);
            if matches!(value.content, Content::Null) {
                // A missing value has no place of its own.
                value.at = at;
            }
            entries.push(Entry {
                at,
                key: key.value,
                value,
            });
        }
        Ok(Content::Map(entries))
    }
}

fn bounded<E: de::Error>(text: &str) -> Result<&str, E> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(E::custom(format!(
            "a text here is longer than {TEXT_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}
