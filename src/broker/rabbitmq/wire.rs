//! What the server sends, looked at before the library parses it.
//!
//! The library ends the connection over a text that is not UTF-8, waits for ever inside a list of
//! properties that is cut short, and exhausts its stack over headers nested some thousand deep; all
//! of which any stranger can put into a message. So its connections read through a `Sieved`
//! stream. That passes everything on as it is, byte for byte, but for a message whose list of
//! properties the library can't take: it gets a list with one header, a number, under which
//! the list that came is [kept](Kept) until the consumer asks for it.
//!
//! Separate layers: [`mod@sieve`] cuts the bytes into frames and knows no property, [`fields`] reads
//! lists of properties and knows no frame, [`stream`] puts the sieve between a socket and the library,
//! and reads only while the [`mod@gate`] is open.
//! Deliberately absent: looking at what we send, and at bodies.

mod fields;
mod gate;
mod kept;
mod sieve;
mod stream;

#[cfg(test)]
mod tests;

pub(super) use fields::{flaw, read};
pub(super) use gate::Gate;
pub(super) use kept::{Kept, Taken};
pub(super) use stream::{connect, runtime};
