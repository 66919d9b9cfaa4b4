//! Trials in memory.

use async_trait::async_trait;
use uuid::Uuid;

use super::MemoryStore;
use crate::id::Timestamp;
use crate::store::StoreError;
use crate::store::trials::Trials;

#[async_trait]
impl Trials for MemoryStore {
    async fn begin_trial(&self, message: Uuid, _at: Timestamp) -> Result<u32, StoreError> {
        let mut state = self.state();
        let begun = state.trials.entry(message).or_default();
        *begun += 1;
        Ok(*begun)
    }

    async fn end_trial(&self, message: Uuid) -> Result<(), StoreError> {
        self.state().trials.remove(&message);
        Ok(())
    }
}
