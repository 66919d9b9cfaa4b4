//! A participant's transactions in PostgreSQL: rows are locked as they are read, in key order.

use async_trait::async_trait;

use super::connections::{Begin, Session, Transaction};
use super::{PostgresStore, column, errors, letters, messages};
use crate::id::Timestamp;
use crate::store::dead_letters::occurrence::NewLetter;
use crate::store::participant::{
    AggregateEvent, AggregateKey, AggregateRow, AggregateSnapshot, BarrierKey, BarrierRow, Loaded,
    ParticipantStore, ParticipantTransaction, ParticipantWrites, Write,
};
use crate::store::{StoreError, rows, shape};

/// By primary key.
const LOCK_BARRIERS: &str = "
    SELECT
        barriers.participant, barriers.saga_id, barriers.step, barriers.status, barriers.body,
        barriers.at
    FROM unnest($1::text[], $2::uuid[], $3::text[]) AS wanted (participant, saga_id, step)
    JOIN barriers ON barriers.participant = wanted.participant
        AND barriers.saga_id = wanted.saga_id AND barriers.step = wanted.step
    ORDER BY barriers.participant, barriers.saga_id, barriers.step
    FOR UPDATE OF barriers";

/// By primary key.
const LOCK_AGGREGATES: &str = "
    SELECT aggregates.kind, aggregates.id, aggregates.revision, aggregates.state
    FROM unnest($1::text[], $2::text[]) AS wanted (kind, id)
    JOIN aggregates ON aggregates.kind = wanted.kind AND aggregates.id = wanted.id
    ORDER BY aggregates.kind, aggregates.id
    FOR UPDATE OF aggregates";

const INSERT_BARRIERS: &str = "
    INSERT INTO barriers (participant, saga_id, step, status, body, at)
    SELECT participant, saga_id, step, status, body, at
    FROM unnest($1::text[], $2::uuid[], $3::text[], $4::smallint[], $5::bytea[], $6::bigint[])
        AS new (participant, saga_id, step, status, body, at)";

/// By primary key, within the page (HOT).
const UPDATE_BARRIERS: &str = "
    UPDATE barriers SET status = new.status, body = new.body, at = new.at
    FROM unnest($1::text[], $2::uuid[], $3::text[], $4::smallint[], $5::bytea[], $6::bigint[])
        AS new (participant, saga_id, step, status, body, at)
    WHERE barriers.participant = new.participant AND barriers.saga_id = new.saga_id
        AND barriers.step = new.step";

const INSERT_AGGREGATES: &str = "
    INSERT INTO aggregates (kind, id, revision, state)
    SELECT kind, id, revision, state
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[])
        AS new (kind, id, revision, state)";

/// By primary key, within the page (HOT).
const UPDATE_AGGREGATES: &str = "
    UPDATE aggregates SET revision = new.revision, state = new.state
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[])
        AS new (kind, id, revision, state)
    WHERE aggregates.kind = new.kind AND aggregates.id = new.id";

/// Positions are drawn in the order of the rows, and only once there is a transaction id: readers
/// rely on it (see [`super::feed`]).
const INSERT_EVENTS: &str = "
    WITH begun AS MATERIALIZED (SELECT pg_current_xact_id() AS id)
    INSERT INTO aggregate_events
        (kind, id, seq, at, body, valid_from, saga_id, saga_key, message_id, correlation)
    SELECT
        new.kind, new.id, new.seq, new.at, new.body, new.valid_from, new.saga_id, new.saga_key,
        new.message_id, new.correlation
    FROM begun CROSS JOIN unnest(
        $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[], $7::uuid[],
        $8::text[], $9::text[], $10::text[]
    ) AS new (kind, id, seq, at, body, valid_from, saga_id, saga_key, message_id, correlation)";

const INSERT_SNAPSHOTS: &str = "
    INSERT INTO aggregate_snapshots (kind, id, revision, at, state)
    SELECT kind, id, revision, at, state
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[])
        AS new (kind, id, revision, at, state)
    ON CONFLICT DO NOTHING";

