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
//! closes the channel over one message of a set, those it had not confirmed are published again, so
//! that they neither wait for the one nor fail with it: all but those to a missing exchange, or one
//! by one, to find which it is.

mod set;

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{Mutex as AsyncMutex, RwLock, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::exchanges::Exchanges;
use super::keeper::Keeper;
use super::link::{CONNECTION_WAIT_MAX, Failure, Link, Live, REQUEST_TIME_MAX, within};
use crate::broker::{Outgoing, Published};

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
    /// `link` carries the messages. `keeper` is asked whether an exchange exists (a blocked
    /// connection would not answer), and told if one does not.
    pub(super) fn start(link: Arc<Link>, exchanges: Arc<Exchanges>, keeper: Arc<Keeper>) -> Self {
        let (jobs, waiting) = mpsc::channel(JOBS_WAITING_MAX);
        let waiting = Arc::new(AsyncMutex::new(waiting));
        let turn = Arc::default();
        let mut lanes = JoinSet::new();
        for _ in 0..LANES {
            let lane = Lane {
                link: Arc::clone(&link),
                keeper: Arc::clone(&keeper),
                exchanges: Arc::clone(&exchanges),
                jobs: Arc::clone(&waiting),
                turn: Arc::clone(&turn),
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
    keeper: Arc<Keeper>,
    exchanges: Arc<Exchanges>,
    jobs: Arc<AsyncMutex<mpsc::Receiver<Job>>>,
    /// Shared by lanes that publish; a lane that must be alone on the connection has it alone.
    turn: Arc<RwLock<()>>,
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
}

async fn open_channel(link: &Link, live: &Live) -> Result<Channel, Failure> {
    let channel = live.channel(link).await?;
    let selected = channel.confirm_select(ConfirmSelectOptions::default());
    within(REQUEST_TIME_MAX, selected).await?;
    Ok(channel)
}
