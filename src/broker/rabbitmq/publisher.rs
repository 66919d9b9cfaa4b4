//! Publishing: every message gets the broker's word, many are on the way at once.
//!
//! A few *lanes* share one connection. Each lane owns one channel and does one set of messages at
//! a time: publish all, collect all confirms, then judge. Calls that wait are put into one set,
//! so a lane's round trip is shared, and the lanes overlap, so the connection is never idle.
//!
//! Why sets, and not a rolling window: the library may attach a returned message to the confirm
//! of another one. Within a set that began and ended on an idle channel, nothing can come from
//! elsewhere, and what came back is matched by destination and message id.
//!
//! Invariants: a channel is used by one task only; a set's messages are published in order; each
//! gets exactly one answer within a bounded time, whatever happens to the connection.
//! Deliberately absent: publishing again. The outbox does that. With one exception: when the server
//! closes the channel over one message of a set, those it had not confirmed are published one by
//! one, to find the one.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, MaybeDone, join_all, maybe_done};
use futures_util::{FutureExt, poll};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, ErrorKind};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::convert::{self, Prepared};
use super::link::{Failure, Link, Live, REQUEST_TIME_MAX, within};
use super::topology::{self, PRECONDITION_FAILED};
use super::verdict::{self, Answer};
use crate::broker::{Outgoing, Published};

/// Longest time that a publish waits for the connection (or for the broker to unblock it).
pub const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(30);

/// Longest time that the broker may take to confirm a set of messages.
pub const CONFIRM_TIME_MAX: Duration = Duration::from_secs(30);

/// Channels that publish side by side.
const LANES: usize = 3;

/// Most messages in one set. With all lanes busy, a window of some 300 is on the way: below 200 the
/// rate falls, above 500 only the latency grows.
const SET_MESSAGES_MAX: usize = 128;

/// Calls that wait for a lane before the callers themselves wait.
const JOBS_WAITING_MAX: usize = 64;

/// Pause after a channel could not be opened, until the supervisor has noticed why.
const CHANNEL_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Publishes on a connection of its own.
pub(super) struct Publisher {
    jobs: mpsc::Sender<Job>,
    link: Arc<Link>,
    /// Ends the lanes when the publisher goes.
    _lanes: JoinSet<()>,
}

/// One call of `publish`.
struct Job {
    messages: Vec<Outgoing>,
    deadline: Instant,
    answer: oneshot::Sender<Vec<Published>>,
}

