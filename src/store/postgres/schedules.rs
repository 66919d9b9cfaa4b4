//! Schedules in PostgreSQL.

use async_trait::async_trait;

use super::PostgresStore;
use crate::id::Timestamp;
use crate::store::schedules::{Moved, ScheduleKey, ScheduleRow, Schedules};
use crate::store::{StoreError, rows};

/// By primary key; there are as many rows as definitions have had schedules.
const SCHEDULES: &str = "
    SELECT name, rhythm, settled, absent_since, moved_by, moved_why, moved_at
    FROM schedules ORDER BY name, rhythm";

const INSERT: &str = "
    INSERT INTO schedules (name, rhythm, settled) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// By primary key.
const SETTLE: &str = "
    UPDATE schedules SET settled = $3 WHERE name = $1 AND rhythm = $2 AND settled = $4";

/// By primary key.
const SETTLED: &str = "SELECT settled FROM schedules WHERE name = $1 AND rhythm = $2";

/// By primary key.
const MARK: &str = "UPDATE schedules SET absent_since = $3 WHERE name = $1 AND rhythm = $2";

/// By primary key.
const MOVE: &str = "
    UPDATE schedules SET settled = $3, moved_by = $4, moved_why = $5, moved_at = $6
    WHERE name = $1 AND rhythm = $2";

#[async_trait]
impl Schedules for PostgresStore {
    async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        let found = sqlx::query_as(SCHEDULES).fetch_all(&self.pool).await;
        let found = found.map_err(|error| self.failed(error))?.into_iter();
        Ok(found.map(rows::schedule).collect())
    }

    async fn settle(
        &self,
        schedule: &ScheduleKey,
        expected: Option<Timestamp>,
        settled: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        let query = match expected {
            None => sqlx::query(INSERT),
            Some(_) => sqlx::query(SETTLE),
        };
        let mut query = query
            .bind(&schedule.name)
            .bind(&schedule.rhythm)
            .bind(settled.as_micros());
        if let Some(expected) = expected {
            query = query.bind(expected.as_micros());
        }
        let failed = |error| self.failed(error);
        query.execute(&self.pool).await.map_err(failed)?;
        let query = sqlx::query_scalar(SETTLED)
            .bind(&schedule.name)
            .bind(&schedule.rhythm);
        let stands = query.fetch_one(&self.pool).await.map_err(failed)?;
        Ok(Timestamp::from_micros(stands))
    }

    async fn mark_absent(
        &self,
        schedule: &ScheduleKey,
        since: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let query = sqlx::query(MARK)
            .bind(&schedule.name)
            .bind(&schedule.rhythm)
            .bind(since.map(Timestamp::as_micros));
        let marked = query.execute(&self.pool).await;
        marked.map_err(|error| self.failed(error)).map(drop)
    }

    async fn move_schedule(
        &self,
        schedule: &ScheduleKey,
        to: Timestamp,
        moved: &Moved,
    ) -> Result<bool, StoreError> {
        let query = sqlx::query(MOVE)
            .bind(&schedule.name)
            .bind(&schedule.rhythm)
            .bind(to.as_micros())
            .bind(&moved.by)
            .bind(&moved.why)
            .bind(moved.at.as_micros());
        let done = query.execute(&self.pool).await;
        Ok(done.map_err(|error| self.failed(error))?.rows_affected() > 0)
    }
}
