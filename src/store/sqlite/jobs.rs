//! Jobs in SQLite.

use async_trait::async_trait;
use uuid::Uuid;

use std::sync::LazyLock;

use sqlx::SqliteConnection;

use super::bulk::Bulk;
use super::letters::append;
use super::{SqliteStore, failed};
use crate::id::{SagaId, Timestamp};
use crate::store::dead_letters::Actor;
use crate::store::jobs::{
    self, JOB_ROWS_MAX, JobColumns, JobCommand, JobResult, JobRow, JobStore, Progress,
    ResultColumns, job_columns,
};
use crate::store::{StoreError, rows};

const INSERT: &str = concat!(
    "INSERT INTO jobs (",
    job_columns!(),
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)"
);

/// By primary key.
const JOB: &str = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = ?1");

/// By primary key.
const LOCK: &str = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = ?1");

/// By primary key, backwards.
const JOBS: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE (?1 IS NULL OR id < ?1) ORDER BY id DESC LIMIT ?2"
);

/// By `jobs_running`.
const FREE: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE state = 'running' AND held_until <= ?1 ORDER BY held_until, id LIMIT 1"
);

/// By primary key.
const HOLD: &str = "UPDATE jobs SET held_until = ?2, version = version + 1 WHERE id = ?1";

/// By primary key.
const UPDATE: &str = "
    UPDATE jobs SET
        state = ?2, note = ?3, cursor = ?4, done = ?5, refused = ?6, canary_seen = ?7,
        version = ?8, held_until = ?9, updated_at = ?10
    WHERE id = ?1";

/// By primary key.
const RESULTS: &str = "
    SELECT saga_id, refused, reason, at FROM job_results
    WHERE job_id = ?1 AND saga_id > ?2 ORDER BY saga_id LIMIT ?3";

/// By `job_refusals`.
const REFUSALS: &str = "
    SELECT saga_id, refused, reason, at FROM job_results
    WHERE job_id = ?1 AND saga_id > ?2 AND refused ORDER BY saga_id LIMIT ?3";

static INSERT_RESULTS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO job_results (job_id, saga_id, refused, reason, at)",
        5,
        "ON CONFLICT DO NOTHING",
    )
});

#[async_trait]
impl JobStore for SqliteStore {
    async fn put_job(&self, job: &JobRow) -> Result<(), StoreError> {
        let mut transaction = self.transaction().await?;
        sqlx::query(INSERT)
            .bind(job.id)
            .bind(job.made_at.as_micros())
            .bind(job.by.clone())
            .bind(job.why.clone())
            .bind(job.filter.clone())
            .bind(job.action.clone())
            .bind(job.per_minute.map(i64::from))
            .bind(i64::from(job.canary))
            .bind(rows::signed(job.total.sagas))
            .bind(job.total.or_more)
            .bind(job.state.as_str())
            .bind(job.note.clone())
            .bind(job.cursor.map(|cursor| cursor.0))
            .bind(rows::signed(job.done))
            .bind(rows::signed(job.refused))
            .bind(job.canary_seen)
            .bind(rows::signed(job.version))
            .bind(job.held_until.as_micros())
            .bind(job.updated_at.as_micros())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        append(&mut transaction, &job.maker(), vec![jobs::made(job)]).await?;
        transaction.commit().await.map_err(failed)
    }

    async fn job(&self, id: Uuid) -> Result<Option<JobRow>, StoreError> {
        let query = sqlx::query_as::<_, JobColumns>(JOB).bind(id);
        let found = query.fetch_optional(&self.readers).await;
        Ok(found.map_err(failed)?.map(JobRow::from))
    }

    async fn jobs(&self, before: Option<Uuid>, limit: usize) -> Result<Vec<JobRow>, StoreError> {
        let query = sqlx::query_as::<_, JobColumns>(JOBS)
            .bind(before)
            .bind(rows::limit(limit.min(JOB_ROWS_MAX)));
        let found = query.fetch_all(&self.readers).await.map_err(failed)?;
        Ok(found.into_iter().map(JobRow::from).collect())
    }

