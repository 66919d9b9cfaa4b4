//! What there is to do, in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::MemoryStore;
use crate::store::StoreError;
use crate::store::census::{CENSUS_MAX, Census, CensusStore, LiveGroup, live_statuses};

#[async_trait]
impl CensusStore for MemoryStore {
    async fn census(&self) -> Result<Census, StoreError> {
        let state = self.state();
        let mut groups = BTreeMap::new();
        for status in live_statuses() {
            let heads = state.sagas.values().map(|record| &record.head);
            for head in heads.filter(|head| head.status == status).take(CENSUS_MAX) {
                let group = groups
                    .entry((head.name.clone(), status))
                    .or_insert((0, head.updated_at));
                group.0 += 1;
                group.1 = group.1.min(head.updated_at);
            }
        }
        let live = groups.into_iter();
        Ok(Census {
            live: live
                .map(|((name, status), (count, oldest))| LiveGroup {
                    name,
                    status,
                    count,
                    oldest,
                })
                .collect(),
            outbox: state.outbox.len().min(CENSUS_MAX) as u64,
            outbox_due: state.due.first().map(|(at, _)| *at),
        })
    }
}
