//! A projection whatever its type, and a document in memory.

use std::marker::PhantomData;

use bytes::Bytes;
use serde_json::Value;

use super::model::{Key, Projection, ProjectionError};
use super::recorded::Recorded;
use crate::id::Timestamp;
use crate::participant::Aggregate;
use crate::store::feed::{PlacedEvent, Position};
use crate::store::is_key;
use crate::store::participant::{AggregateEvent, AggregateKey, Origin};

/// Longest document, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What events fold to, for tests and comparisons.
pub fn fold<'a, P: Projection>(events: impl IntoIterator<Item = &'a PlacedEvent>) -> P::Document {
    let mut document = P::Document::default();
    for event in events {
        P::apply(&mut document, &Recorded::new(event));
    }
    document
}

/// An event as it would be read back, for tests of projections.
pub fn example<A: Aggregate>(id: &str, seq: u64, event: &A::Event) -> PlacedEvent {
    PlacedEvent {
        position: Position(seq),
        event: AggregateEvent {
            key: AggregateKey {
                kind: A::KIND.to_owned(),
                id: id.to_owned(),
            },
            seq,
            at: Timestamp::default(),
            valid_from: A::valid_from(event),
            origin: Origin::default(),
            // Null is what a projection gets to see of what can't be written.
            body: serde_json::to_vec(event).unwrap_or_default().into(),
        },
    }
}

/// A projection, whatever its type.
pub(super) trait AnyProjection: Send + Sync {
    fn name(&self) -> &'static str;
    fn version(&self) -> u32;
    fn kinds(&self) -> Vec<String>;
    /// Whether a document's events can be found by its key.
    fn is_by_correlation(&self) -> bool;
    /// The document that an event belongs to.
    fn key_of(&self, event: &Recorded<'_>) -> Result<Option<String>, ProjectionError>;
    /// A stored document, or an empty one.
    fn open(&self, stored: Option<&[u8]>) -> Result<Box<dyn AnyDocument>, ProjectionError>;
}

/// A document in memory, whatever its type.
pub(super) trait AnyDocument: Send {
    fn apply(&mut self, event: &Recorded<'_>) -> Result<(), ProjectionError>;
    fn encode(&self) -> Result<Bytes, ProjectionError>;
    fn value(&self) -> Result<Value, ProjectionError>;
}

/// Makes a projection an object.
pub(super) struct Of<P>(PhantomData<fn() -> P>);

impl<P> Of<P> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

struct Document<P: Projection>(P::Document);

impl<P: Projection> AnyProjection for Of<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn version(&self) -> u32 {
        P::VERSION
    }

    fn kinds(&self) -> Vec<String> {
        P::KINDS.iter().map(ToString::to_string).collect()
    }

    fn is_by_correlation(&self) -> bool {
        matches!(P::KEY, Key::Correlation)
    }

    fn key_of(&self, event: &Recorded<'_>) -> Result<Option<String>, ProjectionError> {
        let key = match P::KEY {
            Key::Correlation => event.correlation().map(str::to_owned),
            Key::Event(key_of) => key_of(event),
        };
        readable::<P>(event)?;
        if let Some(key) = key.as_ref().filter(|key| !is_key(key)) {
            let what = event.shown();
            let why = format!(
                "its document's key has {} bytes or holds a null character",
                key.len()
            );
            return Err(unusable::<P>(what, why));
        }
        Ok(key)
    }

    fn open(&self, stored: Option<&[u8]>) -> Result<Box<dyn AnyDocument>, ProjectionError> {
        let document = match stored {
            None => P::Document::default(),
            Some(stored) => serde_json::from_slice(stored).map_err(|error| {
                let why = format!("{error}; rebuild it, or raise the projection's version");
                unusable::<P>("a stored document".to_owned(), why)
            })?,
        };
        Ok(Box::new(Document::<P>(document)))
    }
}

impl<P: Projection> AnyDocument for Document<P> {
    fn apply(&mut self, event: &Recorded<'_>) -> Result<(), ProjectionError> {
        P::apply(&mut self.0, event);
        readable::<P>(event)
    }

    fn encode(&self) -> Result<Bytes, ProjectionError> {
        let unwritten = |why: String| unusable::<P>("a document".to_owned(), why);
        let text = serde_json::to_vec(&self.0).map_err(|error| unwritten(error.to_string()))?;
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(unwritten(format!(
                "it has {} bytes, at most {DOCUMENT_BYTES_MAX} are allowed; keep less in it, or key it by something finer",
                text.len()
            )));
        }
        Ok(text.into())
    }

    fn value(&self) -> Result<Value, ProjectionError> {
        serde_json::to_value(&self.0)
            .map_err(|error| unusable::<P>("a document".to_owned(), error.to_string()))
    }
}

fn readable<P: Projection>(event: &Recorded<'_>) -> Result<(), ProjectionError> {
    event
        .unreadable()
        .map_or(Ok(()), |why| Err(unusable::<P>(event.shown(), why)))
}

fn unusable<P: Projection>(what: String, why: String) -> ProjectionError {
    ProjectionError::Unusable {
        projection: P::NAME,
        what,
        why,
    }
}
