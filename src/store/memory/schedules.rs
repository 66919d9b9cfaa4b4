//! Schedules in memory.

use async_trait::async_trait;

use super::MemoryStore;
use crate::id::Timestamp;
use crate::store::StoreError;
use crate::store::schedules::{ScheduleRow, Schedules};

#[async_trait]
impl Schedules for MemoryStore {
    async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        let state = self.state();
        let row = |(name, settled): (&String, &Timestamp)| ScheduleRow {
            name: name.clone(),
            settled: *settled,
        };
        Ok(state.schedules.iter().map(row).collect())
    }

    async fn settle(
        &self,
        name: &str,
        expected: Option<Timestamp>,
        settled: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        let mut state = self.state();
        let known = state.schedules.get(name).copied();
        if known == expected {
            state.schedules.insert(name.to_owned(), settled);
        }
        Ok(known.filter(|_| known != expected).unwrap_or(settled))
    }
}
