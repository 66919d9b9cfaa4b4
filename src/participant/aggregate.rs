//! Aggregates: domain logic without I/O, clock or randomness.
//!
//! An aggregate answers a command with events or a rejection; its state is what the events fold
//! to. All commands of a batch to one aggregate fold in memory and are written as one row change,
//! so a hot aggregate costs a commit a batch, not a conflict a command. The events are kept; the
//! row is a snapshot, and [`replay`] must come to the same state.

use std::marker::PhantomData;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::command::Command;
use super::follow_up::{Asked, FollowUp};
use super::handler::{
    Closed, CommandHandler, CommandRefusal, CommandSpec, OpenAggregate, Rejection, UnitOfWork,
};
use crate::id::Timestamp;
use crate::limits::BODY;
use crate::store::StoreError;
use crate::store::participant::{
    AggregateEvent, AggregateKey, AggregateRow, AggregateSnapshot, Origin, ParticipantStore, Write,
};

/// Longest id of an aggregate, in bytes.
pub const AGGREGATE_ID_BYTES_MAX: usize = 255;

/// Events after which a state is kept beside the newest one, so that an old one is near.
pub const SNAPSHOT_EVERY: u64 = 256;

/// Rows read at once by [`states`] and [`rebuild`].
const PAGE_ROWS: usize = 500;

/// A unit of consistency: one article's stock, one customer's account.
pub trait Aggregate: Send + Sync + 'static {
    /// What the events fold to. Bounded: what is settled leaves it.
    type State: Serialize + DeserializeOwned + Default + Send;
    /// What can happen.
    type Event: Serialize + DeserializeOwned + Send;

    /// The kind, as the store names it.
    const KIND: &'static str;
    /// The commands it handles.
    const COMMANDS: &'static [CommandSpec];

    /// Which aggregate a command is for.
    fn id_of(command: &Command) -> Result<String, Rejection>;

    /// What a command does: the events, and the reply's body.
    fn handle(
        state: &Self::State,
        command: &Command,
        now: Timestamp,
    ) -> Result<(Vec<Self::Event>, Value), Rejection>;

    /// Folds an event. Total: an event that was recorded has happened.
    fn apply(state: &mut Self::State, event: &Self::Event);

    /// Since when an event is true, if that is not when it is recorded: then replay as of a time
    /// takes it from then on.
    fn valid_from(event: &Self::Event) -> Option<Timestamp> {
        let _ = event;
        None
    }

    /// The command that the aggregate gives itself because of an event. Asked once, when the event
    /// is recorded; never in replay.
    fn follow_up(event: &Self::Event) -> Option<FollowUp> {
        let _ = event;
        None
    }
}

/// What events fold to.
pub fn replay<'a, A: Aggregate>(events: impl IntoIterator<Item = &'a A::Event>) -> A::State {
    let mut state = A::State::default();
    for event in events {
        A::apply(&mut state, event);
    }
    state
}

/// The key of an aggregate, if the id can be one.
pub fn key_of<A: Aggregate>(id: String) -> Result<AggregateKey, Rejection> {
    if id.is_empty() || id.len() > AGGREGATE_ID_BYTES_MAX || id.chars().any(char::is_control) {
        return Err(Rejection::new(format!(
            "the id of {} must have 1 to {AGGREGATE_ID_BYTES_MAX} bytes without control characters",
            A::KIND
        )));
    }
    Ok(AggregateKey {
        kind: A::KIND.to_owned(),
        id,
    })
}

/// The snapshots of all aggregates of a kind, in id order.
pub async fn states<A: Aggregate>(
    store: &dyn ParticipantStore,
) -> Result<Vec<(String, A::State)>, StoreError> {
    let mut states = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store
            .aggregates(A::KIND, after.as_deref(), PAGE_ROWS)
            .await?;
        let last_page = page.len() < PAGE_ROWS;
        for row in page {
            let state = Open::<A>::new(Some(&row))?.state;
            after = Some(row.key.id.clone());
            states.push((row.key.id, state));
        }
        if last_page {
            return Ok(states);
        }
    }
}

/// The state of one aggregate, from its events alone, to be compared with its snapshot.
pub async fn rebuild<A: Aggregate>(
    store: &dyn ParticipantStore,
    key: &AggregateKey,
) -> Result<A::State, StoreError> {
    let mut state = A::State::default();
    let mut after = 0;
    loop {
        let page = store.aggregate_events(key, after, PAGE_ROWS).await?;
        for row in &page {
            let event = serde_json::from_slice(&row.body).map_err(|error| {
                corrupt(
                    format!("event {} of {} `{}`", row.seq, key.kind, key.id),
                    &error,
                )
            })?;
            A::apply(&mut state, &event);
            after = row.seq;
        }
        if page.len() < PAGE_ROWS {
            return Ok(state);
        }
    }
}

/// An aggregate in memory: its state with the batch's changes, and the events not yet written.
pub struct Open<A: Aggregate> {
    state: A::State,
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

/// Makes an aggregate a handler.
pub struct AggregateHandler<A>(PhantomData<fn() -> A>);

impl<A> Default for AggregateHandler<A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

#[async_trait]
impl<A: Aggregate> CommandHandler for AggregateHandler<A> {
    fn commands(&self) -> &'static [CommandSpec] {
        A::COMMANDS
    }

    fn aggregate_of(&self, command: &Command) -> Result<Option<AggregateKey>, Rejection> {
        key_of::<A>(A::id_of(command)?).map(Some)
    }

    async fn handle(
        &self,
        command: &Command,
        unit: &mut UnitOfWork,
    ) -> Result<Value, CommandRefusal> {
        let key = key_of::<A>(A::id_of(command)?)?;
        let now = unit.now();
        unit.aggregate::<A>(&key)?.execute(command, now)
    }
}

fn corrupt(what: String, error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt {
        what,
        why: error.to_string(),
    }
}
