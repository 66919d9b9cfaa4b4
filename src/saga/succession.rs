//! One key, several sagas one after the other: a start that replaces the saga holding its key.
//!
//! The successor is remembered in the journal of the saga that gives way, which is rolled back
//! first if that is still possible; behind the pivot it is let finish, and one that waits for a
//! person is waited for. Once it has ended, its key is free and the successor's start is sent, in
//! the same write. Only the newest successor counts: whoever is replaced while waiting hears so.
//!
//! The same start again changes nothing. It is known by its id if it has one (a message's
//! `message_id`, a schedule's tick), and the ids are handed down the line, so that a late duplicate
//! of a replaced saga's start doesn't replace its replacement. Else it is known by its input.
//!
//! What is sent to the key while the saga is rolled back is meant for the successor: it is kept, and
//! handed down the line.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decide::Turn;
use super::event::{Emission, Event, Refusal, Signal, Starter};
use super::state::{Pass, SIGNALS_KEPT_MAX, Saga};
use super::status::Status;
use crate::id::{SagaId, Timestamp};
use crate::limits::{Extent, KEPT_SIGNALS_BYTES_MAX};
use crate::message::Outcome;

/// Ids of starts that a line of sagas remembers; enough for messages that are delivered again.
const STARTS_MAX: usize = 16;

/// A saga's place in the line of those that have had its key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The saga that gave way to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<SagaId>,
    /// Ids of the starts that are known, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<String>,
    /// What starts once this saga has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<Successor>,
    /// Signals for the successor, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Signal>,
}

/// A start that waits for its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Successor {
    /// The id that its saga will have.
    pub saga: SagaId,
    /// What the start is deduplicated by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// What it works on.
    pub input: Arc<Value>,
    /// Who wants to hear of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starter: Option<Starter>,
    /// When it was asked for.
    pub at: Timestamp,
}

impl Line {
    /// Whether a start with this id is known.
    pub fn knows(&self, start: &str) -> bool {
        self.starts.iter().any(|known| known == start)
    }

    /// The place of the saga that follows.
    #[must_use]
    pub fn next(&self, before: SagaId) -> Self {
        Self {
            replaces: Some(before),
            starts: self.starts.clone(),
            successor: None,
            kept: self.kept.clone(),
        }
    }

    pub(super) fn follow(&mut self, successor: &Successor) {
        self.starts.extend(successor.start.clone());
        let excess = self.starts.len().saturating_sub(STARTS_MAX);
        self.starts.drain(..excess);
        self.successor = Some(successor.clone());
    }
}

impl Saga {
    /// Whether it has ended and given up its key.
    pub fn is_superseded(&self) -> bool {
        self.line.successor.is_some() && self.ended_at.is_some()
    }

    /// The saga that signals to this one's key are for, if not this one: the one that replaces it
    /// once it is rolled back. Behind the pivot it needs its signals itself.
    pub fn heir(&self) -> Option<SagaId> {
        let successor = self.line.successor.as_ref()?;
        let goes_back = matches!(self.pass, Pass::Forward | Pass::Rollback);
        (goes_back && self.ended_at.is_none()).then_some(successor.saga)
    }

    /// Whether this start is one that the saga knows: its own, or its successor's.
    fn knows(&self, start: &Successor) -> bool {
        if let Some(id) = &start.start
            && self.line.knows(id)
        {
            return true;
        }
        match &self.line.successor {
            Some(successor) if successor.input == start.input => true,
            // With an id of its own it is a new wish; without one it may be the first start again.
            Some(_) => start.start.is_none() && self.input == start.input,
            None => self.input == start.input,
        }
    }
}

