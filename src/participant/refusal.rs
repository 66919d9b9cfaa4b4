//! Why a command was not done.

/// A business no: the saga is not to ask again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rejection(pub String);

impl Rejection {
    /// With its reason, for people.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// A business no: never tried again.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Something went wrong: the saga tries again.
    #[error("{0}")]
    Failed(String),
}
