//! A chat: messages, how far somebody has read, and the number on the badge.
//!
//! Each message is an aggregate, and so is each customer's read mark. Neither knows how many messages
//! are unread; [`UnreadBadge`] is folded from both, by customer, and the saga that tells the customer's
//! phone reads it.

mod badge;
mod messages;
mod push;
mod read_marks;
#[cfg(test)]
mod tests;

pub use badge::{Badge, UnreadBadge, badges};
pub use messages::ChatMessages;
pub use push::Pushes;
pub use read_marks::ReadMarks;

/// The name of the participant that has messages and read marks.
pub const NAME: &str = "chat";
