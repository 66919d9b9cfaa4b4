//! Which way a saga is going.

use serde::{Deserialize, Serialize};

/// Which way a saga is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Not started.
    New,
    /// Reserving, in order.
    Forward,
    /// At the pivot of a saga that another one runs: that one says what comes next.
    Prepared,
    /// Past the pivot: confirming all reservations at once.
    Confirm,
    /// Then the confirm-only steps, in order.
    Finish,
    /// Undoing, in reverse order.
    Rollback,
    /// All done.
    Completed,
    /// All undone.
    Compensated,
}

impl Pass {
    /// Where the saga stands, in words.
    pub(super) fn as_words(self) -> &'static str {
        match self {
            Self::New => "the saga has not started",
            Self::Forward => "the saga is before its pivot",
            Self::Prepared => "the saga waits at its pivot",
            Self::Confirm => "the saga is confirming what it has reserved",
            Self::Finish => "the saga is past its pivot and has confirmed what it had reserved",
            Self::Rollback => "the saga is being rolled back",
            Self::Completed => "the saga is completed",
            Self::Compensated => "the saga is compensated",
        }
    }
}
