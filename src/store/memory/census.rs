//! What there is to do, in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::MemoryStore;
use crate::id::Timestamp;
use crate::store::census::{
    Activity, CENSUS_MAX, Census, CensusStore, LiveGroup, Minute, live_statuses,
};
use crate::store::{LiveCount, StoreError};

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

    async fn live_versions(&self) -> Result<Vec<LiveCount>, StoreError> {
        let state = self.state();
        let mut counts = BTreeMap::new();
        for status in live_statuses() {
            let heads = state.sagas.values().map(|record| &record.head);
            for head in heads.filter(|head| head.status == status).take(CENSUS_MAX) {
                *counts.entry((head.name.clone(), head.version)).or_insert(0) += 1;
            }
        }
        let row = |((name, version), count)| LiveCount {
            name,
            version,
            count,
        };
        Ok(counts.into_iter().map(row).collect())
    }

    async fn activity(&self, minutes: &[Minute]) -> Result<Vec<Activity>, StoreError> {
        let state = self.state();
        let heads = || state.sagas.values().map(|record| &record.head);
        let of = |minute: &Minute| {
            let within = |at: &Timestamp| (minute.at..minute.end()).contains(at);
            let started = heads().filter(|head| within(&head.started_at));
            let started = started.take(minute.bound).count() as u64;
            let ended = heads().filter(|head| head.ended_at.as_ref().is_some_and(within));
            let ended = ended.take(minute.bound);
            let ended: Vec<_> = ended.map(|head| (head.status, 1)).collect();
            Activity::of(*minute, started, &ended)
        };
        Ok(minutes.iter().map(of).collect())
    }
}
