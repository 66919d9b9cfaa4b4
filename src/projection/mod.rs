//! Read models: documents that are folded from the events of several aggregates.
//!
//! ```text
//! live       settled? → read events → load documents → apply → [transaction] documents, position
//! on demand  document kept from before → events after it → apply → keep for a while → answer
//! ```
//!
//! A [`Projection`] says which kinds of aggregates it hears, which document an event belongs to, and
//! what the event changes. [`Projector`] keeps its documents up to date; [`ReadModel`] reads them, or
//! folds one at the reader's request; [`mod@rebuild`] makes all of them anew while readers keep the old
//! ones. Both ways give equal documents.
//!
//! Separate from `participant` because reading needs nothing of it but events: a read model may run
//! in a process of its own.
//!
//! Invariants:
//! * a live document and the position it was folded up to are committed together, so a projector that
//!   dies goes on where it was, and two of them do no event twice;
//! * no event is skipped: projectors read up to the settled position only ([`crate::store::feed`]);
//! * folding sends nothing: `apply` has a document and an event, and nothing else.
//!
//! Deliberately absent: clocks, identifiers and I/O in `apply`; queries over documents (a projection is
//! read by its key; whoever needs more keys it by what they ask for).

mod document;
mod follow;
mod live;
mod publish;
mod read;
mod rebuild;
mod recorded;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use document::{AnyProjection, Of};
pub use document::{example, fold};
pub use follow::{Following, run_all};
pub use live::Projector;
pub use publish::{PUBLISHER, Publisher, told};
pub use read::{Freshness, ReadCommand, ReadError, ReadModel, Reading};
pub use rebuild::{Rebuilt, rebuild, rebuild_key};
pub use recorded::Recorded;

use crate::store::StoreError;

/// Longest document, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

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

/// The projections of a program, and how each is kept.
#[derive(Clone, Default)]
pub struct Projections {
    registered: Vec<Registered>,
}

#[derive(Clone)]
struct Registered {
    projection: Arc<dyn AnyProjection>,
    live: bool,
    /// How long a document that was made on demand is kept after it was last read.
    on_demand: Option<Duration>,
}

impl Projections {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a projection's documents up to date.
    #[must_use]
    pub fn live<P: Projection>(mut self) -> Self {
        self.entry::<P>().live = true;
        self
    }

    /// Makes a projection's documents when they are asked for, and keeps each until nobody has asked
    /// for it for so long.
    #[must_use]
    pub fn on_demand<P: Projection>(mut self, kept_for: Duration) -> Self {
        const {
            assert!(
                matches!(P::KEY, Key::Correlation),
                "only documents that are keyed by correlation can be made on demand"
            );
        }
        self.entry::<P>().on_demand = Some(kept_for);
        self
    }

    /// The names, in the order they were added.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.registered.iter().map(|it| it.projection.name())
    }

    /// Only those of these names; all if none is named. An error names the first that is not there.
    pub fn named(mut self, names: &[String]) -> Result<Self, String> {
        if let Some(unknown) = names.iter().find(|name| self.find(name).is_none()) {
            let known: Vec<_> = self.names().collect();
            return Err(format!(
                "there is no projection `{unknown}`; there are {}",
                known.join(", ")
            ));
        }
        self.registered
            .retain(|it| names.is_empty() || names.iter().any(|name| name == it.projection.name()));
        Ok(self)
    }

    fn find(&self, name: &str) -> Option<&Registered> {
        self.registered
            .iter()
            .find(|it| it.projection.name() == name)
    }

    fn entry<P: Projection>(&mut self) -> &mut Registered {
        let known = self
            .registered
            .iter()
            .position(|it| it.projection.name() == P::NAME);
        let index = known.unwrap_or_else(|| {
            self.registered.push(Registered {
                projection: Arc::new(Of::<P>::new()),
                live: false,
                on_demand: None,
            });
            self.registered.len() - 1
        });
        &mut self.registered[index]
    }
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
