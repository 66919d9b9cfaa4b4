//! A schedule for people: how far it has come.

use serde::Serialize;

use crate::id::Timestamp;
use crate::store::ScheduleRow;

/// How far a schedule has come.
#[derive(Debug, Serialize)]
pub struct ScheduleView {
    /// The definition's name.
    pub saga: String,
    /// When it ticks and which ticks count.
    pub rhythm: String,
    /// All ticks up to this time are settled.
    pub position: String,
    /// Whether that lies in the future, so that nothing ticks before it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ahead_of_time: bool,
    /// Since when nodes run without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent_since: Option<String>,
    /// Who set its position last, if a person did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<MovedView>,
}

/// Who set a position.
#[derive(Debug, Serialize)]
pub struct MovedView {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: String,
}

impl ScheduleView {
    /// Of a row, as it is now.
    pub fn new(row: &ScheduleRow, now: Timestamp) -> Self {
        Self {
            saga: row.key.name.clone(),
            rhythm: row.key.rhythm.clone(),
            position: row.settled.to_string(),
            ahead_of_time: row.settled > now,
            absent_since: row.absent_since.map(|since| since.to_string()),
            moved: row.moved.as_ref().map(|moved| MovedView {
                by: moved.by.clone(),
                why: moved.why.clone(),
                at: moved.at.to_string(),
            }),
        }
    }
}
