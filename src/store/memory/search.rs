//! Searching sagas in memory: the reference for what a filter means.

use async_trait::async_trait;

use super::{MemoryStore, SagaRecord};
use crate::definition::Label;
use crate::id::{SagaId, Timestamp};
use crate::store::search::sql::Hours;
use crate::store::search::{
    self, BoundedCount, CAUSES_MAX, COUNT_MAX, CauseGroup, Cursor, GroupPart, PAGE_ROWS_MAX,
    SagaSearch, SearchOrder, SearchPage,
};
use crate::store::{Filter, SagaHead, StoreError};

impl SagaRecord {
    fn fits(&self, filter: &Filter) -> bool {
        filter.holds(&self.head, &self.labels)
    }
}

#[async_trait]
impl SagaSearch for MemoryStore {
    async fn search(
        &self,
        filter: &Filter,
        page: &SearchPage,
    ) -> Result<Vec<SagaHead>, StoreError> {
        let state = self.state();
        let fitting = state.sagas.values().filter(|record| record.fits(filter));
        let mut heads: Vec<&SagaHead> = fitting.map(|record| &record.head).collect();
        heads.retain(|head| match page.order {
            SearchOrder::Started => true,
            SearchOrder::Ended => head.ended_at.is_some(),
            SearchOrder::Key => !head.superseded,
        });
        heads.retain(|head| page.below.is_none_or(|below| head.id < below));
        heads.sort_by(|a, b| compare(&page.place(a), &page.place(b)));
        if !page.ascending {
            heads.reverse();
        }
        if let Some(after) = &page.after {
            heads.retain(|head| {
                let order = compare(&page.place(head), after);
                order
                    == if page.ascending {
                        std::cmp::Ordering::Greater
                    } else {
                        std::cmp::Ordering::Less
                    }
            });
        }
        heads.truncate(page.limit.min(PAGE_ROWS_MAX));
        Ok(heads.into_iter().cloned().collect())
    }

    async fn count(&self, filter: &Filter, bound: u64) -> Result<BoundedCount, StoreError> {
        let state = self.state();
        let fitting = state.sagas.values().filter(|record| record.fits(filter));
        Ok(BoundedCount::within(fitting.count() as u64, bound))
    }

    async fn groups(
        &self,
        filter: &Filter,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<CauseGroup>, StoreError> {
        let state = self.state();
        let hours = Hours::until(now);
        let fitting = state.sagas.values().filter(|record| record.fits(filter));
        let one = |is_counted: bool| BoundedCount::within(u64::from(is_counted), COUNT_MAX);
        let part = |record: &SagaRecord| {
            let cause = record.head.cause.as_ref()?;
            let (since, Hours { ago, before }) = (cause.since, hours);
            Some(GroupPart {
                cause: cause.id.clone(),
                count: one(true),
                oldest: since,
                newest: since,
                last_hour: one(since >= ago),
                hour_before: one(since >= before && since < ago),
                sample: record.head.id,
            })
        };
        let parts = fitting.filter_map(part).collect();
        let parts = search::merged(parts, limit.min(CAUSES_MAX));
        let samples = parts
            .iter()
            .filter_map(|part| state.sagas.get(&part.sample));
        let samples = samples.map(|record| record.head.clone()).collect();
        Ok(search::with_samples(parts, samples))
    }

    async fn labels(&self, sagas: &[SagaId]) -> Result<Vec<Vec<Label>>, StoreError> {
        let state = self.state();
        let labels = |saga| {
            let record = state.sagas.get(saga);
            let mut labels = record
                .map(|record| record.labels.clone())
                .unwrap_or_default();
            labels.sort_by(|a, b| a.name.cmp(&b.name));
            labels
        };
        Ok(sagas.iter().map(labels).collect())
    }
}

/// Places of one order.
fn compare(one: &Cursor, other: &Cursor) -> std::cmp::Ordering {
    match (one, other) {
        (Cursor::Ended(at, id), Cursor::Ended(other_at, other)) => (at, id).cmp(&(other_at, other)),
        (Cursor::Key(key), Cursor::Key(other)) => key.cmp(other),
        (Cursor::Started(id), Cursor::Started(other)) => id.cmp(other),
        // A page has one order.
        _ => std::cmp::Ordering::Equal,
    }
}
