//! What the broker knows of each message in the end: how often it was given out, and how often
//! whoever took it said that it was done with.
//!
//! One side of the account in [`super::account`]. Kept between the broker and those who consume from
//! it, so that it depends on nothing that they write down themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;

use crate::broker::{Acks, Consumer, Deliveries, Delivery, DeliveryTag};
use crate::message::Message;
use crate::store::dead_letters::occurrence::content_key;

/// All messages of one run that were given out, by what they carry.
#[derive(Default)]
pub struct Books {
    pages: Mutex<BTreeMap<Uuid, Page>>,
}

/// What became of messages that carry the same and came from the same queue.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) queue: String,
    pub(super) message: Message,
    /// How often one of them was given out.
    pub(super) delivered: u64,
    /// How many of them were acknowledged.
    pub(super) acked: u64,
}

impl Books {
    /// A consumer of a queue, watched.
    pub fn watch(self: &Arc<Self>, queue: &str, consumer: Consumer) -> Consumer {
        let sight = Arc::new(Sight {
            books: Arc::clone(self),
            queue: queue.to_owned(),
            open: Mutex::new(Some(BTreeMap::new())),
        });
        Consumer {
            deliveries: Box::new(WatchedDeliveries {
                inner: Some(consumer.deliveries),
                sight: Arc::clone(&sight),
            }),
            acks: Arc::new(WatchedAcks {
                inner: consumer.acks,
                sight,
            }),
        }
    }

    pub(super) fn pages(&self) -> BTreeMap<Uuid, Page> {
        lock(&self.pages).clone()
    }
}

/// One consumer, and what it has not acknowledged yet; `None` once it is gone, when the broker has
/// given all of it back.
struct Sight {
    books: Arc<Books>,
    queue: String,
    open: Mutex<Option<BTreeMap<DeliveryTag, Uuid>>>,
}

impl Sight {
    fn delivered(&self, batch: &[Delivery]) {
        let mut open = lock(&self.open);
        let mut pages = lock(&self.books.pages);
        for delivery in batch {
            let key = content_key(&self.queue, &delivery.message);
            let page = pages.entry(key).or_insert_with(|| Page {
                queue: self.queue.clone(),
                message: delivery.message.clone(),
                delivered: 0,
                acked: 0,
            });
            page.delivered += 1;
            if let Some(open) = &mut *open {
                open.insert(delivery.tag, key);
            }
        }
    }

    fn settle(&self, tags: &[DeliveryTag], is_acked: bool) {
        let mut open = lock(&self.open);
        let mut pages = lock(&self.books.pages);
        let Some(open) = &mut *open else { return };
        for key in tags.iter().filter_map(|tag| open.remove(tag)) {
            if let Some(page) = pages.get_mut(&key).filter(|_| is_acked) {
                page.acked += 1;
            }
        }
    }
}

struct WatchedDeliveries {
    /// Until it is closed.
    inner: Option<Box<dyn Deliveries>>,
    sight: Arc<Sight>,
}

#[async_trait]
impl Deliveries for WatchedDeliveries {
    async fn next_batch(&mut self, most: usize) -> Vec<Delivery> {
        let Some(inner) = &mut self.inner else {
            return Vec::new();
        };
        let batch = inner.next_batch(most).await;
        self.sight.delivered(&batch);
        batch
    }

    fn stop(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.stop();
        }
    }

    async fn close(mut self: Box<Self>) {
        *lock(&self.sight.open) = None;
        if let Some(inner) = self.inner.take() {
            inner.close().await;
        }
    }
}

impl Drop for WatchedDeliveries {
    fn drop(&mut self) {
        *lock(&self.sight.open) = None;
    }
}

struct WatchedAcks {
    inner: Arc<dyn Acks>,
    sight: Arc<Sight>,
}

impl Acks for WatchedAcks {
    fn ack(&self, tags: &[DeliveryTag]) {
        self.sight.settle(tags, true);
        self.inner.ack(tags);
    }

    fn requeue(&self, tags: &[DeliveryTag]) {
        self.sight.settle(tags, false);
        self.inner.requeue(tags);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