/// In order of the primary key.
const AGGREGATES: &str = "
    SELECT kind, id, revision, state FROM aggregates
    WHERE kind = $1 AND ($2::text IS NULL OR id > $2) ORDER BY kind, id LIMIT $3";

/// In order of the primary key.
const EVENTS: &str = "
    SELECT
        kind, id, seq, at, body, position, valid_from, saga_id, saga_key, message_id, correlation
    FROM aggregate_events WHERE kind = $1 AND id = $2 AND seq > $3 ORDER BY seq LIMIT $4";

#[async_trait]
impl ParticipantStore for PostgresStore {
    async fn begin(&self) -> Result<Box<dyn ParticipantTransaction>, StoreError> {
        Ok(Box::new(PostgresParticipant {
            transaction: self.begin_as(Begin::Participant).await?,
            store: self.clone(),
        }))
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
        let found = query.fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, rows::aggregate)
    }

    async fn aggregate_events(
        &self,
        key: &AggregateKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AggregateEvent>, StoreError> {
        if !shape::is_aggregate(key) {
            return Ok(Vec::new());
        }
        let query = sqlx::query_as(EVENTS)
            .bind(&key.kind)
            .bind(&key.id)
            .bind(rows::signed(after))
            .bind(rows::limit(limit));
        let found = query.fetch_all(&self.pool).await;
        let found = found.map_err(|error| self.failed(error))?;
        rows::all(found, rows::event)
    }
}

struct PostgresParticipant {
    transaction: Transaction,
    store: PostgresStore,
}

#[async_trait]
impl ParticipantTransaction for PostgresParticipant {
    async fn load(
        &mut self,
        barriers: &[BarrierKey],
        aggregates: &[AggregateKey],
    ) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        let barriers: Vec<_> = barriers
            .iter()
            .filter(|key| shape::is_barrier(key))
            .collect();
        if !barriers.is_empty() {
            let query = sqlx::query_as(LOCK_BARRIERS)
                .bind(column(&barriers, |key| key.participant.as_str()))
                .bind(column(&barriers, |key| key.saga.0))
                .bind(column(&barriers, |key| key.step.to_string()));
            let found = query.fetch_all(&mut *self.transaction).await;
            let found = found.map_err(|error| self.store.failed(error))?;
            loaded.barriers = rows::all(found, rows::barrier)?;
            loaded.barriers.sort_by(|a, b| a.key.cmp(&b.key));
            loaded.barriers.dedup();
        }
        let aggregates: Vec<_> = aggregates
            .iter()
            .filter(|key| shape::is_aggregate(key))
            .collect();
        if !aggregates.is_empty() {
            let query = sqlx::query_as(LOCK_AGGREGATES)
                .bind(column(&aggregates, |key| key.kind.as_str()))
                .bind(column(&aggregates, |key| key.id.as_str()));
            let found = query.fetch_all(&mut *self.transaction).await;
            let found = found.map_err(|error| self.store.failed(error))?;
            loaded.aggregates = rows::all(found, rows::aggregate)?;
            loaded.aggregates.dedup();
        }
        Ok(loaded)
    }

    async fn commit(mut self: Box<Self>, writes: ParticipantWrites) -> Result<(), StoreError> {
        shape::check_writes(&writes)?;
        let of_outbox = rows::outbox_properties(&writes.outbox)?;
        let of_letters = NewLetter::all(&writes.dead_letters)?;
        let connection = &mut *self.transaction;
        let written = write_state(connection, &writes).await;
        let complete = written.map_err(|error| {
            if errors::is_unique_violation(&error) {
                StoreError::Conflict
            } else {
                self.store.failed(error)
            }
        })?;
        if !complete {
            return Err(StoreError::Refused("a row to update is not there".into()));
        }
        let failed = |error| self.store.failed(error);
        let outbox: Vec<_> = writes.outbox.iter().collect();
        messages::insert_outbox(connection, &outbox, &of_outbox)
            .await
            .map_err(failed)?;
        letters::keep(connection, of_letters)
            .await
            .map_err(failed)?;
        messages::delete_outbox(connection, &writes.sent)
            .await
            .map_err(failed)?;
        self.transaction.commit().await.map_err(failed)
    }
}

