//! Before a time-out is decided: was the command sent at all?
//!
//! Asked of the outbox only when a time-out is about to be decided, so that it costs nothing as long
//! as all goes well. What follows is the core's business; see [`Input::Unsent`].

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::found::{Found, Unsent};
use super::work::{Job, Work};
use super::worker::Shared;
use crate::id::{SagaId, Timestamp};
use crate::saga::{Input, PlantedBug};
use crate::store::StoreError;

impl Shared {
    /// Of the sagas that are woken at this time.
    pub(super) async fn look_for_unsent(
        &self,
        works: &[Work],
        found: &BTreeMap<SagaId, Found>,
        now: Timestamp,
    ) -> Result<Unsent, StoreError> {
        let woken = works.iter().filter_map(|work| match work.job {
            Job::Tell {
                saga,
                input: Input::Wake,
            } => Some(saga),
            _ => None,
        });
        let mut overdue = Vec::new();
        for id in woken {
            if let Some(Found::Open(open)) = found.get(&id) {
                overdue.extend(open.saga.overdue(now).into_iter().map(|it| (id, it)));
            }
        }
        if overdue.is_empty() || self.options.sabotage.has(PlantedBug::TimeOutUnsent) {
            return Ok(Unsent::new());
        }
        let rows: Vec<Uuid> = overdue.iter().map(|(_, it)| it.row).collect();
        let there = self.within(self.store.unsent(&rows)).await?;
        let there = BTreeSet::from_iter(there);
        let mut unsent = Unsent::new();
        for (id, it) in overdue {
            if there.contains(&it.row) {
                unsent.entry(id).or_default().push(it.step);
            }
        }
        Ok(unsent)
    }
}

#[cfg(test)]
mod tests;
