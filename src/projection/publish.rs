//! Aggregate events for those outside: each is published to a topic exchange, in order of the
//! positions.
//!
//! The publisher follows the events as a projection does, with a position of its own; a step's
//! messages and its new position are committed together, and then the relay publishes them. So each
//! event is published at least once, with the same message id each time.
//!
//! It is off unless it is asked for: a message for each event is most of what an event costs. It
//! begins with what happens from then on; what was before is read from the feed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::model::ProjectionError;
use super::recorded::Recorded;
use crate::broker::{Broker, Topology};
use crate::engine::limit::within;
use crate::engine::relay::{Relay, RelayOptions};
use crate::environment::{Environment, Shutdown};
use crate::message::{
    AGGREGATE_EVENT_EXCHANGE, CONTENT_TYPE_JSON, Destination, HEADER_CORRELATION, HEADER_POSITION,
    Headers, Message, Properties,
};
use crate::store::feed::{EventQuery, PlacedEvent, Position};
use crate::store::projections::{Advance, Generation, ReadModels};
use crate::store::{Outbox, OutboxMessage, StoreError};

/// The name under which its position is kept.
pub const PUBLISHER: &str = "backstitch.aggregate-events";

/// Most events of a step.
const STEP_EVENTS_MAX: usize = 500;
/// Wait for new events.
const IDLE_PAUSE: Duration = Duration::from_millis(100);
/// Wait after an error.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);
/// Longest routing key that AMQP takes, in bytes.
const ROUTING_KEY_BYTES_MAX: usize = 255;

/// What is to be declared before it publishes.
fn topology() -> Topology {
    Topology {
        topic_exchanges: vec![AGGREGATE_EVENT_EXCHANGE.to_owned()],
        ..Topology::default()
    }
}

/// An event as those outside see it.
pub fn told(placed: &PlacedEvent) -> Value {
    let PlacedEvent { position, event } = placed;
    let body: Value = serde_json::from_slice(&event.body).unwrap_or_default();
    let mut told = json!({
        "position": position,
        "kind": event.key.kind,
        "id": event.key.id,
        "seq": event.seq,
        "at": event.at.to_string(),
        "event": body,
    });
    let origin = &event.origin;
    let more = [
        ("valid_from", event.valid_from.map(|at| at.to_string())),
        ("saga_id", origin.saga.map(|saga| saga.to_string())),
        ("saga_key", origin.saga_key.clone()),
        ("message_id", origin.message_id.clone()),
        ("correlation", origin.correlation.clone()),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            told[name] = value.into();
        }
    }
    told
}

/// Publishes aggregate events.
pub struct Publisher {
    /// Clock, sleep, ids.
    pub environment: Arc<dyn Environment>,
    /// Where events are read.
    pub store: Arc<dyn ReadModels>,
    /// Where they are published.
    pub broker: Arc<dyn Broker>,
}

