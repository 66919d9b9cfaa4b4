//! How far schedules have come, which all nodes must agree on.
//!
//! Separate from sagas because a schedule outlives them: it has one row, and a tick that was
//! settled stays settled whatever becomes of the saga it started. The row moves by
//! compare-and-set, so that of two nodes that settle a tick one does it and both know.
//! Deliberately absent: what a schedule *is*; when it ticks is for its definition to say.

use async_trait::async_trait;

use super::StoreError;
use crate::id::Timestamp;

/// How far a schedule has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    /// The name of the definition it belongs to.
    pub name: String,
    /// All its ticks up to this time are settled.
    pub settled: Timestamp,
}

/// Keeps how far schedules have come.
#[async_trait]
pub trait Schedules: Send + Sync + 'static {
    /// All of them, by name.
    async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError>;

    /// Moves a schedule to `settled` if it stands at `expected` (`None`: there is no row yet), and
    /// returns where it stands then.
    async fn settle(
        &self,
        name: &str,
        expected: Option<Timestamp>,
        settled: Timestamp,
    ) -> Result<Timestamp, StoreError>;
}
