//! Tokens in PostgreSQL.

use async_trait::async_trait;
use uuid::Uuid;

use super::PostgresStore;
use super::letters::append;
use crate::id::Timestamp;
use crate::saga::journal::Hash;
use crate::store::dead_letters::Actor;
use crate::store::tokens::{self, TOKENS_MAX, TokenColumns, TokenRow, TokenStore, token};
use crate::store::{StoreError, rows};

const INSERT: &str = "
    INSERT INTO tokens (id, name, hash, rights, made_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6)";

/// By the unique index of `hash`.
const BY_HASH: &str = "
    SELECT id, name, hash, rights, made_at, expires_at, revoked_at, used_at
    FROM tokens WHERE hash = $1";

/// All of them: a person makes each.
const LIST: &str = "
    SELECT id, name, hash, rights, made_at, expires_at, revoked_at, used_at
    FROM tokens ORDER BY made_at DESC, id DESC LIMIT $1";

const ANY: &str = "SELECT EXISTS (SELECT 1 FROM tokens)";

/// By primary key.
const REVOKE: &str = "
    UPDATE tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL
    RETURNING id, name, hash, rights, made_at, expires_at, revoked_at, used_at";

/// By primary key.
const USED: &str = "UPDATE tokens SET used_at = $2 WHERE id = $1";

#[async_trait]
impl TokenStore for PostgresStore {
    async fn put_token(&self, row: &TokenRow, actor: &Actor) -> Result<(), StoreError> {
        let failed = |error| self.failed(error);
        let mut transaction = self.transaction().await?;
        sqlx::query(INSERT)
            .bind(row.id)
            .bind(&row.name)
            .bind(&row.hash[..])
            .bind(&row.rights)
            .bind(row.made_at.as_micros())
            .bind(row.expires_at.map(Timestamp::as_micros))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        append(&mut transaction, actor, vec![tokens::made(row)])
            .await
            .map_err(|error| self.append_failed(error))?;
        transaction.commit().await.map_err(failed)
    }

    async fn token_by_hash(&self, hash: &Hash) -> Result<Option<TokenRow>, StoreError> {
        let query = sqlx::query_as::<_, TokenColumns>(BY_HASH).bind(&hash[..]);
        let found = query.fetch_optional(&self.pool).await;
        found
            .map_err(|error| self.failed(error))?
            .map(token)
            .transpose()
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let query = sqlx::query_as::<_, TokenColumns>(LIST).bind(rows::limit(TOKENS_MAX));
        let found = query.fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, token)
    }

    async fn any_token(&self) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar(ANY).fetch_one(&self.pool).await;
        found.map_err(|error| self.failed(error))
    }

    async fn revoke_token(&self, id: Uuid, actor: &Actor) -> Result<bool, StoreError> {
        let failed = |error| self.failed(error);
        let mut transaction = self.transaction().await?;
        let query = sqlx::query_as::<_, TokenColumns>(REVOKE)
            .bind(id)
            .bind(actor.at.as_micros());
        let found = query.fetch_optional(&mut *transaction).await;
        let Some(columns) = found.map_err(failed)? else {
            return Ok(false);
        };
        let row = token(columns)?;
        append(&mut transaction, actor, vec![tokens::revoked(&row)])
            .await
            .map_err(|error| self.append_failed(error))?;
        transaction.commit().await.map_err(failed)?;
        Ok(true)
    }

    async fn mark_token_used(&self, id: Uuid, at: Timestamp) -> Result<(), StoreError> {
        let query = sqlx::query(USED).bind(id).bind(at.as_micros());
        let done = query.execute(&self.pool).await;
        done.map_err(|error| self.failed(error)).map(drop)
    }
}
