//! Consuming: one task owns a channel, fills an inbox from it and carries acknowledgements to it.
//!
//! When the channel or the connection goes, the task subscribes again, for ever; the inbox is
//! emptied (the server delivers those messages again) and the epoch goes up, so that
//! acknowledgements for the old channel are recognized and dropped.
//!
//! Invariants: the prefetch bounds the inbox, and is set before consuming; the connection's [`Gate`]
//! bounds its bytes; only this task writes
//! to the channel; it never acknowledges what nobody acked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, ErrorKind};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::link::{Link, REQUEST_TIME_MAX, undeterred, within};
use super::served::{Command, Served, Verb};
use super::topology;
use super::wire::{Gate, Kept};
use crate::broker::pace::Pace;
use crate::broker::{Acks, BrokerError, Consumer, Deliveries, Delivery, DeliveryTag};
use crate::limits::WAITING_BYTES;

/// How long acked messages wait for an earlier one, so that one acknowledgement covers them all.
const GAP_WAIT: Duration = Duration::from_millis(50);

/// Longest time that a consumer's end is waited for: a few requests'.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(40);

/// A channel that lasted this long was a good one: the next subscription comes at once.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// Bytes of deliveries that are taken out of the inbox at once, but for a single larger one.
const TAKEN_BYTES: usize = WAITING_BYTES / 4;

/// Deliveries moved to the inbox at once.
const MOVE_MAX: usize = 256;

/// Prefetch after a message that the library could not even read: a loss of the connection counts
/// as a delivery of every message on its way, and innocent ones must not reach the limit.
const CAREFUL_PREFETCH: u16 = 1;
/// Deliveries without an end after which a message may be what ends those who take it. Those that are
/// on their way with it are counted too, each time: so it is taken alone, to reach the limit alone.
const SUSPECT_RETURNS: u32 = 3;
/// Deliveries after which such caution ends.
const CAREFUL_DELIVERIES: u64 = 200;

/// Called when the queue to consume from has gone, to declare what the program had declared.
pub(super) type Redeclare =
    Arc<dyn Fn() -> futures_util::future::BoxFuture<'static, ()> + Send + Sync>;

/// Starts a consumer; a wary one takes messages one by one that came back often.
pub(super) async fn consume(
    link: Arc<Link>,
    queue: &str,
    prefetch: u16,
    wary: bool,
    redeclare: Redeclare,
    running: mpsc::Sender<()>,
) -> Result<Consumer, BrokerError> {
    let prefetch = prefetch.max(1);
    let first = undeterred(|| subscribe(&link, queue, prefetch)).await?;
    let inbox = Arc::new(Inbox::default());
    let (commands, received) = mpsc::unbounded_channel();
    let (alive, gone) = oneshot::channel();
    let (ending, ended) = oneshot::channel();
    let task = Subscription {
        link,
        queue: queue.to_owned(),
        prefetch,
        wary,
        stopped: false,
        inbox: Arc::clone(&inbox),
        commands: received,
        gone,
        redeclare,
        _running: running,
        _ending: ending,
    };
    tokio::spawn(task.run(first));
    Ok(Consumer {
        deliveries: Box::new(RabbitDeliveries {
            inbox,
            commands: commands.clone(),
            alive,
            ended,
        }),
        acks: Arc::new(RabbitAcks { commands }),
    })
}

struct RabbitDeliveries {
    inbox: Arc<Inbox>,
    commands: mpsc::UnboundedSender<Command>,
    /// Dropped with this: the task then gives everything back.
    alive: oneshot::Sender<()>,
    /// Ends when the task has.
    ended: oneshot::Receiver<()>,
}

#[async_trait]
impl Deliveries for RabbitDeliveries {
    async fn next_batch(&mut self, most: usize) -> Vec<Delivery> {
        if most == 0 {
            return Vec::new();
        }
        loop {
            {
                let mut content = self.inbox.lock();
                if !content.waiting.is_empty() || content.ended {
                    return content.take(most);
                }
            }
            // An arrival between the look and this wait leaves a permit: the wait ends at once.
            self.inbox.arrived.notified().await;
        }
    }

    fn stop(&mut self) {
        // Fails when the task has gone: then nothing is delivered any more.
        let _ = self.commands.send(Command {
            verb: Verb::Stop,
            tags: Vec::new(),
        });
    }

    async fn close(self: Box<Self>) {
        let Self { alive, ended, .. } = *self;
        drop(alive);
        // Ends with the task, however that ends; the task's own requests are bounded.
        let _ = timeout(CLOSE_TIME_MAX, ended).await;
    }
}

struct RabbitAcks {
    commands: mpsc::UnboundedSender<Command>,
}

impl Acks for RabbitAcks {
    fn ack(&self, tags: &[DeliveryTag]) {
        self.send(Verb::Ack, tags);
    }

    fn requeue(&self, tags: &[DeliveryTag]) {
        self.send(Verb::Requeue, tags);
    }
}

impl RabbitAcks {
    fn send(&self, verb: Verb, tags: &[DeliveryTag]) {
        // Bounded by the prefetch. Fails when the consumer is gone, and its messages with it.
        let _ = self.commands.send(Command {
            verb,
            tags: tags.to_vec(),
        });
    }
}

