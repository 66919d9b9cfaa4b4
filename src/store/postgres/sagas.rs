//! Sagas in PostgreSQL: loading, claiming, and what people ask.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::commit::PreparedCommit;
use super::connections::Begin;
use super::{PostgresStore, column};
use crate::id::{SagaId, Timestamp};
use crate::store::head::{self, heads};
use crate::store::loading::Loading;
use crate::store::{
    Commit, CommitOutcome, DeadLetter, DefinitionRow, JournalEntry, KeyMatch, LIST_ROWS_MAX,
    ListFilter, LiveCount, LoadRequest, LoadedSaga, Outbox, Revision, SagaCount, SagaHead, SagaKey,
    SagaTable, Status, Store, StoreError, is_key, rows, shape,
};

/// By primary key.
const HEADS: &str = heads!("id = ANY ($1)");

/// By primary key; as many as have so many bytes, and one more. Sizes are known without reading bodies.
const SNAPSHOTS: &str = "
    SELECT saga_id, revision, body FROM (
        SELECT saga_id, revision, body,
            sum(octet_length(body)) OVER (ORDER BY saga_id) - octet_length(body) AS bytes_before
        FROM snapshots WHERE saga_id = ANY ($1)
    ) AS sized
    WHERE bytes_before < $2 ORDER BY saga_id";

/// By primary key, one range a saga; of as many sagas as have so many bytes, and one more.
const ENTRIES: &str = "
    SELECT saga_id, seq, at, hash, body FROM (
        SELECT journal.saga_id, journal.seq, journal.at, journal.hash, journal.body,
            sum(octet_length(journal.body)) OVER (ORDER BY journal.saga_id)
                - sum(octet_length(journal.body)) OVER (PARTITION BY journal.saga_id) AS bytes_before
        FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS wanted (saga_id, after, up_to)
        JOIN journal ON journal.saga_id = wanted.saga_id
            AND journal.seq > wanted.after AND journal.seq <= wanted.up_to
    ) AS sized
    WHERE bytes_before < $4 ORDER BY saga_id, seq";

/// By primary key, one range.
const JOURNAL: &str = "
    SELECT saga_id, seq, at, hash, body FROM journal
    WHERE saga_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";

/// The sagas among the next rows of a table, and whether each has its own; from primary keys alone.
macro_rules! sagas_in {
    ($table:literal) => {
        concat!(
            "SELECT DISTINCT saga_id, EXISTS (SELECT 1 FROM sagas WHERE sagas.id = page.saga_id)
            FROM (
                SELECT saga_id FROM ",
            $table,
            " WHERE saga_id > $1 ORDER BY saga_id LIMIT $2
            ) AS page
            ORDER BY saga_id"
        )
    };
}

/// The index of keys begins with the name, so each name is looked at; they are found by hops in
/// `sagas_by_name`.
pub(super) const OF_ANY_NAME: &str = "
    AND name IN (
        WITH RECURSIVE names AS (
            (SELECT name FROM sagas ORDER BY name LIMIT 1)
            UNION ALL
            SELECT (
                SELECT sagas.name FROM sagas WHERE sagas.name > names.name
                ORDER BY sagas.name LIMIT 1
            )
            FROM names WHERE names.name IS NOT NULL
        )
        SELECT name FROM names WHERE name IS NOT NULL
    )";

/// By `sagas_by_key`.
const FIND: &str = "
    SELECT sagas.name, sagas.key, sagas.id, sagas.input_hash, sagas.status
    FROM unnest($1::text[], $2::text[]) AS wanted (name, key)
    JOIN sagas ON sagas.name = wanted.name AND sagas.key = wanted.key
        AND NOT sagas.superseded";

/// In order of `sagas_to_wake`, from where the last poll ended; sagas that another node is claiming or
/// changing are skipped.
const CLAIM_DUE: &str = "
    WITH due AS MATERIALIZED (
        SELECT id, wake_at FROM sagas WHERE wake_at <= $1 AND wake_at > $4
        ORDER BY wake_at, id LIMIT $3 FOR UPDATE SKIP LOCKED
    ), moved AS (
        UPDATE sagas SET wake_at = $2 FROM due WHERE sagas.id = due.id
        RETURNING sagas.id, due.wake_at AS was_wake_at
    )
    SELECT id FROM moved ORDER BY was_wake_at, id";

