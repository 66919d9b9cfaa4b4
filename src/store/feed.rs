//! Reading back what happened to aggregates: one order over the events of all of them.
//!
//! Separate from [`super::participant`] because it is for readers: projections, feeds, people. A
//! position is drawn when an event is written, so an event may become visible after one with a
//! later position. [`EventFeed::settled`] says up to where that can't happen any more: whoever
//! remembers how far they have read stops there, and skips nothing.
//!
//! Invariants:
//! * positions of one aggregate's events rise with their numbers: a cause stands before its effect;
//! * what is at or below a settled position never changes, and nothing is added there.
//!
//! Deliberately absent: an order of commits. The database's transaction ids would give one, but not
//! that of an aggregate's events: who waits for a row's lock may have the older id.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::participant::{AggregateEvent, AggregateKey, AggregateRow, AggregateSnapshot};
use crate::id::Timestamp;

/// Bytes of events after which a page ends. A single event may be larger.
pub const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Reads aggregates and their events.
#[async_trait]
pub trait EventFeed: Send + Sync + 'static {
    /// The position up to which all events are visible, for good.
    async fn settled(&self) -> Result<Position, StoreError>;

    /// Events in order of their positions.
    async fn events(&self, query: &EventQuery) -> Result<EventPage, StoreError>;

    /// One aggregate as it is now.
    async fn aggregate(&self, key: &AggregateKey) -> Result<Option<AggregateRow>, StoreError>;

    /// Events of one aggregate in order, those after `after`.
    async fn history(
        &self,
        key: &AggregateKey,
        after: u64,
        limit: usize,
    ) -> Result<EventPage, StoreError>;

    /// The newest snapshot of an aggregate that is not newer than a revision and a time.
    async fn snapshot(
        &self,
        key: &AggregateKey,
        revision_max: u64,
        at_max: Timestamp,
    ) -> Result<Option<AggregateSnapshot>, StoreError>;
}

/// Where an event stands among those of all aggregates. There may be numbers that no event has.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);
    /// After any event there can be.
    pub const END: Self = Self(i64::MAX.unsigned_abs());
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.parse().ok().map(Self);
        number
            .filter(|position| *position <= Self::END)
            .ok_or_else(|| format!("`{text}` is no position: a whole number from 0"))
    }
}

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQuery {
    /// Only those of aggregates of these kinds; of all, if there are none.
    pub kinds: Vec<String>,
    /// Only those with this correlation.
    pub correlation: Option<String>,
    /// Only those after this position.
    pub after: Position,
    /// Only those up to this position, itself included.
    pub upto: Position,
    /// At most this many, and no more once they have [`PAGE_BYTES`] together.
    pub limit: usize,
}

/// Events read at once: what one reader holds in memory, however large they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventPage {
    /// The events.
    pub events: Vec<PlacedEvent>,
    /// Whether there may be others behind the last one.
    pub more: bool,
}

impl EventPage {
    /// From rows of which there are no more than `limit` and one, and none behind that with which they
    /// have [`PAGE_BYTES`].
    pub(in crate::store) fn of(mut events: Vec<PlacedEvent>, limit: usize) -> Self {
        let bytes: usize = events.iter().map(|placed| placed.event.body.len()).sum();
        let more = events.len() > limit || bytes >= PAGE_BYTES;
        events.truncate(limit);
        Self { events, more }
    }

    /// The last event, if there may be others behind it.
    pub fn last_of_more(&self) -> Option<&PlacedEvent> {
        self.events.last().filter(|_| self.more)
    }

    /// How far whoever has read this page has come that was to end at `upto`.
    pub fn read_upto(&self, upto: Position) -> Position {
        self.last_of_more().map_or(upto, |last| last.position)
    }
}

/// An event and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedEvent {
    /// Where it stands.
    pub position: Position,
    /// The event.
    pub event: AggregateEvent,
}
