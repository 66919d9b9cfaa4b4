//! A batch in the making: works are decided one after the other, in memory, on loaded sagas.
//!
//! No I/O here: the worker loads before and commits after. Works whose saga turns out to conflict
//! come back unharmed, to be decided again on what is then stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::cache::Open;
use super::encode::Encoder;
use super::found::{Found, Known, Unsent};
use super::latency::Ended;
use super::newer::needed;
use super::rejection::Rejection;
use super::signals::{SignalAnswer, SignalError, code_of};
use super::work::{Job, OperateError, Origin, StartAnswer, StartError, Work};
use super::worker::Shared;
use crate::error::code;
use crate::id::{SagaId, Timestamp};
use crate::limits::BATCH_BYTES;
use crate::message::{Destination, Message};
use crate::saga::journal::{Cause, JournalEntry, Record};
use crate::saga::{Decision, Emission, Input, PlantedBug, Refusal, Starter, decide_sabotaged};
use crate::store::{
    Commit, DeadLetter, KeyMatch, OutboxMessage, Revision, SagaKey, SagaWrite, Snapshot,
};

/// How long a saga that has left off in the middle is left to the worker that decided, which goes on
/// at once, before any node's clock goes on with it.
const GO_ON_WITHIN: Duration = Duration::from_secs(1);

/// A saga that this batch changes.
pub(super) struct Changed {
    pub(super) open: Open,
    expected: Revision,
    entries: Vec<JournalEntry>,
    pub(super) outbox: Vec<OutboxMessage>,
    snapshot: Option<Snapshot>,
    pub(super) dirty: bool,
}

/// A work that is decided, and what its caller will hear if the commit succeeds.
pub(super) struct Decided {
    pub(super) work: Work,
    /// The saga whose conflict would undo it.
    pub(super) saga: Option<SagaId>,
    pub(super) answer: Option<Result<StartAnswer, StartError>>,
    /// What an operator will hear.
    pub(super) told: Result<(), OperateError>,
    /// What the sender of a signal will hear; none if nobody could be told.
    pub(super) signalled: Option<Result<SignalAnswer, SignalError>>,
}

