//! Nothing waits for ever: the last of several time limits around what a store is asked.
//!
//! A store that can tell a slow answer from a dead connection has tighter limits of its own; this
//! one holds for any store, and for what nobody thought of.

use std::time::Duration;

use crate::environment::Environment;
use crate::store::StoreError;

/// Longest time that one call to a store may take.
pub const STORE_CALL_TIME_MAX: Duration = Duration::from_mins(1);

/// Waits for a store, but not for ever.
pub async fn within<T>(
    environment: &dyn Environment,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::select! {
        biased;
        result = call => result,
        () = environment.sleep(STORE_CALL_TIME_MAX) => {
            Err(StoreError::Unavailable("it did not answer in time".into()))
        }
    }
}
