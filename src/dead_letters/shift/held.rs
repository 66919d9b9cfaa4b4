//! Messages that a run holds until its end, so that each counts one delivery, and what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::broker::{Broker, BrokerError, Delivery, DeliveryTag, Outgoing, Published};
use crate::dead_letters::replay::prepare::note;
use crate::environment::Environment;
use crate::message::{Destination, Message};
use crate::store::dead_letters::Trail;

/// Header in which a quorum queue counts how often it was given a message back.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// How long messages that were given back may take to wait in their queue again.
const RETURN_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause between two looks whether they do.
const RETURN_PAUSE: Duration = Duration::from_millis(100);
/// Messages published anew in one batch.
const BATCH_MAX: usize = 100;

/// How often a message was given back to its queue before.
pub(super) fn delivery_count(message: &Message) -> u64 {
    let count = message.properties.headers.get(DELIVERY_COUNT);
    count.and_then(Value::as_u64).unwrap_or(0)
}

/// Messages that are held.
pub(super) struct Held {
    /// How often the queue lets a message be given back.
    limit: Option<u64>,
    /// Messages that are given back, or are lost when they are.
    given_back: usize,
    /// Messages that the queue would give up if they were given back.
    spent: Vec<Delivery>,
}

impl Held {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            given_back: 0,
            spent: Vec::new(),
        }
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.given_back + self.spent.len()
    }

    pub(super) fn add(&mut self, delivery: Delivery) {
        let count = delivery_count(&delivery.message);
        if self.limit.is_some_and(|limit| count >= limit) {
            self.spent.push(delivery);
        } else {
            self.given_back += 1;
        }
    }

    /// One whose content is gone.
    pub(super) fn add_tag(&mut self, tag: DeliveryTag, count: u64) {
        if self.limit.is_some_and(|limit| count >= limit) {
            tracing::warn!(
                tag = tag.tag,
                "a message at its delivery limit is given back"
            );
        }
        self.given_back += 1;
    }

    /// Publishes those that their queue would give up to its end, and returns them: they are to be
    /// acknowledged. Those for which that fails are given back with the others.
    pub(super) async fn renew(
        &mut self,
        broker: &Arc<dyn Broker>,
        queue: &str,
    ) -> Vec<DeliveryTag> {
        let mut renewed = Vec::new();
        let to = Destination::queue(queue);
        for part in std::mem::take(&mut self.spent).chunks(BATCH_MAX) {
            let outgoing = part.iter().map(|delivery| {
                let mut message = delivery.message.clone();
                let trail = Trail::of(&message, queue);
                // The broker's own books do not go along; what they say is noted.
                if trail.queue.is_some() {
                    note(&mut message.properties.headers, &trail, &to, &[]);
                }
                Outgoing {
                    destination: to.clone(),
                    message,
                    mandatory: true,
                }
            });
            let words = broker.publish(outgoing.collect()).await;
            for (delivery, word) in part.iter().zip(words) {
                if word == Published::Confirmed {
                    renewed.push(delivery.tag);
                } else {
                    self.given_back += 1;
                }
            }
        }
        renewed
    }

    /// How many of those given back are not in their queue, though nobody else takes from it.
    pub(super) async fn lost(
        &self,
        environment: &Arc<dyn Environment>,
        broker: &Arc<dyn Broker>,
        queue: &str,
    ) -> Result<u64, BrokerError> {
        let expected = self.given_back as u64;
        let started = environment.now();
        loop {
            let Some(facts) = broker.queue_counts(queue).await? else {
                return Ok(expected);
            };
            // Others may have taken them.
            if facts.consumers != Some(0) || facts.waiting >= expected {
                return Ok(0);
            }
            if environment.now().since(started) >= RETURN_TIME_MAX {
                return Ok(expected - facts.waiting);
            }
            environment.sleep(RETURN_PAUSE).await;
        }
    }
}
