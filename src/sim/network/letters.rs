//! Dead letters over the bad network, for whoever drains, edits and replays.

use async_trait::async_trait;
use uuid::Uuid;

use super::{SimStore, broken};
use crate::id::Timestamp;
use crate::store::dead_letters::{
    Actor, AuditEntry, AuditHead, DeadLetterStore, Letter, LetterChange, LetterCount, LetterEdit,
    LetterFilter, LetterGroup, LetterHead, LetterPage, PublishedReplays,
};
use crate::store::{DeadLetter, StoreError};

impl<S> SimStore<S> {
    /// A write, which may be stored and reported as failed.
    async fn write<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = self.call(call).await?;
        if self.faults.strikes(self.faults.rates.lost_commit) {
            return Err(broken("the connection broke during the commit"));
        }
        Ok(result)
    }
}

#[async_trait]
impl<S: DeadLetterStore> DeadLetterStore for SimStore<S> {
    async fn store_drained(
        &self,
        queue: &str,
        at: Timestamp,
        letters: &[DeadLetter],
    ) -> Result<usize, StoreError> {
        self.write(self.inner.store_drained(queue, at, letters))
            .await
    }

    async fn store_imported(
        &self,
        actor: &Actor,
        letters: &[DeadLetter],
    ) -> Result<usize, StoreError> {
        self.write(self.inner.store_imported(actor, letters)).await
    }

    async fn imported(&self, letters: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        self.call(self.inner.imported(letters)).await
    }

    async fn letters(
        &self,
        filter: &LetterFilter,
        page: &LetterPage,
    ) -> Result<Vec<LetterHead>, StoreError> {
        self.call(self.inner.letters(filter, page)).await
    }

    async fn load_letters(&self, ids: &[Uuid]) -> Result<Vec<Letter>, StoreError> {
        self.call(self.inner.load_letters(ids)).await
    }

    async fn letter_groups(
        &self,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<Vec<LetterGroup>, StoreError> {
        self.inner.letter_groups(filter, limit).await
    }

    async fn letter_counts(&self) -> Result<Vec<LetterCount>, StoreError> {
        self.inner.letter_counts().await
    }

    async fn change_letters(
        &self,
        actor: &Actor,
        changes: &[LetterChange],
        published: &PublishedReplays,
    ) -> Result<Vec<Uuid>, StoreError> {
        self.write(self.inner.change_letters(actor, changes, published))
            .await
    }

    async fn settle_replays(&self) -> Result<u64, StoreError> {
        self.write(self.inner.settle_replays()).await
    }

    async fn came_back(&self, letters: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        self.call(self.inner.came_back(letters)).await
    }

    async fn purge_letters(
        &self,
        actor: &Actor,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64, StoreError> {
        self.write(self.inner.purge_letters(actor, before, limit))
            .await
    }

    async fn letter_edits(&self, letter: Uuid) -> Result<Vec<LetterEdit>, StoreError> {
        self.inner.letter_edits(letter).await
    }

    async fn letter_audit(
        &self,
        letter: Option<Uuid>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.inner.letter_audit(letter, after, limit).await
    }

    async fn audit_head(&self) -> Result<AuditHead, StoreError> {
        self.inner.audit_head().await
    }
}
