//! Keeping a projection's documents up to date: one step after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::document::{AnyDocument, AnyProjection};
use super::model::ProjectionError;
use super::recorded::Recorded;
use crate::engine::limit::within;
use crate::environment::Environment;
use crate::id::Timestamp;
use crate::store::feed::{EventPage, EventQuery, PlacedEvent, Position};
use crate::store::projections::{Advance, DocumentRow, Generation, ReadModels};

/// Most events read at once.
const PAGE_EVENTS: usize = 20_000;
/// Most events that are folded in memory before documents are stored, as long as it lags behind: a
/// document that many of them belong to is then stored once.
const UNSTORED_EVENTS_MAX: usize = 100_000;
/// Most bytes of documents and events that are kept in memory.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Positions without an event for this projection after which its position is stored all the same,
/// so that one who starts again need not read through them.
const UNSTORED_POSITIONS_MAX: u64 = 20_000;

/// How many and which events there were in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stepped {
    /// Events that it heard.
    pub(super) events: usize,
    /// Whether it has come to where events are settled.
    pub(super) caught_up: bool,
    /// How old the oldest event of the step was.
    pub(super) behind: Duration,
    /// Settled positions that were not folded before the step.
    pub(super) positions: u64,
}

/// Folds one generation of a projection.
pub struct Projector {
    pub(super) environment: Arc<dyn Environment>,
    pub(super) store: Arc<dyn ReadModels>,
    pub(super) projection: Arc<dyn AnyProjection>,
    generation: Generation,
    /// What is folded, stored or not.
    folded: Position,
    /// Documents in memory.
    kept: BTreeMap<String, Box<dyn AnyDocument>>,
    /// What those were loaded with, and the events that they have folded since.
    kept_bytes: usize,
    /// Those that are not stored as they are, and their newest event.
    unstored: BTreeMap<String, Position>,
    unstored_events: usize,
}

impl Projector {
    pub(super) fn new(
        environment: Arc<dyn Environment>,
        store: Arc<dyn ReadModels>,
        projection: Arc<dyn AnyProjection>,
        generation: Generation,
    ) -> Self {
        Self {
            environment,
            store,
            projection,
            folded: generation.position,
            generation,
            kept: BTreeMap::new(),
            kept_bytes: 0,
            unstored: BTreeMap::new(),
            unstored_events: 0,
        }
    }

    /// Which generation, and how far it is stored.
    pub(super) fn generation(&self) -> &Generation {
        &self.generation
    }

    /// What is folded.
    pub(super) fn folded(&self) -> Position {
        self.folded
    }

    /// Folds what is settled and not yet folded, as far as one step goes. After an error the
    /// projector has forgotten its documents and may be used again, unless the generation is gone.
    pub(super) async fn step(&mut self) -> Result<Stepped, ProjectionError> {
        let result = self.try_step().await;
        if result.is_err() {
            self.forget();
            self.folded = self.generation.position;
        }
        result
    }

    async fn try_step(&mut self) -> Result<Stepped, ProjectionError> {
        let (environment, store) = (Arc::clone(&self.environment), Arc::clone(&self.store));
        let settled = within(&*environment, store.settled()).await?;
        let query = EventQuery {
            kinds: self.projection.kinds(),
            correlation: None,
            after: self.folded,
            upto: settled,
            limit: PAGE_EVENTS,
        };
        let page = if settled > self.folded {
            within(&*environment, store.events(&query)).await?
        } else {
            EventPage::default()
        };
        let caught_up = !page.more;
        let positions = settled.0.saturating_sub(self.folded.0);
        let to = page.read_upto(settled.max(self.folded));
        let events = page.events;
        let oldest = events.first().map(|placed| placed.event.at);
        let bytes = events.iter().map(|placed| placed.event.body.len()).sum();
        self.fold(&events).await?;
        let heard = events.len();
        drop(events);
        self.folded = to;
        self.unstored_events += heard;
        self.kept_bytes = self.kept_bytes.saturating_add(bytes);
        let is_much = self.unstored_events >= UNSTORED_EVENTS_MAX
            || self.kept_bytes >= KEPT_BYTES_MAX
            || to.0 - self.generation.position.0 > UNSTORED_POSITIONS_MAX
                && self.unstored.is_empty();
        if is_much || caught_up && !self.unstored.is_empty() {
            self.store_folded().await?;
        }
        Ok(Stepped {
            events: heard,
            caught_up,
            behind: age(oldest, environment.now()),
            positions,
        })
    }

    /// Applies events to their documents.
    async fn fold(&mut self, events: &[PlacedEvent]) -> Result<(), ProjectionError> {
        let keyed = self.keyed(events)?;
        let keys: BTreeSet<&String> = keyed.iter().map(|(key, _)| key).collect();
        let missing = keys.into_iter().filter(|key| !self.kept.contains_key(*key));
        let missing: Vec<String> = missing.cloned().collect();
        self.load(missing).await?;
        for (key, placed) in keyed {
            if let Some(document) = self.kept.get_mut(&key) {
                document.apply(&Recorded::new(placed))?;
                self.unstored.insert(key, placed.position);
            }
        }
        Ok(())
    }

    /// The events that belong to a document, each with its key.
    fn keyed<'e>(
        &self,
        events: &'e [PlacedEvent],
    ) -> Result<Vec<(String, &'e PlacedEvent)>, ProjectionError> {
        let mut keyed = Vec::with_capacity(events.len());
        for placed in events {
            if let Some(key) = self.projection.key_of(&Recorded::new(placed))? {
                keyed.push((key, placed));
            }
        }
        Ok(keyed)
    }

    async fn load(&mut self, keys: Vec<String>) -> Result<(), ProjectionError> {
        if keys.is_empty() {
            return Ok(());
        }
        let Generation {
            name, generation, ..
        } = &self.generation;
        let found = self.store.documents(name, *generation, &keys);
        for row in within(&*self.environment, found).await? {
            let document = self.projection.open(Some(&row.body))?;
            self.kept_bytes = self.kept_bytes.saturating_add(row.body.len());
            self.kept.insert(row.key, document);
        }
        for key in keys {
            if !self.kept.contains_key(&key) {
                self.kept.insert(key, self.projection.open(None)?);
            }
        }
        Ok(())
    }

    /// Stores the documents that changed, and how far they are folded.
    async fn store_folded(&mut self) -> Result<(), ProjectionError> {
        let mut documents = Vec::with_capacity(self.unstored.len());
        for (key, position) in std::mem::take(&mut self.unstored) {
            if let Some(document) = self.kept.get(&key) {
                documents.push(DocumentRow {
                    body: document.encode()?,
                    key,
                    position,
                });
            }
        }
        let advance = Advance {
            name: self.generation.name.clone(),
            generation: self.generation.generation,
            from: self.generation.position,
            to: self.folded,
            documents,
            outbox: Vec::new(),
        };
        within(&*self.environment, self.store.advance(advance)).await?;
        self.generation.position = self.folded;
        self.unstored_events = 0;
        if self.kept_bytes >= KEPT_BYTES_MAX {
            self.forget();
        }
        Ok(())
    }

    /// Keeps no documents in memory.
    fn forget(&mut self) {
        self.kept.clear();
        self.kept_bytes = 0;
        self.unstored.clear();
        self.unstored_events = 0;
    }
}

fn age(at: Option<Timestamp>, now: Timestamp) -> Duration {
    at.map(|at| now.since(at)).unwrap_or_default()
}
