//! Projections in PostgreSQL: a generation's row is locked by whoever changes it.

use async_trait::async_trait;

use super::connections::Session;
use super::{PostgresStore, column, errors, messages};
use crate::id::Timestamp;
use crate::store::feed::Position;
use crate::store::projections::{Advance, DocumentRow, Generation, ProjectionStore};
use crate::store::{StoreError, rows, shape};

/// All of them: there are a few for each projection.
const GENERATIONS: &str = "
    SELECT name, generation, version, position, serving FROM projections
    WHERE $1::text IS NULL OR name = $1 ORDER BY name, generation";

/// By primary key. The numbers of generations that are forgotten but still have documents are not
/// used again.
const ADD: &str = "
    INSERT INTO projections (name, generation, version, position, serving)
    SELECT
        $1, 1 + greatest(
            coalesce((SELECT max(generation) FROM projections WHERE name = $1), 0),
            coalesce((SELECT max(generation) FROM projection_documents WHERE name = $1), 0)
        ),
        $2, 0, NOT EXISTS (SELECT 1 FROM projections WHERE name = $1)
    RETURNING name, generation, version, position, serving";

/// By primary key.
const FORGET_OTHERS: &str = "DELETE FROM projections WHERE name = $1 AND generation <> $2";

/// By primary key.
const SERVE: &str = "UPDATE projections SET serving = true WHERE name = $1 AND generation = $2";

/// By primary key.
const DROP: &str = "
    DELETE FROM projections WHERE name = $1 AND generation = $2 AND NOT serving";

/// In order of the primary key.
const SWEEP_DOCUMENTS: &str = "
    DELETE FROM projection_documents WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM projection_documents
        WHERE name = $1 AND generation NOT IN (SELECT generation FROM projections WHERE name = $1)
        LIMIT $2
    ))";

/// By primary key.
const DOCUMENTS: &str = "
    SELECT key, position, body FROM projection_documents
    WHERE name = $1 AND generation = $2 AND key = ANY ($3)";

/// In order of the primary key.
const PAGE: &str = "
    SELECT key, position, body FROM projection_documents
    WHERE name = $1 AND generation = $2 AND ($3::text IS NULL OR key > $3)
    ORDER BY key LIMIT $4";

/// By primary key.
const MOVE: &str = "
    UPDATE projections SET position = $4 WHERE name = $1 AND generation = $2 AND position = $3";

/// By primary key.
const PUT_DOCUMENTS: &str = "
    INSERT INTO projection_documents (name, generation, key, position, body)
    SELECT $1, $2, key, position, body
    FROM unnest($3::text[], $4::bigint[], $5::bytea[]) AS new (key, position, body)
    ON CONFLICT (name, generation, key)
    DO UPDATE SET position = excluded.position, body = excluded.body";

/// By primary key.
const CACHED: &str = "
    SELECT key, position, body FROM projection_cache WHERE name = $1 AND key = $2 AND version = $3";

/// By primary key.
const CACHE: &str = "
    INSERT INTO projection_cache AS old (name, key, version, position, body, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (name, key) DO UPDATE SET
        version = excluded.version, position = excluded.position, body = excluded.body,
        expires_at = excluded.expires_at
    WHERE (old.version, old.position) <= (excluded.version, excluded.position)";

/// In order of `projection_cache_by_expiry`.
const SWEEP_CACHE: &str = "
    DELETE FROM projection_cache WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM projection_cache WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
        FOR UPDATE SKIP LOCKED
    ))";

/// By primary key.
const FORGET: &str = "DELETE FROM projection_cache WHERE name = $1 AND key = $2";

