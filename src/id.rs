//! The identities that travel through every layer: sagas, steps, phases, points in time.
//!
//! They are separate types so that a key can't be passed where an id is meant, and they are
//! derived, not drawn, wherever two nodes must come to the same value: a command's
//! [`MessageId`] is a hash of what it is for, the same on every retry.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid, Variant, Version};

/// Most enclosing `for_each` blocks a step may have; bounds the length of a [`StepPath`].
pub const STEP_INDICES_MAX: usize = 4;

/// Longest name of a saga or step, in bytes.
pub const NAME_BYTES_MAX: usize = 80;

/// One saga, running or ended: a UUIDv7, so ids sort by the time the saga started. A sub-saga's
/// is derived, and sorts with its parent's: see [`SagaId::of_child`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SagaId(pub Uuid);

impl SagaId {
    /// The id of the saga that a block of this one runs: the same whenever and wherever it is
    /// asked for. It has the form and the time of this one's (so that lists show a saga next to
    /// its sub-sagas, and new rows go to the end of every index), and a hash where others have
    /// random bits.
    #[must_use]
    pub fn of_child(self, step: &StepPath) -> Self {
        let hash = Uuid::new_v5(&self.0, format!("child/{step}").as_bytes());
        let mut bytes = *hash.as_bytes();
        bytes[..6].copy_from_slice(&self.0.as_bytes()[..6]);
        let id = Builder::from_bytes(bytes).with_version(Version::SortRand);
        Self(id.with_variant(Variant::RFC4122).into_uuid())
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for SagaId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// The outbox row of a command whose answer is waited for, so that it can be asked whether it was sent:
/// a UUIDv7 made of the time at which the answer is due, with a hash in place of random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxId(pub Uuid);

impl OutboxId {
    /// Another one for each time that the command is sent: `sending` is its phase, its attempt, and how
    /// often this attempt came back.
    pub fn of_command(
        saga: SagaId,
        step: &StepPath,
        (phase, attempt, returns): (Phase, u32, u32),
        due: Timestamp,
    ) -> Self {
        let name = format!(
            "outbox/{step}/{phase}/{attempt}/{returns}/{}",
            due.as_micros()
        );
        let hash = Uuid::new_v5(&saga.0, name.as_bytes());
        let mut random = [0; 10];
        random.copy_from_slice(&hash.as_bytes()[6..]);
        let millis = u64::try_from(due.as_micros() / 1_000).unwrap_or(0);
        Self(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

/// What a receiver dedupes by. Commands carry a derived one: see [`MessageId::of_command`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(pub Uuid);

impl MessageId {
    /// `UUIDv5(saga, "<step path>/<phase>")`: every attempt of one command has the same id.
    pub fn of_command(saga: SagaId, step: &StepPath, phase: Phase) -> Self {
        Self(Uuid::new_v5(&saga.0, format!("{step}/{phase}").as_bytes()))
    }

    /// `UUIDv5(saga, name)`: for events and answers to starters, which happen once a saga.
    pub fn of_notice(saga: SagaId, name: &str) -> Self {
        Self(Uuid::new_v5(&saga.0, name.as_bytes()))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// Where a step stands in its definition: its name, and one index for each `for_each` around it.
///
/// Written `stock` or `stock[2]` or `stock[2,0]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepPath {
    /// The step's name, unique in its definition.
    pub name: String,
    /// Positions in the enclosing `for_each` lists, outermost first.
    pub indices: Vec<u32>,
}

impl StepPath {
    /// A step outside any `for_each`.
    pub fn plain(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            indices: Vec::new(),
        }
    }

    /// A step inside `for_each` blocks at these positions.
    pub fn at(name: impl Into<String>, indices: &[u32]) -> Self {
        Self {
            name: name.into(),
            indices: indices.to_vec(),
        }
    }
}

impl fmt::Display for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (position, index) in self.indices.iter().enumerate() {
            write!(f, "{}{index}", if position == 0 { '[' } else { ',' })?;
        }
        if self.indices.is_empty() {
            Ok(())
        } else {
            f.write_str("]")
        }
    }
}

/// The text is not a step path such as `stock[2]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a step path: a name, then for each enclosing for_each an index, as in `stock[2]`"
)]
pub struct NotAStepPath(pub String);

impl FromStr for StepPath {
    type Err = NotAStepPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || NotAStepPath(text.chars().take(NAME_BYTES_MAX).collect());
        let (name, indices) = match text.split_once('[') {
            None => (text, Vec::new()),
            Some((name, rest)) => {
                let list = rest.strip_suffix(']').ok_or_else(bad)?;
                let indices: Result<Vec<u32>, _> = list.split(',').map(str::parse).collect();
                (name, indices.map_err(|_| bad())?)
            }
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX || indices.len() > STEP_INDICES_MAX {
            return Err(bad());
        }
        Ok(Self {
            name: name.to_owned(),
            indices,
        })
    }
}

impl Serialize for StepPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StepPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Which of a step's commands is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Hold something so that it can still be given back.
    Reserve,
    /// Make what was reserved final; or, for a confirm-only step, act after the pivot.
    Confirm,
    /// Give back what was, or may have been, reserved or done.
    Compensate,
    /// Do something at once that `compensate` can undo.
    Action,
}

