//! A client of Backstitch: starts sagas over the broker, waits for the answers, keeps the time.
//!
//! It knows nothing but the wire: a start goes to the start queue with `reply_to` and its order's
//! key as correlation id, and comes back as `accepted` and then `completed` or `compensated`.
//! A number of sagas is open at a time, so the time one takes means something. An answer that does
//! not come is asked for in the database, so that the run can't hang on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::super::exit::Failure;
use super::faults::FaultPlan;
use super::progress::Progress;
use super::workload::{SAGA, Workload};
use crate::broker::{
    Broker, BrokerError, Consumer, Delivery, Outgoing, Published, Queue, Topology,
};
use crate::error::Class;
use crate::message::{
    CONTENT_TYPE_JSON, DEAD_LETTER_QUEUE, Destination, HEADER_REASON, Message, Properties,
    START_QUEUE,
};
use crate::proof::Order;
use crate::saga::Status;
use crate::store::{SagaKey, Store};

/// Where the answers go.
const ANSWER_QUEUE: &str = "backstitch.demo";
/// Most starts published at once.
const STARTS_AT_ONCE: usize = 64;
/// Unacknowledged answers.
const PREFETCH: u16 = 500;
/// How often to look whether something is overdue.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// An answer that takes longer is asked for in the database. Most sagas that take so long have
/// just met a fault.
const ASK_AFTER: Duration = Duration::from_secs(15);
/// Most sagas asked for at once.
const ASK_AT_ONCE: usize = 500;
/// The run is given up when no saga has ended for so long.
const STALL_TIME_MAX: Duration = Duration::from_mins(2);
/// How long the broker may take until answers can be received.
const LISTEN_TIME_MAX: Duration = Duration::from_secs(30);
/// Wait before what the broker did not take is tried again.
const RESEND_AFTER: Duration = Duration::from_millis(200);

/// What a client needs.
pub(super) struct Client {
    /// Where to send.
    pub(super) broker: Arc<dyn Broker>,
    /// Whom to ask if no answer comes.
    pub(super) store: Arc<dyn Store>,
    /// Most open sagas.
    pub(super) in_flight: u32,
    /// Says which starts go out twice.
    pub(super) plan: Arc<FaultPlan>,
}

/// What the client saw.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Sagas that completed.
    pub(super) completed: u64,
    /// Sagas that were compensated, by why.
    pub(super) compensated: BTreeMap<String, u64>,
    /// Sagas that wait for a person.
    pub(super) suspended: u64,
    /// Orders without an end, however the run went.
    pub(super) unfinished: u64,
    /// Starts that were refused, and the last reason.
    pub(super) refused: Option<String>,
    /// From start sent to answer received, ascending.
    pub(super) latencies: Vec<Duration>,
    /// From the first start to the last one.
    pub(super) starting: Duration,
    /// Sagas that had ended when the last start was sent.
    pub(super) ended_while_starting: u64,
    /// From the first start to the last end.
    pub(super) elapsed: Duration,
}

struct Board {
    began: Instant,
    open: HashMap<String, Instant>,
    last_end: Instant,
    outcome: Outcome,
}

impl Client {
    /// Places all orders and waits for their ends.
    pub(super) async fn run(
        &self,
        workload: &Workload,
        progress: &Progress,
    ) -> Result<Outcome, Failure> {
        let consumer = self.listen().await?;
        let began = Instant::now();
        let board = Mutex::new(Board {
            began,
            open: HashMap::new(),
            last_end: began,
            outcome: Outcome::default(),
        });
        let room = Semaphore::new(usize::try_from(self.in_flight).unwrap_or(usize::MAX));
        let starts = self.start_all(&workload.orders, &board, &room);
        let ends = self.wait_for_all(consumer, workload.orders.len(), &board, &room, progress);
        // Side by side; if nothing moves any more, the ends come before the last start.
        tokio::select! {
            never = async { starts.await; std::future::pending::<()>().await } => never,
            () = ends => {}
        }
        let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = board.outcome;
        outcome.unfinished = workload.orders.len() as u64 - outcome.latencies.len() as u64;
        outcome.suspended = self.suspended(board.open.into_keys().collect()).await;
        outcome.latencies.sort_unstable();
        Ok(outcome)
    }

