//! What there is to do, in SQLite.

use async_trait::async_trait;

use super::{SqliteStore, failed};
use crate::id::Timestamp;
use crate::store::census::{CENSUS_MAX, Census, CensusStore, live_statuses};
use crate::store::{StoreError, rows};

/// By `sagas_by_status`.
const LIVE: &str = "
    SELECT name, status, count(*), min(updated_at)
    FROM (SELECT name, status, updated_at FROM sagas WHERE status = ?1 ORDER BY id LIMIT ?2)
    GROUP BY name, status";

/// By `outbox_by_due_at`.
const OUTBOX: &str = "
    SELECT count(*), min(due_at) FROM (SELECT due_at FROM outbox ORDER BY due_at LIMIT ?1)";

#[async_trait]
impl CensusStore for SqliteStore {
    async fn census(&self) -> Result<Census, StoreError> {
        let mut live = Vec::new();
        for status in live_statuses() {
            let query = sqlx::query_as(LIVE)
                .bind(status.as_str())
                .bind(rows::limit(CENSUS_MAX));
            let found = query.fetch_all(&self.readers).await.map_err(failed)?;
            live.extend(rows::all(found, rows::live_group)?);
        }
        live.sort_unstable();
        let query = sqlx::query_as(OUTBOX).bind(rows::limit(CENSUS_MAX));
        let (outbox, due): (i64, Option<i64>) =
            query.fetch_one(&self.readers).await.map_err(failed)?;
        Ok(Census {
            live,
            outbox: outbox.unsigned_abs(),
            outbox_due: due.map(Timestamp::from_micros),
        })
    }
}
