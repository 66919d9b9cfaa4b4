//! What goes wrong: a broker for the participants that doubles commands and replies, loses
//! replies, and holds a batch back as if the participant hung.
//!
//! A fault is decided by what it hits (order number, step, phase), hashed with the seed, and hits the
//! first attempt only: the same seed brings the same faults whatever the timing. The exception are
//! the silent orders, whose payment's answers are lost every time.
//! Only the participants see this broker; nothing in the engine knows of it.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use super::workload::Workload;
use crate::aggregates::{Inventory, Payments};
use crate::broker::{
    Broker, BrokerError, Consumer, Deliveries, Delivery, Health, Outgoing, Published, Topology,
    Trouble,
};
use crate::message::{Destination, HEADER_ATTEMPT, HEADER_SAGA_KEY};

/// Of a thousand commands, how many are delivered twice.
const COMMANDS_DOUBLED_PER_MILLE: u64 = 10;
/// Of a thousand, how many are answered twice.
const REPLIES_DOUBLED_PER_MILLE: u64 = 10;
/// Of a thousand, how many have their answer lost.
const REPLIES_LOST_PER_MILLE: u64 = 10;
/// Of a thousand starts, how many are sent twice.
const STARTS_DOUBLED_PER_MILLE: u64 = 50;
/// How long one of the two instances of `inventory` hangs; longer than the step's time-out.
pub(super) const HANG: Duration = Duration::from_millis(1_500);
/// Marks a command that was doubled here, so that it is not doubled again.
const COPY_MARK: &str = "demo-copy";

/// What happens to which message, and how often it did.
#[derive(Debug, Default)]
pub(super) struct FaultPlan {
    seed: u64,
    stormy: HashSet<String>,
    silent: HashSet<String>,
    /// What becomes of the answers to come, by correlation id.
    replies: Mutex<HashMap<String, ReplyFault>>,
    hang_is_due: AtomicBool,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    starts_doubled: AtomicU64,
    commands_doubled: AtomicU64,
    replies_doubled: AtomicU64,
    replies_lost: AtomicU64,
    hangs: AtomicU64,
    crashes: AtomicU64,
}

/// How many faults were injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Injected {
    /// Starts sent twice.
    pub(super) starts_doubled: u64,
    /// Commands delivered twice.
    pub(super) commands_doubled: u64,
    /// Replies sent twice.
    pub(super) replies_doubled: u64,
    /// Replies lost.
    pub(super) replies_lost: u64,
    /// Orders whose payment never answered.
    pub(super) silent_orders: u64,
    /// Times a participant hung.
    pub(super) hangs: u64,
    /// Times a participant crashed.
    pub(super) crashes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplyFault {
    Double,
    Lose,
    LoseAlways,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    DoubleCommand,
    Reply(ReplyFault),
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// What the seed has in store for these orders.
    pub(super) fn new(seed: u64, workload: &Workload) -> Self {
        Self {
            seed,
            stormy: workload.stormy.clone(),
            silent: workload.silent.clone(),
            ..Self::default()
        }
    }

    /// Whether to send an order's start twice.
    pub(super) fn doubles_start(&self, order: &str) -> bool {
        let doubled = self.stormy.contains(order)
            && self.roll(&(number(order), "start")) < STARTS_DOUBLED_PER_MILLE;
        count(&self.counts.starts_doubled, doubled);
        doubled
    }

    /// The next batch of `inventory` is to be held back.
    pub(super) fn hang_once(&self) {
        self.hang_is_due.store(true, Ordering::Relaxed);
    }

    /// A participant was crashed.
    pub(super) fn crashed(&self) {
        count(&self.counts.crashes, true);
    }

    /// What happened so far.
    pub(super) fn injected(&self) -> Injected {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Injected {
            starts_doubled: read(&self.counts.starts_doubled),
            commands_doubled: read(&self.counts.commands_doubled),
            replies_doubled: read(&self.counts.replies_doubled),
            replies_lost: read(&self.counts.replies_lost),
            silent_orders: self.silent.len() as u64,
            hangs: read(&self.counts.hangs),
            crashes: read(&self.counts.crashes),
        }
    }

    fn hangs_now(&self, queue: &str) -> bool {
        let hangs = queue == Inventory::NAME && self.hang_is_due.swap(false, Ordering::Relaxed);
        count(&self.counts.hangs, hangs);
        hangs
    }

    /// Notes what is to become of the answers to these commands, and returns copies of those that
    /// are delivered twice.
    fn examine(&self, queue: &str, deliveries: &[Delivery]) -> Vec<Outgoing> {
        let mut copies = Vec::new();
        for delivery in deliveries {
            let Some((correlation, fault)) = self.fault_of(queue, delivery) else {
                continue;
            };
            match fault {
                Fault::DoubleCommand => {
                    let mut message = delivery.message.clone();
                    let headers = &mut message.properties.headers;
                    headers.insert(COPY_MARK.to_owned(), Value::Bool(true));
                    copies.push(Outgoing {
                        destination: Destination::queue(queue),
                        message,
                        mandatory: true,
                    });
                }
                Fault::Reply(fault) => {
                    self.replies().insert(correlation.to_owned(), fault);
                }
            }
        }
        let doubled = copies.len() as u64;
        self.counts
            .commands_doubled
            .fetch_add(doubled, Ordering::Relaxed);
        copies
    }

    fn fault_of<'a>(&self, queue: &str, delivery: &'a Delivery) -> Option<(&'a str, Fault)> {
        let message = &delivery.message;
        let order = message.header(HEADER_SAGA_KEY)?;
        let correlation = message.properties.correlation_id.as_deref()?;
        // <saga id>/<step path>/<phase>/<mac>
        let mut parts = correlation.split('/').skip(1);
        let (step, phase) = (parts.next()?, parts.next()?);
        if queue == Payments::NAME && phase == "reserve" && self.silent.contains(order) {
            return Some((correlation, Fault::Reply(ReplyFault::LoseAlways)));
        }
        let headers = &message.properties.headers;
        let is_first = headers.get(HEADER_ATTEMPT).and_then(Value::as_u64) == Some(1)
            && !delivery.redelivered
            && !headers.contains_key(COPY_MARK);
        if !is_first || !self.stormy.contains(order) {
            return None;
        }
        let roll = self.roll(&(number(order), step, phase));
        let mut bound = COMMANDS_DOUBLED_PER_MILLE;
        if roll < bound {
            return Some((correlation, Fault::DoubleCommand));
        }
        bound += REPLIES_DOUBLED_PER_MILLE;
        if roll < bound {
            return Some((correlation, Fault::Reply(ReplyFault::Double)));
        }
        bound += REPLIES_LOST_PER_MILLE;
        (roll < bound).then_some((correlation, Fault::Reply(ReplyFault::Lose)))
    }

    /// What is to become of this reply. Said once, but for the silent orders.
    fn reply_fault(&self, outgoing: &Outgoing) -> Option<ReplyFault> {
        let correlation = outgoing.message.properties.correlation_id.as_deref()?;
        let mut replies = self.replies();
        let fault = *replies.get(correlation)?;
        if fault != ReplyFault::LoseAlways {
            replies.remove(correlation);
        }
        Some(fault)
    }

    /// From 0 to 999, always the same for the same thing and seed.
    fn roll(&self, what: &impl Hash) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.seed.hash(&mut hasher);
        what.hash(&mut hasher);
        hasher.finish() % 1_000
    }

    fn replies(&self) -> MutexGuard<'_, HashMap<String, ReplyFault>> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An order's id without what tells runs apart.
