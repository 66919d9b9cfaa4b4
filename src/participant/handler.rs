//! What a team writes: a handler for commands, and what it may touch while it runs.
//!
//! [`CommandHandler`] is object-safe and asynchronous so that anything can be one; the domain
//! logic that Backstitch ships is pure and comes in through [`Aggregate`], whose
//! adapter is one of these. The barrier has spoken before a handler runs: it sees no duplicates,
//! and no command out of order.
//!
//! What a handler changes through its [`UnitOfWork`] is committed with the barrier row and the
//! reply, or not at all. What it does elsewhere (another database, an HTTP call) happens before
//! that commit and again if the commit fails, so make it idempotent by the command's message id.
//! Deliberately absent: the store's own connection. One failed statement would spoil the
//! transaction of a whole batch; state that must be atomic with the reply is an aggregate.

use std::any::Any;
use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use super::aggregate::{Aggregate, Open};
use super::command::Command;
use super::follow_up::Asked;
use crate::id::Timestamp;
use crate::store::StoreError;
use crate::store::participant::{
    AggregateEvent, AggregateKey, AggregateRow, AggregateSnapshot, Origin, Write,
};

/// Handles commands.
#[async_trait]
pub trait CommandHandler: Send + Sync + 'static {
    /// What it handles.
    fn commands(&self) -> &'static [CommandSpec];

    /// The aggregate that a command works on: loaded and locked before it is handled. `None` if
    /// it works on none; an error is the command's answer.
    fn aggregate_of(&self, command: &Command) -> Result<Option<AggregateKey>, Rejection>;

    /// Does what is asked and returns the reply's body. An error must leave `unit` as it was.
    /// Must not panic: the batch would be given back to the broker and come again.
    async fn handle(
        &self,
        command: &Command,
        unit: &mut UnitOfWork,
    ) -> Result<Value, CommandRefusal>;
}

/// A command that a handler knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandSpec {
    /// Its name, such as `inventory.reserve`.
    pub name: &'static str,
    /// Whether it may come as a `confirm` without a reserve before it (a confirm-only step).
    pub standalone: bool,
}

impl CommandSpec {
    /// A command that belongs to a reservation.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            standalone: false,
        }
    }

    /// A command that stands for itself.
    pub const fn standalone(name: &'static str) -> Self {
        Self {
            name,
            standalone: true,
        }
    }
}

/// A business no: the saga is not to ask again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rejection(pub String);

impl Rejection {
    /// With its reason, for people.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// A business no: never tried again.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Something went wrong: the saga tries again.
    #[error("{0}")]
    Failed(String),
}

/// What the handlers of one batch change together.
pub struct UnitOfWork {
    now: Timestamp,
    /// What was asked for at load, and found or not.
    loaded: BTreeMap<AggregateKey, Option<AggregateRow>>,
    open: BTreeMap<AggregateKey, Box<dyn OpenAggregate>>,
    /// What is being handled.
    origin: Origin,
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

impl UnitOfWork {
    /// With the aggregates that were asked for and those that were found.
    pub(crate) fn new(now: Timestamp, asked: &[AggregateKey], found: Vec<AggregateRow>) -> Self {
        let mut loaded: BTreeMap<_, _> = asked.iter().map(|key| (key.clone(), None)).collect();
        for row in found {
            loaded.insert(row.key.clone(), Some(row));
        }
        Self {
            now,
            loaded,
            open: BTreeMap::new(),
            origin: Origin::default(),
        }
    }

    /// From here on events are recorded because of this command.
    pub(crate) fn begin(&mut self, command: &Command) {
        self.origin = command.origin();
    }

    /// The time, the same for the whole batch.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The aggregate that [`CommandHandler::aggregate_of`] named, with all that the batch has done
    /// to it so far.
    pub fn aggregate<A: Aggregate>(
        &mut self,
        key: &AggregateKey,
    ) -> Result<&mut Open<A>, CommandRefusal> {
        if !self.open.contains_key(key) {
            let row = self.loaded.get(key).ok_or_else(|| {
                CommandRefusal::Failed(format!(
                    "{} `{}` was not named before it was used",
                    key.kind, key.id
                ))
            })?;
            let opened = Open::<A>::new(row.as_ref()).map_err(|error| {
                // Nothing is overwritten: the row stays for a person to look at.
                tracing::error!(kind = %key.kind, id = %key.id, %error, "stored aggregate can't be read");
                CommandRefusal::Failed(error.to_string())
            })?;
            self.open.insert(key.clone(), Box::new(opened));
        }
        let open = self.open.get_mut(key);
        let open = open.and_then(|open| (open.as_mut() as &mut dyn Any).downcast_mut());
        let open: &mut Open<A> = open.ok_or_else(|| {
            CommandRefusal::Failed(format!(
                "two kinds of aggregate share the name {}",
                key.kind
            ))
        })?;
        open.set_origin(&self.origin);
        Ok(open)
    }

    /// What is to be written.
    pub(crate) fn close(self) -> Result<Closed, StoreError> {
        let mut closed = Closed::default();
        for (key, open) in self.open {
            open.close(key, self.now, &mut closed)?;
        }
        Ok(closed)
    }
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
