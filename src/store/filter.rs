//! Which sagas: one type and one text for lists, groups and whatever is done to many.
//!
//! The text is a query string, `status=suspended&name=place-order&label=customer%3Dalice`: the names
//! are those of the command line's flags, and a filter that is stored is stored as this text. Times may
//! be given as a duration, which means that long ago; they are kept as points in time, so a stored
//! filter means the same tomorrow.
//!
//! Deliberately absent: how a database finds them (`search`), and in which order.

mod label;

use std::fmt;
use std::str::FromStr;

use super::labels::SagaCause;
use super::{SagaHead, Status};
use crate::definition::{Label, parse_duration};
use crate::id::{Phase, SagaId, StepPath, Timestamp};
use crate::saga::StepPhase;

pub use label::{LabelCondition, Relation};

/// Most values that one parameter takes.
pub const FILTER_VALUES_MAX: usize = 1_000;
/// Most conditions on labels.
pub const LABEL_CONDITIONS_MAX: usize = 8;
/// Longest value of a parameter, in bytes.
pub const FILTER_TEXT_BYTES_MAX: usize = 1_000;

/// Which sagas. Everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Of this definition.
    pub name: Option<String>,
    /// Of one of these versions; any if empty.
    pub versions: Vec<u32>,
    /// With one of these statuses; any if empty.
    pub statuses: Vec<Status>,
    /// With this key, and holding it.
    pub key: Option<String>,
    /// With a key that begins so, and holding it.
    pub key_prefix: Option<String>,
    /// When they started.
    pub started: Span,
    /// When they ended.
    pub ended: Span,
    /// When the newest thing happened to them.
    pub updated: Span,
    /// What they wait for, or failed at.
    pub step: Option<StepPattern>,
    /// The phase of that.
    pub phase: Option<Phase>,
    /// With this text in their reason.
    pub reason: Option<String>,
    /// Of this cause.
    pub cause: Option<String>,
    /// In trouble: something stands in their way, or they did not complete.
    pub in_trouble: bool,
    /// With these labels.
    pub labels: Vec<LabelCondition>,
    /// Run by this saga.
    pub parent: Option<SagaId>,
    /// These; any if empty.
    pub ids: Vec<SagaId>,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

impl Span {
    /// Whether it is all of time.
    pub fn is_open(self) -> bool {
        self.since.is_none() && self.until.is_none()
    }

    fn holds(self, at: Option<Timestamp>) -> bool {
        match at {
            None => self.is_open(),
            Some(at) => {
                self.since.is_none_or(|since| at >= since)
                    && self.until.is_none_or(|until| at < until)
            }
        }
    }
}

/// A step: `stock` for any item's, `stock[2]` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPattern(pub StepPath);

impl StepPattern {
    fn holds(&self, spot: &StepPhase) -> bool {
        let Self(wanted) = self;
        let any_item = wanted.indices.is_empty();
        wanted.name == spot.step.name && (any_item || wanted.indices == spot.step.indices)
    }

    /// What a spot's text begins with.
    pub(super) fn beginnings(&self) -> Vec<String> {
        let Self(wanted) = self;
        let mut all = vec![format!("{wanted}/")];
        if wanted.indices.is_empty() {
            all.push(format!("{wanted}["));
        }
        all
    }
}

/// A parameter that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` can't be `{value}`: {why}")]
pub struct FilterError {
    name: String,
    value: String,
    why: String,
}

impl Filter {
    /// Names of the parameters.
    pub const NAMES: &[&str] = &[
        "name",
        "version",
        "status",
        "key",
        "key_prefix",
        "started_since",
        "started_until",
        "ended_since",
        "ended_until",
        "updated_since",
        "updated_until",
        "older_than",
        "younger_than",
        "step",
        "phase",
        "reason",
        "cause",
        "in_trouble",
        "label",
        "parent",
        "id",
    ];

    /// Takes a parameter in; `false` if it is none of a filter's. Times that are durations are that long
    /// before `now`.
    pub fn set(&mut self, name: &str, value: &str, now: Timestamp) -> Result<bool, FilterError> {
        let wrong = |why: String| FilterError {
            name: name.to_owned(),
            value: value.chars().take(60).collect(),
            why,
        };
        if value.len() > FILTER_TEXT_BYTES_MAX {
            let why = format!("at most {FILTER_TEXT_BYTES_MAX} bytes");
            return Err(wrong(why));
        }
        self.take(name, value, now).map_err(wrong)
    }

