//! Messages on trial: handled alone, because they came back more than once.
//!
//! A message that ends the program each time it is handled leaves no word about itself. So before a
//! suspect is handled, that is noted here, and the note is removed afterwards; a note that has been
//! made several times and was never removed names the culprit.
//! Deliberately absent: the message; it is known by a hash of itself.

use async_trait::async_trait;
use uuid::Uuid;

use super::StoreError;
use crate::id::Timestamp;

/// Keeps which messages are on trial.
#[async_trait]
pub trait Trials: Send + Sync + 'static {
    /// Notes that a message is handled from now on; returns how often that was noted, this time
    /// included, since it was last ended.
    async fn begin_trial(&self, message: Uuid, at: Timestamp) -> Result<u32, StoreError>;

    /// Notes that a message was handled, whatever came of it.
    async fn end_trial(&self, message: Uuid) -> Result<(), StoreError>;
}
