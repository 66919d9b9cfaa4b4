//! What happens in a replay, and what comes of it.

use std::time::Duration;

use uuid::Uuid;

use super::prepare::ReplayRefusal;
use crate::message::Destination;
use crate::store::dead_letters::LetterHead;

/// What happens, for those who watch.
#[derive(Debug)]
pub enum ReplayEvent<'a> {
    /// It goes, or would go, there.
    Sent(&'a LetterHead, &'a Destination),
    /// It does not go.
    Refused(&'a LetterHead, &'a ReplayRefusal),
    /// What one should know about where letters go; said once.
    Caution(&'a str),
    /// Somebody else changed it first.
    Lost(Uuid),
    /// No queue takes it, or the broker refuses it, and says why: it is open again.
    Returned(Uuid, &'a str),
    /// The canaries are out.
    Waiting(usize, Duration),
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Replayed {
    /// Letters replayed.
    pub replayed: u64,
    /// Letters that may not be.
    pub refused: u64,
    /// Letters that no queue took, or the broker refused: open again.
    pub returned: u64,
    /// Letters that somebody else changed first.
    pub lost: u64,
    /// Canaries that came back; then no others were sent.
    pub came_back: Vec<Uuid>,
    /// Whether letters were left because of the canaries.
    pub stopped: bool,
    /// Canaries of which nobody can know whether they were refused again.
    pub unwatched: Vec<Uuid>,
    /// Why nobody can.
    pub unwatched_because: Vec<String>,
    /// Letters whose replay is committed, but not yet confirmed by the broker.
    pub on_their_way: u64,
}
