//! What there is to do, in numbers: live sagas by name and status, and what waits in the outbox.
//!
//! Asked every few seconds by every node, so it must cost little however much there is: counts are
//! exact up to a bound, and what ended is not looked at.

use async_trait::async_trait;

use super::StoreError;
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

/// Counts what there is to do.
#[async_trait]
pub trait CensusStore: Send + Sync + 'static {
    /// The numbers now.
    async fn census(&self) -> Result<Census, StoreError>;
}

/// Statuses of sagas that have not ended.
pub(in crate::store) fn live_statuses() -> impl Iterator<Item = Status> {
    Status::ALL.into_iter().filter(|status| !status.is_ended())
}