fn number(order: &str) -> &str {
    order.split_once('-').map_or(order, |(_, number)| number)
}

fn count(counter: &AtomicU64, happened: bool) {
    counter.fetch_add(u64::from(happened), Ordering::Relaxed);
}

/// The participants' broker.
pub(super) struct FaultyBroker {
    /// The one that works.
    pub(super) inner: Arc<dyn Broker>,
    /// What goes wrong.
    pub(super) plan: Arc<FaultPlan>,
}

#[async_trait]
impl Broker for FaultyBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.inner.declare(topology).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        let Consumer { deliveries, acks } = self.inner.consume(queue, prefetch).await?;
        let deliveries = Box::new(FaultyDeliveries {
            inner: deliveries,
            broker: Arc::clone(&self.inner),
            plan: Arc::clone(&self.plan),
            queue: queue.to_owned(),
            held: Vec::new(),
        });
        Ok(Consumer { deliveries, acks })
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Published> {
        let counts = &self.plan.counts;
        // Where in what is really published the word on each message is found.
        let mut places = Vec::with_capacity(messages.len());
        let mut outgoing = Vec::with_capacity(messages.len());
        for message in messages {
            let fault = self.plan.reply_fault(&message);
            count(&counts.replies_doubled, fault == Some(ReplyFault::Double));
            match fault {
                Some(ReplyFault::Lose | ReplyFault::LoseAlways) => {
                    count(&counts.replies_lost, true);
                    places.push(None);
                    continue;
                }
                Some(ReplyFault::Double) => outgoing.push(message.clone()),
                None => {}
            }
            places.push(Some(outgoing.len()));
            outgoing.push(message);
        }
        let published = self.inner.publish(outgoing).await;
        let word = |place: Option<usize>| match place {
            Some(place) => published.get(place).cloned(),
            // Lost on its way: whoever sent it believes that it arrived.
            None => Some(Published::Confirmed),
        };
        let unknown = || Published::Failed("the broker did not say".to_owned());
        places
            .into_iter()
            .map(|place| word(place).unwrap_or_else(unknown))
            .collect()
    }

    async fn queue_len(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        self.inner.queue_len(queue).await
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn troubles(&self) -> Vec<Trouble> {
        self.inner.troubles()
    }
}

struct FaultyDeliveries {
    inner: Box<dyn Deliveries>,
    broker: Arc<dyn Broker>,
    plan: Arc<FaultPlan>,
    queue: String,
    /// Taken from the queue and not yet handed out: a dropped future loses nothing.
    held: Vec<Delivery>,
}

#[async_trait]
impl Deliveries for FaultyDeliveries {
    async fn next_batch(&mut self, most: usize) -> Vec<Delivery> {
        if self.held.is_empty() {
            self.held = self.inner.next_batch(most).await;
        }
        if self.plan.hangs_now(&self.queue) {
            tokio::time::sleep(HANG).await;
        }
        let copies = self.plan.examine(&self.queue, &self.held);
        if !copies.is_empty() {
            // One that fails to arrive is one fault fewer.
            let _ = self.broker.publish(copies).await;
        }
        std::mem::take(&mut self.held)
    }

    fn stop(&mut self) {
        self.inner.stop();
    }
}