#[async_trait]
impl ProjectionStore for PostgresStore {
    async fn generations(&self, name: Option<&str>) -> Result<Vec<Generation>, StoreError> {
        let query = sqlx::query_as(GENERATIONS).bind(name);
        let found = query.fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, rows::generation)
    }

    async fn add_generation(&self, name: &str, version: u32) -> Result<Generation, StoreError> {
        shape::check_projection(name)?;
        let query = sqlx::query_as(ADD).bind(name).bind(i64::from(version));
        match query.fetch_one(&self.pool).await {
            Ok(row) => rows::generation(row),
            Err(error) if errors::is_unique_violation(&error) => Err(StoreError::Conflict),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn serve(&self, name: &str, generation: u32) -> Result<(), StoreError> {
        let failed = |error| self.failed(error);
        let mut transaction = self.transaction().await?;
        let query = sqlx::query(FORGET_OTHERS)
            .bind(name)
            .bind(i64::from(generation));
        query.execute(&mut *transaction).await.map_err(failed)?;
        let query = sqlx::query(SERVE).bind(name).bind(i64::from(generation));
        let done = query.execute(&mut *transaction).await.map_err(failed)?;
        if done.rows_affected() == 0 {
            return Err(StoreError::Conflict);
        }
        transaction.commit().await.map_err(failed)
    }

    async fn drop_generation(&self, name: &str, generation: u32) -> Result<(), StoreError> {
        let query = sqlx::query(DROP).bind(name).bind(i64::from(generation));
        let done = query.execute(&self.pool).await;
        done.map(drop).map_err(|error| self.failed(error))
    }

    async fn sweep_documents(&self, name: &str, limit: usize) -> Result<u64, StoreError> {
        let query = sqlx::query(SWEEP_DOCUMENTS)
            .bind(name)
            .bind(rows::limit(limit));
        let done = query.execute(&self.pool).await;
        done.map(|done| done.rows_affected())
            .map_err(|error| self.failed(error))
    }

    async fn documents(
        &self,
        name: &str,
        generation: u32,
        keys: &[String],
    ) -> Result<Vec<DocumentRow>, StoreError> {
        let keys: Vec<&str> = shape::keys(keys).collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let query = sqlx::query_as(DOCUMENTS)
            .bind(name)
            .bind(i64::from(generation))
            .bind(keys);
        let found = query.fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, rows::document)
    }

    async fn document_page(
        &self,
        name: &str,
        generation: u32,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DocumentRow>, StoreError> {
        let query = sqlx::query_as(PAGE)
            .bind(name)
            .bind(i64::from(generation))
            .bind(after)
            .bind(rows::limit(limit));
        let found = query.fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, rows::document)
    }

    async fn advance(&self, advance: Advance) -> Result<(), StoreError> {
        shape::check_advance(&advance)?;
        let properties = rows::outbox_properties(&advance.outbox)?;
        let failed = |error| self.failed(error);
        let mut transaction = self.transaction().await?;
        // First of all, so that of two only one does the rest.
        let query = sqlx::query(MOVE)
            .bind(&advance.name)
            .bind(i64::from(advance.generation))
            .bind(rows::signed(advance.from.0))
            .bind(rows::signed(advance.to.0));
        let moved = query.execute(&mut *transaction).await.map_err(failed)?;
        if moved.rows_affected() == 0 {
            return Err(StoreError::Conflict);
        }
        put_documents(&mut transaction, &advance)
            .await
            .map_err(failed)?;
        let outbox: Vec<_> = advance.outbox.iter().collect();
        messages::insert_outbox(&mut transaction, &outbox, &properties)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    async fn cached(
        &self,
        name: &str,
        version: u32,
        key: &str,
    ) -> Result<Option<DocumentRow>, StoreError> {
        if !crate::store::is_key(key) {
            return Ok(None);
        }
        let query = sqlx::query_as(CACHED)
            .bind(name)
            .bind(key)
            .bind(i64::from(version));
        let found = query.fetch_optional(&self.pool).await;
        let found = found.map_err(|error| self.failed(error))?;
        found.map(rows::document).transpose()
    }

    async fn cache(
        &self,
        name: &str,
        version: u32,
        row: DocumentRow,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        shape::check_document(name, &row.key)?;
        let query = sqlx::query(CACHE)
            .bind(name)
            .bind(&row.key)
            .bind(i64::from(version))
            .bind(rows::signed(row.position.0))
            .bind(&row.body[..])
            .bind(expires_at.as_micros());
        let done = query.execute(&self.pool).await;
        done.map(drop).map_err(|error| self.failed(error))
    }

    async fn sweep_cache(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let query = sqlx::query(SWEEP_CACHE)
            .bind(now.as_micros())
            .bind(rows::limit(limit));
        let done = query.execute(&self.pool).await;
        done.map(|done| done.rows_affected())
            .map_err(|error| self.failed(error))
    }

    async fn forget_cached(&self, name: &str, key: &str) -> Result<(), StoreError> {
        if !crate::store::is_key(key) {
            return Ok(());
        }
        let query = sqlx::query(FORGET).bind(name).bind(key);
        let done = query.execute(&self.pool).await;
        done.map(drop).map_err(|error| self.failed(error))
    }
}

async fn put_documents(connection: &mut Session, advance: &Advance) -> sqlx::Result<()> {
    let documents: Vec<&DocumentRow> = advance.documents.iter().collect();
    if documents.is_empty() {
        return Ok(());
    }
    sqlx::query(PUT_DOCUMENTS)
        .bind(&advance.name)
        .bind(i64::from(advance.generation))
        .bind(column(&documents, |row| row.key.as_str()))
        .bind(column(&documents, |row| {
            let Position(number) = row.position;
            rows::signed(number)
        }))
        .bind(column(&documents, |row| &row.body[..]))
        .execute(connection)
        .await?;
    Ok(())
}