    /// Receives answers, once the broker can be used.
    async fn listen(&self) -> Result<Consumer, Failure> {
        let began = Instant::now();
        loop {
            match self.declare_and_consume().await {
                Ok(consumer) => return Ok(consumer),
                Err(error)
                    if error.class() != Class::Retry || began.elapsed() > LISTEN_TIME_MAX =>
                {
                    return Err(Failure::new(format!("can't receive answers: {error}")));
                }
                Err(_) => tokio::time::sleep(RESEND_AFTER).await,
            }
        }
    }

    async fn declare_and_consume(&self) -> Result<Consumer, BrokerError> {
        let plain = |name: &str, dead_letter_to: Option<&str>| Queue {
            name: name.to_owned(),
            dead_letter_to: dead_letter_to.map(str::to_owned),
        };
        let topology = Topology {
            queues: vec![
                plain(DEAD_LETTER_QUEUE, None),
                plain(ANSWER_QUEUE, Some(DEAD_LETTER_QUEUE)),
                plain(START_QUEUE, Some(DEAD_LETTER_QUEUE)),
            ],
            ..Topology::default()
        };
        self.broker.declare(&topology).await?;
        self.broker.consume(ANSWER_QUEUE, PREFETCH).await
    }

    /// Sends the starts, as many at a time as there is room for.
    async fn start_all(&self, orders: &[Order], board: &Mutex<Board>, room: &Semaphore) {
        let mut rest = orders;
        while !rest.is_empty() {
            // Fails only if the semaphore was closed, which nobody does.
            let Ok(permit) = room.acquire().await else {
                return;
            };
            permit.forget();
            let mut free = 1;
            while free < STARTS_AT_ONCE.min(rest.len())
                && let Ok(permit) = room.try_acquire()
            {
                permit.forget();
                free += 1;
            }
            let (now, later) = rest.split_at(free);
            rest = later;
            self.start(now, board).await;
        }
        let mut board = lock(board);
        board.outcome.starting = board.began.elapsed();
        board.outcome.ended_while_starting = board.outcome.latencies.len() as u64;
    }

    /// Sends some starts until the broker has them; a start that is sent again is the same start.
    async fn start(&self, orders: &[Order], board: &Mutex<Board>) {
        let mut messages: Vec<Outgoing> = Vec::with_capacity(orders.len());
        for order in orders {
            let start = start_message(order);
            if self.plan.doubles_start(&order.order_id) {
                messages.push(start.clone());
            }
            messages.push(start);
        }
        let now = Instant::now();
        let open = orders.iter().map(|order| (order.order_id.clone(), now));
        lock(board).open.extend(open);
        loop {
            let published = self.broker.publish(messages.clone()).await;
            let taken = |published: &Published| *published == Published::Confirmed;
            let mut words = published.iter();
            messages.retain(|_| !words.next().is_some_and(taken));
            if messages.is_empty() {
                return;
            }
            tokio::time::sleep(RESEND_AFTER).await;
        }
    }

