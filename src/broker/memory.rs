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

mod state;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;

use self::state::{ConsumerId, ConsumerState, State, Waiting};
use super::{
    Acks, Broker, BrokerError, Consumer, Deliveries, Delivery, DeliveryTag, Health, Outgoing,
    Published, QueueFacts, Topology,
};

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

    /// Deletes an exchange, and with it all that is bound to it; whether it was there.
    pub fn delete_exchange(&self, exchange: &str) -> bool {
        lock(&self.state).exchanges.remove(exchange).is_some()
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
            state.declare_queue(queue, false)?;
        }
        for queue in &topology.queues_in_order {
            state.declare_queue(queue, true)?;
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
                stopped: false,
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

    async fn queue_len(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        let state = lock(&self.state);
        Ok(state
            .queues
            .get(queue)
            .map(|queue| queue.ready.len() as u64))
    }

    async fn queue_facts(&self, queue: &str) -> Result<Option<QueueFacts>, BrokerError> {
        Ok(lock(&self.state).facts(queue))
    }

    async fn exchange_exists(&self, exchange: &str) -> bool {
        lock(&self.state).exchanges.contains_key(exchange)
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
                Some(consumer) if !consumer.stopped => {
                    consumer.waker = Some(context.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(batch),
            }
        })
        .await
    }

    fn stop(&mut self) {
        if let Some(consumer) = lock(&self.state).consumers.get_mut(&self.id) {
            consumer.stopped = true;
        }
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

/// No code panics while it holds the lock; if it ever did, the state would still be whole enough.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::broker::Binding;
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
