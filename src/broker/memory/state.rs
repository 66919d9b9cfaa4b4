//! What is in the broker, and each change to it as one step under the lock.
//!
//! Separate from the handles that call it, so that locking and waking stay in one place and the
//! rules of queues in another. Nothing in here waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use crate::broker::{
    Binding, BrokerError, DELIVERY_LIMIT, Delivery, DeliveryTag, Outgoing, Published, Queue,
    QueueArguments, QueueFacts, topic,
};
use crate::message::{Destination, Message};

/// A consumer's number; also its deliveries' epoch, so that another consumer's tags don't match.
pub(super) type ConsumerId = u64;

#[derive(Default)]
pub(super) struct State {
    pub(super) queues: BTreeMap<String, QueueState>,
    /// Bindings by exchange, in the order they were made.
    pub(super) exchanges: BTreeMap<String, Vec<Bound>>,
    pub(super) consumers: BTreeMap<ConsumerId, ConsumerState>,
    pub(super) last_consumer: ConsumerId,
}

#[derive(Default)]
pub(super) struct QueueState {
    pub(super) ready: VecDeque<Waiting>,
    dead_letter_to: Option<String>,
    /// Whether only the consumer that has been there longest is given messages.
    in_order: bool,
}

pub(super) struct ConsumerState {
    pub(super) queue: String,
    pub(super) prefetch: usize,
    pub(super) last_tag: u64,
    pub(super) unacked: BTreeMap<u64, Waiting>,
    /// Whether it was asked to deliver no more.
    pub(super) stopped: bool,
    /// Of the `next_batch` that waits.
    pub(super) waker: Option<Waker>,
}

#[derive(PartialEq)]
pub(super) struct Bound {
    pattern: String,
    queue: String,
}

/// A message in a queue; shared among the queues it was routed to.
#[derive(Clone)]
pub(super) struct Waiting {
    message: Arc<Message>,
    published_to: Arc<Destination>,
    /// How often it came back.
    returns: u32,
}

impl State {
    pub(super) fn declare_queue(
        &mut self,
        queue: &Queue,
        in_order: bool,
    ) -> Result<(), BrokerError> {
        match self.queues.get(&queue.name) {
            Some(existing) if existing.in_order != in_order => Err(BrokerError::Clash {
                what: format!("queue `{}`", queue.name),
                difference: "one of both gives messages to one consumer at a time".to_owned(),
            }),
            Some(existing) if existing.dead_letter_to != queue.dead_letter_to => {
                Err(BrokerError::Clash {
                    what: format!("queue `{}`", queue.name),
                    difference: format!(
                        "it dead-letters to {:?}, not to {:?}",
                        existing.dead_letter_to, queue.dead_letter_to
                    ),
                })
            }
            Some(_) => Ok(()),
            None => {
                self.queues.insert(
                    queue.name.clone(),
                    QueueState {
                        ready: VecDeque::new(),
                        dead_letter_to: queue.dead_letter_to.clone(),
                        in_order,
                    },
                );
                Ok(())
            }
        }
    }

    /// What can be seen of a queue.
    pub(super) fn facts(&self, name: &str) -> Option<QueueFacts> {
        let queue = self.queues.get(name)?;
        let consumers = self.consumers.values();
        let consumers = consumers.filter(|consumer| consumer.queue == name).count();
        let limited = queue.dead_letter_to.is_some();
        Some(QueueFacts {
            waiting: queue.ready.len() as u64,
            consumers: Some(consumers as u64),
            arguments: Some(QueueArguments {
                dead_letter_exchange: limited.then(String::new),
                dead_letter_routing_key: queue.dead_letter_to.clone(),
                delivery_limit: limited.then(|| u64::from(DELIVERY_LIMIT) - 1),
                counts_deliveries: limited,
            }),
        })
    }

    pub(super) fn bind(&mut self, binding: &Binding) -> Result<(), BrokerError> {
        if !self.queues.contains_key(&binding.queue) {
            return Err(BrokerError::NoQueue(binding.queue.clone()));
        }
        let Some(bounds) = self.exchanges.get_mut(&binding.exchange) else {
            return Err(BrokerError::Refused(format!(
                "no exchange `{}` to bind queue `{}` to",
                binding.exchange, binding.queue
            )));
        };
        let bound = Bound {
            pattern: binding.routing_key.clone(),
            queue: binding.queue.clone(),
        };
        if !bounds.contains(&bound) {
            bounds.push(bound);
        }
        Ok(())
    }