    fn take(&mut self, name: &str, value: &str, now: Timestamp) -> Result<bool, String> {
        let text = || value.to_owned();
        let time = || read_time(value, now);
        let age = || parse_duration(value).map(|age| now.before(age));
        match name {
            "name" => once(&mut self.name, text())?,
            "version" => each(&mut self.versions, value, |text| {
                let version = text.parse().map_err(|_| "a whole number".to_owned());
                version.map(|version| vec![version])
            })?,
            "status" => each(&mut self.statuses, value, read_statuses)?,
            "key" => once(&mut self.key, text())?,
            "key_prefix" => once(&mut self.key_prefix, text())?,
            "started_since" => once(&mut self.started.since, time()?)?,
            "started_until" => once(&mut self.started.until, time()?)?,
            "ended_since" => once(&mut self.ended.since, time()?)?,
            "ended_until" => once(&mut self.ended.until, time()?)?,
            "updated_since" => once(&mut self.updated.since, time()?)?,
            "updated_until" => once(&mut self.updated.until, time()?)?,
            "older_than" => once(&mut self.started.until, age()?)?,
            "younger_than" => once(&mut self.started.since, age()?)?,
            "step" => {
                let path = value.parse().map_err(|error| format!("{error}"))?;
                once(&mut self.step, StepPattern(path))?;
            }
            "phase" => once(&mut self.phase, value.parse()?)?,
            "reason" => once(&mut self.reason, text())?,
            "cause" => once(&mut self.cause, text())?,
            "in_trouble" => match value {
                "true" => self.in_trouble = true,
                "false" => self.in_trouble = false,
                _ => return Err("true or false".to_owned()),
            },
            "label" => {
                if self.labels.len() >= LABEL_CONDITIONS_MAX {
                    return Err(format!(
                        "at most {LABEL_CONDITIONS_MAX} conditions on labels"
                    ));
                }
                self.labels.push(value.parse()?);
            }
            "parent" => once(&mut self.parent, read_id(value)?)?,
            "id" => each(&mut self.ids, value, |text| Ok(vec![read_id(text)?]))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The parameters that make this filter.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        let mut add = |name, value: Option<String>| all.extend(value.map(|value| (name, value)));
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
        add("name", self.name.clone());
        add("version", joined(&self.versions));
        add("status", joined(&self.statuses));
        add("key", self.key.clone());
        add("key_prefix", self.key_prefix.clone());
        add("started_since", time(self.started.since));
        add("started_until", time(self.started.until));
        add("ended_since", time(self.ended.since));
        add("ended_until", time(self.ended.until));
        add("updated_since", time(self.updated.since));
        add("updated_until", time(self.updated.until));
        add("step", self.step.as_ref().map(|step| step.0.to_string()));
        add("phase", self.phase.map(|phase| phase.to_string()));
        add("reason", self.reason.clone());
        add("cause", self.cause.clone());
        add("in_trouble", self.in_trouble.then(|| "true".to_owned()));
        for label in &self.labels {
            add("label", Some(label.to_string()));
        }
        add("parent", self.parent.map(|parent| parent.to_string()));
        add("id", joined(&self.ids));
        all
    }

    /// The filter as a text, which [`read`](Self::read) takes back.
    pub fn text(&self) -> String {
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(self.parameters());
        text.finish()
    }

    /// Reads a filter's text.
    pub fn read(text: &str, now: Timestamp) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if !filter.set(&name, &value, now)? {
                return Err(FilterError::unknown(&name, &value));
            }
        }
        Ok(filter)
    }

    /// Whether it is about all sagas.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a saga with these labels is one of them.
    pub fn holds(&self, head: &SagaHead, labels: &[Label]) -> bool {
        let among = |spots: [Option<&StepPhase>; 2]| {
            let mut spots = spots.into_iter().flatten();
            spots.any(|spot| {
                self.step.as_ref().is_none_or(|step| step.holds(spot))
                    && self.phase.is_none_or(|phase| phase == spot.phase)
            })
        };
        let cause = head.cause.as_ref();
        let spots = [
            head.awaits.as_ref(),
            cause.and_then(|cause| cause.spot.as_ref()),
        ];
        let asks_spot = self.step.is_some() || self.phase.is_some();
        let key = |wanted: &Option<String>, fits: fn(&str, &str) -> bool| {
            let wanted = wanted.as_ref();
            wanted.is_none_or(|wanted| fits(&head.key, wanted) && !head.superseded)
        };
        self.name.as_ref().is_none_or(|name| *name == head.name)
            && is_among(&self.versions, &head.version)
            && is_among(&self.statuses, &head.status)
            && is_among(&self.ids, &head.id)
            && key(&self.key, |key, wanted| key == wanted)
            && key(&self.key_prefix, |key, prefix| key.starts_with(prefix))
            && self.started.holds(Some(head.started_at))
            && self.ended.holds(head.ended_at)
            && self.updated.holds(Some(head.updated_at))
            && (!asks_spot || among(spots))
            && self.holds_reason(head.reason.as_deref(), cause)
            && self.parent.is_none_or(|parent| head.parent == Some(parent))
            && self.labels.iter().all(|wanted| wanted.holds(labels))
    }

    fn holds_reason(&self, reason: Option<&str>, cause: Option<&SagaCause>) -> bool {
        let within = |text: &String| {
            let of_cause = cause.map(|cause| cause.reason.as_str());
            let mut reasons = reason.into_iter().chain(of_cause);
            reasons.any(|reason| reason.contains(text))
        };
        self.reason.as_ref().is_none_or(within)
            && (!self.in_trouble || cause.is_some())
            && self
                .cause
                .as_ref()
                .is_none_or(|id| cause.is_some_and(|cause| cause.id == *id))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(self.parameters());
        f.write_str(&text.finish())
    }
}

