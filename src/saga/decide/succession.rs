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

use serde_json::Value;

use super::turn::Turn;
use crate::id::SagaId;
use crate::limits::{Extent, KEPT_SIGNALS_BYTES_MAX};
use crate::message::Outcome;
use crate::saga::emission::Emission;
use crate::saga::event::Event;
use crate::saga::incoming::{Signal, Starter};
use crate::saga::line::{Line, Successor};
use crate::saga::pass::Pass;
use crate::saga::refusal::Refusal;
use crate::saga::state::{SIGNALS_KEPT_MAX, Saga};

impl Saga {
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