/// Works and what follows from them.
pub(super) struct Batch<'a> {
    pub(super) node: &'a Shared,
    pub(super) now: Timestamp,
    pub(super) found: BTreeMap<SagaId, Found>,
    pub(super) keys: BTreeMap<SagaKey, Option<KeyMatch>>,
    /// What is said to a saga before it is woken.
    unsent: Unsent,
    pub(super) changed: BTreeMap<SagaId, Changed>,
    /// Sagas that begin in this batch.
    pub(super) starting: BTreeMap<SagaKey, SagaId>,
    pub(super) outbox: Vec<OutboxMessage>,
    /// Messages that a sweep is to publish, and not this node now.
    pub(super) later: Vec<OutboxMessage>,
    letters: Vec<DeadLetter>,
    sent: Vec<Uuid>,
    /// Works that are decided.
    pub(super) decided: Vec<Decided>,
    /// Works that must wait for the next batch.
    pub(super) again: Vec<Work>,
    /// The saga of which this batch has a copy that is of no use any more.
    spoiled: Option<SagaId>,
    /// Bytes that are to be written and sent.
    bytes: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(node: &'a Shared, now: Timestamp, known: Known) -> Self {
        let Known {
            found,
            keys,
            unsent,
        } = known;
        Self {
            node,
            now,
            found,
            keys,
            unsent,
            changed: BTreeMap::new(),
            starting: BTreeMap::new(),
            outbox: Vec::new(),
            later: Vec::new(),
            letters: Vec::new(),
            sent: Vec::new(),
            decided: Vec::new(),
            again: Vec::new(),
            spoiled: None,
            bytes: 0,
        }
    }

    /// Whether the rest of the works is for the next batch: together they would write and send more
    /// than one transaction should, or may be about a saga that must be loaded again.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.spoiled.is_some()
    }

    /// Whether a work is for the next batch, because its saga is.
    pub(super) fn is_later(&self, work: &Work) -> bool {
        let saga = needed(&work.job, &self.keys);
        let found = saga.and_then(|saga| self.found.get(&saga));
        matches!(found, Some(Found::Later))
    }

    /// Decides one work.
    pub(super) fn decide(&mut self, work: Work) {
        if let Some((about, why)) = self.beyond_us(&work.job) {
            return self.leave_to_others(work, &about, &why);
        }
        if let Origin::Outbox(row) = work.origin {
            self.sent.push(row);
        }
        match &work.job {
            Job::Start { request, key_taken } => {
                let sabotage = self.node.options.sabotage;
                let panics = matches!(sabotage.flaw(), Some(PlantedBug::PanicOver(key)) if key == request.key);
                assert!(!panics, "sabotaged");
                let (request, key_taken) = (request.clone(), *key_taken);
                self.decide_start(work, request, key_taken);
            }
            Job::Succeed { replaces } => {
                let replaces = *replaces;
                self.decide_succession(work, replaces);
            }
            Job::Child(wanted) => {
                let wanted = wanted.clone();
                self.decide_child(work, &wanted);
            }
            Job::Tell { saga, input } => {
                let (saga, input) = (*saga, input.clone());
                if matches!(input, Input::Wake)
                    && let Some(steps) = self.unsent.remove(&saga)
                {
                    // Whatever comes of it, what is due besides comes next.
                    drop(self.turn(saga, Input::Unsent(steps)));
                }
                self.tell(work, saga, input);
            }
            Job::TellAndBury {
                saga,
                input,
                letter,
            } => {
                let (saga, input) = (*saga, input.clone());
                let letter = DeadLetter::clone(letter);
                self.tell_and_bury(work, saga, input, letter);
            }
            Job::Signal(request) => {
                let request = Arc::clone(request);
                self.decide_signal(work, &request);
            }
            // Left already.
            Job::Leave { .. } => {}
            Job::Bury { letter, starter } => {
                let (letter, starter) = (DeadLetter::clone(letter), starter.clone());
                self.bury(letter, starter.as_ref());
                self.done(work, None, None);
            }
        }
    }

    /// A message about a saga that its decision does not have. If the saga is changed by this
    /// batch, what it says may follow from that, so both are stored or neither is.
    pub(super) fn add_message(&mut self, saga: SagaId, row: OutboxMessage) {
        match self.changed.get_mut(&saga) {
            Some(changed) if changed.dirty => changed.outbox.push(row),
            _ => self.outbox.push(row),
        }
    }

    /// Decides one input of one saga and keeps what follows.
    pub(super) fn turn(&mut self, id: SagaId, input: Input) -> Result<(), Rejection> {
        let now = self.now;
        let node = self.node;
        let sabotage = node.options.sabotage;
        let changed = self.changed(id)?;
        let cause = match &input {
            Input::Start { .. } | Input::StartInLine { .. } => Cause::Start,
            Input::Supersede(_) | Input::Listen(_) => Cause::Restart,
            Input::Reply(_) => Cause::Reply,
            Input::Returned(_) | Input::Sent { .. } => Cause::Returned,
            Input::Wake | Input::GoOn | Input::Unsent(_) => Cause::Timer,
            Input::Signal(_) | Input::SignalForSuccessor(_) => Cause::Signal,
            Input::Operator(_) => Cause::Operator,
            Input::Parent(_) => Cause::Parent,
        };
        let open = &mut changed.open;
        let before = open.head.status;
        let (definition, saga) = (&open.definition, &mut open.saga);
        let answered = Ended::of(definition, saga, &input, now);
        match decide_sabotaged(definition, saga, input, now, sabotage) {
            Ok(decision) => {
                if cause == Cause::Timer {
                    let silent = Ended::by_the_clock(definition, &decision.events);
                    node.latency.note(&definition.name, now, silent);
                }
                node.latency.note(&definition.name, now, answered);
                self.record(id, decision, cause)?;
                self.count(id, before);
                Ok(())
            }
            Err(Refusal::Illegal(illegal)) => {
                let is_fresh = changed.open.fresh;
                self.spoiled = Some(id);
                Err(Rejection::illegal(id, is_fresh, &illegal))
            }
            Err(Refusal::NeverAsked { .. }) if !changed.open.fresh => Err(Rejection::Stale),
            // Nobody must be told that there is nothing to do because our copy is behind.
            Err(_)
                if matches!(cause, Cause::Operator | Cause::Restart | Cause::Parent)
                    && !changed.open.fresh =>
            {
                Err(Rejection::Stale)
            }
            Err(Refusal::NeverAsked { step, phase }) => Err(Rejection::wrong(
                code::REPLY_UNEXPECTED,
                format!("step `{step}` of saga {id} was never asked to {phase}"),
            )),
            Err(refusal @ Refusal::TooLarge(_)) => {
                Err(Rejection::wrong(code::SAGA_TOO_LARGE, refusal.to_string()))
            }
            Err(Refusal::Settled | Refusal::AlreadyStarted) => {
                if cause == Cause::Timer {
                    // Looked early: put the wake-up where it belongs.
                    let wake_at = changed.open.saga.wake_at();
                    changed.dirty |= !changed.open.head.status.is_ended();
                    changed.open.head.wake_at = wake_at;
                } else {
                    crate::metric::ignored();
                }
                Err(Rejection::Nothing)
            }
            // Nor may a signal be refused for what is not stored yet.
            Err(_) if cause == Cause::Signal && (changed.dirty || !changed.open.fresh) => {
                Err(Rejection::Stale)
            }
            Err(refusal) => {
                let code = match cause {
                    Cause::Signal => code_of(&refusal),
                    _ => code::NOT_POSSIBLE,
                };
                Err(Rejection::wrong(code, refusal.to_string()))
            }
        }
    }

    fn changed(&mut self, id: SagaId) -> Result<&mut Changed, Rejection> {
        if !self.changed.contains_key(&id) {
            match self.found.remove(&id) {
                Some(Found::Open(open)) => {
                    let expected = open.head.revision;
                    let changed = Changed {
                        open: *open,
                        expected,
                        entries: Vec::new(),
                        outbox: Vec::new(),
                        snapshot: None,
                        dirty: false,
                    };
                    self.changed.insert(id, changed);
                }
                Some(Found::Unreadable { code, why }) => {
                    let reason = format!("saga {id}: {why}");
                    self.found.insert(id, Found::Unreadable { code, why });
                    return Err(Rejection::wrong(code, reason));
                }
                // Nobody asks: see `beyond_us`.
                Some(Found::Newer(why)) => {
                    self.found.insert(id, Found::Newer(why));
                    return Err(Rejection::Nothing);
                }
                Some(Found::Later) => {
                    self.found.insert(id, Found::Later);
                    return Err(Rejection::Stale);
                }
                Some(Found::Missing) | None => {
                    let reason = format!("there is no saga {id}; it may have been deleted");
                    return Err(Rejection::wrong(code::REPLY_FOR_NO_SAGA, reason));
                }
            }
        }
        self.changed.get_mut(&id).ok_or(Rejection::Nothing)
    }

    /// A saga that this batch has changed already.
    pub(super) fn changed_open(&self, id: SagaId) -> Option<&Open> {
        self.changed.get(&id).map(|changed| &changed.open)
    }

    /// Whether this batch starts the saga, so that it may yet turn out that there is none.
    pub(super) fn is_provisional(&self, id: SagaId) -> bool {
        let changed = self.changed.get(&id);
        changed.is_some_and(|changed| changed.expected == 0)
    }

    /// Turns a decision into a journal entry, outbox rows and the row's new values.
    fn record(&mut self, id: SagaId, decision: Decision, cause: Cause) -> Result<(), Rejection> {
        let (node, now) = (self.node, self.now);
        let Some(changed) = self.changed.get_mut(&id) else {
            return Err(Rejection::Nothing);
        };
        let Changed {
            open,
            entries,
            outbox,
            ..
        } = changed;
        let seq = open.head.revision + 1;
        let awaits = open
            .saga
            .awaits(open.head.awaits.as_ref(), &decision.events);
        let record = Record {
            cause,
            events: decision.events,
        };
        // What it holds of a newer format must not be written as less.
        let format = open.format.max(node.options.formats.writes);
        open.format = format;
        let entry = JournalEntry::link_in(format, id, &open.head.head_hash, seq, now, &record)
            .map_err(|error| Rejection::wrong(code::STORE_REFUSED, error.to_string()))?;
        open.note_trouble(awaits, now);
        open.head.reason = open.saga.status_reason().map(|reason| storable(&reason));
        let wake_at = if open.saga.is_left_off() {
            Some(now.after(GO_ON_WITHIN))
        } else {
            decision.wake_at
        };
        open.note(&entry, wake_at);
        let mut bytes = entry.body.len();
        entries.push(entry);
        let belongs_to = open.definition.correlation_of(&open.saga.input);
        let encoder = Encoder {
            secret: &node.secret,
            saga: &open.saga,
            // It could be computed when the saga was started.
            correlation: belongs_to.ok().flatten(),
            seq,
            now,
        };
        for send in decision.emissions {
            let row = match &send {
                Emission::Command { row, .. } => *row,
                _ => None,
            };
            let (destination, message) = encoder.encode(send);
            bytes += message.size();
            let mut written = node.outbox_row(destination, message, now);
            written.id = row.unwrap_or(written.id);
            outbox.push(written);
        }
        if let Some(newest) = open.snapshot(node.options.snapshot_entries) {
            bytes += newest.body.len();
            changed.snapshot = Some(newest);
        }
        changed.dirty = true;
        self.bytes += bytes;
        Ok(())
    }

    pub(super) fn bury(&mut self, letter: DeadLetter, starter: Option<&Starter>) {
        self.bytes += letter.message.size();
        if let Some(starter) = starter {
            let body = json!({ "code": letter.code.to_string(), "reason": letter.reason });
            self.answer(starter, "refused", Some(&letter.reason), &body);
        }
        self.letters.push(DeadLetter {
            reason: storable(&letter.reason),
            ..letter
        });
    }

    pub(super) fn done(
        &mut self,
        work: Work,
        saga: Option<SagaId>,
        answer: Option<Result<StartAnswer, StartError>>,
    ) {
        let told = Ok(());
        self.decided.push(Decided {
            work,
            saga,
            answer,
            told,
            signalled: None,
        });
    }

    /// What to store, what to publish after it, and the sagas as they will then be.
    pub(super) fn into_parts(self) -> Parts {
        let mut sagas = Vec::new();
        let mut open = Vec::new();
        for changed in self.changed.into_values() {
            if changed.dirty {
                let is_new = changed.expected == 0;
                let labels = is_new.then(|| changed.open.labels());
                sagas.push(SagaWrite {
                    expected: changed.expected,
                    head: changed.open.head.clone(),
                    entries: changed.entries,
                    snapshot: changed.snapshot,
                    outbox: changed.outbox,
                    labels: labels.unwrap_or_default(),
                });
            }
            open.push(changed.open);
        }
        open.retain(|open| self.spoiled != Some(open.head.id));
        // Loaded but not touched: still good.
        open.extend(self.found.into_values().filter_map(|found| match found {
            Found::Open(open) => Some(*open),
            _ => None,
        }));
        let commit = Commit {
            sagas,
            outbox: self.outbox,
            sent: self.sent,
            dead_letters: self.letters,
        };
        Parts {
            commit,
            open,
            later: self.later,
            decided: self.decided,
            again: self.again,
        }
    }
}

/// A batch, ready to be stored.
pub(super) struct Parts {
    pub(super) commit: Commit,
    pub(super) open: Vec<Open>,
    /// To be stored with it, and published by a sweep.
    pub(super) later: Vec<OutboxMessage>,
    pub(super) decided: Vec<Decided>,
    pub(super) again: Vec<Work>,
}

impl Shared {
    /// A row for the outbox; due for the sweep after the grace time.
    pub(super) fn outbox_row(
        &self,
        destination: Destination,
        message: Message,
        now: Timestamp,
    ) -> OutboxMessage {
        let id = self.environment.new_id();
        let due_at = now.after(self.options.relay.grace);
        OutboxMessage {
            id,
            destination,
            message,
            due_at,
        }
    }
}

/// Text columns can't hold NUL.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
