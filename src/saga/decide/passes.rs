//! From one pass of a saga to the next: turning round, the pivot, the end.

use std::sync::Arc;

use serde_json::Value;

use super::turn::Turn;
use crate::definition::Definition;
use crate::id::{Phase, StepPath};
use crate::limits::{BODY, COMPUTED, Limit};
use crate::message::Outcome;
use crate::saga::event::Event;
use crate::saga::pass::Pass;
use crate::saga::portion::Move;
use crate::saga::sabotage::PlantedBug;

impl Turn<'_> {
    pub(super) fn suspend(&mut self, path: &StepPath, phase: Phase, reason: String) {
        let first = self.saga.suspended.is_empty();
        self.emit(Event::Suspended {
            step: path.clone(),
            phase,
            reason,
        });
        if first {
            self.notice("suspended");
        }
    }

    /// Sends the compensation of a step that was, or may have been, done.
    pub(super) fn undo(&mut self, path: &StepPath) {
        if self.is_yet_to_be_undone(path) {
            return;
        }
        let compensable = self
            .definition
            .step(&path.name)
            .is_some_and(|step| step.compensate.is_some());
        if compensable {
            self.ask(path, Phase::Compensate, 1, None);
        } else {
            self.step_done(path);
        }
    }

    /// Drops what was still to be entered and turns round.
    pub(super) fn roll_back(&mut self, reason: String) {
        self.emit(Event::RollbackStarted { reason });
        self.notice("compensating");
        self.drop_moves();
        self.moves.push(Move::enter(Definition::ROOT));
    }

    /// The forward pass is at its end: nothing can be refused any more.
    pub(super) fn pass_pivot(&mut self) {
        self.drop_moves();
        if !self.sabotage.has(PlantedBug::ConfirmLapsed)
            && let Some(reason) = self.too_late()
        {
            self.roll_back(reason);
            return;
        }
        if self.saga.pass == Pass::Forward
            && let Err(why) = self.reckon_the_rest()
        {
            return self.is_too_large(why);
        }
        if self.must_wait_for_parent() {
            self.prepare();
            return;
        }
        self.emit(Event::PivotPassed);
        self.notice("confirming");
        self.moves.push(Move::Confirm { after: None });
    }

    pub(super) fn confirmed_all(&mut self) {
        if self.saga.unconfirmed == 0 && !self.confirms_are_left() {
            self.emit(Event::ReservationsConfirmed);
            self.moves.push(Move::enter(Definition::ROOT));
        }
    }

    pub(super) fn complete(&mut self) {
        self.focus = (Definition::ROOT, Vec::new());
        let output = match &self.definition.output {
            None => Ok(Value::Null),
            Some(template) => template.render_within(&self.scope(None), self.output_limit()),
        };
        // The work is done and stays done; the result just can't be told, and that is said.
        let (output, output_error) = match output {
            Ok(output) => (output, None),
            Err(error) => (Value::Null, Some(error.to_string())),
        };
        self.emit(Event::Completed {
            output: Arc::new(output),
            output_error,
            at: self.now,
        });
        self.tell("completed", "completed", Outcome::Succeeded);
        self.hand_over();
        self.answer_parent();
    }

    /// How large the output may be: a saga that runs this one takes it as a reply.
    fn output_limit(&self) -> &'static Limit {
        match self.saga.family {
            Some(_) => &BODY,
            None => &COMPUTED,
        }
    }

    pub(super) fn compensated(&mut self) {
        self.emit(Event::Compensated { at: self.now });
        self.tell("compensated", "compensated", Outcome::Rejected);
        self.hand_over();
        self.answer_parent();
    }
}