/// Writes barriers, aggregates and events; `false` when a row to update is not there.
async fn write_state(connection: &mut Session, writes: &ParticipantWrites) -> sqlx::Result<bool> {
    let (new, changed) = split(&writes.barriers, |row| &row.key);
    write_barriers(connection, INSERT_BARRIERS, &new).await?;
    let barriers_updated = write_barriers(connection, UPDATE_BARRIERS, &changed).await?;
    let barriers_complete = barriers_updated == changed.len() as u64;
    let (new, changed) = split(&writes.aggregates, |row| &row.key);
    write_aggregates(connection, INSERT_AGGREGATES, &new).await?;
    let aggregates_updated = write_aggregates(connection, UPDATE_AGGREGATES, &changed).await?;
    insert_events(connection, &writes.events).await?;
    insert_snapshots(connection, &writes.snapshots).await?;
    Ok(barriers_complete && aggregates_updated == changed.len() as u64)
}

/// New rows and changed ones, each in key order.
fn split<T, K: Ord>(writes: &[Write<T>], key: impl Fn(&T) -> &K) -> (Vec<&T>, Vec<&T>) {
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for write in writes {
        match write {
            Write::Insert(row) => new.push(row),
            Write::Update(row) => changed.push(row),
        }
    }
    // One order for all, so that two transactions that insert the same rows don't wait in a circle.
    new.sort_by_key(|row| key(row));
    changed.sort_by_key(|row| key(row));
    (new, changed)
}

async fn write_barriers(
    connection: &mut Session,
    statement: &'static str,
    barriers: &[&BarrierRow],
) -> sqlx::Result<u64> {
    if barriers.is_empty() {
        return Ok(0);
    }
    let query = sqlx::query(statement)
        .bind(column(barriers, |row| row.key.participant.as_str()))
        .bind(column(barriers, |row| row.key.saga.0))
        .bind(column(barriers, |row| row.key.step.to_string()))
        .bind(column(barriers, |row| row.status))
        .bind(column(barriers, |row| &row.body[..]))
        .bind(column(barriers, |row| row.at.as_micros()));
    Ok(query.execute(connection).await?.rows_affected())
}

async fn write_aggregates(
    connection: &mut Session,
    statement: &'static str,
    aggregates: &[&AggregateRow],
) -> sqlx::Result<u64> {
    if aggregates.is_empty() {
        return Ok(0);
    }
    let query = sqlx::query(statement)
        .bind(column(aggregates, |row| row.key.kind.as_str()))
        .bind(column(aggregates, |row| row.key.id.as_str()))
        .bind(column(aggregates, |row| rows::signed(row.revision)))
        .bind(column(aggregates, |row| &row.state[..]));
    Ok(query.execute(connection).await?.rows_affected())
}

async fn insert_events(connection: &mut Session, events: &[AggregateEvent]) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT_EVENTS)
        .bind(column(events, |row| row.key.kind.as_str()))
        .bind(column(events, |row| row.key.id.as_str()))
        .bind(column(events, |row| rows::signed(row.seq)))
        .bind(column(events, |row| row.at.as_micros()))
        .bind(column(events, |row| &row.body[..]))
        .bind(column(events, |row| {
            row.valid_from.map(Timestamp::as_micros)
        }))
        .bind(column(events, |row| row.origin.saga.map(|saga| saga.0)))
        .bind(column(events, |row| row.origin.saga_key.as_deref()))
        .bind(column(events, |row| row.origin.message_id.as_deref()))
        .bind(column(events, |row| row.origin.correlation.as_deref()))
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_snapshots(
    connection: &mut Session,
    snapshots: &[AggregateSnapshot],
) -> sqlx::Result<()> {
    if snapshots.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT_SNAPSHOTS)
        .bind(column(snapshots, |row| row.key.kind.as_str()))
        .bind(column(snapshots, |row| row.key.id.as_str()))
        .bind(column(snapshots, |row| rows::signed(row.revision)))
        .bind(column(snapshots, |row| row.at.as_micros()))
        .bind(column(snapshots, |row| &row.state[..]))
        .execute(connection)
        .await?;
    Ok(())
}
