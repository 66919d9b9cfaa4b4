//! How to replay.

use std::time::Duration;

use crate::dead_letters::route::Wish;

/// How often a message may be replayed when nothing else is said.
pub const REPLAYS_MAX: u32 = 3;
/// How long whoever committed a replay has to publish it before others do.
pub(super) const GRACE: Duration = Duration::from_secs(15);

/// How to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayOptions {
    /// Where to, if not to the queue whose consumer refused it; `anyway` also goes on when nobody can
    /// know of the canaries.
    pub wish: Wish,
    /// Also what was replayed or discarded before.
    pub again: bool,
    /// Also letters of sagas that have ended.
    pub force: bool,
    /// How often a message may be replayed.
    pub replays_max: u32,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// Most letters a second.
    pub rate: Option<u32>,
    /// How many to replay first, and how long to wait whether they come back.
    pub canary: Option<(usize, Duration)>,
    /// Most letters in all.
    pub limit: Option<u64>,
}
