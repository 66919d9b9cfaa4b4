//! An event as a projection sees it: what happened, to what, when, and why.

use std::cell::{Cell, OnceCell};

use serde_json::Value;

use crate::id::{SagaId, Timestamp};
use crate::participant::Aggregate;
use crate::store::feed::{PlacedEvent, Position};

/// A recorded event.
pub struct Recorded<'a> {
    placed: &'a PlacedEvent,
    body: OnceCell<Value>,
    /// Why it could not be read as what was asked for.
    unreadable: Cell<Option<String>>,
}

impl<'a> Recorded<'a> {
    /// As it was read.
    pub fn new(placed: &'a PlacedEvent) -> Self {
        Self {
            placed,
            body: OnceCell::new(),
            unreadable: Cell::new(None),
        }
    }

    /// The kind of aggregate it happened to.
    pub fn kind(&self) -> &'a str {
        &self.placed.event.key.kind
    }

    /// Which of that kind.
    pub fn id(&self) -> &'a str {
        &self.placed.event.key.id
    }

    /// Its number among the aggregate's events, from 1.
    pub fn seq(&self) -> u64 {
        self.placed.event.seq
    }

    /// When it was recorded.
    pub fn at(&self) -> Timestamp {
        self.placed.event.at
    }

    /// Since when it is true: when it was recorded, unless it says otherwise.
    pub fn valid_from(&self) -> Timestamp {
        self.placed.event.valid_from.unwrap_or(self.at())
    }

    /// What it belongs to.
    pub fn correlation(&self) -> Option<&'a str> {
        self.placed.event.origin.correlation.as_deref()
    }

    /// The saga that led to it.
    pub fn saga(&self) -> Option<SagaId> {
        self.placed.event.origin.saga
    }

    /// Where it stands among all events.
    pub fn position(&self) -> Position {
        self.placed.position
    }

    /// Its body; null if that can't be read.
    pub fn body(&self) -> &Value {
        self.body.get_or_init(|| {
            serde_json::from_slice(&self.placed.event.body).unwrap_or_else(|error| {
                self.unreadable.set(Some(error.to_string()));
                Value::Null
            })
        })
    }

    /// A text field of its body.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.body().get(field).and_then(Value::as_str)
    }

    /// The aggregate's own event, if it happened to one of this kind. One that can't be read (a newer
    /// release has written it) stops the projection, so that no document is wrong.
    pub fn of<A: Aggregate>(&self) -> Option<A::Event> {
        if self.kind() != A::KIND {
            return None;
        }
        match serde_json::from_slice(&self.placed.event.body) {
            Ok(event) => Some(event),
            Err(error) => {
                self.unreadable.set(Some(error.to_string()));
                None
            }
        }
    }

    pub(super) fn unreadable(&self) -> Option<String> {
        self.unreadable.take()
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        format!("event {} of {} `{}`", self.seq(), self.kind(), self.id())
    }
}
