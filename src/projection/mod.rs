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
mod model;
mod publish;
mod read;
mod rebuild;
mod recorded;
mod registry;
#[cfg(test)]
mod tests;

pub use document::{DOCUMENT_BYTES_MAX, example, fold};
pub use follow::{Following, run_all};
pub use live::Projector;
pub use model::{Key, Projection, ProjectionError};
pub use publish::{PUBLISHER, Publisher, told};
pub use read::{Freshness, ReadCommand, ReadError, ReadModel, Reading};
pub use rebuild::{Rebuilt, rebuild, rebuild_key};
pub use recorded::Recorded;
pub use registry::Projections;
