//! A participant's transactions in SQLite: the writer is alone, so loading is locking.

use std::sync::LazyLock;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::{SqliteConnection, SqliteTransaction};

use super::bulk::{self, Binding, Bulk};
use super::{SqliteStore, failed, letters, messages};
use crate::id::Timestamp;
use crate::store::dead_letters::occurrence::NewLetter;
use crate::store::participant::{
    AggregateEvent, AggregateKey, AggregateRow, BarrierKey, BarrierRow, Loaded, ParticipantStore,
    ParticipantTransaction, ParticipantWrites, Write,
};
use crate::store::{StoreError, rows, shape};

/// By primary key.
const BARRIERS: &str = "
    SELECT
        barriers.participant, barriers.saga_id, barriers.step, barriers.status, barriers.body,
        barriers.at
    FROM json_each(?1) AS wanted
    CROSS JOIN barriers ON barriers.participant = wanted.value ->> 0
        AND barriers.saga_id = unhex(wanted.value ->> 1) AND barriers.step = wanted.value ->> 2";

/// By primary key.
const LOAD_AGGREGATES: &str = "
    SELECT aggregates.kind, aggregates.id, aggregates.revision, aggregates.state
    FROM json_each(?1) AS wanted
    CROSS JOIN aggregates ON aggregates.kind = wanted.value ->> 0
        AND aggregates.id = wanted.value ->> 1
    ORDER BY aggregates.kind, aggregates.id";

static INSERT_BARRIERS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO barriers (participant, saga_id, step, status, body, at)",
        6,
        "",
    )
});

/// By primary key.
static UPDATE_BARRIERS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "UPDATE barriers SET status = new.column4, body = new.column5, at = new.column6 FROM (",
        6,
        ") AS new
        WHERE barriers.participant = new.column1 AND barriers.saga_id = new.column2
            AND barriers.step = new.column3",
    )
});

static INSERT_AGGREGATES: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new("INSERT INTO aggregates (kind, id, revision, state)", 4, ""));

/// By primary key.
static UPDATE_AGGREGATES: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "UPDATE aggregates SET revision = new.column3, state = new.column4 FROM (",
        4,
        ") AS new WHERE aggregates.kind = new.column1 AND aggregates.id = new.column2",
    )
});

static INSERT_EVENTS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO aggregate_events
            (kind, id, seq, at, body, valid_from, saga_id, saga_key, message_id, correlation)",
        10,
        "",
    )
});

static INSERT_SNAPSHOTS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO aggregate_snapshots (kind, id, revision, at, state)",
        5,
        "ON CONFLICT DO NOTHING",
    )
});

/// In order of the primary key.
const AGGREGATES: &str = "
    SELECT kind, id, revision, state FROM aggregates
    WHERE kind = ?1 AND (?2 IS NULL OR id > ?2) ORDER BY kind, id LIMIT ?3";

/// In order of the primary key.
const EVENTS: &str = "
    SELECT
        kind, id, seq, at, body, position, valid_from, saga_id, saga_key, message_id, correlation
    FROM aggregate_events WHERE kind = ?1 AND id = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4";

#[async_trait]
impl ParticipantStore for SqliteStore {
    async fn begin(&self) -> Result<Box<dyn ParticipantTransaction>, StoreError> {
        let transaction = self.transaction().await?;
        Ok(Box::new(SqliteParticipant { transaction }))
    }

