//! A saga's status, as the row, the API and people name it.

use serde::{Deserialize, Serialize};

/// Where a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Forward pass.
    Running,
    /// Past the pivot: everything reserved is being confirmed.
    Confirming,
    /// Being rolled back.
    Compensating,
    /// Waits for a person.
    Suspended,
    /// Ended: everything reserved was confirmed.
    Completed,
    /// Ended: everything that was or may have been done was undone.
    Compensated,
}

impl Status {
    /// All of them, in the order of a saga's life.
    pub const ALL: [Self; 6] = [
        Self::Running,
        Self::Confirming,
        Self::Compensating,
        Self::Suspended,
        Self::Completed,
        Self::Compensated,
    ];

    /// The name in the database, on the wire and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Confirming => "confirming",
            Self::Compensating => "compensating",
            Self::Suspended => "suspended",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a saga status"))
    }
}
