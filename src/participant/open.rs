//! An aggregate in memory, with what a batch does to it, until that is written.

use std::any::Any;

use bytes::Bytes;
use serde_json::Value;

use super::aggregate::{Aggregate, SNAPSHOT_EVERY};
use super::command::Command;
use super::follow_up::{Asked, FollowUp};
use super::refusal::{CommandRefusal, Rejection};
use crate::id::Timestamp;
use crate::limits::BODY;
use crate::store::StoreError;
use crate::store::participant::{
    AggregateEvent, AggregateKey, AggregateRow, AggregateSnapshot, Origin, Write,
};

/// An aggregate in memory: its state with the batch's changes, and the events not yet written.
pub struct Open<A: Aggregate> {
    pub(super) state: A::State,
    /// The newest stored event; `None` if there is no row.
    stored_revision: Option<u64>,
    events: Vec<Recorded>,
    /// Where what is recorded now comes from.
    origin: Origin,
}

/// An event that is not yet written.
struct Recorded {
    body: Bytes,
    valid_from: Option<Timestamp>,
    follow_up: Option<FollowUp>,
    origin: Origin,
}

impl<A: Aggregate> Open<A> {
    pub(super) fn new(row: Option<&AggregateRow>) -> Result<Self, StoreError> {
        let state = match row {
            None => A::State::default(),
            Some(row) => serde_json::from_slice(&row.state)
                .map_err(|error| corrupt(format!("{} `{}`", row.key.kind, row.key.id), &error))?,
        };
        Ok(Self {
            state,
            stored_revision: row.map(|row| row.revision),
            events: Vec::new(),
            origin: Origin::default(),
        })
    }

    pub(super) fn set_origin(&mut self, origin: &Origin) {
        self.origin.clone_from(origin);
    }

    /// The state now.
    pub fn state(&self) -> &A::State {
        &self.state
    }

    /// Number of the newest event, stored or not.
    pub fn revision(&self) -> u64 {
        self.stored_revision.unwrap_or(0) + self.events.len() as u64
    }

    /// Records events: all of them, or none if one can't be written down.
    pub fn record(&mut self, events: &[A::Event]) -> Result<(), CommandRefusal> {
        let recorded = |event: &A::Event| {
            Ok(Recorded {
                body: serde_json::to_vec(event)?.into(),
                valid_from: A::valid_from(event),
                follow_up: A::follow_up(event),
                origin: self.origin.clone(),
            })
        };
        let encoded: Result<Vec<Recorded>, serde_json::Error> =
            events.iter().map(recorded).collect();
        let encoded = encoded.map_err(|error| {
            CommandRefusal::Failed(format!("an event of {} can't be written: {error}", A::KIND))
        })?;
        self.events.extend(encoded);
        for event in events {
            A::apply(&mut self.state, event);
        }
        Ok(())
    }

    /// Lets the aggregate handle a command.
    pub fn execute(&mut self, command: &Command, now: Timestamp) -> Result<Value, CommandRefusal> {
        let (events, reply) = A::handle(&self.state, command, now)?;
        // What can't be answered is not done.
        BODY.check_value(&reply)
            .map_err(|excess| Rejection::new(format!("the reply would be too large: {excess}")))?;
        self.record(&events)?;
        Ok(reply)
    }
}

impl<A: Aggregate> OpenAggregate for Open<A> {
    fn close(
        self: Box<Self>,
        key: AggregateKey,
        at: Timestamp,
        closed: &mut Closed,
    ) -> Result<(), StoreError> {
        if self.events.is_empty() {
            return Ok(());
        }
        let state = serde_json::to_vec(&self.state)
            .map_err(|error| corrupt(format!("{} `{}`", key.kind, key.id), &error))?;
        let row = AggregateRow {
            key: key.clone(),
            revision: self.revision(),
            state: state.into(),
        };
        let stored = self.stored_revision.unwrap_or(0);
        if row.revision / SNAPSHOT_EVERY > stored / SNAPSHOT_EVERY {
            closed.snapshots.push(AggregateSnapshot {
                key: key.clone(),
                revision: row.revision,
                at,
                state: row.state.clone(),
            });
        }
        for (seq, recorded) in (stored + 1..).zip(self.events) {
            if let Some(follow_up) = recorded.follow_up {
                closed.follow_ups.push(Asked {
                    key: key.clone(),
                    seq,
                    correlation: recorded.origin.correlation.clone(),
                    follow_up,
                });
            }
            closed.events.push(AggregateEvent {
                key: key.clone(),
                seq,
                at,
                valid_from: recorded.valid_from,
                origin: recorded.origin,
                body: recorded.body,
            });
        }
        closed.aggregates.push(match self.stored_revision {
            None => Write::Insert(row),
            Some(_) => Write::Update(row),
        });
        Ok(())
    }
}

/// What a unit of work comes to.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    /// One row for each aggregate that changed.
    pub(crate) aggregates: Vec<Write<AggregateRow>>,
    pub(crate) events: Vec<AggregateEvent>,
    pub(crate) snapshots: Vec<AggregateSnapshot>,
    pub(crate) follow_ups: Vec<Asked>,
}

/// An aggregate in memory, whatever its type.
pub(super) trait OpenAggregate: Any + Send {
    /// Adds what is to be written, if anything changed.
    fn close(
        self: Box<Self>,
        key: AggregateKey,
        at: Timestamp,
        closed: &mut Closed,
    ) -> Result<(), StoreError>;
}

/// What is stored of an aggregate is not what was written.
pub(super) fn corrupt(what: String, error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt {
        what,
        why: error.to_string(),
    }
}
