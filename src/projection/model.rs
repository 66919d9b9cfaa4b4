//! What a team writes: what documents are folded from, and how.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::recorded::Recorded;
use crate::store::StoreError;

/// A read model: what documents are folded from, and how.
pub trait Projection: Send + Sync + 'static {
    /// A document; the default one is what there is before the first event.
    type Document: Serialize + DeserializeOwned + Default + Send;

    /// Its name, under which documents are read.
    const NAME: &'static str;
    /// Raised when `apply` or the document changes: then all documents are made anew.
    const VERSION: u32 = 1;
    /// The kinds of aggregates whose events it hears.
    const KINDS: &'static [&'static str];
    /// Which document an event belongs to.
    const KEY: Key = Key::Correlation;

    /// What an event changes. The same document and event always give the same document.
    fn apply(document: &mut Self::Document, event: &Recorded<'_>);
}

/// Which document an event belongs to.
#[derive(Clone, Copy)]
pub enum Key {
    /// The one named by its correlation; events without one belong to none. Only such documents can
    /// be made on demand, for only their events can be found.
    Correlation,
    /// The one that this function names, or none.
    Event(fn(&Recorded<'_>) -> Option<String>),
}

/// Why a projection can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The store can't be used, or somebody else was faster.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A document or event can't be read or written.
    #[error("projection `{projection}`: {what}: {why}")]
    Unusable {
        /// Which projection.
        projection: &'static str,
        /// Which document or event.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}
