//! What comes from outside: starts, signals, domain events, people.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::cue::{Cue, Entrance};
use super::improvise::Usher;
use crate::broker::{Binding, Broker, Outgoing, Published, Queue, Topology};
use crate::engine::Engine;
use crate::environment::Environment;
use crate::id::SagaId;
use crate::message::{
    Destination, EVENT_EXCHANGE, HEADER_REASON, HEADER_SAGA, HEADER_SAGA_KEY, Message, Properties,
    SIGNAL_QUEUE, START_QUEUE,
};
use crate::saga::{OperatorAction, OperatorKind};
use crate::store::memory::MemoryStore;
use crate::store::{ListFilter, Store};

/// Where starters are answered.
const STARTER_QUEUE: &str = "stage.starter";
/// Where the usher hears of sagas that start.
const USHER_QUEUE: &str = "stage.usher";
/// Times that a message is published, or a person tries, before they give up.
const TRIES_MAX: u32 = 1_000;
/// Wait between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// What people on the stage are called.
const PERSON: &str = "the stage";

/// Whoever is not a node and not a participant.
pub(super) struct Outside {
    pub(super) environment: Arc<dyn Environment>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) store: MemoryStore,
    /// A node that runs, for people to talk to.
    pub(super) engine: Mutex<Option<Arc<Engine>>>,
    /// What did not work, and why.
    pub(super) refused: Mutex<Vec<String>>,
    /// Entrances still to come.
    pub(super) ahead: Mutex<usize>,
}

impl Outside {
    /// All entrances in their order.
    pub(super) async fn enter_all(self: Arc<Self>, mut entrances: Vec<Entrance>) {
        entrances.sort_by_key(|entrance| entrance.at);
        let mut clock = Duration::ZERO;
        for (number, Entrance { at, cue }) in entrances.into_iter().enumerate() {
            let wait = at.saturating_sub(clock);
            self.environment.sleep(wait).await;
            clock = clock.max(at);
            self.enter(format!("cue-{number}"), cue).await;
            *lock(&self.ahead) -= 1;
        }
    }

    async fn enter(&self, id: String, cue: Cue) {
        match cue {
            Cue::Start { saga, input } => {
                let message = Message {
                    properties: Properties {
                        message_id: Some(id.clone()),
                        kind: Some(saga),
                        reply_to: Some(STARTER_QUEUE.to_owned()),
                        correlation_id: Some(id),
                        ..Properties::default()
                    },
                    body: Bytes::from(input.to_string()),
                };
                self.publish(Destination::queue(START_QUEUE), message).await;
            }
            Cue::Signal {
                saga,
                key,
                signal,
                body,
            } => self.signal(id, &saga, &key, &signal, &body).await,
            Cue::Event {
                exchange,
                routing_key,
                body,
            } => {
                let message = Message {
                    properties: Properties {
                        message_id: Some(id),
                        ..Properties::default()
                    },
                    body: Bytes::from(body.to_string()),
                };
                let to = Destination {
                    exchange,
                    routing_key,
                };
                self.publish(to, message).await;
            }
            Cue::Operate { saga, key, action } => match self.newest(&saga, &key).await {
                Some(found) => self.operate(found, id, action).await,
                None => self.refuse(format!("there is no saga `{saga}` with key `{key}`")),
            },
        }
    }

    pub(super) async fn signal(
        &self,
        id: String,
        saga: &str,
        key: &str,
        signal: &str,
        body: &Value,
    ) {
        let headers = [(HEADER_SAGA, saga), (HEADER_SAGA_KEY, key)];
        let message = Message {
            properties: Properties {
                message_id: Some(id),
                kind: Some(signal.to_owned()),
                headers: headers
                    .map(|(name, value)| (name.to_owned(), Value::from(value)))
                    .into(),
                ..Properties::default()
            },
            body: Bytes::from(body.to_string()),
        };
        self.publish(Destination::queue(SIGNAL_QUEUE), message)
            .await;
    }

