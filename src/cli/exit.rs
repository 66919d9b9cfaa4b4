//! How a command ends, as the shell sees it.

use std::fmt::Display;

/// Exit codes; documented in `--help` and `docs/operating.md`, so they keep their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; with `start --wait`: completed.
    Done,
    /// Refused or failed.
    Failed,
    /// Wrong usage (clap's code too), or problems in definitions.
    Problems,
    /// The saga was compensated.
    Compensated,
    /// The saga waits for a person.
    Suspended,
    /// The saga had not ended when the time was up.
    TimedOut,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Problems => 2,
            Self::Compensated => 3,
            Self::Suspended => 4,
            Self::TimedOut => 5,
        }
    }
}

/// Why a command could not do its work, in words for stderr.
#[derive(Debug)]
pub struct Failure {
    /// What to say; empty if all has been said.
    pub message: String,
    /// How to end.
    pub exit: Exit,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(message: impl Display) -> Self {
        Self {
            message: message.to_string(),
            exit: Exit::Failed,
        }
    }

    /// Wrong usage or definitions: exit code 2.
    pub fn problems(message: impl Display) -> Self {
        Self {
            message: message.to_string(),
            exit: Exit::Problems,
        }
    }
}
