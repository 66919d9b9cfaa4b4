//! What the HTTP API keeps of requests: answers to those that may come again (`Idempotency-Key`), and what people did
//! to single sagas and schedules, for the audit log.
//!
//! A request that bears a key is claimed before it is carried out and answered from what is kept afterwards, so of two
//! that come at once one is carried out. A node that dies in between leaves a claim without an answer; after a while
//! somebody else may take it over. Answers are kept for a day, and each new claim clears some old ones away.
//!
//! Deliberately absent: what a request means. It is a fingerprint here.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::dead_letters::Actor;
use super::dead_letters::audit::Unlinked;
use super::{Hash, StoreError};
use crate::id::Timestamp;

/// For how long an answer is kept.
pub const ANSWERS_KEPT: Duration = Duration::from_hours(24);
/// After how long a request that was never answered may be carried out by somebody else.
pub const CLAIM_TIME: Duration = Duration::from_mins(2);
/// Old answers that are cleared away with each claim.
pub const CLEARED_MAX: usize = 20;

/// A request that may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Of who sends it and the key.
    pub id: Hash,
    /// Of what it says.
    pub fingerprint: Hash,
    /// When it came.
    pub at: Timestamp,
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Nothing: the caller is to carry it out.
    Ours,
    /// It was carried out.
    Answered(Answer),
    /// Somebody is carrying it out.
    Pending,
    /// The key was used for something else.
    Other,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header `Location`.
    pub location: Option<String>,
    /// The header `Content-Type`.
    pub kind: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Keeps what the HTTP API must remember. See the module's documentation.
#[async_trait]
pub trait RequestStore: Send + Sync + 'static {
    /// Claims a request, if nobody has.
    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError>;

    /// Keeps the answer to a request that the caller has claimed.
    async fn keep_answer(&self, claim: &Claim, answer: &Answer) -> Result<(), StoreError>;

    /// Gives a claim up: nothing was done.
    async fn give_up(&self, claim: &Claim) -> Result<(), StoreError>;

    /// Puts what a person did into the audit log.
    async fn note_deed(
        &self,
        actor: &Actor,
        action: &'static str,
        detail: Value,
    ) -> Result<(), StoreError>;
}

impl Claim {
    /// Claims of before that time are cleared away.
    pub(super) fn clear_before(&self) -> Timestamp {
        self.at.before(ANSWERS_KEPT)
    }

    /// A claim without an answer that was made before that time counts no more.
    pub(super) fn stale_before(&self) -> Timestamp {
        self.at.before(CLAIM_TIME)
    }
}

/// The audit log's entry about a deed.
pub(super) fn deed(action: &'static str, detail: Value) -> Vec<Unlinked> {
    vec![Unlinked {
        action,
        letter: None,
        detail,
    }]
}

/// `fingerprint, status, location, kind, body` of `answers`.
pub(super) type AnswerColumns = (
    Vec<u8>,
    Option<i32>,
    Option<String>,
    Option<String>,
    Option<Vec<u8>>,
);

/// What a row says of a claim that was not granted.
pub(super) fn claimed(claim: &Claim, row: Option<AnswerColumns>) -> Claimed {
    // Given up or cleared away at this moment.
    let Some((fingerprint, status, location, kind, body)) = row else {
        return Claimed::Pending;
    };
    if fingerprint != claim.fingerprint {
        return Claimed::Other;
    }
    let status = status.and_then(|status| u16::try_from(status).ok());
    status.map_or(Claimed::Pending, |status| {
        Claimed::Answered(Answer {
            status,
            location,
            kind,
            body: body.unwrap_or_default(),
        })
    })
}
