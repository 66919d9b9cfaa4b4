//! Tokens in memory.

use async_trait::async_trait;
use uuid::Uuid;

use super::MemoryStore;
use crate::id::Timestamp;
use crate::saga::journal::Hash;
use crate::store::StoreError;
use crate::store::dead_letters::Actor;
use crate::store::tokens::{self, TOKENS_MAX, TokenRow, TokenStore};

#[async_trait]
impl TokenStore for MemoryStore {
    async fn put_token(&self, row: &TokenRow, actor: &Actor) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.tokens.contains_key(&row.id) {
            return Err(StoreError::Conflict);
        }
        state.audit.append(actor, vec![tokens::made(row)]);
        state.tokens.insert(row.id, row.clone());
        Ok(())
    }

    async fn token_by_hash(&self, hash: &Hash) -> Result<Option<TokenRow>, StoreError> {
        let state = self.state();
        let found = state.tokens.values().find(|row| row.hash == *hash);
        Ok(found.cloned())
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let state = self.state();
        let mut rows: Vec<TokenRow> = state.tokens.values().cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.made_at, row.id)));
        rows.truncate(TOKENS_MAX);
        Ok(rows)
    }

    async fn any_token(&self) -> Result<bool, StoreError> {
        Ok(!self.state().tokens.is_empty())
    }

    async fn revoke_token(&self, id: Uuid, actor: &Actor) -> Result<bool, StoreError> {
        let mut state = self.state();
        let Some(row) = state.tokens.get_mut(&id) else {
            return Ok(false);
        };
        if row.revoked_at.is_some() {
            return Ok(false);
        }
        row.revoked_at = Some(actor.at);
        let entry = tokens::revoked(row);
        state.audit.append(actor, vec![entry]);
        Ok(true)
    }

    async fn mark_token_used(&self, id: Uuid, at: Timestamp) -> Result<(), StoreError> {
        if let Some(row) = self.state().tokens.get_mut(&id) {
            row.used_at = Some(at);
        }
        Ok(())
    }
}
