//! What is looked up before a batch is decided: then nothing more is read.

use std::collections::BTreeMap;

use super::cache::Open;
use crate::error::Code;
use crate::id::{SagaId, StepPath};
use crate::store::{KeyMatch, SagaKey};

/// What is known of a saga that a batch is about.
pub(super) enum Found {
    /// It is here.
    Open(Box<Open>),
    /// There is none.
    Missing,
    /// It is there, but can't be read.
    Unreadable {
        /// What that is called.
        code: Code,
        /// Why.
        why: String,
    },
    /// It is there, and only a newer release can read it.
    Newer(String),
    /// It is there, and is read for another batch: this one has read enough.
    Later,
}

/// Steps whose answers are due although their commands are still in the outbox.
pub(super) type Unsent = BTreeMap<SagaId, Vec<StepPath>>;

/// What was looked up before a batch is decided.
pub(super) struct Known {
    pub(super) found: BTreeMap<SagaId, Found>,
    pub(super) keys: BTreeMap<SagaKey, Option<KeyMatch>>,
    pub(super) unsent: Unsent,
}