const INSERT_DEFINITION: &str = "
    INSERT INTO definitions (name, version, hash, source, stored_at)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";

const DEFINITION: &str = "
    SELECT name, version, hash, source, stored_at FROM definitions
    WHERE name = $1 AND version = $2";

const DEFINITIONS: &str = "
    SELECT name, version, hash, source, stored_at FROM definitions ORDER BY name, version";

/// No table. The transaction's time would be that of its first statement.
const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

const INSERT_SECRET: &str = "INSERT INTO secrets (bytes) VALUES ($1) ON CONFLICT DO NOTHING";

/// Sessions that belong to others are seen without their start by roles with few rights.
const OLDEST_SNAPSHOT: &str = "
    SELECT max(extract(epoch FROM now() - xact_start))::bigint FROM pg_stat_activity
    WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()";

/// Changes nothing, but is written.
const TOUCH_SECRET: &str = "UPDATE secrets SET bytes = bytes";

const SECRET: &str = "SELECT bytes FROM secrets";

/// Reads the whole index or table: for people and metrics, not for each request.
const COUNTS: &str = "
    SELECT name, status, count(*) FROM sagas GROUP BY name, status";

/// By `sagas_by_status`.
const LIVE: &str = "
    SELECT name, version, count(*) FROM sagas WHERE status = ANY ($1)
    GROUP BY name, version ORDER BY name, version";

/// For a query that reads a whole table: see the session's settings.
const ALLOW_SCAN: &str = "SET LOCAL enable_seqscan = on";

/// In order of `dead_letters_by_time`, backwards.
const DEAD_LETTERS: &str = "
    SELECT id, at, queue, code, reason, properties, body FROM dead_letters
    ORDER BY at DESC, id DESC LIMIT $1";

#[async_trait]
impl Store for PostgresStore {
    async fn load(&self, requests: &[LoadRequest]) -> Result<Vec<Option<LoadedSaga>>, StoreError> {
        let mut loading = Loading::new(requests);
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |error| self.failed(error);
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let whole = loading.whole();
        if !whole.is_empty() {
            let query = sqlx::query_as(SNAPSHOTS).bind(whole).bind(loading.room());
            for row in query.fetch_all(&mut *connection).await.map_err(failed)? {
                loading.add_snapshot(row)?;
            }
        }
        loading.end_snapshots();
        let query = sqlx::query_as(HEADS).bind(loading.ids());
        loading.add_heads(query.fetch_all(&mut *connection).await.map_err(failed)?)?;
        let ranges = loading.ranges();
        if !ranges.is_empty() {
            let query = sqlx::query_as(ENTRIES)
                .bind(column(&ranges, |range| range.saga))
                .bind(column(&ranges, |range| range.after))
                .bind(column(&ranges, |range| range.up_to))
                .bind(loading.room());
            for row in query.fetch_all(&mut *connection).await.map_err(failed)? {
                loading.add_entry(row)?;
            }
        }
        Ok(loading.finish())
    }

    async fn find(&self, keys: &[SagaKey]) -> Result<Vec<Option<KeyMatch>>, StoreError> {
        let usable: Vec<_> = keys.iter().filter(|key| is_key(&key.key)).collect();
        if usable.is_empty() {
            return Ok(vec![None; keys.len()]);
        }
        let found = sqlx::query_as(FIND)
            .bind(column(&usable, |key| key.name.as_str()))
            .bind(column(&usable, |key| key.key.as_str()))
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        let by_key: BTreeMap<_, _> = rows::all(found, rows::key_match)?.into_iter().collect();
        Ok(keys.iter().map(|key| by_key.get(key).cloned()).collect())
    }

