//! Time in the simulated world: reservations that lapse, outages that outlast them, and the judge
//! of both.
//!
//! The broker adds to some replies until when their reservation holds, and now and then no node
//! runs for a while, so that replies are decided long after the clock should have been looked at.
//! What the nodes wrote is compared with the scheduler's own time, which no clock of theirs is.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::now::now;
use super::releases;
use super::scheduler::Scheduler;
use crate::id::{Phase, SagaId, Timestamp};
use crate::message::{Message, REPLY_QUEUE};
use crate::saga::{Event, LEASE_MARGIN};
use crate::store::memory::MemoryStore;
use crate::store::{Commit, CommitOutcome, LIST_ROWS_MAX, ListFilter, SagaWrite, Store};

/// The shortest and the longest time that a reservation holds.
const LEASE_MS: std::ops::Range<u64> = 3_000..40_000;
/// How much later than it was decided an entry may be stored, and how far clocks may differ.
const COMMIT: Duration = Duration::from_secs(1);

/// When journal entries were stored, by the scheduler's time.
#[derive(Default)]
pub(super) struct Stored(Mutex<BTreeMap<(SagaId, u64), Timestamp>>);

impl Stored {
    /// The entries that a commit is to store.
    pub(super) fn entries(commit: &Commit) -> Vec<(SagaId, u64)> {
        let sagas = commit.sagas.iter();
        let of_saga = |write: &SagaWrite| {
            let (id, seqs) = (write.head.id, write.entries.iter().map(|entry| entry.seq));
            seqs.map(|seq| (id, seq)).collect::<Vec<_>>()
        };
        sagas.flat_map(of_saga).collect()
    }

    /// Takes note of what has been stored.
    pub(super) fn note(&self, entries: Vec<(SagaId, u64)>, outcome: &CommitOutcome, at: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |saga| outcome.conflicts.iter().any(|(id, _)| *id == saga);
        let stored = entries.into_iter().filter(|(saga, _)| !refused(*saga));
        known.extend(stored.map(|entry| (entry, at)));
    }

    fn at(&self, saga: SagaId, seq: u64) -> Option<Timestamp> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(saga, seq)).copied()
    }
}

/// Has a reply to a reserve say until when the reservation holds.
pub(super) fn add_lease(scheduler: &Scheduler, message: &mut Message, routing_key: &str) {
    let correlation = message.properties.correlation_id.as_deref();
    let reserves = correlation.and_then(|text| text.rsplit('/').nth(1)) == Some("reserve");
    if routing_key != REPLY_QUEUE || !reserves {
        return;
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(&message.body) else {
        return;
    };
    let holds = scheduler.random(|random| random.u64(LEASE_MS));
    let until = scheduler.now().after(Duration::from_millis(holds));
    fields.insert("expires_at".to_owned(), until.to_string().into());
    message.body = Value::Object(fields).to_string().into();
}

/// What was done too late, or undone too early.
pub(super) fn wrong(store: &MemoryStore, stored: &Stored) -> Vec<String> {
    let filter = ListFilter {
        limit: LIST_ROWS_MAX,
        ..ListFilter::default()
    };
    let sagas = now(store.list(&filter)).into_iter();
    sagas
        .flat_map(|head| judge(store, stored, head.id))
        .collect()
}

fn judge(store: &MemoryStore, stored: &Stored, saga: SagaId) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut deadline = None;
    let mut leases: Vec<Timestamp> = Vec::new();
    for entry in now(store.journal(saga, 0, LIST_ROWS_MAX)) {
        let Some(at) = stored.at(saga, entry.seq) else {
            continue;
        };
        let events = entry
            .plain(releases::ALL)
            .and_then(|entry| entry.record())
            .map(|record| record.events);
        for event in events.unwrap_or_default() {
            match event {
                Event::Started { deadline: by, .. } => deadline = by,
                Event::Succeeded {
                    phase: Phase::Reserve,
                    reply,
                    ..
                } => {
                    let until = reply.get("expires_at").and_then(Value::as_str);
                    leases.extend(until.and_then(|until| until.parse::<Timestamp>().ok()));
                }
                Event::Prepared { .. } | Event::PivotPassed => {
                    if let Some(lapsed) = leases.iter().find(|lapses| **lapses < at) {
                        wrong.push(format!("saga {saga} passed its pivot at {at}, after a reservation had lapsed at {lapsed}"));
                    }
                    if let Some(by) = deadline.filter(|by| by.after(COMMIT) < at) {
                        wrong.push(format!(
                            "saga {saga} passed its pivot at {at}, after its deadline at {by}"
                        ));
                    }
                    // A sub-saga's second one comes when its parent says so.
                    (deadline, leases) = (None, Vec::new());
                }
                Event::RollbackStarted { reason } => {
                    let due = if reason.starts_with("timed out") {
                        deadline
                    } else if reason.starts_with("the reservation of") {
                        let first = leases.iter().min();
                        first.map(|lapses| lapses.before(LEASE_MARGIN))
                    } else {
                        continue;
                    };
                    if let Some(due) = due.filter(|due| *due > at.after(COMMIT)) {
                        wrong.push(format!(
                            "saga {saga} was rolled back at {at}, before {due}: {reason}"
                        ));
                    }
                }
                _ => {}
            }
        }
    }
    wrong
}
