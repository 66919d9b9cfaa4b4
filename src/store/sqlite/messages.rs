//! The outbox in SQLite, for sagas and participants alike.

use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::bulk::{self, Bulk};
use super::{SqliteStore, failed};
use crate::id::Timestamp;
use crate::store::dead_letters::{ReturnedReplay, note_returned};
use crate::store::rows::OutboxRow;
use crate::store::{Commit, DeadLetter, Outbox, OutboxMessage, Store, StoreError, rows};

/// A batch that is stored again after a lost answer brings the same rows, hence DO NOTHING.
static INSERT_OUTBOX: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO outbox (id, exchange, routing_key, properties, body, due_at)",
        6,
        "ON CONFLICT DO NOTHING",
    )
});

/// By primary key.
const UNSENT: &str = "
    SELECT id FROM outbox WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

/// By primary key.
const DELETE_OUTBOX: &str = "
    DELETE FROM outbox WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

/// In order of `outbox_by_due_at`.
const DUE: &str = "
    SELECT id, exchange, routing_key, properties, body, ?2 FROM outbox
    WHERE due_at <= ?1 ORDER BY due_at, id LIMIT ?3";

/// By primary key.
const POSTPONE: &str = "
    UPDATE outbox SET due_at = ?2 WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

pub(super) async fn insert_outbox(
    connection: &mut SqliteConnection,
    messages: &[(&OutboxMessage, String)],
) -> sqlx::Result<()> {
    INSERT_OUTBOX
        .execute(connection, messages, |query, (row, properties)| {
            query
                .bind(row.id)
                .bind(row.destination.exchange.as_str())
                .bind(row.destination.routing_key.as_str())
                .bind(properties.as_str())
                .bind(&row.message.body[..])
                .bind(row.due_at.as_micros())
        })
        .await
        .map(drop)
}

pub(super) async fn delete_outbox(
    connection: &mut SqliteConnection,
    sent: &[Uuid],
) -> sqlx::Result<()> {
    if !sent.is_empty() {
        let query = sqlx::query(DELETE_OUTBOX).bind(bulk::ids(sent.iter().copied()));
        query.execute(connection).await?;
    }
    Ok(())
}

#[async_trait]
impl Outbox for SqliteStore {
    async fn sweep_outbox(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxMessage>, StoreError> {
        let mut transaction = self.transaction().await?;
        let query = sqlx::query_as(DUE)
            .bind(now.as_micros())
            .bind(until.as_micros())
            .bind(rows::limit(limit));
        let due: Vec<OutboxRow> = query.fetch_all(&mut *transaction).await.map_err(failed)?;
        if !due.is_empty() {
            let query = sqlx::query(POSTPONE)
                .bind(bulk::ids(due.iter().map(|row| row.0)))
                .bind(until.as_micros());
            query.execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        rows::all(due, rows::outbox_message)
    }

    async fn unsent(&self, rows: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let query = sqlx::query_scalar(UNSENT).bind(bulk::ids(rows.iter().copied()));
        query.fetch_all(&self.readers).await.map_err(failed)
    }

    async fn remove_sent(&self, sent: &[Uuid]) -> Result<(), StoreError> {
        if sent.is_empty() {
            return Ok(());
        }
        let mut transaction = self.transaction().await?;
        let removed = delete_outbox(&mut transaction, sent).await;
        removed.map_err(failed)?;
        transaction.commit().await.map_err(failed)
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
        let count: i64 = query.fetch_one(&self.readers).await.map_err(failed)?;
        Ok(count.unsigned_abs())
    }
}
