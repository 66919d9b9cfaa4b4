//! What there is to do, in PostgreSQL.

use async_trait::async_trait;

use super::PostgresStore;
use crate::id::Timestamp;
use crate::saga::Status;
use crate::store::census::{Activity, CENSUS_MAX, Census, CensusStore, Minute, live_statuses};
use crate::store::{LiveCount, StoreError, rows};

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

/// The same by version.
const LIVE_VERSIONS: &str = "
    SELECT live.name, live.version, count(*)
    FROM unnest($1::text[]) AS wanted (status)
    CROSS JOIN LATERAL (
        SELECT name, version FROM sagas
        WHERE sagas.status = wanted.status ORDER BY status, id LIMIT $2
    ) AS live
    GROUP BY live.name, live.version ORDER BY live.name, live.version";

/// From `sagas_by_start` alone, for each minute.
const STARTED: &str = "
    SELECT minute.at, count(*)
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS minute (at, until, bound)
    CROSS JOIN LATERAL (
        SELECT started_at FROM sagas
        WHERE started_at >= minute.at AND started_at < minute.until
        ORDER BY started_at LIMIT minute.bound
    ) AS started
    GROUP BY minute.at";

/// From `sagas_by_ending` alone, for each minute.
const ENDED: &str = "
    SELECT minute.at, ended.status, count(*)
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS minute (at, until, bound)
    CROSS JOIN LATERAL (
        SELECT status FROM sagas
        WHERE ended_at >= minute.at AND ended_at < minute.until
        ORDER BY ended_at LIMIT minute.bound
    ) AS ended
    GROUP BY minute.at, ended.status";

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

    async fn live_versions(&self) -> Result<Vec<LiveCount>, StoreError> {
        let statuses: Vec<&str> = live_statuses().map(Status::as_str).collect();
        let query = sqlx::query_as(LIVE_VERSIONS)
            .bind(statuses)
            .bind(rows::limit(CENSUS_MAX));
        let found = query.fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, rows::live)
    }

    async fn activity(&self, minutes: &[Minute]) -> Result<Vec<Activity>, StoreError> {
        let failed = |error| self.failed(error);
        let column = |of: fn(&Minute) -> i64| minutes.iter().map(of).collect::<Vec<i64>>();
        let columns = || {
            (
                column(|minute| minute.at.as_micros()),
                column(|minute| minute.end().as_micros()),
                column(|minute| rows::limit(minute.bound)),
            )
        };
        let (at, until, bound) = columns();
        let query = sqlx::query_as(STARTED).bind(at).bind(until).bind(bound);
        let started: Vec<(i64, i64)> = query.fetch_all(&self.pool).await.map_err(failed)?;
        let (at, until, bound) = columns();
        let query = sqlx::query_as(ENDED).bind(at).bind(until).bind(bound);
        let ended: Vec<rows::EndedRow> = query.fetch_all(&self.pool).await.map_err(failed)?;
        rows::activity(minutes, &started, ended)
    }
}