impl Turn<'_> {
    /// A start that knows its place in the line.
    pub(super) fn start_in_line(
        &mut self,
        input: Arc<Value>,
        starter: Option<Starter>,
        mut line: Line,
    ) -> Result<(), Refusal> {
        if self.saga.pass != Pass::New {
            return Err(Refusal::AlreadyStarted);
        }
        let kept = std::mem::take(&mut line.kept);
        self.emit(Event::InLine(line));
        self.start(input, starter)?;
        for signal in kept {
            // Refused if no `wait` is about it: another version has started than was expected.
            let _ = self.signal(signal);
        }
        Ok(())
    }

    /// A signal for the saga that is to replace this one.
    pub(super) fn keep_for_successor(&mut self, mut signal: Signal) -> Result<(), Refusal> {
        // What this saga had already may have been delivered once more.
        if let Some(known) = self.saga.refused_as_known(&signal) {
            return Err(known);
        }
        let mut kept = self.saga.line.kept.iter();
        if let Some(kept) = kept.find(|it| it.id == signal.id) {
            return Err(if kept.mark() == signal.mark() {
                Refusal::Settled
            } else {
                Refusal::OtherSignal(signal.id)
            });
        }
        if self.saga.heir().is_none() {
            return Err(Refusal::NotPossible("nothing is to replace it".into()));
        }
        let kept = &self.saga.line.kept;
        let bytes = |signal: &Signal| Extent::of(&signal.body).bytes;
        let together = kept.iter().map(bytes).sum::<usize>() + bytes(&signal);
        if kept.len() >= SIGNALS_KEPT_MAX || together > KEPT_SIGNALS_BYTES_MAX {
            return Err(Refusal::TooManySignals);
        }
        signal.at = Some(self.now);
        self.emit(Event::KeptForSuccessor(signal));
        Ok(())
    }

    /// Another start with this saga's key wants to replace it.
    pub(super) fn supersede(&mut self, successor: Successor) -> Result<(), Refusal> {
        if self.saga.pass == Pass::New {
            return Err(Refusal::NotPossible("it has not started".into()));
        }
        if self.saga.knows(&successor) {
            return Err(Refusal::Settled);
        }
        if self.saga.is_superseded() {
            return Err(Refusal::Ended);
        }
        if let Some(replaced) = self.saga.line.successor.clone() {
            self.refuse_replaced(replaced, successor.saga);
        }
        self.emit(Event::Superseding(successor));
        if self.saga.status().is_ended() {
            self.hand_over();
        } else {
            self.give_way();
        }
        Ok(())
    }

    /// Turns round for a successor, while that is possible.
    pub(super) fn give_way(&mut self) {
        let free = self.saga.pass == Pass::Forward && self.saga.paused.is_none();
        if let Some(successor) = self.saga.line.successor.as_ref().filter(|_| free) {
            let reason = format!("replaced by saga {}", successor.saga);
            self.roll_back(reason);
            self.walk();
        }
    }

    /// The saga has ended: sends its successor's start, if there is one.
    pub(super) fn hand_over(&mut self) {
        if let Some(successor) = self.saga.line.successor.clone() {
            self.emissions.push(Emission::Successor(successor));
        }
    }

    fn refuse_replaced(&mut self, replaced: Successor, by: SagaId) {
        let Some(starter) = replaced.starter else {
            return;
        };
        let reason = format!("replaced, before it began, by saga {by}, started later");
        let body = serde_json::json!({
            "saga_id": replaced.saga,
            "saga": self.saga.name,
            "key": self.saga.facts.key,
            "reason": reason,
        });
        self.emissions.push(Emission::Answer {
            starter,
            kind: "refused",
            outcome: Outcome::Rejected,
            reason: Some(reason),
            body,
        });
    }
}

/// What keeps a successor waiting, in words for people.
pub fn holdup(status: Status) -> &'static str {
    match status {
        // A sub-saga that is prepared, until its parent decides.
        Status::Running => "the saga before it has to end first",
        Status::Compensating => "the saga before it is rolled back first",
        Status::Confirming => "the saga before it is past the pivot and finishes first",
        Status::Suspended => "the saga before it waits for a person",
        Status::Completed | Status::Compensated => "it has the key now",
    }
}