    pub(super) async fn operate(&self, saga: SagaId, id: String, kind: OperatorKind) {
        let action = OperatorAction {
            id,
            by: PERSON.to_owned(),
            why: "it is in the script".to_owned(),
            kind,
        };
        for _ in 0..TRIES_MAX {
            let engine = lock(&self.engine).clone();
            let told = match &engine {
                Some(engine) => engine.operate(saga, action.clone()).await,
                None => Err(crate::engine::OperateError::Unavailable(String::new())),
            };
            match told {
                Ok(()) => return,
                Err(crate::engine::OperateError::Refused(refused)) => {
                    return self.refuse(format!("{}: {refused}", action.kind.as_str()));
                }
                Err(crate::engine::OperateError::Unavailable(_)) => {
                    self.environment.sleep(TRY_AGAIN).await;
                }
            }
        }
        self.refuse(format!("{}: no node answers", action.kind.as_str()));
    }

    /// Publishes until the broker says that it has the message, as a careful client does.
    async fn publish(&self, destination: Destination, message: Message) {
        for _ in 0..TRIES_MAX {
            let outgoing = Outgoing {
                destination: destination.clone(),
                message: message.clone(),
                mandatory: true,
            };
            match self.broker.publish(vec![outgoing]).await.pop() {
                Some(Published::Confirmed) => return,
                // The nodes may still be declaring their queues.
                _ => self.environment.sleep(TRY_AGAIN).await,
            }
        }
        self.refuse(format!("nobody listens at {destination}"));
    }

    /// Hears what starters are told, and keeps refusals.
    pub(super) async fn hear_answers(self: Arc<Self>) {
        let Ok(mut consumer) = self.broker.consume(STARTER_QUEUE, 1).await else {
            return;
        };
        loop {
            let batch = consumer.deliveries.next_batch(1).await;
            if batch.is_empty() {
                return;
            }
            for delivery in batch {
                if delivery.message.properties.kind.as_deref() == Some("refused") {
                    let reason = delivery.message.header(HEADER_REASON);
                    self.refuse(reason.unwrap_or("no reason given").to_owned());
                }
                consumer.acks.ack(&[delivery.tag]);
            }
        }
    }

    /// Sends what signals the usher draws to the sagas that nobody on the stage started: those that
    /// others run, and those of schedules and domain events.
    pub(super) async fn usher(self: Arc<Self>, usher: Arc<Usher>) {
        let Ok(mut consumer) = self.broker.consume(USHER_QUEUE, 1).await else {
            return;
        };
        loop {
            let batch = consumer.deliveries.next_batch(1).await;
            if batch.is_empty() {
                return;
            }
            for delivery in batch {
                self.show_in(&usher, &delivery.message);
                consumer.acks.ack(&[delivery.tag]);
            }
        }
    }

    fn show_in(self: &Arc<Self>, usher: &Usher, event: &Message) {
        let body: Value = serde_json::from_slice(&event.body).unwrap_or_default();
        let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
        let (saga, key) = (text("saga"), text("key"));
        for (number, Entrance { at, cue }) in usher.signals(saga, key).into_iter().enumerate() {
            *lock(&self.ahead) += 1;
            let (outside, id) = (Arc::clone(self), format!("{saga}/{key}/{number}"));
            let enter = async move {
                outside.environment.sleep(at).await;
                outside.enter(id, cue).await;
                *lock(&outside.ahead) -= 1;
            };
            self.environment.spawn("signal", Box::pin(enter));
        }
    }

    async fn newest(&self, saga: &str, key: &str) -> Option<SagaId> {
        let filter = ListFilter {
            name: Some(saga.to_owned()),
            key: Some(key.to_owned()),
            limit: 1,
            ..ListFilter::default()
        };
        let found = self.store.list(&filter).await.ok()?;
        found.first().map(|head| head.id)
    }

    fn refuse(&self, why: String) {
        lock(&self.refused).push(why);
    }
}

/// The queues of those outside; the usher's hears of every saga that starts.
pub(super) fn topology() -> Topology {
    let queues = [STARTER_QUEUE, USHER_QUEUE].map(|name| Queue {
        name: name.to_owned(),
        dead_letter_to: None,
    });
    Topology {
        queues: queues.into(),
        topic_exchanges: vec![EVENT_EXCHANGE.to_owned()],
        bindings: vec![Binding {
            exchange: EVENT_EXCHANGE.to_owned(),
            queue: USHER_QUEUE.to_owned(),
            routing_key: "*.started".to_owned(),
        }],
        ..Topology::default()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
