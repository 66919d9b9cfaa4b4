//! Dead letters: drained from queues, understood, replayed, edited, without loss or doubling.
//!
//! Separate from the engine because a team that runs no saga uses it too: all it needs is a
//! database and the queues. [`drain`] brings messages in, [`replay`] sends them again, [`edit`]
//! mends them, [`route`] knows where they belong, [`transfer`] carries them elsewhere, [`shift`] moves messages from queue to queue
//! without a database.
//!
//! Invariants:
//! * a message is acknowledged only after its letter is committed;
//! * a replay is committed before it is published, with its letter's status and its audit entry;
//! * a replay keeps the message's identity, so receivers still dedupe;
//! * letters of one saga are sent one after the other, oldest first.
//!
//! Deliberately absent: SQL and AMQP (the store's and the broker's), and any terminal.

pub mod audit;
mod desk;
pub mod drain;
mod drop_headers;
pub mod edit;
mod no_route;
mod rate;
pub mod replay;
pub mod route;
pub mod shift;
pub mod transfer;

pub use desk::{
    CHUNK_BYTES_MAX, CHUNK_LETTERS_MAX, DELIVERIES_MIN, DeadLetterError, Desk, Discarded, Selection,
};
pub use drop_headers::Dropped;