/// Deliveries between the task and `next_batch`.
#[derive(Default)]
struct Inbox {
    content: Mutex<Content>,
    arrived: Notify,
}

#[derive(Default)]
struct Content {
    waiting: VecDeque<Delivery>,
    /// Of the connection that they came by.
    gate: Arc<Gate>,
    ended: bool,
}

impl Content {
    /// At least one, and no more bytes than are taken at once.
    fn take(&mut self, most: usize) -> Vec<Delivery> {
        let mut bytes = 0;
        let mut count = 0;
        for delivery in self.waiting.iter().take(most) {
            if count > 0 && bytes + delivery.message.body.len() > TAKEN_BYTES {
                break;
            }
            bytes += delivery.message.body.len();
            count += 1;
        }
        self.gate.gone(bytes);
        self.waiting.drain(..count).collect()
    }

    fn clear(&mut self) {
        self.gate.gone(bytes_of(self.waiting.iter()));
        self.waiting.clear();
    }
}

fn bytes_of<'a>(deliveries: impl Iterator<Item = &'a Delivery>) -> usize {
    deliveries.map(|delivery| delivery.message.body.len()).sum()
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, deliveries: Vec<Delivery>) {
        let mut content = self.lock();
        content.gate.came(bytes_of(deliveries.iter()));
        content.waiting.extend(deliveries);
        drop(content);
        self.arrived.notify_one();
    }

    /// Nothing comes any more; what is there can be taken.
    fn finish(&self) {
        self.lock().ended = true;
        self.arrived.notify_one();
    }

    /// What comes now comes by another connection; what came before is of no use.
    fn begin(&self, gate: Arc<Gate>) {
        let mut content = self.lock();
        content.clear();
        content.gate = gate;
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn end(&self) {
        let mut content = self.lock();
        content.clear();
        content.ended = true;
        self.arrived.notify_one();
    }
}

/// A subscribed channel.
struct Subscribed {
    channel: Channel,
    prefetch: u16,
    stream: lapin::Consumer,
    kept: Arc<Kept>,
    gate: Arc<Gate>,
}

/// Why a subscribed channel is no longer served.
enum Over {
    /// The receiving end was dropped.
    Unwanted,
    /// The channel, the connection or the queue has gone.
    Broken {
        /// The library could not read what the server sent, or a message has come back too often.
        careful: bool,
    },
}

struct Subscription {
    link: Arc<Link>,
    queue: String,
    prefetch: u16,
    /// Whether messages that came back often are taken one by one.
    wary: bool,
    /// Whether it was asked to deliver no more.
    stopped: bool,
    inbox: Arc<Inbox>,
    commands: mpsc::UnboundedReceiver<Command>,
    gone: oneshot::Receiver<()>,
    redeclare: Redeclare,
    /// Lets whoever closes the broker wait for the last acknowledgements.
    _running: mpsc::Sender<()>,
    /// Lets whoever closes this consumer wait for them.
    _ending: oneshot::Sender<()>,
}

impl Subscription {
    async fn run(mut self, first: Subscribed) {
        let mut next = Some((first, u64::MAX));
        let mut epoch = 0;
        let mut pace = Pace::new();
        while let Some((subscribed, deliveries_max)) = next.take() {
            epoch += 1;
            let since = Instant::now();
            let over = self.serve(subscribed, epoch, deliveries_max).await;
            self.inbox.clear();
            let Over::Broken { careful } = over else {
                break;
            };
            if self.stopped {
                break;
            }
            tracing::debug!(queue = self.queue, careful, "subscribing again");
            let delay = if since.elapsed() < STABLE_AFTER {
                pace.next_delay()
            } else {
                pace.reset();
                Duration::ZERO
            };
            next = self.subscribe_again(careful, delay).await;
        }
        self.inbox.end();
    }

    /// Serves one channel until it is over, or `deliveries_max` deliveries are settled.
    async fn serve(&mut self, subscribed: Subscribed, epoch: u64, deliveries_max: u64) -> Over {
        let Subscribed {
            channel,
            prefetch,
            mut stream,
            kept,
            gate,
        } = subscribed;
        self.inbox.begin(gate);
        let mut served = Served::new(channel, stream.tag(), prefetch, kept, epoch);
        let mut all_received = false;
        let mut gap_since: Option<Instant> = None;
        loop {
            let gap = async {
                match gap_since {
                    Some(since) => tokio::time::sleep_until(since + GAP_WAIT).await,
                    None => std::future::pending().await,
                }
            };
            let told = tokio::select! {
                _ = &mut self.gone => {
                    self.finish(served).await;
                    return Over::Unwanted;
                }
                Some(command) = self.commands.recv() => {
                    let more = std::iter::from_fn(|| self.commands.try_recv().ok());
                    let commands: Vec<Command> = std::iter::once(command).chain(more).collect();
                    served.carry_out(commands).await
                }
                item = stream.next(), if !all_received => {
                    match self.receive(item, &mut stream, &mut served) {
                        Ok(()) => Ok(()),
                        // The rest is there to be taken, and acknowledged.
                        Err(Over::Broken { careful: false }) if served.stopped => {
                            all_received = true;
                            self.inbox.finish();
                            Ok(())
                        }
                        Err(over) => return over,
                    }
                },
                () = gap => served.acknowledge_waiting().await,
            };
            self.stopped |= served.stopped;
            if let Err(failure) = told {
                tracing::debug!(queue = self.queue, %failure, "acknowledging failed");
                return Over::Broken { careful: false };
            }
            if served.delivered >= deliveries_max && served.window.is_empty() {
                topology::close(&served.channel).await;
                return Over::Broken { careful: false };
            }
            gap_since = match (served.window.waiting(), gap_since) {
                (0, _) => None,
                (_, since) => since.or_else(|| Some(Instant::now())),
            };
        }
    }

