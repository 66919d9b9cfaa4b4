//! The broker inside the process: the embedded default, and the simulator's network.
//!
//! It keeps RabbitMQ's promises (the same suite checks both): order within a queue, prefetch,
//! unacked messages back at the front of their queue when the consumer goes, a delivery limit
//! with a dead-letter queue, mandatory messages that nobody takes reported as unroutable.
//!
//! Everything happens under one lock, at once, in a fixed order: no task, clock, randomness or
//! runtime, so it runs unchanged under the simulator's own executor and repeats exactly.
//! Deliberately absent: durability. What is in a queue ends with the program; the outbox brings
//! back what mattered.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;

use super::topic;
use super::{
    Acks, Binding, Broker, BrokerError, Consumer, DELIVERY_LIMIT, Deliveries, Delivery,
    DeliveryTag, Health, Outgoing, Published, Queue, Topology,
};
use crate::message::{Destination, Message};

/// Most messages that wait in one queue; publishing more fails until some were taken.
pub const QUEUE_MESSAGES_MAX: usize = 1_000_000;

/// A broker in memory. Clones are handles to the same one.
#[derive(Clone)]
pub struct MemoryBroker {
    state: Arc<Mutex<State>>,
    queue_messages_max: usize,
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBroker {
    /// An empty broker.
    pub fn new() -> Self {
        Self::with_queue_limit(QUEUE_MESSAGES_MAX)
    }

    /// An empty broker whose queues are full at `queue_messages_max` waiting messages.
    pub fn with_queue_limit(queue_messages_max: usize) -> Self {
        Self {
            state: Arc::default(),
            queue_messages_max,
        }
    }

    /// Messages that wait in a queue; 0 if there is no such queue.
    pub fn queue_len(&self, queue: &str) -> usize {
        let state = lock(&self.state);
        state.queues.get(queue).map_or(0, |queue| queue.ready.len())
    }

    /// Messages of a queue that were delivered and not yet acknowledged.
    pub fn unacked(&self, queue: &str) -> usize {
        let state = lock(&self.state);
        let consumers = state.consumers.values();
        consumers
            .filter(|consumer| consumer.queue == queue)
            .map(|consumer| consumer.unacked.len())
            .sum()
    }

    /// The names of all queues, in order.
    pub fn queue_names(&self) -> Vec<String> {
        lock(&self.state).queues.keys().cloned().collect()
    }

    /// Drops the messages that wait in a queue and returns how many there were.
    pub fn purge(&self, queue: &str) -> usize {
        let mut state = lock(&self.state);
        let Some(queue) = state.queues.get_mut(queue) else {
            return 0;
        };
        let purged = queue.ready.len();
        queue.ready.clear();
        purged
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        let mut state = lock(&self.state);
        for queue in &topology.queues {
            state.declare_queue(queue)?;
        }
        for exchange in &topology.topic_exchanges {
            state.exchanges.entry(exchange.clone()).or_default();
        }
        for binding in &topology.bindings {
            state.bind(binding)?;
        }
        Ok(())
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        let mut state = lock(&self.state);
        if !state.queues.contains_key(queue) {
            return Err(BrokerError::NoQueue(queue.to_owned()));
        }
        state.last_consumer += 1;
        let id = state.last_consumer;
        state.consumers.insert(
            id,
            ConsumerState {
                queue: queue.to_owned(),
                prefetch: usize::from(prefetch.max(1)),
                last_tag: 0,
                unacked: BTreeMap::new(),
                waker: None,
            },
        );
        Ok(Consumer {
            deliveries: Box::new(MemoryDeliveries {
                state: Arc::clone(&self.state),
                id,
            }),
            acks: Arc::new(MemoryAcks {
                state: Arc::clone(&self.state),
                id,
            }),
        })
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Published> {
        let mut wakers = Vec::new();
        let published = {
            let mut state = lock(&self.state);
            let mut touched = Vec::new();
            let published = messages
                .into_iter()
                .map(|outgoing| state.publish(outgoing, self.queue_messages_max, &mut touched))
                .collect();
            for queue in touched {
                state.take_wakers(&queue, &mut wakers);
            }
            published
        };
        wakers.into_iter().for_each(Waker::wake);
        published
    }

    fn health(&self) -> Health {
        Health::Up
    }
}

/// The receiving end of one consumer; dropping it gives back what is unacked.
struct MemoryDeliveries {
    state: Arc<Mutex<State>>,
    id: ConsumerId,
}

#[async_trait]
impl Deliveries for MemoryDeliveries {
    async fn next_batch(&mut self, most: usize) -> Vec<Delivery> {
        if most == 0 {
            return Vec::new();
        }
        // Deliveries are taken in the same poll that returns them, so a dropped future took none.
        poll_fn(|context| {
            let mut state = lock(&self.state);
            let batch = state.take_batch(self.id, most);
            if !batch.is_empty() {
                return Poll::Ready(batch);
            }
            match state.consumers.get_mut(&self.id) {
                Some(consumer) => {
                    consumer.waker = Some(context.waker().clone());
                    Poll::Pending
                }
                None => Poll::Ready(batch),
            }
        })
        .await
    }
}

impl Drop for MemoryDeliveries {
    fn drop(&mut self) {
        let mut wakers = Vec::new();
        {
            let mut state = lock(&self.state);
            if let Some(consumer) = state.consumers.remove(&self.id) {
                state.give_back(&consumer.queue, consumer.unacked.into_values());
                state.take_all_wakers(&mut wakers);
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The acknowledging end of one consumer.
struct MemoryAcks {
    state: Arc<Mutex<State>>,
    id: ConsumerId,
}

impl Acks for MemoryAcks {
    fn ack(&self, tags: &[DeliveryTag]) {
        let waker = {
            let mut state = lock(&self.state);
            let Some(consumer) = state.consumers.get_mut(&self.id) else {
                return;
            };
            for tag in tags.iter().filter(|tag| tag.epoch == self.id) {
                consumer.unacked.remove(&tag.tag);
            }
            consumer.waker.take() // there may be room under the prefetch now
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn requeue(&self, tags: &[DeliveryTag]) {
        let mut wakers = Vec::new();
        {
            let mut state = lock(&self.state);
            let Some(consumer) = state.consumers.get_mut(&self.id) else {
                return;
            };
            // By tag: what goes back must stand in the order in which it was delivered.
            let returned: BTreeMap<u64, Waiting> = tags
                .iter()
                .filter(|tag| tag.epoch == self.id)
                .filter_map(|tag| Some((tag.tag, consumer.unacked.remove(&tag.tag)?)))
                .collect();
            let queue = consumer.queue.clone();
            state.give_back(&queue, returned.into_values());
            state.take_all_wakers(&mut wakers);
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A consumer's number; also its deliveries' epoch, so that another consumer's tags don't match.
type ConsumerId = u64;

#[derive(Default)]
struct State {
    queues: BTreeMap<String, QueueState>,
    /// Bindings by exchange, in the order they were made.
    exchanges: BTreeMap<String, Vec<Bound>>,
    consumers: BTreeMap<ConsumerId, ConsumerState>,
    last_consumer: ConsumerId,
}

#[derive(Default)]
struct QueueState {
    ready: VecDeque<Waiting>,
    dead_letter_to: Option<String>,
}

struct ConsumerState {
    queue: String,
    prefetch: usize,
    last_tag: u64,
    unacked: BTreeMap<u64, Waiting>,
    /// Of the `next_batch` that waits.
    waker: Option<Waker>,
}

#[derive(PartialEq)]
struct Bound {
    pattern: String,
    queue: String,
}

/// A message in a queue; shared among the queues it was routed to.
#[derive(Clone)]
struct Waiting {
    message: Arc<Message>,
    /// How often it came back.
    returns: u32,
}

impl State {
    fn declare_queue(&mut self, queue: &Queue) -> Result<(), BrokerError> {
        match self.queues.get(&queue.name) {
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
                    },
                );
                Ok(())
            }
        }
    }

    fn bind(&mut self, binding: &Binding) -> Result<(), BrokerError> {
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

    fn publish(
        &mut self,
        outgoing: Outgoing,
        queue_messages_max: usize,
        touched: &mut Vec<String>,
    ) -> Published {
        let Some(targets) = self.route(&outgoing.destination) else {
            return Published::Unroutable; // no such exchange
        };
        if targets.is_empty() {
            return match outgoing.mandatory {
                true => Published::Unroutable,
                false => Published::Confirmed,
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
        for name in targets {
            if let Some(queue) = self.queues.get_mut(&name) {
                queue.ready.push_back(Waiting {
                    message: Arc::clone(&message),
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

    fn take_batch(&mut self, id: ConsumerId, most: usize) -> Vec<Delivery> {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return Vec::new();
        };
        let Some(queue) = self.queues.get_mut(&consumer.queue) else {
            return Vec::new();
        };
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
                    redelivered: waiting.returns > 0,
                };
                consumer.unacked.insert(consumer.last_tag, waiting);
                delivery
            })
            .collect()
    }

    /// Puts messages back at the front of their queue, in the given order, or, past the delivery
    /// limit, into its dead-letter queue.
    fn give_back(&mut self, queue: &str, returned: impl DoubleEndedIterator<Item = Waiting>) {
        let mut exhausted = Vec::new();
        let mut dead_letter_to = None;
        if let Some(queue) = self.queues.get_mut(queue) {
            dead_letter_to.clone_from(&queue.dead_letter_to);
            for mut waiting in returned.rev() {
                waiting.returns = waiting.returns.saturating_add(1);
                if waiting.returns >= DELIVERY_LIMIT && dead_letter_to.is_some() {
                    exhausted.push(waiting.message);
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
        dead_letters.ready.extend(letters.map(|message| Waiting {
            message,
            returns: 0,
        }));
    }

    /// All that wait for this queue; each looks for itself, so that a wake-up can't be lost with
    /// a dropped future.
    fn take_wakers(&mut self, queue: &str, wakers: &mut Vec<Waker>) {
        let waiting = self.consumers.values_mut();
        wakers.extend(
            waiting
                .filter(|consumer| consumer.queue == queue)
                .filter_map(|consumer| consumer.waker.take()),
        );
    }

    fn take_all_wakers(&mut self, wakers: &mut Vec<Waker>) {
        let waiting = self.consumers.values_mut();
        wakers.extend(waiting.filter_map(|consumer| consumer.waker.take()));
    }
}

/// No code panics while it holds the lock; if it ever did, the state would still be whole enough.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::broker::conformance::{Bundle, bodies, check_all, tags, to};

    fn bundle(broker: &MemoryBroker) -> Bundle {
        Bundle {
            broker: Arc::new(broker.clone()),
            prefix: "test".to_owned(),
        }
    }

    #[tokio::test]
    async fn it_keeps_every_promise_of_a_broker() {
        check_all(bundle(&MemoryBroker::new())).await;
    }

    #[test]
    fn it_needs_no_runtime() {
        let broker = MemoryBroker::new();
        let bundle = bundle(&broker);
        let queue = bundle.queue("q").now_or_never().unwrap();
        let mut consumer = bundle.consume(&queue, 10).now_or_never().unwrap();
        assert!(consumer.deliveries.next_batch(1).now_or_never().is_none());
        bundle
            .publish_all(vec![to(&queue, 1), to(&queue, 2)])
            .now_or_never()
            .unwrap();
        let batch = consumer.deliveries.next_batch(5).now_or_never().unwrap();
        assert_eq!(bodies(&batch), ["1", "2"]);
        assert_eq!((broker.queue_len(&queue), broker.unacked(&queue)), (0, 2));
        consumer.acks.ack(&tags(&batch[..1]));
        assert_eq!((broker.queue_len(&queue), broker.unacked(&queue)), (0, 1));
        drop(consumer);
        assert_eq!((broker.queue_len(&queue), broker.unacked(&queue)), (1, 0));
        assert_eq!(broker.purge(&queue), 1);
        assert_eq!(broker.queue_len(&queue), 0);
    }

    #[tokio::test]
    async fn a_full_queue_takes_nothing_and_neither_do_its_fellows() {
        let broker = MemoryBroker::with_queue_limit(1);
        let bundle = bundle(&broker);
        let [full, free] = [bundle.queue("full").await, bundle.queue("free").await];
        let bind = |queue: &String| Binding {
            exchange: "events".to_owned(),
            queue: queue.clone(),
            routing_key: "#".to_owned(),
        };
        let topology = Topology {
            topic_exchanges: vec!["events".to_owned()],
            bindings: vec![bind(&free), bind(&full)],
            ..Topology::default()
        };
        broker.declare(&topology).await.unwrap();
        bundle.publish_all(vec![to(&full, 0)]).await;
        let mut event = to(&full, 1);
        event.destination.exchange = "events".to_owned();
        let published = broker.publish(vec![to(&full, 1), event]).await;
        assert!(
            published
                .iter()
                .all(|word| matches!(word, Published::Failed(why) if why.contains("full"))),
            "{published:?}"
        );
        assert_eq!((broker.queue_len(&full), broker.queue_len(&free)), (1, 0));
    }

    #[tokio::test]
    async fn a_consumer_that_waits_is_woken_by_whatever_brings_messages() {
        let broker = MemoryBroker::new();
        let bundle = bundle(&broker);
        let queue = bundle.queue("q").await;
        let mut first = bundle.consume(&queue, 1).await;
        let mut second = bundle.consume(&queue, 1).await;
        bundle.publish_all(vec![to(&queue, 1)]).await;
        let held = first.deliveries.next_batch(1).await;
        let waits = tokio::spawn(async move { second.deliveries.next_batch(1).await });
        tokio::task::yield_now().await;
        first.acks.requeue(&tags(&held));
        assert_eq!(bodies(&waits.await.unwrap()), ["1"]);
    }
}
