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

use std::marker::PhantomData;

use async_trait::async_trait;
use serde_json::Value;

use super::aggregate::{Aggregate, key_of};
use super::command::{Command, CommandSpec};
use super::refusal::{CommandRefusal, Rejection};
use super::unit::UnitOfWork;
use crate::store::participant::AggregateKey;

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
