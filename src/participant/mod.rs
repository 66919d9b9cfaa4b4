//! The SDK for participants written in Rust: a queue, handlers by command, one loop.
//!
//! ```text
//! deliver → decode → [transaction] load → judge → handle → commit {barriers, aggregates,
//!                                                   events, replies, sent} → ack → relay
//! ```
//!
//! Separate from the engine because a participant is another service, in general in another
//! process with another database; the two share only the wire protocol, the broker and the relay.
//! Acknowledged ⇒ committed, published ⇒ committed, and each command takes effect once, however
//! often it is delivered: see [`barrier`]. Any number of workers and instances may serve a queue.
//!
//! Deliberately absent: retries of a command that `failed` (the saga decides), HTTP, and any
//! clock, sleep or task but those of the [`Environment`](crate::environment::Environment), so that
//! the simulator can run the same code and drop it at any await.

mod aggregate;
pub mod barrier;
mod batch;
mod command;
mod follow_up;
mod handler;
pub mod history;
mod open;
mod refusal;
mod service;
mod stored;
mod unit;
mod worker;

pub use aggregate::{AGGREGATE_ID_BYTES_MAX, Aggregate, SNAPSHOT_EVERY, key_of, replay};
pub use command::{
    Command, CommandSpec, RESERVATION_FIELD, ReplyAddress, UnusableCommand, decode, fingerprint,
};
pub use follow_up::FollowUp;
pub use handler::{AggregateHandler, CommandHandler};
pub use open::Open;
pub use refusal::{CommandRefusal, Rejection};
pub use service::{BATCH_COMMANDS_MAX, PREFETCH, Participant, ParticipantOptions};
pub use stored::{rebuild, states};
pub use unit::UnitOfWork;
pub use worker::{Connections, ParticipantError, run_all};

#[cfg(test)]
mod tests;