impl FilterError {
    /// A parameter that nobody knows.
    pub fn unknown(name: &str, value: &str) -> Self {
        Self {
            name: name.chars().take(60).collect(),
            value: value.chars().take(60).collect(),
            why: format!(
                "there is no such parameter; there are {}",
                Filter::NAMES.join(", ")
            ),
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    if place.replace(value).is_some() {
        return Err("it is given twice".to_owned());
    }
    Ok(())
}

/// Several values, with commas between them.
fn each<T: PartialEq>(
    place: &mut Vec<T>,
    text: &str,
    read: impl Fn(&str) -> Result<Vec<T>, String>,
) -> Result<(), String> {
    for part in text.split(',') {
        for value in read(part)? {
            if !place.contains(&value) {
                place.push(value);
            }
        }
    }
    if place.len() > FILTER_VALUES_MAX {
        return Err(format!("at most {FILTER_VALUES_MAX} values"));
    }
    Ok(())
}

fn joined<T: fmt::Display>(values: &[T]) -> Option<String> {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn is_among<T: PartialEq>(wanted: &[T], value: &T) -> bool {
    wanted.is_empty() || wanted.contains(value)
}

fn read_statuses(text: &str) -> Result<Vec<Status>, String> {
    let all = Status::ALL.into_iter();
    match text {
        "live" => Ok(all.filter(|status| !status.is_ended()).collect()),
        "ended" => Ok(all.filter(|status| status.is_ended()).collect()),
        _ => match Status::from_str(text) {
            Ok(status) => Ok(vec![status]),
            Err(_) => {
                let known: Vec<&str> = all.map(Status::as_str).collect();
                Err(format!("{}, live or ended", known.join(", ")))
            }
        },
    }
}

fn read_time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(now.before(ago));
    }
    text.parse().map_err(|_| {
        "a time, as in 2026-01-31T12:00:00Z, or a duration that it is ago, as in 15m".to_owned()
    })
}

fn read_id(text: &str) -> Result<SagaId, String> {
    text.parse().map_err(|_| "a saga's id is a UUID".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    #[test]
    fn a_filter_is_its_text() {
        for text in [
            "",
            "name=place-order&version=1%2C2&status=running%2Csuspended",
            "key=A%2F1%26x&parent=018bcfe5-0000-0000-0000-000000000001",
            "key_prefix=A-&started_since=2026-01-01T00%3A00%3A00Z",
            "step=stock%5B2%5D&phase=confirm&reason=no+route&cause=00ff",
            "in_trouble=true&label=customer%3Dalice&label=amount%3E%3D100",
        ] {
            let filter = Filter::read(text, NOW).unwrap();
            assert_eq!(filter.to_string(), text);
        }
    }

    #[test]
    fn ages_become_times_and_words_for_several_statuses_those() {
        let filter = Filter::read("older_than=10m&status=live", NOW).unwrap();
        let ten_minutes = std::time::Duration::from_mins(10);
        assert_eq!(filter.started.until, Some(NOW.before(ten_minutes)));
        assert_eq!(filter.statuses.len(), 4);
        assert!(filter.statuses.iter().all(|status| !status.is_ended()));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (text, words) in [
            ("status=stuck", "running, confirming"),
            ("nam=x", "no such parameter"),
            ("name=a&name=b", "given twice"),
            ("version=x", "whole number"),
            ("started_since=noon", "2026-01-31T12:00:00Z"),
            ("older_than=x", "duration"),
            ("step=[", "step path"),
            ("phase=x", "reserve"),
            ("label=customer", "customer=alice"),
            ("label==x", "customer=alice"),
            ("id=7", "UUID"),
            ("in_trouble=yes", "true or false"),
        ] {
            let error = Filter::read(text, NOW).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let long = format!("reason={}", "x".repeat(FILTER_TEXT_BYTES_MAX + 1));
        assert!(Filter::read(&long, NOW).is_err());
    }
}
