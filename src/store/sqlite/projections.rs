//! Projections in SQLite.

use std::sync::LazyLock;

use async_trait::async_trait;

use super::bulk::{self, Bulk};
use super::{SqliteStore, failed, messages};
use crate::id::Timestamp;
use crate::store::feed::Position;
use crate::store::projections::{Advance, DocumentRow, Generation, ProjectionStore};
use crate::store::{StoreError, rows, shape};

/// All of them: there are a few for each projection.
const GENERATIONS: &str = "
    SELECT name, generation, version, position, serving FROM projections
    WHERE ?1 IS NULL OR name = ?1 ORDER BY name, generation";

/// By primary key. The numbers of generations that are forgotten but still have documents are not
/// used again.
const ADD: &str = "
    INSERT INTO projections (name, generation, version, position, serving)
    SELECT
        ?1, 1 + max(
            coalesce((SELECT max(generation) FROM projections WHERE name = ?1), 0),
            coalesce((SELECT max(generation) FROM projection_documents WHERE name = ?1), 0)
        ),
        ?2, 0, NOT EXISTS (SELECT 1 FROM projections WHERE name = ?1)
    RETURNING name, generation, version, position, serving";

/// By primary key.
const FORGET_OTHERS: &str = "DELETE FROM projections WHERE name = ?1 AND generation <> ?2";

/// By primary key.
const SERVE: &str = "UPDATE projections SET serving = true WHERE name = ?1 AND generation = ?2";

/// By primary key.
const DROP: &str = "
    DELETE FROM projections WHERE name = ?1 AND generation = ?2 AND NOT serving";

/// In order of the primary key.
const SWEEP_DOCUMENTS: &str = "
    DELETE FROM projection_documents WHERE rowid IN (
        SELECT rowid FROM projection_documents
        WHERE name = ?1 AND generation NOT IN (SELECT generation FROM projections WHERE name = ?1)
        LIMIT ?2
    )";

/// By primary key.
const DOCUMENTS: &str = "
    SELECT key, position, body FROM projection_documents
    WHERE name = ?1 AND generation = ?2 AND key IN (SELECT value FROM json_each(?3))";

/// In order of the primary key.
const PAGE: &str = "
    SELECT key, position, body FROM projection_documents
    WHERE name = ?1 AND generation = ?2 AND (?3 IS NULL OR key > ?3)
    ORDER BY key LIMIT ?4";

/// By primary key.
const MOVE: &str = "
    UPDATE projections SET position = ?4 WHERE name = ?1 AND generation = ?2 AND position = ?3";

/// By primary key.
static PUT_DOCUMENTS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO projection_documents (name, generation, key, position, body)",
        5,
        "ON CONFLICT (name, generation, key)
        DO UPDATE SET position = excluded.position, body = excluded.body",
    )
});

/// By primary key.
const CACHED: &str = "
    SELECT key, position, body FROM projection_cache WHERE name = ?1 AND key = ?2 AND version = ?3";

/// By primary key.
const CACHE: &str = "
    INSERT INTO projection_cache AS old (name, key, version, position, body, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (name, key) DO UPDATE SET
        version = excluded.version, position = excluded.position, body = excluded.body,
        expires_at = excluded.expires_at
    WHERE (old.version, old.position) <= (excluded.version, excluded.position)";

/// In order of `projection_cache_by_expiry`.
const SWEEP_CACHE: &str = "
    DELETE FROM projection_cache WHERE rowid IN (
        SELECT rowid FROM projection_cache WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2
    )";

/// By primary key.
const FORGET: &str = "DELETE FROM projection_cache WHERE name = ?1 AND key = ?2";

#[async_trait]
impl ProjectionStore for SqliteStore {
    async fn generations(&self, name: Option<&str>) -> Result<Vec<Generation>, StoreError> {
        let query = sqlx::query_as(GENERATIONS).bind(name);
        let found = query.fetch_all(&self.readers).await.map_err(failed)?;
        rows::all(found, rows::generation)
    }

    async fn add_generation(&self, name: &str, version: u32) -> Result<Generation, StoreError> {
        shape::check_projection(name)?;
        let mut transaction = self.transaction().await?;
        let query = sqlx::query_as(ADD).bind(name).bind(i64::from(version));
        let row = query.fetch_one(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        rows::generation(row)
    }

    async fn serve(&self, name: &str, generation: u32) -> Result<(), StoreError> {
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
        let done = query.execute(&self.writer).await;
        done.map(drop).map_err(failed)
    }

    async fn sweep_documents(&self, name: &str, limit: usize) -> Result<u64, StoreError> {
        let query = sqlx::query(SWEEP_DOCUMENTS)
            .bind(name)
            .bind(rows::limit(limit));
        let done = query.execute(&self.writer).await;
        done.map(|done| done.rows_affected()).map_err(failed)
    }

    async fn documents(
        &self,
        name: &str,
        generation: u32,
        keys: &[String],
    ) -> Result<Vec<DocumentRow>, StoreError> {
        let query = sqlx::query_as(DOCUMENTS)
            .bind(name)
            .bind(i64::from(generation))
            .bind(bulk::json(shape::keys(keys).map(Into::into)));
        let found = query.fetch_all(&self.readers).await.map_err(failed)?;
        rows::all(found, rows::document)
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
        let found = query.fetch_all(&self.readers).await.map_err(failed)?;
        rows::all(found, rows::document)
    }

    async fn advance(&self, advance: Advance) -> Result<(), StoreError> {
        shape::check_advance(&advance)?;
        let properties = rows::outbox_properties(&advance.outbox)?;
        let mut transaction = self.transaction().await?;
        let query = sqlx::query(MOVE)
            .bind(&advance.name)
            .bind(i64::from(advance.generation))
            .bind(rows::signed(advance.from.0))
            .bind(rows::signed(advance.to.0));
        let moved = query.execute(&mut *transaction).await.map_err(failed)?;
        if moved.rows_affected() == 0 {
            return Err(StoreError::Conflict);
        }
        let (name, generation) = (advance.name.as_str(), i64::from(advance.generation));
        let put = PUT_DOCUMENTS.execute(&mut transaction, &advance.documents, |query, row| {
            let Position(position) = row.position;
            query
                .bind(name)
                .bind(generation)
                .bind(row.key.as_str())
                .bind(rows::signed(position))
                .bind(&row.body[..])
        });
        put.await.map_err(failed)?;
        let outbox: Vec<_> = advance.outbox.iter().zip(properties).collect();
        messages::insert_outbox(&mut transaction, &outbox)
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
        let query = sqlx::query_as(CACHED)
            .bind(name)
            .bind(key)
            .bind(i64::from(version));
        let found = query.fetch_optional(&self.readers).await.map_err(failed)?;
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
        let done = query.execute(&self.writer).await;
        done.map(drop).map_err(failed)
    }

    async fn sweep_cache(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let query = sqlx::query(SWEEP_CACHE)
            .bind(now.as_micros())
            .bind(rows::limit(limit));
        let done = query.execute(&self.writer).await;
        done.map(|done| done.rows_affected()).map_err(failed)
    }

    async fn forget_cached(&self, name: &str, key: &str) -> Result<(), StoreError> {
        let query = sqlx::query(FORGET).bind(name).bind(key);
        let done = query.execute(&self.writer).await;
        done.map(drop).map_err(failed)
    }
}
