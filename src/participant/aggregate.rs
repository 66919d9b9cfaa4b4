//! Aggregates: domain logic without I/O, clock or randomness.
//!
//! An aggregate answers a command with events or a rejection; its state is what the events fold
//! to. All commands of a batch to one aggregate fold in memory and are written as one row change,
//! so a hot aggregate costs a commit a batch, not a conflict a command. The events are kept; the
//! row is a snapshot, and [`replay`] must come to the same state.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::command::{Command, CommandSpec};
use super::follow_up::FollowUp;
use super::refusal::Rejection;
use crate::id::Timestamp;
use crate::store::participant::AggregateKey;

/// Longest id of an aggregate, in bytes.
pub const AGGREGATE_ID_BYTES_MAX: usize = 255;

/// Events after which a state is kept beside the newest one, so that an old one is near.
pub const SNAPSHOT_EVERY: u64 = 256;

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
