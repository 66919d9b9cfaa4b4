//! What there is to do, in SQLite.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{SqliteStore, failed};
use crate::id::Timestamp;
use crate::store::census::{Activity, CENSUS_MAX, Census, CensusStore, Minute, live_statuses};
use crate::store::{LiveCount, StoreError, rows};

/// By `sagas_by_status`.
const LIVE: &str = "
    SELECT name, status, count(*), min(updated_at)
    FROM (SELECT name, status, updated_at FROM sagas WHERE status = ?1 ORDER BY id LIMIT ?2)
    GROUP BY name, status";

/// By `outbox_by_due_at`.
const OUTBOX: &str = "
    SELECT count(*), min(due_at) FROM (SELECT due_at FROM outbox ORDER BY due_at LIMIT ?1)";

/// The same by version, of one status.
const LIVE_VERSIONS: &str = "
    SELECT name, version, count(*)
    FROM (SELECT name, version FROM sagas WHERE status = ?1 ORDER BY id LIMIT ?2)
    GROUP BY name, version";

/// From `sagas_by_start` alone.
const STARTED: &str = "
    SELECT count(*) FROM (
        SELECT 1 FROM sagas WHERE started_at >= ?1 AND started_at < ?2 LIMIT ?3
    )";

/// From `sagas_by_ending` alone.
const ENDED: &str = "
    SELECT ?1, status, count(*) FROM (
        SELECT status FROM sagas WHERE ended_at >= ?1 AND ended_at < ?2 LIMIT ?3
    ) GROUP BY status";

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

    async fn live_versions(&self) -> Result<Vec<LiveCount>, StoreError> {
        let mut counts = BTreeMap::new();
        for status in live_statuses() {
            let query = sqlx::query_as(LIVE_VERSIONS)
                .bind(status.as_str())
                .bind(rows::limit(CENSUS_MAX));
            let found = query.fetch_all(&self.readers).await.map_err(failed)?;
            for row in rows::all(found, rows::live)? {
                *counts.entry((row.name, row.version)).or_insert(0) += row.count;
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
        let (mut started, mut ended) = (Vec::new(), Vec::new());
        for minute in minutes {
            let (at, until) = (minute.at.as_micros(), minute.end().as_micros());
            let bound = rows::limit(minute.bound);
            let query = sqlx::query_scalar(STARTED).bind(at).bind(until).bind(bound);
            let count: i64 = query.fetch_one(&self.readers).await.map_err(failed)?;
            started.push((at, count));
            let query = sqlx::query_as(ENDED).bind(at).bind(until).bind(bound);
            let found: Vec<rows::EndedRow> =
                query.fetch_all(&self.readers).await.map_err(failed)?;
            ended.extend(found);
        }
        rows::activity(minutes, &started, ended)
    }
}
