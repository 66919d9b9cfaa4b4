//! Schedules in memory.

use async_trait::async_trait;

use super::MemoryStore;
use crate::id::Timestamp;
use crate::store::StoreError;
use crate::store::schedules::{Moved, ScheduleKey, ScheduleRow, Schedules};

#[async_trait]
impl Schedules for MemoryStore {
    async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        Ok(self.state().schedules.values().cloned().collect())
    }

    async fn settle(
        &self,
        schedule: &ScheduleKey,
        expected: Option<Timestamp>,
        settled: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        let mut state = self.state();
        let row = ScheduleRow {
            key: schedule.clone(),
            settled,
            absent_since: None,
            moved: None,
        };
        match (state.schedules.get_mut(schedule), expected) {
            (None, None) => drop(state.schedules.insert(schedule.clone(), row)),
            (Some(known), Some(expected)) if known.settled == expected => known.settled = settled,
            (Some(known), _) => return Ok(known.settled),
            (None, Some(_)) => {}
        }
        Ok(settled)
    }

    async fn mark_absent(
        &self,
        schedule: &ScheduleKey,
        since: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        if let Some(known) = self.state().schedules.get_mut(schedule) {
            known.absent_since = since;
        }
        Ok(())
    }

    async fn move_schedule(
        &self,
        schedule: &ScheduleKey,
        to: Timestamp,
        moved: &Moved,
    ) -> Result<bool, StoreError> {
        let mut state = self.state();
        let Some(known) = state.schedules.get_mut(schedule) else {
            return Ok(false);
        };
        known.settled = to;
        known.moved = Some(moved.clone());
        Ok(true)
    }
}