impl Phase {
    /// The name used on the wire, in definitions and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Confirm => "confirm",
            Self::Compensate => "compensate",
            Self::Action => "action",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "reserve" => Ok(Self::Reserve),
            "confirm" => Ok(Self::Confirm),
            "compensate" => Ok(Self::Compensate),
            "action" => Ok(Self::Action),
            other => Err(format!(
                "`{other}` is not a phase: reserve, confirm, compensate or action"
            )),
        }
    }
}

/// A point in time: microseconds since 1970-01-01T00:00:00Z, as PostgreSQL keeps them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This much later; a duration beyond the representable stays at the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// This much earlier, saturating.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later (clocks of nodes differ).
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>()
            .map(|timestamp| Self(timestamp.as_microsecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_paths_round_trip_and_reject_what_they_are_not() {
        for text in ["stock", "stock[2]", "stock[2,0]"] {
            assert_eq!(text.parse::<StepPath>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "[1]",
            "stock[",
            "stock[x]",
            "stock[1",
            "s[1,2,3,4,5]",
            "stock[99999999999]",
        ] {
            assert!(text.parse::<StepPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_message_id_depends_on_saga_step_and_phase_and_on_nothing_else() {
        let saga = SagaId(Uuid::from_u128(7));
        let id = |step: &str, phase| MessageId::of_command(saga, &step.parse().unwrap(), phase);
        assert_eq!(
            id("stock[2]", Phase::Reserve),
            id("stock[2]", Phase::Reserve)
        );
        assert_ne!(
            id("stock[2]", Phase::Reserve),
            id("stock[2]", Phase::Confirm)
        );
        assert_ne!(
            id("stock[2]", Phase::Reserve),
            id("stock[1]", Phase::Reserve)
        );
    }

    #[test]
    fn a_childs_id_is_derived_and_sorts_with_its_parents() {
        let parent =
            SagaId(Builder::from_unix_timestamp_millis(1_700_000_000_000, &[7; 10]).into_uuid());
        let child = |step: &str| parent.of_child(&step.parse().unwrap());
        assert_eq!(child("part[2]"), child("part[2]"));
        assert_ne!(child("part[2]"), child("part[1]"));
        assert_ne!(child("part[2]"), parent);
        assert_eq!(child("part").0.get_version(), Some(Version::SortRand));
        assert_eq!(child("part").0.get_variant(), Variant::RFC4122);
        assert_eq!(child("part").0.get_timestamp(), parent.0.get_timestamp());
        let nested = child("part").of_child(&"part".parse().unwrap());
        assert_ne!(nested, child("part"));
    }

    #[test]
    fn timestamps_print_as_rfc_3339() {
        let at = Timestamp::from_micros(1_700_000_000_250_000);
        assert_eq!(at.to_string(), "2023-11-14T22:13:20.25Z");
        assert_eq!(at.to_string().parse::<Timestamp>().unwrap(), at);
        assert_eq!(at.since(at.after(Duration::from_secs(1))), Duration::ZERO);
    }
}