    pub(super) fn publish(
        &mut self,
        outgoing: Outgoing,
        queue_messages_max: usize,
        touched: &mut Vec<String>,
    ) -> Published {
        let Some(targets) = self.route(&outgoing.destination) else {
            let exchange = &outgoing.destination.exchange;
            return if outgoing.mandatory {
                Published::Unroutable
            } else {
                Published::NotYet(format!("there is no exchange `{exchange}`"))
            };
        };
        if targets.is_empty() {
            return if outgoing.mandatory {
                Published::Unroutable
            } else {
                Published::Confirmed
            };
        }
        // Nowhere or everywhere: a message is not put into some of its queues.
        let full = |name: &&String| {
            self.queues
                .get(*name)
                .is_none_or(|queue| queue.ready.len() >= queue_messages_max)
        };
        if let Some(name) = targets.iter().find(full) {
            return Published::Failed(format!(
                "queue `{name}` is full: {queue_messages_max} messages wait in it"
            ));
        }
        let message = Arc::new(outgoing.message);
        let published_to = Arc::new(outgoing.destination);
        for name in targets {
            if let Some(queue) = self.queues.get_mut(&name) {
                queue.ready.push_back(Waiting {
                    message: Arc::clone(&message),
                    published_to: Arc::clone(&published_to),
                    returns: 0,
                });
            }
            if !touched.contains(&name) {
                touched.push(name);
            }
        }
        Published::Confirmed
    }

    /// The queues that take a message, each once; `None` if there is no such exchange.
    fn route(&self, destination: &Destination) -> Option<Vec<String>> {
        let key = &destination.routing_key;
        if destination.exchange.is_empty() {
            let exists = self.queues.contains_key(key);
            return Some(exists.then(|| key.clone()).into_iter().collect());
        }
        let mut targets: Vec<String> = Vec::new();
        for bound in self.exchanges.get(&destination.exchange)? {
            if !targets.contains(&bound.queue) && topic::matches(&bound.pattern, key) {
                targets.push(bound.queue.clone());
            }
        }
        Some(targets)
    }

    pub(super) fn take_batch(&mut self, id: ConsumerId, most: usize) -> Vec<Delivery> {
        let is_first = self.is_first(id);
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return Vec::new();
        };
        let Some(queue) = self.queues.get_mut(&consumer.queue) else {
            return Vec::new();
        };
        if consumer.stopped || (queue.in_order && !is_first) {
            return Vec::new();
        }
        let room = consumer.prefetch.saturating_sub(consumer.unacked.len());
        let count = most.min(room).min(queue.ready.len());
        let taken = queue.ready.drain(..count);
        taken
            .map(|waiting| {
                consumer.last_tag += 1;
                let delivery = Delivery {
                    tag: DeliveryTag {
                        epoch: id,
                        tag: consumer.last_tag,
                    },
                    message: Message::clone(&waiting.message),
                    published_to: Destination::clone(&waiting.published_to),
                    redelivered: waiting.returns > 0,
                    returns: waiting.returns,
                };
                consumer.unacked.insert(consumer.last_tag, waiting);
                delivery
            })
            .collect()
    }

    /// Whether no other consumer of its queue has been there longer.
    fn is_first(&self, id: ConsumerId) -> bool {
        let queue = self.consumers.get(&id).map(|consumer| &consumer.queue);
        let mut earlier = self.consumers.range(..id);
        !earlier.any(|(_, consumer)| Some(&consumer.queue) == queue)
    }

    /// Puts messages back at the front of their queue, in the given order, or, past the delivery
    /// limit, into its dead-letter queue.
    pub(super) fn give_back(
        &mut self,
        queue: &str,
        returned: impl DoubleEndedIterator<Item = Waiting>,
    ) {
        let mut exhausted = Vec::new();
        let mut dead_letter_to = None;
        if let Some(queue) = self.queues.get_mut(queue) {
            dead_letter_to.clone_from(&queue.dead_letter_to);
            for mut waiting in returned.rev() {
                waiting.returns = waiting.returns.saturating_add(1);
                if waiting.returns >= DELIVERY_LIMIT && dead_letter_to.is_some() {
                    exhausted.push(waiting);
                } else {
                    queue.ready.push_front(waiting);
                }
            }
        }
        let Some(name) = dead_letter_to.filter(|_| !exhausted.is_empty()) else {
            return;
        };
        // Made if it was never declared, and filled past its limit: nothing may be lost here.
        let dead_letters = self.queues.entry(name).or_default();
        let letters = exhausted.into_iter().rev();
        dead_letters.ready.extend(letters.map(|letter| Waiting {
            returns: 0,
            ..letter
        }));
    }

    /// All that wait for this queue; each looks for itself, so that a wake-up can't be lost with
    /// a dropped future.
    pub(super) fn take_wakers(&mut self, queue: &str, wakers: &mut Vec<Waker>) {
        let waiting = self.consumers.values_mut();
        wakers.extend(
            waiting
                .filter(|consumer| consumer.queue == queue)
                .filter_map(|consumer| consumer.waker.take()),
        );
    }

    pub(super) fn take_all_wakers(&mut self, wakers: &mut Vec<Waker>) {
        let waiting = self.consumers.values_mut();
        wakers.extend(waiting.filter_map(|consumer| consumer.waker.take()));
    }
}
