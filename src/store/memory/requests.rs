//! What the HTTP API remembers, in memory.

use async_trait::async_trait;
use serde_json::Value;

use super::MemoryStore;
use crate::id::Timestamp;
use crate::saga::journal::Hash;
use crate::store::StoreError;
use crate::store::dead_letters::Actor;
use crate::store::requests::{Answer, CLEARED_MAX, Claim, Claimed, RequestStore, deed};

/// A request that was claimed.
#[derive(Debug)]
pub(super) struct Kept {
    fingerprint: Hash,
    at: Timestamp,
    answer: Option<Answer>,
}

#[async_trait]
impl RequestStore for MemoryStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let mut state = self.state();
        let old = state.answers.iter();
        let old = old.filter(|(_, kept)| kept.at < claim.clear_before());
        let old: Vec<Hash> = old.map(|(id, _)| *id).take(CLEARED_MAX).collect();
        for id in old {
            state.answers.remove(&id);
        }
        if let Some(kept) = state.answers.get(&claim.id) {
            if kept.fingerprint != claim.fingerprint {
                return Ok(Claimed::Other);
            }
            if let Some(answer) = &kept.answer {
                return Ok(Claimed::Answered(answer.clone()));
            }
            if kept.at >= claim.stale_before() {
                return Ok(Claimed::Pending);
            }
        }
        let kept = Kept {
            fingerprint: claim.fingerprint,
            at: claim.at,
            answer: None,
        };
        state.answers.insert(claim.id, kept);
        Ok(Claimed::Ours)
    }

    async fn keep_answer(&self, claim: &Claim, answer: &Answer) -> Result<(), StoreError> {
        if let Some(kept) = self.state().answers.get_mut(&claim.id)
            && kept.at == claim.at
        {
            kept.answer = Some(answer.clone());
        }
        Ok(())
    }

    async fn give_up(&self, claim: &Claim) -> Result<(), StoreError> {
        let mut state = self.state();
        let kept = state.answers.get(&claim.id);
        if kept.is_some_and(|kept| kept.at == claim.at && kept.answer.is_none()) {
            state.answers.remove(&claim.id);
        }
        Ok(())
    }

    async fn note_deed(
        &self,
        actor: &Actor,
        action: &'static str,
        detail: Value,
    ) -> Result<(), StoreError> {
        self.state().audit.append(actor, deed(action, detail));
        Ok(())
    }
}
