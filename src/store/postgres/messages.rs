//! The outbox in PostgreSQL, for sagas and participants alike.

use async_trait::async_trait;
use uuid::Uuid;

use super::connections::Session;
use super::{PostgresStore, column};
use crate::id::Timestamp;
use crate::store::dead_letters::{ReturnedReplay, note_returned};
use crate::store::{Commit, DeadLetter, Outbox, OutboxMessage, Store, StoreError, rows};

/// A batch that is stored again after a lost answer brings the same rows, hence DO NOTHING.
const INSERT_OUTBOX: &str = "
    INSERT INTO outbox (id, exchange, routing_key, properties, body, due_at)
    SELECT id, exchange, routing_key, properties, body, due_at
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bigint[])
        AS new (id, exchange, routing_key, properties, body, due_at)
    ON CONFLICT DO NOTHING";

/// By primary key.
const UNSENT: &str = "SELECT id FROM outbox WHERE id = ANY ($1)";

/// By primary key.
const DELETE_OUTBOX: &str = "DELETE FROM outbox WHERE id = ANY ($1)";

/// In order of `outbox_by_due_at`, from where the last poll ended; rows that another node is deleting or sweeping are skipped.
const SWEEP: &str = "
    WITH due AS MATERIALIZED (
        SELECT id, due_at FROM outbox WHERE due_at <= $1 AND due_at > $4
        ORDER BY due_at, id LIMIT $3 FOR UPDATE SKIP LOCKED
    ), moved AS (
        UPDATE outbox SET due_at = $2 FROM due WHERE outbox.id = due.id
        RETURNING outbox.id, exchange, routing_key, properties, body, due.due_at AS was_due_at
    )
    SELECT id, exchange, routing_key, properties, body, $2 FROM moved ORDER BY was_due_at, id";

pub(super) async fn insert_outbox(
    connection: &mut Session,
    messages: &[&OutboxMessage],
    properties: &[String],
) -> sqlx::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT_OUTBOX)
        .bind(column(messages, |row| row.id))
        .bind(column(messages, |row| row.destination.exchange.as_str()))
        .bind(column(messages, |row| row.destination.routing_key.as_str()))
        .bind(properties)
        .bind(column(messages, |row| &row.message.body[..]))
        .bind(column(messages, |row| row.due_at.as_micros()))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn delete_outbox(connection: &mut Session, sent: &[Uuid]) -> sqlx::Result<()> {
    if !sent.is_empty() {
        let query = sqlx::query(DELETE_OUTBOX).bind(sent);
        query.execute(connection).await?;
    }
    Ok(())
}

#[async_trait]
impl Outbox for PostgresStore {
    async fn sweep_outbox(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxMessage>, StoreError> {
        let query = sqlx::query_as(SWEEP)
            .bind(now.as_micros())
            .bind(until.as_micros())
            .bind(rows::limit(limit))
            .bind(self.polls.outbox.begin(now));
        let found = query.fetch_all(&self.pool).await;
        let found = found.map_err(|error| self.failed(error))?;
        self.polls.outbox.found(now, found.len() < limit);
        rows::all(found, rows::outbox_message)
    }

    async fn unsent(&self, rows: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let query = sqlx::query_scalar(UNSENT).bind(rows);
        let unsent = query.fetch_all(&self.pool).await;
        unsent.map_err(|error| self.failed(error))
    }

    async fn remove_sent(&self, sent: &[Uuid]) -> Result<(), StoreError> {
        if sent.is_empty() {
            return Ok(());
        }
        let query = sqlx::query(DELETE_OUTBOX).bind(sent);
        let removed = query.execute(&self.pool).await;
        removed.map(drop).map_err(|error| self.failed(error))
    }

    async fn return_replays(
        &self,
        at: Timestamp,
        returned: Vec<ReturnedReplay>,
    ) -> Result<(), StoreError> {
        note_returned(self, at, returned).await
    }

    async fn set_aside(&self, letters: Vec<DeadLetter>, rows: Vec<Uuid>) -> Result<(), StoreError> {
        let commit = Commit {
            dead_letters: letters,
            sent: rows,
            ..Commit::default()
        };
        self.commit(commit).await.map(drop)
    }

    async fn outbox_len(&self) -> Result<u64, StoreError> {
        let query = sqlx::query_scalar("SELECT count(*) FROM outbox");
        let count: i64 = query
            .fetch_one(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(count.unsigned_abs())
    }
}
