//! Schedules in SQLite.

use async_trait::async_trait;

use super::{SqliteStore, failed};
use crate::id::Timestamp;
use crate::store::schedules::{ScheduleRow, Schedules};
use crate::store::{StoreError, rows};

/// By primary key; there are as many rows as definitions with a schedule.
const SCHEDULES: &str = "SELECT name, settled FROM schedules ORDER BY name";

const INSERT: &str = "
    INSERT INTO schedules (name, settled) VALUES (?1, ?2) ON CONFLICT DO NOTHING";

/// By primary key.
const MOVE: &str = "UPDATE schedules SET settled = ?2 WHERE name = ?1 AND settled = ?3";

/// By primary key.
const SETTLED: &str = "SELECT settled FROM schedules WHERE name = ?1";

#[async_trait]
impl Schedules for SqliteStore {
    async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        let found = sqlx::query_as(SCHEDULES).fetch_all(&self.readers).await;
        let found = found.map_err(failed)?.into_iter();
        Ok(found.map(rows::schedule).collect())
    }

    async fn settle(
        &self,
        name: &str,
        expected: Option<Timestamp>,
        settled: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        let name = name.to_owned();
        let mut transaction = self.transaction().await?;
        let query = match expected {
            None => sqlx::query(INSERT)
                .bind(name.clone())
                .bind(settled.as_micros()),
            Some(expected) => sqlx::query(MOVE)
                .bind(name.clone())
                .bind(settled.as_micros())
                .bind(expected.as_micros()),
        };
        query.execute(&mut *transaction).await.map_err(failed)?;
        let query = sqlx::query_scalar(SETTLED).bind(name);
        let stands = query.fetch_one(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Timestamp::from_micros(stands))
    }
}