    async fn aggregates(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AggregateRow>, StoreError> {
        let query = sqlx::query_as(AGGREGATES)
            .bind(kind)
            .bind(after)
            .bind(rows::limit(limit));
        let found = query.fetch_all(&self.readers).await.map_err(failed)?;
        rows::all(found, rows::aggregate)
    }

    async fn aggregate_events(
        &self,
        key: &AggregateKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AggregateEvent>, StoreError> {
        let query = sqlx::query_as(EVENTS)
            .bind(&key.kind)
            .bind(&key.id)
            .bind(rows::signed(after))
            .bind(rows::limit(limit));
        let found = query.fetch_all(&self.readers).await.map_err(failed)?;
        rows::all(found, rows::event)
    }
}

struct SqliteParticipant {
    transaction: SqliteTransaction<'static>,
}

#[async_trait]
impl ParticipantTransaction for SqliteParticipant {
    async fn load(
        &mut self,
        barriers: &[BarrierKey],
        aggregates: &[AggregateKey],
    ) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        if !barriers.is_empty() {
            let key = |key: &BarrierKey| {
                let (participant, step) = (key.participant.as_str(), key.step.to_string());
                Value::from_iter([participant.into(), bulk::hex(key.saga.0), Value::from(step)])
            };
            let query = sqlx::query_as(BARRIERS).bind(bulk::json(barriers.iter().map(key)));
            let found = query.fetch_all(&mut *self.transaction).await;
            loaded.barriers = rows::all(found.map_err(failed)?, rows::barrier)?;
            loaded.barriers.sort_by(|a, b| a.key.cmp(&b.key));
            loaded.barriers.dedup();
        }
        let aggregates = aggregates.iter().filter(|key| shape::is_aggregate(key));
        let keys = aggregates.map(|key| Value::from_iter([key.kind.as_str(), key.id.as_str()]));
        let keys: Vec<_> = keys.collect();
        if !keys.is_empty() {
            let query = sqlx::query_as(LOAD_AGGREGATES).bind(bulk::json(keys));
            let found = query.fetch_all(&mut *self.transaction).await;
            loaded.aggregates = rows::all(found.map_err(failed)?, rows::aggregate)?;
            loaded.aggregates.dedup();
        }
        Ok(loaded)
    }

    async fn commit(mut self: Box<Self>, writes: ParticipantWrites) -> Result<(), StoreError> {
        shape::check_writes(&writes)?;
        let of_outbox = rows::outbox_properties(&writes.outbox)?;
        let outbox: Vec<_> = writes.outbox.iter().zip(of_outbox).collect();
        let new_letters = NewLetter::all(&writes.dead_letters)?;
        let connection = &mut *self.transaction;
        let complete = write_state(connection, &writes).await.map_err(|error| {
            let database = error.as_database_error();
            if database.is_some_and(sqlx::error::DatabaseError::is_unique_violation) {
                StoreError::Conflict
            } else {
                failed(error)
            }
        })?;
        if !complete {
            return Err(StoreError::Refused("a row to update is not there".into()));
        }
        messages::insert_outbox(connection, &outbox)
            .await
            .map_err(failed)?;
        letters::keep(connection, new_letters)
            .await
            .map_err(failed)?;
        messages::delete_outbox(connection, &writes.sent)
            .await
            .map_err(failed)?;
        self.transaction.commit().await.map_err(failed)
    }
}

/// Writes barriers, aggregates and events; `false` when a row to update is not there.
async fn write_state(
    connection: &mut SqliteConnection,
    writes: &ParticipantWrites,
) -> sqlx::Result<bool> {
    let (new, changed) = split(&writes.barriers);
    INSERT_BARRIERS
        .execute(connection, &new, |query, row| bind_barrier(query, row))
        .await?;
    let barriers_updated = UPDATE_BARRIERS
        .execute(connection, &changed, |query, row| bind_barrier(query, row))
        .await?;
    let barriers_complete = barriers_updated == changed.len() as u64;
    let (new, changed) = split(&writes.aggregates);
    INSERT_AGGREGATES
        .execute(connection, &new, |query, row| bind_aggregate(query, row))
        .await?;
    let aggregates_updated = UPDATE_AGGREGATES
        .execute(connection, &changed, |query, row| {
            bind_aggregate(query, row)
        })
        .await?;
    INSERT_EVENTS
        .execute(connection, &writes.events, |query, row| {
            query
                .bind(row.key.kind.as_str())
                .bind(row.key.id.as_str())
                .bind(rows::signed(row.seq))
                .bind(row.at.as_micros())
                .bind(&row.body[..])
                .bind(row.valid_from.map(Timestamp::as_micros))
                .bind(row.origin.saga.map(|saga| saga.0))
                .bind(row.origin.saga_key.as_deref())
                .bind(row.origin.message_id.as_deref())
                .bind(row.origin.correlation.as_deref())
        })
        .await?;
    INSERT_SNAPSHOTS
        .execute(connection, &writes.snapshots, |query, row| {
            query
                .bind(row.key.kind.as_str())
                .bind(row.key.id.as_str())
                .bind(rows::signed(row.revision))
                .bind(row.at.as_micros())
                .bind(&row.state[..])
        })
        .await?;
    Ok(barriers_complete && aggregates_updated == changed.len() as u64)
}

/// New rows and changed ones.
fn split<T>(writes: &[Write<T>]) -> (Vec<&T>, Vec<&T>) {
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for write in writes {
        match write {
            Write::Insert(row) => new.push(row),
            Write::Update(row) => changed.push(row),
        }
    }
    (new, changed)
}

fn bind_barrier(query: Binding, row: &BarrierRow) -> Binding {
    query
        .bind(row.key.participant.as_str())
        .bind(row.key.saga.0)
        .bind(row.key.step.to_string())
        .bind(row.status)
        .bind(&row.body[..])
        .bind(row.at.as_micros())
}

fn bind_aggregate(query: Binding, row: &AggregateRow) -> Binding {
    query
        .bind(row.key.kind.as_str())
        .bind(row.key.id.as_str())
        .bind(rows::signed(row.revision))
        .bind(&row.state[..])
}
