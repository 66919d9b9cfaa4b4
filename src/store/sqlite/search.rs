//! Searching sagas in SQLite.

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::{SqliteStore, bulk, failed};
use crate::definition::Label;
use crate::id::{SagaId, Timestamp};
use crate::store::head::{self, HeadRow, heads};
use crate::store::search::sql::{Dialect, Hours, Writer};
use crate::store::search::{
    self, BoundedCount, CAUSES_MAX, COUNT_MAX, CauseGroup, GroupPart, PartRow, SagaSearch,
    SearchPage,
};
use crate::store::{Filter, SagaHead, StoreError, labels, rows};

const DIALECT: Dialect = Dialect {
    position: "instr",
    of_any_name: "",
    newest: "unhex(substr(max(printf('%020d', cause_since) || hex(id)), 21))",
};

/// By primary key.
const HEADS: &str = heads!("id IN (SELECT unhex(value) FROM json_each(?1))");

/// By primary key.
const LABELS: &str = "
    SELECT saga_id, name, value FROM saga_labels
    WHERE saga_id IN (SELECT unhex(value) FROM json_each(?1)) ORDER BY saga_id, name";

#[async_trait]
impl SagaSearch for SqliteStore {
    async fn search(
        &self,
        filter: &Filter,
        page: &SearchPage,
    ) -> Result<Vec<SagaHead>, StoreError> {
        let mut query = Writer::new(DIALECT).page(filter, page).query;
        let found = query.build_query_as().fetch_all(&self.readers).await;
        let found: Vec<HeadRow> = found.map_err(failed)?;
        rows::all(found, head::head)
    }

    async fn count(&self, filter: &Filter, bound: u64) -> Result<BoundedCount, StoreError> {
        let most = rows::signed(bound.saturating_add(1));
        let mut query = Writer::new(DIALECT).count(filter, most).query;
        let found = query.build_query_scalar().fetch_one(&self.readers).await;
        let found: i64 = found.map_err(failed)?;
        Ok(BoundedCount::within(found.unsigned_abs(), bound))
    }

    async fn groups(
        &self,
        filter: &Filter,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<CauseGroup>, StoreError> {
        let most = rows::signed(COUNT_MAX + 1);
        let writer = Writer::new(DIALECT);
        let mut query = writer.groups(filter, Hours::until(now), most).query;
        let found = query.build_query_as().fetch_all(&self.readers).await;
        let found: Vec<PartRow> = found.map_err(failed)?;
        let parts = found.into_iter().map(GroupPart::of).collect();
        let parts = search::merged(parts, limit.min(CAUSES_MAX));
        let samples = parts.iter().map(|part| part.sample.0);
        let query = sqlx::query_as(HEADS).bind(bulk::ids(samples));
        let found: Vec<HeadRow> = query.fetch_all(&self.readers).await.map_err(failed)?;
        Ok(search::with_samples(parts, rows::all(found, head::head)?))
    }

    async fn labels(&self, sagas: &[SagaId]) -> Result<Vec<Vec<Label>>, StoreError> {
        let ids = bulk::ids(sagas.iter().map(|saga| saga.0));
        let found = sqlx::query_as(LABELS).bind(ids).fetch_all(&self.readers);
        let found: Vec<(Uuid, String, String)> = found.await.map_err(failed)?;
        let mut by_saga: BTreeMap<Uuid, Vec<Label>> = BTreeMap::new();
        for (saga, name, value) in found {
            let of_saga = by_saga.entry(saga).or_default();
            of_saga.extend(labels::label(name, &value));
        }
        let sagas = sagas.iter();
        Ok(sagas
            .map(|saga| by_saga.get(&saga.0).cloned().unwrap_or_default())
            .collect())
    }
}