    /// Moves a delivery and those right behind it to the inbox.
    fn receive(
        &self,
        first: Option<lapin::Result<lapin::message::Delivery>>,
        stream: &mut lapin::Consumer,
        served: &mut Served,
    ) -> Result<(), Over> {
        let mut moved = Vec::new();
        let mut item = first;
        let result = loop {
            match item {
                Some(Ok(delivery)) => moved.extend(served.delivery(delivery)),
                Some(Err(error)) => {
                    let careful = matches!(error.kind(), ErrorKind::ParsingError(_));
                    tracing::debug!(queue = self.queue, %error, "the consumer's channel broke");
                    break Err(Over::Broken { careful });
                }
                None => break Err(Over::Broken { careful: false }),
            }
            if moved.len() == MOVE_MAX {
                break Ok(());
            }
            match stream.next().now_or_never() {
                Some(next) => item = next,
                None => break Ok(()),
            }
        };
        let wary = self.wary && served.prefetch > CAREFUL_PREFETCH;
        if result.is_ok() && wary && moved.iter().any(is_suspect) {
            tracing::warn!(
                queue = self.queue,
                "messages have come back {SUSPECT_RETURNS} times without being handled; taking them one by one"
            );
            return Err(Over::Broken { careful: true });
        }
        if result.is_ok() || served.stopped {
            self.inbox.push(moved);
        }
        result
    }

    /// Tells the server what was acked until now, and gives back the rest. It is told first to
    /// deliver no more: what an acknowledgement makes room for, or what is given back, would come
    /// again, only to count as one more delivery.
    async fn finish(&mut self, mut served: Served) {
        // Nobody takes it; and what the server has to say is read only if there is room.
        self.inbox.clear();
        if let Err(failure) = served.cancel().await {
            tracing::debug!(queue = self.queue, %failure, "the consumer was not cancelled");
        }
        let commands = std::iter::from_fn(|| self.commands.try_recv().ok()).collect();
        let told = served.carry_out(commands).await;
        if told.is_ok() && served.acknowledge_waiting().await.is_ok() {
            topology::close(&served.channel).await;
        }
    }

    /// Subscribes for as long as it takes; `None` when the receiving end is gone.
    async fn subscribe_again(
        &mut self,
        careful: bool,
        mut delay: Duration,
    ) -> Option<(Subscribed, u64)> {
        let (prefetch, deliveries_max) = if careful {
            (CAREFUL_PREFETCH, CAREFUL_DELIVERIES)
        } else {
            (self.prefetch, u64::MAX)
        };
        let mut pace = Pace::new();
        loop {
            let attempt = async {
                sleep(delay).await;
                let attempt = subscribe(&self.link, &self.queue, prefetch).await;
                if let Err(error) = &attempt {
                    tracing::warn!(queue = self.queue, %error, "can't consume; trying again");
                    if matches!(error, BrokerError::NoQueue(_)) {
                        (self.redeclare)().await;
                    }
                    delay = pace.next_delay();
                }
                attempt
            };
            tokio::select! {
                _ = &mut self.gone => return None,
                attempt = attempt => if let Ok(subscribed) = attempt {
                    return Some((subscribed, deliveries_max));
                },
            }
        }
    }
}

/// Whether a message has come back so often that it may be the reason.
fn is_suspect(delivery: &Delivery) -> bool {
    delivery.redelivered && delivery.returns >= SUSPECT_RETURNS
}

async fn subscribe(link: &Link, queue: &str, prefetch: u16) -> Result<Subscribed, BrokerError> {
    let live = link.awaited().await?;
    let queue_name = topology::name(queue)?;
    let channel = live.channel(link).await.map_err(topology::unavailable)?;
    let limited = channel.basic_qos(prefetch, BasicQosOptions::default());
    within(REQUEST_TIME_MAX, limited)
        .await
        .map_err(topology::unavailable)?;
    let consumed = channel.basic_consume(
        queue_name,
        "".into(), // the server names the consumer
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let stream = within(REQUEST_TIME_MAX, consumed)
        .await
        .map_err(|failure| topology::not_consumed(queue, failure))?;
    Ok(Subscribed {
        channel,
        prefetch,
        stream,
        kept: Arc::clone(live.kept()),
        gate: Arc::clone(live.gate()),
    })
}
