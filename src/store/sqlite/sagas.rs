//! Sagas in SQLite: loading, claiming, and what people ask.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use serde_json::Value;
use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

use super::bulk;
use super::commit::PreparedCommit;
use super::{SqliteStore, failed};
use crate::id::{SagaId, Timestamp};
use crate::store::head::{self, heads};
use crate::store::loading::Loading;
use crate::store::{
    Commit, CommitOutcome, DeadLetter, DefinitionRow, JournalEntry, KeyMatch, LIST_ROWS_MAX,
    ListFilter, LiveCount, LoadRequest, LoadedSaga, Revision, SagaCount, SagaHead, SagaKey,
    SagaTable, Status, Store, StoreError, rows, shape,
};

/// By primary key.
const HEADS: &str = heads!("id IN (SELECT unhex(value) FROM json_each(?1))");

/// By primary key.
const SNAPSHOTS: &str = "
    SELECT saga_id, revision, body FROM snapshots
    WHERE saga_id IN (SELECT unhex(value) FROM json_each(?1)) ORDER BY saga_id";

/// By primary key, one range a saga.
const ENTRIES: &str = "
    SELECT journal.saga_id, journal.seq, journal.at, journal.hash, journal.body
    FROM json_each(?1) AS wanted
    CROSS JOIN journal ON journal.saga_id = unhex(wanted.value ->> 0)
        AND journal.seq > wanted.value ->> 1 AND journal.seq <= wanted.value ->> 2
    ORDER BY wanted.id, journal.seq";

/// By primary key, one range.
const JOURNAL: &str = "
    SELECT saga_id, seq, at, hash, body FROM journal
    WHERE saga_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";

/// The sagas among the next rows of a table, and whether each has its own; from primary keys alone.
macro_rules! sagas_in {
    ($table:literal) => {
        concat!(
            "SELECT DISTINCT saga_id, EXISTS (SELECT 1 FROM sagas WHERE sagas.id = page.saga_id)
            FROM (
                SELECT saga_id FROM ",
            $table,
            " WHERE saga_id > ?1 ORDER BY saga_id LIMIT ?2
            ) AS page
            ORDER BY saga_id"
        )
    };
}

/// By `sagas_by_key`.
const FIND: &str = "
    SELECT sagas.name, sagas.key, sagas.id, sagas.input_hash, sagas.status
    FROM json_each(?1) AS wanted
    CROSS JOIN sagas ON sagas.name = wanted.value ->> 0 AND sagas.key = wanted.value ->> 1
        AND NOT sagas.superseded";

/// In order of `sagas_to_wake`.
const DUE: &str = "SELECT id FROM sagas WHERE wake_at <= ?1 ORDER BY wake_at, id LIMIT ?2";

/// By primary key.
const POSTPONE: &str = "
    UPDATE sagas SET wake_at = ?2 WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

const INSERT_DEFINITION: &str = "
    INSERT INTO definitions (name, version, hash, source, stored_at)
    VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";

const DEFINITION: &str = "
    SELECT name, version, hash, source, stored_at FROM definitions
    WHERE name = ?1 AND version = ?2";

const DEFINITIONS: &str = "
    SELECT name, version, hash, source, stored_at FROM definitions ORDER BY name, version";

const INSERT_SECRET: &str = "
    INSERT INTO secrets (only_row, bytes) VALUES (1, ?1) ON CONFLICT DO NOTHING";

/// Changes nothing, but is written.
const TOUCH_SECRET: &str = "UPDATE secrets SET bytes = bytes";

const SECRET: &str = "SELECT bytes FROM secrets";

/// Reads the whole table: for people and metrics, not for each request.
const COUNTS: &str = "SELECT name, status, count(*) FROM sagas GROUP BY name, status";

/// By `sagas_by_status`; the statuses are those that a saga can have before its end.
const LIVE: &str = "
    SELECT name, version, count(*) FROM sagas
    WHERE status IN (SELECT value FROM json_each(?1))
    GROUP BY name, version ORDER BY name, version";

/// In order of `dead_letters_by_time`, backwards.
const DEAD_LETTERS: &str = "
    SELECT id, at, queue, code, reason, properties, body FROM dead_letters
    ORDER BY at DESC, id DESC LIMIT ?1";

#[async_trait]
impl Store for SqliteStore {
    async fn load(&self, requests: &[LoadRequest]) -> Result<Vec<Option<LoadedSaga>>, StoreError> {
        let mut loading = Loading::new(requests);
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.readers.acquire().await.map_err(failed)?;
        let whole = loading.whole();
        if !whole.is_empty() {
            let query = sqlx::query_as(SNAPSHOTS).bind(bulk::ids(whole));
            let mut rows = query.fetch(&mut *connection);
            while let Some(row) = rows.try_next().await.map_err(failed)? {
                if !loading.add_snapshot(row)? {
                    break;
                }
            }
        }
        loading.end_snapshots();
        let query = sqlx::query_as(HEADS).bind(bulk::ids(loading.ids()));
        loading.add_heads(query.fetch_all(&mut *connection).await.map_err(failed)?)?;
        let ranges = loading.ranges();
        if !ranges.is_empty() {
            let ranges = ranges.into_iter().map(|range| {
                Value::from_iter([
                    bulk::hex(range.saga),
                    range.after.into(),
                    range.up_to.into(),
                ])
            });
            let query = sqlx::query_as(ENTRIES).bind(bulk::json(ranges));
            let mut rows = query.fetch(&mut *connection);
            while let Some(row) = rows.try_next().await.map_err(failed)? {
                if !loading.add_entry(row)? {
                    break;
                }
            }
        }
        Ok(loading.finish())
    }

