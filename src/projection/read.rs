//! Reading documents: as they are kept, as of this moment, or folded at the reader's request.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::document::{AnyDocument, AnyProjection};
use super::model::{Projection, ProjectionError};
use super::recorded::Recorded;
use super::registry::{Projections, Registered};
use crate::engine::limit::within;
use crate::environment::Environment;
use crate::participant::{
    Command, CommandHandler, CommandRefusal, CommandSpec, Rejection, UnitOfWork,
};
use crate::store::feed::{EventPage, EventQuery, PlacedEvent, Position};
use crate::store::participant::AggregateKey;
use crate::store::projections::{DocumentRow, ReadModels};

/// Events read at once.
const PAGE_EVENTS: usize = 2_000;
/// Most events that are folded on top of a live document for one reader.
const TAIL_EVENTS_MAX: usize = 20_000;

/// Reads the documents of a program's projections.
#[derive(Clone)]
pub struct ReadModel {
    environment: Arc<dyn Environment>,
    store: Arc<dyn ReadModels>,
    projections: Arc<Projections>,
}

/// How new a document is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Freshness {
    /// As it is kept: a live one may lag a moment behind; one that is not live is folded on demand.
    #[default]
    Kept,
    /// With all that is committed at this moment: whoever has got an answer to a command finds what
    /// that has changed.
    Now,
    /// Folded from its events, whether or not it is also kept live.
    OnDemand,
}

/// A document.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What it says.
    pub document: Value,
    /// The position up to which all events are in it.
    pub position: Position,
    /// How it was read.
    pub freshness: Freshness,
}

/// Why a document can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such projection.
    #[error("there is no projection `{0}` here")]
    Unknown(String),
    /// It is not kept in a way that could answer.
    #[error("documents of `{0}` can't be made on demand: their events can't be found by their key")]
    NotOnDemand(String),
    /// Its projector is too far behind.
    #[error(
        "`{0}` lags too far behind to be brought up to date for one reader; ask for it as it is kept"
    )]
    Behind(String),
    /// The document or its events can't be read.
    #[error(transparent)]
    Projection(#[from] ProjectionError),
}

impl From<crate::store::StoreError> for ReadError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Projection(error.into())
    }
}

impl ReadModel {
    /// Of these projections, over this store.
    pub fn new(
        environment: Arc<dyn Environment>,
        store: Arc<dyn ReadModels>,
        projections: Projections,
    ) -> Self {
        Self {
            environment,
            store,
            projections: Arc::new(projections),
        }
    }

    /// The projections.
    pub fn projections(&self) -> &Projections {
        &self.projections
    }

    /// A document; `None` if no event belongs to it.
    pub async fn read(
        &self,
        name: &str,
        key: &str,
        freshness: Freshness,
    ) -> Result<Option<Reading>, ReadError> {
        let found = self.projections.find(name);
        let registered = found.ok_or_else(|| ReadError::Unknown(name.to_owned()))?;
        match freshness {
            Freshness::Kept if registered.live => self.kept(registered, key).await,
            Freshness::Now if registered.live => self.now(registered, key).await,
            _ => self.on_demand(registered, key).await,
        }
    }

