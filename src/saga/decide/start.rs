//! A saga begins, and others want to hear how it ends.

use std::sync::Arc;

use serde_json::Value;

use super::turn::Turn;
use crate::definition::Definition;
use crate::message::Outcome;
use crate::saga::event::Event;
use crate::saga::incoming::Starter;
use crate::saga::pass::Pass;
use crate::saga::portion::Move;
use crate::saga::refusal::Refusal;
use crate::saga::state::LISTENERS_MAX;

impl Turn<'_> {
    pub(super) fn start(
        &mut self,
        input: Arc<Value>,
        starter: Option<Starter>,
    ) -> Result<(), Refusal> {
        if self.saga.pass != Pass::New {
            return Err(Refusal::AlreadyStarted);
        }
        let deadline = self
            .definition
            .timeout
            .map(|timeout| self.now.after(timeout));
        self.emit(Event::Started {
            input,
            at: self.now,
            deadline,
            starter,
        });
        self.tell("started", "accepted", Outcome::Succeeded);
        self.moves.push(Move::enter(Definition::ROOT));
        Ok(())
    }

    /// Somebody wants to hear the end who did not begin it.
    pub(super) fn listen(&mut self, starter: Starter) -> Result<(), Refusal> {
        if self.saga.status().is_ended() {
            return Err(Refusal::Ended);
        }
        let mut known = self.saga.starter.iter().chain(&self.saga.listeners);
        if known.any(|known| *known == starter) {
            return Err(Refusal::Settled);
        }
        if self.saga.listeners.len() >= LISTENERS_MAX {
            return Err(Refusal::NotPossible(
                "as many as it may tell want to hear how it ends".into(),
            ));
        }
        self.emit(Event::Listening(starter));
        Ok(())
    }
}
