//! What there is to do, in numbers: live sagas by name and status, and what waits in the outbox.
//!
//! Asked every few seconds by every node, so it must cost little however much there is: counts are
//! exact up to a bound, and what ended is not looked at.

use std::time::Duration;

use async_trait::async_trait;

use super::{LiveCount, StoreError};
use crate::id::Timestamp;
use crate::saga::Status;

/// Most sagas of a status, and rows of the outbox, that are counted.
pub const CENSUS_MAX: usize = 100_000;

/// Live sagas of a name in a status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LiveGroup {
    /// The definition's name.
    pub name: String,
    /// Where they stand.
    pub status: Status,
    /// How many there are, of the oldest [`CENSUS_MAX`] of this status.
    pub count: u64,
    /// When the one of them that has not moved for the longest last moved.
    pub oldest: Timestamp,
}

/// What there is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Sagas that have not ended, in order of name and status.
    pub live: Vec<LiveGroup>,
    /// Rows of the outbox, at most [`CENSUS_MAX`].
    pub outbox: u64,
    /// When the first of them is due, if there is one: what has been due for long is not being sent.
    pub outbox_due: Option<Timestamp>,
}

/// A minute, and up to how many sagas are counted that began in it, and that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// When it begins.
    pub at: Timestamp,
    /// Most sagas that are counted.
    pub bound: usize,
}

/// What happened in a minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Sagas that began.
    pub started: u64,
    /// Sagas that completed.
    pub completed: u64,
    /// Sagas that ended rolled back.
    pub compensated: u64,
    /// Whether there may be more: the bound was reached.
    pub or_more: bool,
}

impl Minute {
    /// When the next one begins.
    pub fn end(self) -> Timestamp {
        self.at.after(Duration::from_mins(1))
    }
}

impl Activity {
    /// Of what was found within a minute's bound.
    pub(in crate::store) fn of(minute: Minute, started: u64, ended: &[(Status, u64)]) -> Self {
        let of = |wanted: Status| {
            let found = ended.iter().filter(|(status, _)| *status == wanted);
            found.map(|(_, count)| count).sum()
        };
        let (completed, compensated) = (of(Status::Completed), of(Status::Compensated));
        let bound = minute.bound as u64;
        Self {
            started,
            completed,
            compensated,
            or_more: started >= bound || completed + compensated >= bound,
        }
    }
}

/// Counts what there is to do.
#[async_trait]
pub trait CensusStore: Send + Sync + 'static {
    /// The numbers now.
    async fn census(&self) -> Result<Census, StoreError>;

    /// Sagas that have not ended by name and version, in order of these: of each status the oldest
    /// [`CENSUS_MAX`].
    async fn live_versions(&self) -> Result<Vec<LiveCount>, StoreError>;

    /// What began and ended in each of these minutes, in their order.
    async fn activity(&self, minutes: &[Minute]) -> Result<Vec<Activity>, StoreError>;
}

/// Statuses of sagas that have not ended.
pub(in crate::store) fn live_statuses() -> impl Iterator<Item = Status> {
    Status::ALL.into_iter().filter(|status| !status.is_ended())
}
