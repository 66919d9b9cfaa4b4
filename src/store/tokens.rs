//! Who may use the HTTP API: what is kept of bearer tokens.
//!
//! A token is 256 random bits that are shown once; the database has its SHA-256 alone, so whoever
//! reads the database can't sign in with what is found there. Making and revoking one are entries of
//! the audit log, in the same transaction.
//!
//! Deliberately absent: what a token's rights mean. They are text here (see `access`).

use async_trait::async_trait;
use uuid::Uuid;

use super::StoreError;
use super::dead_letters::Actor;
use super::dead_letters::audit::Unlinked;
use crate::id::Timestamp;
use crate::saga::journal::Hash;

/// Most tokens that are listed.
pub const TOKENS_MAX: usize = 1_000;

/// What is kept of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its id, by which it is revoked.
    pub id: Uuid,
    /// Whose it is: what stands as `by` in journals and audit log.
    pub name: String,
    /// SHA-256 of the token.
    pub hash: Hash,
    /// What it may do, as text.
    pub rights: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// From when on it opens nothing.
    pub expires_at: Option<Timestamp>,
    /// Since when it opens nothing, because somebody revoked it.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to about a minute.
    pub used_at: Option<Timestamp>,
}

/// Keeps tokens.
#[async_trait]
pub trait TokenStore: Send + Sync + 'static {
    /// Keeps a new token, with an entry in the audit log.
    async fn put_token(&self, row: &TokenRow, actor: &Actor) -> Result<(), StoreError>;

    /// The token of this hash, also one that has expired or was revoked.
    async fn token_by_hash(&self, hash: &Hash) -> Result<Option<TokenRow>, StoreError>;

    /// Tokens, newest first, at most [`TOKENS_MAX`].
    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError>;

    /// Whether any token was ever made: from then on the API asks for one, also when all of them
    /// have been revoked.
    async fn any_token(&self) -> Result<bool, StoreError>;

    /// Revokes a token, with an entry in the audit log; `false` if there is none with this id that
    /// was not revoked before.
    async fn revoke_token(&self, id: Uuid, actor: &Actor) -> Result<bool, StoreError>;

    /// Notes that a token was used.
    async fn mark_token_used(&self, id: Uuid, at: Timestamp) -> Result<(), StoreError>;
}

/// The audit log's entry about a new token.
pub(in crate::store) fn made(row: &TokenRow) -> Unlinked {
    entry("token-create", row)
}

/// The audit log's entry about one that was revoked.
pub(in crate::store) fn revoked(row: &TokenRow) -> Unlinked {
    entry("token-revoke", row)
}

fn entry(action: &'static str, row: &TokenRow) -> Unlinked {
    Unlinked {
        action,
        letter: None,
        detail: serde_json::json!({
            "token": row.id,
            "name": row.name,
            "rights": row.rights,
            "expires_at": row.expires_at.map(|at| at.to_string()),
        }),
    }
}

/// Columns of a row, as both databases have them: id, name, hash, rights, `made_at`, `expires_at`, `revoked_at`, `used_at`.
pub(in crate::store) type TokenColumns = (
    Uuid,
    String,
    Vec<u8>,
    String,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

/// A row from its columns.
pub(in crate::store) fn token(columns: TokenColumns) -> Result<TokenRow, StoreError> {
    let (id, name, hash, rights, made_at, expires_at, revoked_at, used_at) = columns;
    Ok(TokenRow {
        hash: super::rows::hash(&hash, || format!("token {id}"))?,
        id,
        name,
        rights,
        made_at: Timestamp::from_micros(made_at),
        expires_at: expires_at.map(Timestamp::from_micros),
        revoked_at: revoked_at.map(Timestamp::from_micros),
        used_at: used_at.map(Timestamp::from_micros),
    })
}