impl Publisher {
    /// `link` carries the messages, `control` the questions whether an exchange exists (a blocked
    /// connection would not answer them).
    pub(super) fn start(link: Arc<Link>, control: Arc<Link>) -> Self {
        let (jobs, waiting) = mpsc::channel(JOBS_WAITING_MAX);
        let waiting = Arc::new(AsyncMutex::new(waiting));
        let exchanges = Arc::new(Exchanges::default());
        let mut lanes = JoinSet::new();
        for _ in 0..LANES {
            let lane = Lane {
                link: Arc::clone(&link),
                control: Arc::clone(&control),
                exchanges: Arc::clone(&exchanges),
                jobs: Arc::clone(&waiting),
                open: None,
            };
            lanes.spawn(lane.run());
        }
        Self {
            jobs,
            link,
            _lanes: lanes,
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Published> {
        if messages.is_empty() {
            return Vec::new();
        }
        let count = messages.len();
        let failed = |why: &str| vec![Published::Failed(why.to_owned()); count];
        let deadline = Instant::now() + CONNECTION_WAIT_MAX;
        let (answer, answered) = oneshot::channel();
        let job = Job {
            messages,
            deadline,
            answer,
        };
        match timeout_at(deadline, self.jobs.send(job)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return failed("the broker's client is closed"),
            Err(_) => return failed("too many messages wait to be published"),
        }
        // A lane always answers, in bounded time; it is gone only if the client was closed.
        answered
            .await
            .unwrap_or_else(|_| failed("the broker's client was closed"))
    }
}

struct Lane {
    link: Arc<Link>,
    control: Arc<Link>,
    exchanges: Arc<Exchanges>,
    jobs: Arc<AsyncMutex<mpsc::Receiver<Job>>>,
    open: Option<(Live, Channel)>,
}

impl Lane {
    async fn run(mut self) {
        while let Some(jobs) = self.next_jobs().await {
            let jobs = self.await_channel(jobs).await;
            let counts: Vec<usize> = jobs.iter().map(|job| job.messages.len()).collect();
            let mut answers = Vec::with_capacity(jobs.len());
            let mut messages = Vec::with_capacity(counts.iter().sum());
            for job in jobs {
                messages.extend(job.messages);
                answers.push(job.answer);
            }
            let mut published = self.publish(messages).await.into_iter();
            for (answer, count) in answers.into_iter().zip(counts) {
                // Nobody waits any more if the caller was dropped.
                let _ = answer.send(published.by_ref().take(count).collect());
            }
        }
    }

    /// Waits for a call and takes those that wait behind it, up to about one set.
    async fn next_jobs(&self) -> Option<Vec<Job>> {
        let mut waiting = self.jobs.lock().await;
        let first = waiting.recv().await?;
        let mut messages = first.messages.len();
        let mut jobs = vec![first];
        while messages < SET_MESSAGES_MAX
            && let Ok(job) = waiting.try_recv()
        {
            messages += job.messages.len();
            jobs.push(job);
        }
        Some(jobs)
    }

    /// Waits until there is a channel, answers those that waited too long, returns the others.
    async fn await_channel(&mut self, mut jobs: Vec<Job>) -> Vec<Job> {
        while let Some(deadline) = jobs.iter().map(|job| job.deadline).min() {
            let Err(why) = self.ensure_channel(deadline).await else {
                break;
            };
            let now = Instant::now();
            let (late, rest): (Vec<_>, Vec<_>) =
                jobs.into_iter().partition(|job| job.deadline <= now);
            for job in late {
                let failed = Published::Failed(why.clone());
                let _ = job.answer.send(vec![failed; job.messages.len()]);
            }
            jobs = rest;
        }
        jobs
    }

    async fn ensure_channel(&mut self, deadline: Instant) -> Result<(), String> {
        loop {
            // Also when the channel is there: publishing pauses while the broker blocks it.
            let live = self.link.flowing(deadline).await?;
            if let Some((at, channel)) = &self.open
                && at.is(&live)
                && channel.status().connected()
            {
                return Ok(());
            }
            self.open = None;
            match open_channel(&self.link, &live).await {
                Ok(channel) => {
                    self.open = Some((live, channel));
                    return Ok(());
                }
                Err(failure) if Instant::now() >= deadline => return Err(failure.to_string()),
                Err(_) => sleep(CHANNEL_RETRY_DELAY).await,
            }
        }
    }

    /// Publishes set after set; the answers are in the order of the messages.
    async fn publish(&mut self, messages: Vec<Outgoing>) -> Vec<Published> {
        let mut published = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter();
        loop {
            let set: Vec<Outgoing> = messages.by_ref().take(SET_MESSAGES_MAX).collect();
            if set.is_empty() {
                return published;
            }
            self.publish_set(set, &mut published).await;
        }
    }

    async fn publish_set(&mut self, set: Vec<Outgoing>, published: &mut Vec<Published>) {
        let missing = self.missing_exchanges(&set).await;
        let set: Vec<Result<Prepared, Published>> = set
            .into_iter()
            .map(|outgoing| prepare(outgoing, &missing))
            .collect();
        let sendable: Vec<&Prepared> = set.iter().flatten().collect();
        let (mut words, refused) = self.send_set(&sendable).await;
        if refused && sendable.len() > 1 {
            self.send_one_by_one(&sendable, &mut words).await;
        }
        let mut words = words.into_iter();
        published.extend(set.iter().map(|prepared| {
            match prepared {
                Ok(_) => words
                    .next()
                    .unwrap_or_else(|| Published::Failed("the channel is lost".to_owned())),
                Err(word) => word.clone(),
            }
        }));
    }

    /// The broker's words on a set, and whether it closed the channel over one of the messages.
    async fn send_set(&mut self, sendable: &[&Prepared]) -> (Vec<Published>, bool) {
        let answers = match &self.open {
            Some((_, channel)) => exchange(channel, sendable).await,
            None => Vec::new(),
        };
        let broken = answers.len() < sendable.len()
            || answers
                .iter()
                .any(|answer| !matches!(answer, Answer::Ack(_) | Answer::Nack(_)));
        if broken {
            // Whatever is still on its way belongs to a channel that is no longer used.
            self.open = None;
            self.exchanges.forget();
        }
        let refused = answers
            .iter()
            .any(|answer| matches!(answer, Answer::Refused(_)));
        (verdict::judge(sendable, &answers), refused)
    }

    /// Publishes alone, and in their order, those of a set that the broker has not confirmed; up
    /// to the first that fails for another reason than itself.
    async fn send_one_by_one(&mut self, sendable: &[&Prepared], words: &mut [Published]) {
        for (prepared, word) in sendable.iter().zip(words) {
            if !matches!(word, Published::Failed(_)) {
                continue;
            }
            let deadline = Instant::now() + REQUEST_TIME_MAX;
            if self.ensure_channel(deadline).await.is_err() {
                return;
            }
            if let (mut alone, _) = self.send_set(&[*prepared]).await
                && let Some(said) = alone.pop()
            {
                *word = said;
            }
            if matches!(word, Published::Failed(_)) {
                return;
            }
        }
    }

    /// The exchanges of a set that don't exist. Publishing to one would close the channel, and
    /// all others of the set would fail with it.
    async fn missing_exchanges(&self, set: &[Outgoing]) -> HashSet<String> {
        let mut missing = HashSet::new();
        for outgoing in set {
            let exchange = &outgoing.destination.exchange;
            if exchange.is_empty() || self.exchanges.has(exchange) || missing.contains(exchange) {
                continue;
            }
            let deadline = Instant::now() + REQUEST_TIME_MAX;
            let exists = match self.control.up(deadline).await {
                Ok(live) => topology::exchange_exists(&self.control, &live, exchange).await,
                Err(_) => true,
            };
            if exists {
                self.exchanges.add(exchange);
            } else {
                missing.insert(exchange.clone());
            }
        }
        missing
    }
}

async fn open_channel(link: &Link, live: &Live) -> Result<Channel, Failure> {
    let channel = live.channel(link).await?;
    let selected = channel.confirm_select(ConfirmSelectOptions::default());
    within(REQUEST_TIME_MAX, selected).await?;
    Ok(channel)
}

/// The word on a message that can't be published at all, if it can't.
fn prepare(outgoing: Outgoing, missing: &HashSet<String>) -> Result<Prepared, Published> {
    let destination = outgoing.destination.clone();
    if missing.contains(&destination.exchange) {
        tracing::warn!(%destination, "unroutable: there is no such exchange");
        return Err(Published::Unroutable);
    }
    match convert::outgoing(outgoing) {
        Ok(prepared) => Ok(prepared),
        Err(why) => {
            tracing::error!(%destination, why, "AMQP can't carry the message");
            Err(Published::Refused(why))
        }
    }
}

/// Publishes a set and collects what the broker says about each message.
async fn exchange(channel: &Channel, set: &[&Prepared]) -> Vec<Answer> {
    let mut sends: Vec<MaybeDone<BoxFuture<'_, Answer>>> = set
        .iter()
        .map(|prepared| maybe_done(send(channel, prepared).boxed()))
        .collect();
    // The first poll of each hands it to the connection: in order, before any is waited for.
    for send in &mut sends {
        let _ = poll!(send);
    }
    let all = join_all(sends.iter_mut());
    let _ = timeout(CONFIRM_TIME_MAX, all).await;
    sends
        .iter_mut()
        .map(|send| {
            std::pin::Pin::new(send)
                .take_output()
                .unwrap_or(Answer::None)
        })
        .collect()
}

async fn send(channel: &Channel, prepared: &Prepared) -> Answer {
    let options = BasicPublishOptions {
        mandatory: prepared.mandatory,
        ..BasicPublishOptions::default()
    };
    let sent = channel.basic_publish(
        prepared.exchange.clone(),
        prepared.routing_key.clone(),
        options,
        &prepared.body,
        prepared.properties.clone(),
    );
    let confirmed = match sent.await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    match confirmed {
        Ok(Confirmation::Ack(returned)) => Answer::Ack(returned.map(Box::new)),
        Ok(Confirmation::Nack(returned)) => Answer::Nack(returned.map(Box::new)),
        Ok(Confirmation::NotRequested) => {
            Answer::Lost("the channel is not in confirm mode".to_owned())
        }
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(said) if said.get_id() == PRECONDITION_FAILED => {
                Answer::Refused(said.get_message().to_string())
            }
            _ => Answer::Lost(error.to_string()),
        },
    }
}

/// Exchanges that were there when last looked at.
#[derive(Default)]
struct Exchanges(Mutex<HashSet<String>>);

impl Exchanges {
    fn has(&self, exchange: &str) -> bool {
        self.lock().contains(exchange)
    }

    fn add(&self, exchange: &str) {
        self.lock().insert(exchange.to_owned());
    }

    fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