    /// Takes answers until each order has had its last one, or until nothing moves any more.
    async fn wait_for_all(
        &self,
        mut consumer: Consumer,
        orders: usize,
        board: &Mutex<Board>,
        room: &Semaphore,
        progress: &Progress,
    ) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ended = tokio::select! {
                answers = consumer.deliveries.next_batch(usize::from(PREFETCH)) => {
                    let tags: Vec<_> = answers.iter().map(|answer| answer.tag).collect();
                    let ended = note(board, &answers);
                    consumer.acks.ack(&tags);
                    ended
                }
                _ = look.tick() => self.ask_for_overdue(board).await,
            };
            room.add_permits(ended);
            let (all, stalled) = {
                let board = lock(board);
                progress.at(board.outcome.latencies.len());
                (
                    board.outcome.latencies.len() == orders,
                    board.last_end.elapsed() > STALL_TIME_MAX,
                )
            };
            if all || stalled {
                return;
            }
        }
    }

    /// Asks the database for sagas that should have answered; returns how many have ended.
    async fn ask_for_overdue(&self, board: &Mutex<Board>) -> usize {
        let overdue: Vec<String> = lock(board)
            .open
            .iter()
            .filter(|(_, since)| since.elapsed() > ASK_AFTER)
            .map(|(key, _)| key.clone())
            .take(ASK_AT_ONCE)
            .collect();
        let mut ended = 0;
        for (key, status) in self.statuses(overdue).await {
            if status.is_ended() {
                let reason = "found in the database".to_owned();
                ended += usize::from(lock(board).end(&key, status, || reason));
            }
        }
        ended
    }

    async fn suspended(&self, open: Vec<String>) -> u64 {
        let mut suspended = 0;
        for keys in open.chunks(ASK_AT_ONCE) {
            let statuses = self.statuses(keys.to_vec()).await;
            let waiting = |(_, status): &&(String, Status)| *status == Status::Suspended;
            suspended += statuses.iter().filter(waiting).count() as u64;
        }
        suspended
    }

    async fn statuses(&self, keys: Vec<String>) -> Vec<(String, Status)> {
        if keys.is_empty() {
            return Vec::new();
        }
        let wanted: Vec<SagaKey> = keys
            .iter()
            .map(|key| SagaKey {
                name: SAGA.to_owned(),
                key: key.clone(),
            })
            .collect();
        // What can't be read now is asked for again.
        let found = self.store.find(&wanted).await.unwrap_or_default();
        let found = keys.into_iter().zip(found);
        found
            .filter_map(|(key, found)| Some((key, found?.status)))
            .collect()
    }
}

impl Board {
    /// Notes a saga's end; `false` if it is none of ours, or was noted before.
    fn end(&mut self, key: &str, status: Status, reason: impl FnOnce() -> String) -> bool {
        let Some(since) = self.open.remove(key) else {
            return false;
        };
        self.last_end = Instant::now();
        let outcome = &mut self.outcome;
        outcome.latencies.push(self.last_end - since);
        outcome.elapsed = self.last_end - self.began;
        if status == Status::Completed {
            outcome.completed += 1;
        } else {
            *outcome.compensated.entry(reason()).or_default() += 1;
        }
        true
    }
}

/// Notes the ends among these answers, and returns how many there were.
fn note(board: &Mutex<Board>, answers: &[Delivery]) -> usize {
    let mut board = lock(board);
    let mut ended = 0;
    for Delivery { message, .. } in answers {
        let properties = &message.properties;
        let (Some(key), Some(kind)) = (&properties.correlation_id, &properties.kind) else {
            continue;
        };
        let reason = message.header(HEADER_REASON).unwrap_or_default();
        let status = match kind.as_str() {
            "completed" => Status::Completed,
            "compensated" => Status::Compensated,
            "refused" if board.open.contains_key(key) => {
                board.outcome.refused = Some(reason.to_owned());
                continue;
            }
            _ => continue,
        };
        ended += usize::from(board.end(key, status, || in_short(reason)));
    }
    ended
}

/// A reason without what differs from order to order.
fn in_short(reason: &str) -> String {
    let known = [
        ("not enough stock", "no stock"),
        ("not enough money", "no money"),
        ("no answer", "no answer"),
        ("timed out", "out of time"),
    ];
    let short = known.iter().find(|(said, _)| reason.contains(said));
    short.map_or_else(|| reason.to_owned(), |(_, short)| (*short).to_owned())
}

fn start_message(order: &Order) -> Outgoing {
    let properties = Properties {
        message_id: Some(order.order_id.clone()),
        kind: Some(SAGA.to_owned()),
        correlation_id: Some(order.order_id.clone()),
        reply_to: Some(ANSWER_QUEUE.to_owned()),
        content_type: Some(CONTENT_TYPE_JSON.to_owned()),
        ..Properties::default()
    };
    // An order is text and numbers: it can't fail to be JSON.
    let body = Bytes::from(serde_json::to_vec(order).unwrap_or_default());
    Outgoing {
        destination: Destination::queue(START_QUEUE),
        message: Message { properties, body },
        mandatory: true,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