impl Publisher {
    /// Publishes until the shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        let outbox: Arc<dyn Outbox> = Arc::<dyn ReadModels>::clone(&self.store);
        let relay = Relay::start(
            Arc::clone(&self.environment),
            Arc::clone(&self.broker),
            outbox,
            RelayOptions {
                // One, so that they are published in order as long as nothing fails.
                publishers: 1,
                ..RelayOptions::default()
            },
            None,
        );
        tokio::select! {
            biased;
            () = shutdown.requested() => {}
            () = self.follow(&relay) => {}
        }
        relay.stop().await;
    }

    async fn follow(&self, relay: &Relay) {
        loop {
            let error = match self.begin().await {
                Ok(mut generation) => loop {
                    match self.step(&mut generation, relay).await {
                        Ok(true) => {}
                        Ok(false) => self.environment.sleep(IDLE_PAUSE).await,
                        Err(error) => break error,
                    }
                },
                Err(error) => error,
            };
            match error {
                ProjectionError::Store(StoreError::Conflict) => {
                    tracing::debug!("somebody else publishes aggregate events");
                }
                error => tracing::warn!(%error, "can't publish aggregate events; trying again"),
            }
            self.environment.sleep(TROUBLE_PAUSE).await;
        }
    }

    async fn begin(&self) -> Result<Generation, ProjectionError> {
        if let Err(error) = self.broker.declare(&topology()).await {
            return Err(StoreError::Unavailable(error.into()).into());
        }
        let (environment, store) = (&*self.environment, &self.store);
        let found = within(environment, store.generations(Some(PUBLISHER))).await?;
        if let Some(known) = found.into_iter().next() {
            return Ok(known);
        }
        let settled = within(environment, store.settled()).await?;
        let mut added = within(environment, store.add_generation(PUBLISHER, 1)).await?;
        self.advance(&mut added, settled, Vec::new()).await?;
        Ok(added)
    }

    /// Whether there may be more at once.
    async fn step(
        &self,
        generation: &mut Generation,
        relay: &Relay,
    ) -> Result<bool, ProjectionError> {
        let (environment, store) = (&*self.environment, &self.store);
        let settled = within(environment, store.settled()).await?;
        if settled <= generation.position {
            return Ok(false);
        }
        let query = EventQuery {
            kinds: Vec::new(),
            correlation: None,
            after: generation.position,
            upto: settled,
            limit: STEP_EVENTS_MAX,
        };
        let page = within(environment, store.events(&query)).await?;
        let to = page.read_upto(settled);
        let due_at = self.environment.now().after(RelayOptions::default().grace);
        let message = |placed| OutboxMessage {
            id: self.environment.new_id(),
            due_at,
            ..message(placed)
        };
        let outbox: Vec<_> = page.events.iter().map(message).collect();
        self.advance(generation, to, outbox.clone()).await?;
        relay.send(outbox).await;
        let sent = relay.take_sent();
        if !sent.is_empty() {
            within(environment, store.remove_sent(&sent)).await?;
        }
        Ok(page.more)
    }

    async fn advance(
        &self,
        generation: &mut Generation,
        to: Position,
        outbox: Vec<OutboxMessage>,
    ) -> Result<(), StoreError> {
        let advance = Advance {
            name: PUBLISHER.to_owned(),
            generation: generation.generation,
            from: generation.position,
            to,
            documents: Vec::new(),
            outbox,
        };
        within(&*self.environment, self.store.advance(advance)).await?;
        generation.position = to;
        Ok(())
    }
}

/// The message of an event, without what its row needs besides.
fn message(placed: &PlacedEvent) -> OutboxMessage {
    let event = &placed.event;
    let seen = Recorded::new(placed);
    let name = seen.text("event").or(seen.text("type")).unwrap_or("event");
    let kind = &event.key.kind;
    let mut routing_key = format!("{kind}.{name}");
    if routing_key.len() > ROUTING_KEY_BYTES_MAX {
        routing_key.clone_from(kind);
    }
    let mut headers = Headers::from([(HEADER_POSITION.to_owned(), placed.position.0.into())]);
    if let Some(correlation) = &event.origin.correlation {
        headers.insert(HEADER_CORRELATION.to_owned(), correlation.as_str().into());
    }
    let identity = format!("{kind}/{}/{}", event.key.id, event.seq);
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, identity.as_bytes());
    OutboxMessage {
        id,
        destination: Destination {
            exchange: AGGREGATE_EVENT_EXCHANGE.to_owned(),
            routing_key: routing_key.clone(),
        },
        message: Message {
            properties: Properties {
                message_id: Some(id.to_string()),
                kind: Some(routing_key),
                content_type: Some(CONTENT_TYPE_JSON.to_owned()),
                timestamp: Some(event.at),
                headers,
                ..Properties::default()
            },
            body: told(placed).to_string().into(),
        },
        due_at: event.at,
    }
}