    async fn kept(&self, registered: &Registered, key: &str) -> Result<Option<Reading>, ReadError> {
        let projection = &registered.projection;
        let Some((position, row)) = self.live_row(projection, key).await? else {
            return Ok(None);
        };
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Reading {
            document: projection.open(Some(&row.body))?.value()?,
            position,
            freshness: Freshness::Kept,
        }))
    }

    /// The live document, and what came after it.
    async fn now(&self, registered: &Registered, key: &str) -> Result<Option<Reading>, ReadError> {
        let projection = &registered.projection;
        let (folded, row) = match self.live_row(projection, key).await? {
            None => (Position::START, None),
            Some(found) => found,
        };
        let is_stored = row.is_some();
        // The row may be newer than the position that was read before it.
        let after = row.as_ref().map_or(folded, |row| folded.max(row.position));
        let document = projection.open(row.as_ref().map(|row| &row.body[..]))?;
        let mut folding = Folding {
            document,
            heard: 0,
            position: after,
            read: 0,
        };
        loop {
            let query = EventQuery {
                kinds: projection.kinds(),
                correlation: projection.is_by_correlation().then(|| key.to_owned()),
                after: folding.position,
                upto: Position::END,
                limit: PAGE_EVENTS,
            };
            let page = self.events(&query).await?;
            folding.apply(projection, key, &page.events)?;
            if !page.more {
                break;
            }
            if folding.read > TAIL_EVENTS_MAX {
                return Err(ReadError::Behind(projection.name().to_owned()));
            }
        }
        if !is_stored && folding.heard == 0 {
            return Ok(None);
        }
        Ok(Some(Reading {
            document: folding.document.value()?,
            position: folding.position,
            freshness: Freshness::Now,
        }))
    }

    /// The serving generation's position, and then its document.
    async fn live_row(
        &self,
        projection: &Arc<dyn AnyProjection>,
        key: &str,
    ) -> Result<Option<(Position, Option<DocumentRow>)>, ReadError> {
        let (environment, store) = (&*self.environment, &self.store);
        let name = projection.name();
        let found = within(environment, store.generations(Some(name))).await?;
        let Some(serving) = found.into_iter().find(|it| it.serving) else {
            return Ok(None);
        };
        let keys = [key.to_owned()];
        let rows = store.documents(name, serving.generation, &keys);
        let row = within(environment, rows).await?.pop();
        Ok(Some((serving.position, row)))
    }

    /// What was folded for an earlier reader, brought up to date, and kept as far as it is settled.
    async fn on_demand(
        &self,
        registered: &Registered,
        key: &str,
    ) -> Result<Option<Reading>, ReadError> {
        let projection = &registered.projection;
        if !projection.is_by_correlation() {
            return Err(ReadError::NotOnDemand(projection.name().to_owned()));
        }
        let (environment, store) = (&*self.environment, &self.store);
        let (name, version) = (projection.name(), projection.version());
        let settled = within(environment, store.settled()).await?;
        let cached = within(environment, store.cached(name, version, key)).await?;
        let from = cached.as_ref().map_or(Position::START, |row| row.position);
        let document = projection.open(cached.as_ref().map(|row| &row.body[..]))?;
        let mut folding = Folding {
            document,
            heard: 0,
            position: from,
            read: 0,
        };
        let was_cached = cached.is_some();
        let upto = settled.max(from);
        self.fold_upto(projection, key, &mut folding, upto).await?;
        let is_there = was_cached || folding.heard > 0;
        if let Some(kept_for) = registered.on_demand.filter(|_| is_there) {
            let row = DocumentRow {
                key: key.to_owned(),
                position: upto,
                body: folding.document.encode()?,
            };
            let expires_at = self.environment.now().after(kept_for);
            within(environment, store.cache(name, version, row, expires_at)).await?;
        }
        // What is committed but may yet be overtaken is told, and not kept.
        self.fold_upto(projection, key, &mut folding, Position::END)
            .await?;
        if !was_cached && folding.heard == 0 {
            return Ok(None);
        }
        Ok(Some(Reading {
            document: folding.document.value()?,
            position: upto,
            freshness: Freshness::OnDemand,
        }))
    }

    async fn fold_upto(
        &self,
        projection: &Arc<dyn AnyProjection>,
        key: &str,
        folding: &mut Folding,
        upto: Position,
    ) -> Result<(), ReadError> {
        loop {
            let query = EventQuery {
                kinds: projection.kinds(),
                correlation: Some(key.to_owned()),
                after: folding.position,
                upto,
                limit: PAGE_EVENTS,
            };
            let page = self.events(&query).await?;
            folding.apply(projection, key, &page.events)?;
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn events(&self, query: &EventQuery) -> Result<EventPage, ReadError> {
        Ok(within(&*self.environment, self.store.events(query)).await?)
    }
}

/// A document that is being brought up to date.
struct Folding {
    document: Box<dyn AnyDocument>,
    /// Events that belong to it.
    heard: usize,
    /// Events that were looked at.
    read: usize,
    position: Position,
}

impl Folding {
    fn apply(
        &mut self,
        projection: &Arc<dyn AnyProjection>,
        key: &str,
        events: &[PlacedEvent],
    ) -> Result<(), ProjectionError> {
        for placed in events {
            let event = Recorded::new(placed);
            if projection.key_of(&event)?.as_deref() == Some(key) {
                self.document.apply(&event)?;
                self.heard += 1;
            }
            self.position = placed.position;
        }
        self.read += events.len();
        Ok(())
    }
}

/// Answers a command with a document, as of this moment, so that a saga can decide by it. The answer
/// is the projection's empty document if no event belongs to it.
pub struct ReadCommand {
    model: ReadModel,
    projection: &'static str,
    commands: &'static [CommandSpec],
    /// The payload's field with the key.
    field: &'static str,
    empty: fn() -> Value,
}

impl ReadCommand {
    /// Reads a projection of the model by the key in a field of the command's payload.
    pub fn new<P: Projection>(
        model: ReadModel,
        commands: &'static [CommandSpec],
        field: &'static str,
    ) -> Self {
        Self {
            model,
            projection: P::NAME,
            commands,
            field,
            empty: || serde_json::to_value(P::Document::default()).unwrap_or_default(),
        }
    }
}

#[async_trait]
impl CommandHandler for ReadCommand {
    fn commands(&self) -> &'static [CommandSpec] {
        self.commands
    }

    fn aggregate_of(&self, _: &Command) -> Result<Option<AggregateKey>, Rejection> {
        Ok(None)
    }

    async fn handle(&self, command: &Command, _: &mut UnitOfWork) -> Result<Value, CommandRefusal> {
        let key = command.payload.get(self.field).and_then(Value::as_str);
        let key = key.ok_or_else(|| {
            Rejection::new(format!(
                "payload of `{}`: `{}` must be there and be text",
                command.name, self.field
            ))
        })?;
        let read = self.model.read(self.projection, key, Freshness::Now).await;
        match read {
            Ok(found) => Ok(found.map_or_else(self.empty, |found| found.document)),
            Err(error) => Err(CommandRefusal::Failed(error.to_string())),
        }
    }
}
