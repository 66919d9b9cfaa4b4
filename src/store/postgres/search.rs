//! Searching sagas in PostgreSQL, each search within a time limit of its own.

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::PostgresStore;
use super::connections::Transaction;
use super::sagas::OF_ANY_NAME;
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
    position: "strpos",
    of_any_name: OF_ANY_NAME,
    newest: "(array_agg(id ORDER BY cause_since DESC, id DESC))[1]",
};

/// People wait for it; and a search that reads too much must not slow down sagas.
const TIME_LIMIT: &str = "SET LOCAL statement_timeout = '5s'";

/// By primary key.
const HEADS: &str = heads!("id = ANY ($1)");

/// By primary key.
const LABELS: &str = "
    SELECT saga_id, name, value FROM saga_labels WHERE saga_id = ANY ($1) ORDER BY saga_id, name";

/// By `sagas_by_cause` alone: causes of one status by hops, and of each the count up to a bound, the
/// first and the last.
const CAUSES: &str = "
    WITH RECURSIVE hops AS (
        (
            SELECT name, cause FROM sagas
            WHERE status = $1 AND cause IS NOT NULL AND ($2::text IS NULL OR name = $2)
                AND name >= coalesce($2, '')
            ORDER BY name, cause LIMIT 1
        )
        UNION ALL
        (
            SELECT next.name, next.cause FROM hops CROSS JOIN LATERAL (
                SELECT name, cause FROM sagas
                WHERE status = $1 AND cause IS NOT NULL AND ($2::text IS NULL OR name = $2)
                    AND (name, cause) > (hops.name, hops.cause)
                ORDER BY name, cause LIMIT 1
            ) AS next
        )
    ), causes AS (SELECT name, cause FROM hops LIMIT $3)
    SELECT
        causes.cause, counted.sagas, oldest.cause_since, newest.cause_since, last_hour.sagas,
        hour_before.sagas, newest.id
    FROM causes
    CROSS JOIN LATERAL (
        SELECT count(*) AS sagas FROM (
            SELECT 1 FROM sagas
            WHERE status = $1 AND name = causes.name AND cause = causes.cause LIMIT $4
        ) AS found
    ) AS counted
    CROSS JOIN LATERAL (
        SELECT cause_since FROM sagas
        WHERE status = $1 AND name = causes.name AND cause = causes.cause
        ORDER BY cause_since, id LIMIT 1
    ) AS oldest
    CROSS JOIN LATERAL (
        SELECT cause_since, id FROM sagas
        WHERE status = $1 AND name = causes.name AND cause = causes.cause
        ORDER BY cause_since DESC, id DESC LIMIT 1
    ) AS newest
    CROSS JOIN LATERAL (
        SELECT count(*) AS sagas FROM (
            SELECT 1 FROM sagas
            WHERE status = $1 AND name = causes.name AND cause = causes.cause
                AND cause_since >= $5
            LIMIT $4
        ) AS found
    ) AS last_hour
    CROSS JOIN LATERAL (
        SELECT count(*) AS sagas FROM (
            SELECT 1 FROM sagas
            WHERE status = $1 AND name = causes.name AND cause = causes.cause
                AND cause_since >= $6 AND cause_since < $5
            LIMIT $4
        ) AS found
    ) AS hour_before";

#[async_trait]
impl SagaSearch for PostgresStore {
    async fn search(
        &self,
        filter: &Filter,
        page: &SearchPage,
    ) -> Result<Vec<SagaHead>, StoreError> {
        let mut transaction = self.search_transaction().await?;
        let mut query = Writer::new(DIALECT).page(filter, page).query;
        let found = query.build_query_as().fetch_all(&mut *transaction).await;
        let found: Vec<HeadRow> = found.map_err(|error| self.failed(error))?;
        rows::all(found, head::head)
    }

    async fn count(&self, filter: &Filter, bound: u64) -> Result<BoundedCount, StoreError> {
        let mut transaction = self.search_transaction().await?;
        let most = rows::signed(bound.saturating_add(1));
        let mut query = Writer::new(DIALECT).count(filter, most).query;
        let found = query.build_query_scalar().fetch_one(&mut *transaction);
        let found: i64 = found.await.map_err(|error| self.failed(error))?;
        Ok(BoundedCount::within(found.unsigned_abs(), bound))
    }

    async fn groups(
        &self,
        filter: &Filter,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<CauseGroup>, StoreError> {
        let failed = |error| self.failed(error);
        let mut transaction = self.search_transaction().await?;
        let parts = match search::by_hops(filter) {
            Some(statuses) => {
                let mut parts = Vec::new();
                for status in statuses {
                    let found = causes(&mut transaction, status.as_str(), filter, now).await;
                    parts.extend(found.map_err(failed)?);
                }
                parts
            }
            None => {
                let most = rows::signed(COUNT_MAX + 1);
                let writer = Writer::new(DIALECT);
                let mut query = writer.groups(filter, Hours::until(now), most).query;
                let found = query.build_query_as().fetch_all(&mut *transaction).await;
                found.map_err(failed)?
            }
        };
        let parts = parts.into_iter().map(GroupPart::of).collect();
        let parts = search::merged(parts, limit.min(CAUSES_MAX));
        let samples: Vec<Uuid> = parts.iter().map(|part| part.sample.0).collect();
        let query = sqlx::query_as(HEADS).bind(samples);
        let found: Vec<HeadRow> = query.fetch_all(&mut *transaction).await.map_err(failed)?;
        Ok(search::with_samples(parts, rows::all(found, head::head)?))
    }

    async fn labels(&self, sagas: &[SagaId]) -> Result<Vec<Vec<Label>>, StoreError> {
        let ids: Vec<Uuid> = sagas.iter().map(|saga| saga.0).collect();
        let found = sqlx::query_as(LABELS).bind(ids).fetch_all(&self.pool).await;
        let found: Vec<(Uuid, String, String)> = found.map_err(|error| self.failed(error))?;
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

impl PostgresStore {
    async fn search_transaction(&self) -> Result<Transaction, StoreError> {
        let mut transaction = self.transaction().await?;
        let limited = sqlx::query(TIME_LIMIT).execute(&mut *transaction).await;
        limited.map_err(|error| self.failed(error))?;
        Ok(transaction)
    }
}

async fn causes(
    transaction: &mut Transaction,
    status: &str,
    filter: &Filter,
    now: Timestamp,
) -> sqlx::Result<Vec<PartRow>> {
    let hours = Hours::until(now);
    sqlx::query_as(CAUSES)
        .bind(status)
        .bind(filter.name.as_deref().map(rows::readable))
        .bind(rows::limit(CAUSES_MAX))
        .bind(rows::signed(COUNT_MAX + 1))
        .bind(hours.ago.as_micros())
        .bind(hours.before.as_micros())
        .fetch_all(&mut **transaction)
        .await
}