    async fn commit(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        shape::check(&commit)?;
        let batch = PreparedCommit::new(&commit)?;
        if batch.is_only_sent() {
            self.remove_sent(&commit.sent).await?;
            return Ok(CommitOutcome::default());
        }
        let failed = |error| self.failed(error);
        let mut transaction = self.begin_as(Begin::Batch).await?;
        let outcome = batch.write(&mut transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(outcome)
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SagaId>, StoreError> {
        let query = sqlx::query_scalar(CLAIM_DUE)
            .bind(now.as_micros())
            .bind(until.as_micros())
            .bind(rows::limit(limit))
            .bind(self.polls.due.begin(now));
        let ids: Vec<Uuid> = query
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        self.polls.due.found(now, ids.len() < limit);
        Ok(ids.into_iter().map(SagaId).collect())
    }

    async fn put_definition(&self, row: DefinitionRow) -> Result<DefinitionRow, StoreError> {
        let failed = |error| self.failed(error);
        sqlx::query(INSERT_DEFINITION)
            .bind(&row.name)
            .bind(i64::from(row.version))
            .bind(&row.hash[..])
            .bind(&row.source)
            .bind(row.stored_at.as_micros())
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        let query = sqlx::query_as(DEFINITION)
            .bind(&row.name)
            .bind(i64::from(row.version));
        rows::definition(query.fetch_one(&self.pool).await.map_err(failed)?)
    }

    async fn definitions(&self) -> Result<Vec<DefinitionRow>, StoreError> {
        let query = sqlx::query_as(DEFINITIONS);
        let found = query.fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, rows::definition)
    }

    async fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        let found = sqlx::query_scalar(CLOCK).fetch_one(&self.pool).await;
        let micros = found.map_err(|error| self.failed(error))?;
        Ok(Some(Timestamp::from_micros(micros)))
    }

    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let failed = |error| self.failed(error);
        let query = sqlx::query(INSERT_SECRET).bind(&candidate[..]);
        query.execute(&self.pool).await.map_err(failed)?;
        let query = sqlx::query_scalar(SECRET);
        let bytes: Vec<u8> = query.fetch_one(&self.pool).await.map_err(failed)?;
        rows::hash(&bytes, || "secret".to_owned())
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<SagaHead>, StoreError> {
        // Only the conditions that are asked for, so that each has the plan it deserves.
        let mut query = QueryBuilder::<Postgres>::new(heads!("true"));
        if let Some(before) = filter.before {
            query.push(" AND id < ").push_bind(before.0);
        }
        if let Some(name) = &filter.name {
            query.push(" AND name = ").push_bind(rows::readable(name));
        }
        if let Some(status) = filter.status {
            query.push(" AND status = ").push_bind(status.as_str());
        }
        if let Some(key) = &filter.key {
            if filter.name.is_none() {
                query.push(OF_ANY_NAME);
            }
            query.push(" AND NOT superseded AND key = ");
            query.push_bind(rows::readable(key));
        }
        let limit = rows::limit(filter.limit.min(LIST_ROWS_MAX));
        query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
        let found = query.build_query_as().fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, head::head)
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
        let found = query.fetch_all(&self.pool).await;
        let found = found.map_err(|error| self.failed(error))?;
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
        let found: Vec<(Uuid, bool)> = query
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        let found = found.into_iter();
        Ok(found.map(|(id, has_row)| (SagaId(id), has_row)).collect())
    }

    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError> {
        let failed = |error| self.failed(error);
        let mut transaction = self.transaction().await?;
        let scan = sqlx::query(ALLOW_SCAN).execute(&mut *transaction).await;
        scan.map_err(failed)?;
        let query = sqlx::query_as(COUNTS);
        let found = query.fetch_all(&mut *transaction).await.map_err(failed)?;
        let mut counts = rows::all(found, rows::count)?;
        counts.sort_unstable();
        Ok(counts)
    }

    async fn live(&self) -> Result<Vec<LiveCount>, StoreError> {
        let live = Status::ALL.iter().filter(|status| !status.is_ended());
        let live: Vec<&str> = live.map(|status| status.as_str()).collect();
        let found = sqlx::query_as(LIVE).bind(live).fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, rows::live)
    }

    async fn oldest_snapshot(&self) -> Result<Option<Duration>, StoreError> {
        let query = sqlx::query_scalar(OLDEST_SNAPSHOT).fetch_one(&self.pool);
        let seconds: Option<i64> = query.await.map_err(|error| self.failed(error))?;
        Ok(seconds.map(|seconds| Duration::from_secs(seconds.unsigned_abs())))
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        let written = sqlx::query(TOUCH_SECRET).execute(&self.pool).await;
        written.map(drop).map_err(|error| self.failed(error))
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let query = sqlx::query_as(DEAD_LETTERS).bind(rows::limit(limit.min(LIST_ROWS_MAX)));
        let found = query.fetch_all(&self.pool).await;
        rows::all(
            found.map_err(|error| self.failed(error))?,
            rows::dead_letter,
        )
    }
}