    async fn hold_job(
        &self,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<JobRow>, StoreError> {
        let mut transaction = self.transaction().await?;
        let query = sqlx::query_as::<_, JobColumns>(FREE).bind(now.as_micros());
        let found = query.fetch_optional(&mut *transaction).await;
        let Some(columns) = found.map_err(failed)? else {
            return Ok(None);
        };
        let mut job = JobRow::from(columns);
        let query = sqlx::query(HOLD).bind(job.id).bind(until.as_micros());
        query.execute(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        job.version += 1;
        job.held_until = until;
        Ok(Some(job))
    }

    async fn advance_job(
        &self,
        id: Uuid,
        version: u64,
        at: Timestamp,
        progress: &Progress,
    ) -> Result<Option<JobRow>, StoreError> {
        let mut transaction = self.transaction().await?;
        let query = sqlx::query_as::<_, JobColumns>(LOCK).bind(id);
        let found = query.fetch_optional(&mut *transaction).await;
        let known = found.map_err(failed)?.map(JobRow::from);
        let Some(job) = known.and_then(|job| job.advanced(version, at, progress)) else {
            return Ok(None);
        };
        update(&mut transaction, &job).await.map_err(failed)?;
        insert_results(&mut transaction, id, &progress.results)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Some(job))
    }

    async fn command_job(
        &self,
        id: Uuid,
        command: JobCommand,
        actor: &Actor,
    ) -> Result<Option<JobRow>, StoreError> {
        let mut transaction = self.transaction().await?;
        let query = sqlx::query_as::<_, JobColumns>(LOCK).bind(id);
        let found = query.fetch_optional(&mut *transaction).await;
        let Some(known) = found.map_err(failed)?.map(JobRow::from) else {
            return Ok(None);
        };
        let Some(job) = known.commanded(command, actor) else {
            return Ok(Some(known));
        };
        update(&mut transaction, &job).await.map_err(failed)?;
        let entry = jobs::commanded(&job, command);
        append(&mut transaction, actor, vec![entry]).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(Some(job))
    }

    async fn job_results(
        &self,
        id: Uuid,
        only_refused: bool,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<JobResult>, StoreError> {
        let statement = if only_refused { REFUSALS } else { RESULTS };
        // No saga has the id that is all zeros.
        let query = sqlx::query_as::<_, ResultColumns>(statement)
            .bind(id)
            .bind(after.map_or(Uuid::nil(), |after| after.0))
            .bind(rows::limit(limit.min(JOB_ROWS_MAX)));
        let found = query.fetch_all(&self.readers).await.map_err(failed)?;
        Ok(found.into_iter().map(jobs::result).collect())
    }
}

async fn update(connection: &mut SqliteConnection, job: &JobRow) -> sqlx::Result<()> {
    sqlx::query(UPDATE)
        .bind(job.id)
        .bind(job.state.as_str())
        .bind(job.note.clone())
        .bind(job.cursor.map(|cursor| cursor.0))
        .bind(rows::signed(job.done))
        .bind(rows::signed(job.refused))
        .bind(job.canary_seen)
        .bind(rows::signed(job.version))
        .bind(job.held_until.as_micros())
        .bind(job.updated_at.as_micros())
        .execute(connection)
        .await
        .map(drop)
}

async fn insert_results(
    connection: &mut SqliteConnection,
    job: Uuid,
    results: &[JobResult],
) -> sqlx::Result<()> {
    INSERT_RESULTS
        .execute(connection, results, |query, result| {
            query
                .bind(job)
                .bind(result.saga.0)
                .bind(result.refusal.is_some())
                .bind(result.refusal.as_deref())
                .bind(result.at.as_micros())
        })
        .await
        .map(drop)
}
