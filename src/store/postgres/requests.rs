//! What the HTTP API remembers, in PostgreSQL.

use async_trait::async_trait;
use serde_json::Value;

use super::PostgresStore;
use super::letters::append;
use crate::store::dead_letters::Actor;
use crate::store::requests::{
    Answer, AnswerColumns, CLEARED_MAX, Claim, Claimed, RequestStore, claimed, deed,
};
use crate::store::{StoreError, rows};

/// By `answers_by_time`, from its beginning.
const CLEAR: &str = "
    DELETE FROM answers WHERE id IN (
        SELECT id FROM answers WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED
    )";

/// By primary key.
const CLAIM: &str = "
    INSERT INTO answers (id, fingerprint, at) VALUES ($1, $2, $3)
    ON CONFLICT (id) DO UPDATE SET at = $3
    WHERE answers.status IS NULL AND answers.at < $4 AND answers.fingerprint = $2
    RETURNING 1";

/// By primary key.
const KNOWN: &str = "SELECT fingerprint, status, location, kind, body FROM answers WHERE id = $1";

/// By primary key.
const KEEP: &str = "
    UPDATE answers SET status = $3, location = $4, kind = $5, body = $6
    WHERE id = $1 AND at = $2";

/// By primary key.
const GIVE_UP: &str = "DELETE FROM answers WHERE id = $1 AND at = $2 AND status IS NULL";

#[async_trait]
impl RequestStore for PostgresStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let failed = |error| self.failed(error);
        sqlx::query(CLEAR)
            .bind(claim.clear_before().as_micros())
            .bind(rows::limit(CLEARED_MAX))
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        let ours: Option<i32> = sqlx::query_scalar(CLAIM)
            .bind(&claim.id[..])
            .bind(&claim.fingerprint[..])
            .bind(claim.at.as_micros())
            .bind(claim.stale_before().as_micros())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        if ours.is_some() {
            return Ok(Claimed::Ours);
        }
        let query = sqlx::query_as::<_, AnswerColumns>(KNOWN).bind(&claim.id[..]);
        let known = query.fetch_optional(&self.pool).await.map_err(failed)?;
        Ok(claimed(claim, known))
    }

    async fn keep_answer(&self, claim: &Claim, answer: &Answer) -> Result<(), StoreError> {
        let kept = sqlx::query(KEEP)
            .bind(&claim.id[..])
            .bind(claim.at.as_micros())
            .bind(i32::from(answer.status))
            .bind(&answer.location)
            .bind(&answer.kind)
            .bind(&answer.body)
            .execute(&self.pool)
            .await;
        kept.map(drop).map_err(|error| self.failed(error))
    }

    async fn give_up(&self, claim: &Claim) -> Result<(), StoreError> {
        let given_up = sqlx::query(GIVE_UP)
            .bind(&claim.id[..])
            .bind(claim.at.as_micros())
            .execute(&self.pool)
            .await;
        given_up.map(drop).map_err(|error| self.failed(error))
    }

    async fn note_deed(
        &self,
        actor: &Actor,
        action: &'static str,
        detail: Value,
    ) -> Result<(), StoreError> {
        let mut transaction = self.transaction().await?;
        append(&mut transaction, actor, deed(action, detail))
            .await
            .map_err(|error| self.append_failed(error))?;
        let committed = transaction.commit().await;
        committed.map_err(|error| self.failed(error))
    }
}
