//! What there is to do, in PostgreSQL.

use async_trait::async_trait;

use super::PostgresStore;
use crate::id::Timestamp;
use crate::saga::Status;
use crate::store::census::{CENSUS_MAX, Census, CensusStore, live_statuses};
use crate::store::{StoreError, rows};

/// By `sagas_by_status`, from its beginning for each status.
const LIVE: &str = "
    SELECT live.name, live.status, count(*), min(live.updated_at)
    FROM unnest($1::text[]) AS wanted (status)
    CROSS JOIN LATERAL (
        SELECT name, status, updated_at FROM sagas
        WHERE sagas.status = wanted.status ORDER BY status, id LIMIT $2
    ) AS live
    GROUP BY live.name, live.status";

/// By `outbox_by_due_at`.
const OUTBOX: &str = "
    SELECT count(*), min(due_at)
    FROM (SELECT due_at FROM outbox ORDER BY due_at LIMIT $1) AS waiting";

#[async_trait]
impl CensusStore for PostgresStore {
    async fn census(&self) -> Result<Census, StoreError> {
        let failed = |error| self.failed(error);
        let statuses: Vec<&str> = live_statuses().map(Status::as_str).collect();
        let query = sqlx::query_as(LIVE)
            .bind(statuses)
            .bind(rows::limit(CENSUS_MAX));
        let live = query.fetch_all(&self.pool).await.map_err(failed)?;
        let query = sqlx::query_as(OUTBOX).bind(rows::limit(CENSUS_MAX));
        let (outbox, due): (i64, Option<i64>) =
            query.fetch_one(&self.pool).await.map_err(failed)?;
        let mut live = rows::all(live, rows::live_group)?;
        live.sort_unstable();
        Ok(Census {
            live,
            outbox: outbox.unsigned_abs(),
            outbox_due: due.map(Timestamp::from_micros),
        })
    }
}
