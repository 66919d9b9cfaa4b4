//! What a newer release has written, and this one can't read: left to nodes that can.
//!
//! While an upgrade goes node by node, or is rolled back, there are such sagas; and while it goes on,
//! definitions. A message about one
//! goes back to its queue by way of the outbox, after a pause: so it is stored before it is
//! acknowledged, nobody counts how often it came back, and it takes nothing of what this node may
//! hold meanwhile. Timers wait for the next node that asks, callers are told to ask another. It is
//! said in health and log, because without a newer node nothing ever comes of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::batch::{Batch, Decided};
use super::found::Found;
use super::signals::SignalError;
use super::work::{Job, OperateError, Origin, StartError, Work};
use super::worker::Shared;
use crate::id::{SagaId, Timestamp};
use crate::message::Destination;
use crate::metric;
use crate::saga::PlantedBug;
use crate::saga::format::Newer as WrittenNewer;
use crate::store::{DeadLetter, KeyMatch, LoadedSaga, OutboxMessage, SagaKey};

/// How long a message waits before a node is given it again.
const PAUSE: Duration = Duration::from_secs(2);
/// How long it is said that there was such a saga; longer than its timers and messages pause.
const SAID_FOR: Duration = Duration::from_mins(1);
/// How often it is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// What this node left to others.
#[derive(Default)]
pub(super) struct Newer(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// The last time, and what it was about.
    last: Option<(Timestamp, String)>,
    logged: Option<Timestamp>,
    /// Works since the last line in the log.
    works: u64,
}

impl Newer {
    fn note(&self, now: Timestamp, about: &str, why: &str) {
        metric::left_to_newer();
        let mut seen = self.seen();
        seen.works += 1;
        if seen.logged.is_none_or(|at| now.since(at) >= LOG_EVERY) {
            let works = std::mem::take(&mut seen.works);
            tracing::warn!(about, works, "left to a newer node: {why}");
            seen.logged = Some(now);
        }
        seen.last = Some((now, format!("{about}: {why}")));
    }

    /// What was left to others lately, in words.
    pub(super) fn said(&self, now: Timestamp) -> Option<String> {
        let seen = self.seen();
        let (at, what) = seen.last.as_ref()?;
        (now.since(*at) < SAID_FOR)
            .then(|| format!("what is to be done about some sagas is left to newer nodes: {what}"))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The saga that has to be loaded before a job can be decided, given which sagas have which keys.
pub(super) fn needed(job: &Job, keys: &BTreeMap<SagaKey, Option<KeyMatch>>) -> Option<SagaId> {
    match job {
        Job::Signal(request) => request.saga(keys),
        // It must be asked before its key is given to another.
        Job::Start {
            request,
            key_taken: true,
        } if request.is_about_the_holder() => {
            let holder = keys.get(&request.saga_key())?;
            holder.as_ref().map(|holder| holder.id)
        }
        job => job.saga(),
    }
}

impl Shared {
    /// Takes the marks of their formats off what was loaded of a saga. The highest format of it.
    pub(super) fn unmark(&self, loaded: &mut LoadedSaga) -> Result<u32, WrittenNewer> {
        let mut formats = self.options.formats;
        let ignored = self.options.sabotage.has(PlantedBug::IgnoreFormats);
        if ignored {
            formats.reads = u32::MAX;
        }
        let snapshot = loaded.snapshot.iter_mut().map(|it| &mut it.body);
        let entries = loaded.entries.iter_mut().map(|entry| &mut entry.body);
        let mut highest = 1;
        for body in snapshot.chain(entries) {
            let (plain, format) = formats.read(body)?;
            let plain = match plain {
                Cow::Owned(plain) => Some(plain),
                Cow::Borrowed(_) => None,
            };
            if let Some(plain) = plain {
                *body = plain.into();
            }
            highest = highest.max(format);
        }
        Ok(if ignored { 1 } else { highest })
    }
}

impl Batch<'_> {
    /// What a job is about that this program can't read, and why not.
    pub(super) fn beyond_us(&self, job: &Job) -> Option<(String, String)> {
        if let Job::Leave { about, why } = job {
            return Some((about.clone(), why.clone()));
        }
        let saga = needed(job, &self.keys)?;
        match self.found.get(&saga)? {
            Found::Newer(why) => Some((format!("saga {saga}"), why.clone())),
            _ => None,
        }
    }

    /// Has nothing come of a work here, so that another node may do it.
    pub(super) fn leave_to_others(&mut self, work: Work, about: &str, why: &str) {
        self.node.newer.note(self.now, about, why);
        if let Origin::Delivery { letter, .. } = &work.origin {
            let DeadLetter { queue, message, .. } = letter();
            self.later.push(OutboxMessage {
                id: self.node.environment.new_id(),
                destination: Destination::queue(&queue),
                message,
                due_at: self.now.after(PAUSE),
            });
        }
        let why = why.to_owned();
        self.decided.push(Decided {
            work,
            saga: None,
            answer: Some(Err(StartError::Unavailable(why.clone()))),
            told: Err(OperateError::Unavailable(why.clone())),
            signalled: Some(Err(SignalError::Unavailable(why))),
        });
    }
}

#[cfg(test)]
mod tests;
