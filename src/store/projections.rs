//! What projections keep: documents, and the position up to which they are folded.
//!
//! A projection's documents belong to a generation. Readers see the one that serves; a rebuild fills
//! another beside it and then has that one serve. Every change of a generation names the position
//! that it was computed from and is refused if that is no longer the stored one, so of two that
//! work on the same generation one does each piece of work, and none is done twice.
//!
//! Documents made on demand stand apart: each has a position of its own, and a time after which it is
//! forgotten.
//!
//! Deliberately absent: what a document says, and locks between those who write.

use async_trait::async_trait;
use bytes::Bytes;

use super::feed::{EventFeed, Position};
use super::participant::ParticipantStore;
use super::{OutboxMessage, StoreError};
use crate::id::Timestamp;

/// Keeps projections.
#[async_trait]
pub trait ProjectionStore: Send + Sync + 'static {
    /// The generations of a projection, oldest first; of all projections if none is named.
    async fn generations(&self, name: Option<&str>) -> Result<Vec<Generation>, StoreError>;

    /// Adds a generation that has folded nothing yet. The first one of a projection serves at once.
    /// [`StoreError::Conflict`] if another was added at the same time.
    async fn add_generation(&self, name: &str, version: u32) -> Result<Generation, StoreError>;

    /// Has a generation serve, and forgets the others. [`StoreError::Conflict`] if it is not there.
    async fn serve(&self, name: &str, generation: u32) -> Result<(), StoreError>;

    /// Forgets a generation that does not serve.
    async fn drop_generation(&self, name: &str, generation: u32) -> Result<(), StoreError>;

    /// Removes documents of generations that are forgotten, at most `limit`; returns how many.
    async fn sweep_documents(&self, name: &str, limit: usize) -> Result<u64, StoreError>;

    /// Documents of a generation; those that do not exist are missing from the answer.
    async fn documents(
        &self,
        name: &str,
        generation: u32,
        keys: &[String],
    ) -> Result<Vec<DocumentRow>, StoreError>;

    /// Keys and documents of a generation in order of the keys, those after `after`.
    async fn document_page(
        &self,
        name: &str,
        generation: u32,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DocumentRow>, StoreError>;

    /// Stores documents, messages and the new position, all or nothing. [`StoreError::Conflict`] if
    /// the generation is gone or is not where it was.
    async fn advance(&self, advance: Advance) -> Result<(), StoreError>;

    /// A document that was made on demand by this version.
    async fn cached(
        &self,
        name: &str,
        version: u32,
        key: &str,
    ) -> Result<Option<DocumentRow>, StoreError>;

    /// Keeps a document that was made on demand. An older one never replaces a newer one.
    async fn cache(
        &self,
        name: &str,
        version: u32,
        row: DocumentRow,
        expires_at: Timestamp,
    ) -> Result<(), StoreError>;

    /// Removes documents made on demand whose time is over, at most `limit`; returns how many.
    async fn sweep_cache(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError>;

    /// Removes a document made on demand.
    async fn forget_cached(&self, name: &str, key: &str) -> Result<(), StoreError>;
}

/// All that a read model is made of and kept in.
pub trait ReadModels: ParticipantStore + EventFeed + ProjectionStore {}

impl<S: ParticipantStore + EventFeed + ProjectionStore> ReadModels for S {}

/// How far a generation of a projection has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The projection.
    pub name: String,
    /// Which of its generations, from 1.
    pub generation: u32,
    /// The version of the projection that makes it.
    pub version: u32,
    /// What it has folded: all up to here.
    pub position: Position,
    /// Whether readers see it.
    pub serving: bool,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRow {
    /// Its key.
    pub key: String,
    /// The newest event in it, or the position up to which one made on demand is complete.
    pub position: Position,
    /// The document, as the projection encodes it.
    pub body: Bytes,
}

/// A step of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Advance {
    /// The projection.
    pub name: String,
    /// Which of its generations.
    pub generation: u32,
    /// Where it stands.
    pub from: Position,
    /// Where it will stand.
    pub to: Position,
    /// New and changed documents.
    pub documents: Vec<DocumentRow>,
    /// Messages to publish once this is committed.
    pub outbox: Vec<OutboxMessage>,
}
