//! How far schedules have come, which all nodes must agree on.
//!
//! Separate from sagas because a schedule outlives them: it has one row for each rhythm that its
//! definition has had, and a tick that was settled stays settled whatever becomes of the saga it
//! started. The row moves by compare-and-set, so that of two nodes that settle a tick one does it
//! and both know. A position means nothing under another rhythm, so a changed one has a row of its
//! own. Deliberately absent: what a rhythm *is*; when it ticks is for its definition to say.

use async_trait::async_trait;

use super::StoreError;
use crate::id::Timestamp;

/// Which schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScheduleKey {
    /// The name of the definition it belongs to.
    pub name: String,
    /// All that decides when it ticks, and which ticks count, in words.
    pub rhythm: String,
}

/// How far a schedule has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    /// Which.
    pub key: ScheduleKey,
    /// All its ticks up to this time are settled.
    pub settled: Timestamp,
    /// Since when nodes run without it, as far as is known.
    pub absent_since: Option<Timestamp>,
    /// Who set its position last, if a person did.
    pub moved: Option<Moved>,
}

/// A position that a person has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// Keeps how far schedules have come.
#[async_trait]
pub trait Schedules: Send + Sync + 'static {
    /// All of them, by name and rhythm.
    async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError>;

    /// Moves a schedule to `settled` if it stands at `expected` (`None`: there is no row yet), and
    /// returns where it stands then.
    async fn settle(
        &self,
        schedule: &ScheduleKey,
        expected: Option<Timestamp>,
        settled: Timestamp,
    ) -> Result<Timestamp, StoreError>;

    /// Notes since when nodes run without a schedule, or that they do not.
    async fn mark_absent(
        &self,
        schedule: &ScheduleKey,
        since: Option<Timestamp>,
    ) -> Result<(), StoreError>;

    /// Sets a position, wherever it is. Says whether there is such a schedule.
    async fn move_schedule(
        &self,
        schedule: &ScheduleKey,
        to: Timestamp,
        moved: &Moved,
    ) -> Result<bool, StoreError>;
}
