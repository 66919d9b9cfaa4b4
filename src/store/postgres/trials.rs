//! Trials in PostgreSQL.

use async_trait::async_trait;
use uuid::Uuid;

use super::PostgresStore;
use crate::id::Timestamp;
use crate::store::StoreError;
use crate::store::trials::Trials;

/// By primary key.
const BEGIN: &str = "
    INSERT INTO trials (message, begun, at) VALUES ($1, 1, $2)
    ON CONFLICT (message) DO UPDATE SET begun = trials.begun + 1, at = excluded.at
    RETURNING begun";

/// By primary key.
const END: &str = "DELETE FROM trials WHERE message = $1";

#[async_trait]
impl Trials for PostgresStore {
    async fn begin_trial(&self, message: Uuid, at: Timestamp) -> Result<u32, StoreError> {
        let query = sqlx::query_scalar(BEGIN).bind(message).bind(at.as_micros());
        let begun: i32 = query
            .fetch_one(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(begun.unsigned_abs())
    }

    async fn end_trial(&self, message: Uuid) -> Result<(), StoreError> {
        let query = sqlx::query(END).bind(message);
        query
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|error| self.failed(error))
    }
}