    async fn find(&self, keys: &[SagaKey]) -> Result<Vec<Option<KeyMatch>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = keys
            .iter()
            .map(|key| Value::from_iter([key.name.as_str(), key.key.as_str()]));
        let query = sqlx::query_as(FIND).bind(bulk::json(wanted));
        let found = query.fetch_all(&self.readers).await.map_err(failed)?;
        let by_key: BTreeMap<_, _> = rows::all(found, rows::key_match)?.into_iter().collect();
        Ok(keys.iter().map(|key| by_key.get(key).cloned()).collect())
    }

    async fn commit(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        shape::check(&commit)?;
        if commit.is_empty() {
            return Ok(CommitOutcome::default());
        }
        let batch = PreparedCommit::new(&commit)?;
        let mut transaction = self.transaction().await?;
        let outcome = batch.write(&mut transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(outcome)
    }

    async fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SagaId>, StoreError> {
        let mut transaction = self.transaction().await?;
        let query = sqlx::query_scalar(DUE)
            .bind(now.as_micros())
            .bind(rows::limit(limit));
        let due: Vec<Uuid> = query.fetch_all(&mut *transaction).await.map_err(failed)?;
        if !due.is_empty() {
            let query = sqlx::query(POSTPONE)
                .bind(bulk::ids(due.iter().copied()))
                .bind(until.as_micros());
            query.execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(due.into_iter().map(SagaId).collect())
    }

    async fn put_definition(&self, row: DefinitionRow) -> Result<DefinitionRow, StoreError> {
        let mut transaction = self.transaction().await?;
        sqlx::query(INSERT_DEFINITION)
            .bind(&row.name)
            .bind(i64::from(row.version))
            .bind(&row.hash[..])
            .bind(&row.source)
            .bind(row.stored_at.as_micros())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        let query = sqlx::query_as(DEFINITION)
            .bind(&row.name)
            .bind(i64::from(row.version));
        let stored = query.fetch_one(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        rows::definition(stored)
    }

    async fn definitions(&self) -> Result<Vec<DefinitionRow>, StoreError> {
        let found = sqlx::query_as(DEFINITIONS).fetch_all(&self.readers).await;
        rows::all(found.map_err(failed)?, rows::definition)
    }

    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let mut transaction = self.transaction().await?;
        let query = sqlx::query(INSERT_SECRET).bind(&candidate[..]);
        query.execute(&mut *transaction).await.map_err(failed)?;
        let query = sqlx::query_scalar(SECRET);
        let bytes: Vec<u8> = query.fetch_one(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        rows::hash(&bytes, || "secret".to_owned())
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<SagaHead>, StoreError> {
        // Only the conditions that are asked for, so that each has the plan it deserves.
        let mut query = QueryBuilder::<Sqlite>::new(heads!("true"));
        if let Some(before) = filter.before {
            query.push(" AND id < ").push_bind(before.0);
        }
        if let Some(name) = &filter.name {
            query.push(" AND name = ").push_bind(name);
        }
        if let Some(status) = filter.status {
            query.push(" AND status = ").push_bind(status.as_str());
        }
        if let Some(key) = &filter.key {
            query.push(" AND NOT superseded AND key = ").push_bind(key);
        }
        let limit = rows::limit(filter.limit.min(LIST_ROWS_MAX));
        query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
        let found = query.build_query_as().fetch_all(&self.readers).await;
        rows::all(found.map_err(failed)?, head::head)
    }

    async fn journal(
        &self,
        saga: SagaId,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        let query = sqlx::query_as(JOURNAL)
            .bind(saga.0)
            .bind(rows::signed(after))
            .bind(rows::limit(limit.min(LIST_ROWS_MAX)));
        let found = query.fetch_all(&self.readers).await.map_err(failed)?;
        rows::all(found, |row| Ok(rows::entry(row)?.1))
    }

    async fn sagas_in(
        &self,
        table: SagaTable,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<(SagaId, bool)>, StoreError> {
        let statement = match table {
            SagaTable::Journal => sagas_in!("journal"),
            SagaTable::Snapshots => sagas_in!("snapshots"),
        };
        // No saga has the id that is all zeros.
        let after = after.map_or(Uuid::nil(), |after| after.0);
        let query = sqlx::query_as(statement)
            .bind(after)
            .bind(rows::limit(limit));
        let found: Vec<(Uuid, bool)> = query.fetch_all(&self.readers).await.map_err(failed)?;
        let found = found.into_iter();
        Ok(found.map(|(id, has_row)| (SagaId(id), has_row)).collect())
    }

    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError> {
        let found = sqlx::query_as(COUNTS).fetch_all(&self.readers).await;
        let mut counts = rows::all(found.map_err(failed)?, rows::count)?;
        counts.sort_unstable();
        Ok(counts)
    }

    async fn live(&self) -> Result<Vec<LiveCount>, StoreError> {
        let live = Status::ALL.iter().filter(|status| !status.is_ended());
        let live = bulk::json(live.map(|status| Value::from(status.as_str())));
        let found = sqlx::query_as(LIVE).bind(live).fetch_all(&self.readers);
        rows::all(found.await.map_err(failed)?, rows::live)
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        let written = sqlx::query(TOUCH_SECRET).execute(&self.writer).await;
        written.map(drop).map_err(failed)
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let query = sqlx::query_as(DEAD_LETTERS).bind(rows::limit(limit.min(LIST_ROWS_MAX)));
        let found = query.fetch_all(&self.readers).await.map_err(failed)?;
        rows::all(found, rows::dead_letter)
    }
}
