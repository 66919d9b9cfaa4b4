//! How reservations are told apart.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::participant::Command;

/// Who holds a reservation: `<saga id>/<step path>`, so that one saga may reserve the same thing
/// in several steps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReservationKey(String);

impl ReservationKey {
    /// The reservation that a command is about.
    pub fn of(command: &Command) -> Self {
        Self(format!("{}/{}", command.saga, command.step))
    }

    /// The saga's id.
    pub fn saga(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(saga, _)| saga)
    }
}

impl fmt::Display for ReservationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
