//! Typed access to the fields of a map, noting every problem on the way.
//!
//! A field that is missing or of the wrong type is noted and read as `None`, so that the walk goes
//! on and the caller only says what it wants.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::duration::{format_duration, parse_duration};
use super::problem::{Findings, Position, Rule, did_you_mean, shortened};
use super::yaml::{Content, Entry, Yaml};
use crate::numeral;

/// A map with known fields.
pub(super) struct Fields<'y> {
    /// Where the map begins.
    pub at: Position,
    /// What the map is, as in "a step".
    what: &'static str,
    entries: &'y [Entry],
}

impl<'y> Fields<'y> {
    /// The fields of a map; `None` if it is no map. Fields that are not `known` are noted.
    pub fn of(
        yaml: &'y Yaml,
        what: &'static str,
        known: &[&'static str],
        findings: &mut Findings<'_>,
    ) -> Option<Self> {
        let Content::Map(entries) = &yaml.content else {
            findings.add(
                yaml.at,
                Rule::WrongType,
                format!(
                    "{what} is a map with fields ({}), not {}",
                    known.join(", "),
                    yaml.kind()
                ),
            );
            return None;
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let name = shortened(&entry.key, 60);
                let hint = did_you_mean(&entry.key, known.iter().copied());
                findings.add(
                    entry.at,
                    Rule::UnknownField,
                    format!("{what} has no field `{name}`{hint}"),
                );
            }
        }
        Some(Self {
            at: yaml.at,
            what,
            entries,
        })
    }

    /// A field; of a repeated one the first.
    pub fn get(&self, name: &str) -> Option<&'y Yaml> {
        self.entry(name).map(|entry| &entry.value)
    }

    /// A field with its name's place.
    pub fn entry(&self, name: &str) -> Option<&'y Entry> {
        self.entries.iter().find(|entry| entry.key == name)
    }

    /// A field that must be there.
    pub fn require(
        &self,
        name: &str,
        example: &str,
        findings: &mut Findings<'_>,
    ) -> Option<&'y Yaml> {
        let found = self.get(name);
        if found.is_none() {
            findings.add(
                self.at,
                Rule::MissingField,
                format!("{} needs the field `{name}`, as in `{example}`", self.what),
            );
        }
        found
    }

    /// A text.
    pub fn text(&self, name: &str, findings: &mut Findings<'_>) -> Option<&'y str> {
        let yaml = self.get(name)?;
        let text = yaml.text();
        if text.is_none() {
            wrong_type(yaml, name, "text", findings);
        }
        text
    }

    /// One of some words; each with what it stands for.
    pub fn choice<T: Copy>(
        &self,
        name: &str,
        words: &[(&str, T)],
        findings: &mut Findings<'_>,
    ) -> Option<T> {
        let yaml = self.get(name)?;
        let expected = words
            .iter()
            .map(|(word, _)| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(" or ");
        let Some(text) = yaml.text() else {
            wrong_type(yaml, name, &expected, findings);
            return None;
        };
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let hint = did_you_mean(text, words.iter().map(|(word, _)| *word));
            let shown = shortened(text, 40);
            let message = format!("`{name}` must be {expected}, not `{shown}`{hint}");
            findings.add(yaml.at, Rule::OutOfRange, message);
        }
        found.map(|(_, value)| *value)
    }

    /// The fields that are there, with their values' places.
    pub fn places(&self) -> impl Iterator<Item = (&'y str, Position)> {
        self.entries
            .iter()
            .map(|entry| (entry.key.as_str(), entry.value.at))
    }

    /// A boolean.
    pub fn flag(&self, name: &str, findings: &mut Findings<'_>) -> Option<bool> {
        let yaml = self.get(name)?;
        if let Content::Bool(value) = yaml.content {
            return Some(value);
        }
        wrong_type(yaml, name, "`true` or `false`", findings);
        None
    }

    /// A whole number within a range.
    pub fn whole(
        &self,
        name: &str,
        range: RangeInclusive<u32>,
        findings: &mut Findings<'_>,
    ) -> Option<u32> {
        let yaml = self.get(name)?;
        let Content::Number(number) = &yaml.content else {
            wrong_type(yaml, name, "a whole number", findings);
            return None;
        };
        let value = numeral::whole_u64(number).and_then(|value| u32::try_from(value).ok());
        if let Some(value) = value.filter(|value| range.contains(value)) {
            return Some(value);
        }
        let (least, most) = range.into_inner();
        findings.add(
            yaml.at,
            Rule::OutOfRange,
            format!("`{name}` is a whole number from {least} to {most}, not {number}"),
        );
        None
    }

    /// A number within a range.
    pub fn number(
        &self,
        name: &str,
        range: RangeInclusive<f64>,
        findings: &mut Findings<'_>,
    ) -> Option<f64> {
        let yaml = self.get(name)?;
        let Content::Number(number) = &yaml.content else {
            wrong_type(yaml, name, "a number", findings);
            return None;
        };
        if let Some(value) = number.as_f64().filter(|value| range.contains(value)) {
            return Some(value);
        }
        let (least, most) = range.into_inner();
        findings.add(
            yaml.at,
            Rule::OutOfRange,
            format!("`{name}` is a number from {least} to {most}, not {number}"),
        );
        None
    }

    /// A duration within a range.
    pub fn duration(
        &self,
        name: &str,
        (least, most): (Duration, Duration),
        findings: &mut Findings<'_>,
    ) -> Option<Duration> {
        read_duration(self.get(name)?, name, (least, most), findings)
    }
}

/// A duration within a range.
pub(super) fn read_duration(
    yaml: &Yaml,
    name: &str,
    (least, most): (Duration, Duration),
    findings: &mut Findings<'_>,
) -> Option<Duration> {
    let Some(text) = yaml.text() else {
        wrong_type(yaml, name, "a duration such as `5s` or `200ms`", findings);
        return None;
    };
    match parse_duration(text) {
        Err(why) => findings.add(yaml.at, Rule::BadDuration, format!("`{name}`: {why}")),
        Ok(duration) if (least..=most).contains(&duration) => return Some(duration),
        Ok(_) => findings.add(
            yaml.at,
            Rule::OutOfRange,
            format!(
                "`{name}` is a duration from {} to {}, not {text}",
                format_duration(least),
                format_duration(most)
            ),
        ),
    }
    None
}

/// Notes that a field is not what it should be.
pub(super) fn wrong_type(yaml: &Yaml, name: &str, expected: &str, findings: &mut Findings<'_>) {
    findings.add(
        yaml.at,
        Rule::WrongType,
        format!("`{name}` must be {expected}, not {}", yaml.kind()),
    );
}
