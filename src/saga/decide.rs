//! `decide`: one input in, events and messages out.

use std::sync::Arc;

use serde_json::Value;

use super::apply::apply;
use super::event::{Decision, Emission, Event, Refusal, Reply, Starter};
use super::input::Input;
use super::portion::{Move, Spent};
use super::retry::backoff;
pub use super::sabotage::{PlantedBug, Sabotage};
use super::state::{LISTENERS_MAX, Pass, Saga};
use super::step::{StepStatus, Waiting};
use super::transition::{IllegalEvent, answered, asked};
use crate::definition::{BlockId, Definition, Forward, OnReject};
use crate::id::{Phase, StepPath, Timestamp};
use crate::limits::{BODY, COMPUTED, Limit};
use crate::message::Outcome;

/// Decides what follows from `input`, and applies it to the saga.
///
/// # Errors
/// A [`Refusal`] if the input changes nothing; the saga is as before, unless it is
/// [`Refusal::Illegal`].
pub fn decide(
    definition: &Definition,
    saga: &mut Saga,
    input: Input,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    decide_sabotaged(definition, saga, input, now, Sabotage::default())
}

/// [`decide`] with known bugs.
#[doc(hidden)]
pub fn decide_sabotaged(
    definition: &Definition,
    saga: &mut Saga,
    input: Input,
    now: Timestamp,
    sabotage: Sabotage,
) -> Result<Decision, Refusal> {
    let unstarted = (saga.pass == Pass::New).then(|| saga.clone());
    let mut turn = Turn {
        sabotage,
        definition,
        saga,
        now,
        events: Vec::new(),
        emissions: Vec::new(),
        moves: Vec::new(),
        focus: (Definition::ROOT, Vec::new()),
        spent: Spent::default(),
        goes_on: false,
        too_large: None,
        illegal: None,
    };
    let taken = match input {
        Input::Start { input, starter } => turn.start(input, starter),
        Input::StartInLine {
            input,
            starter,
            line,
        } => turn.start_in_line(input, starter, line),
        Input::Listen(starter) => turn.listen(starter),
        Input::Supersede(successor) => turn.supersede(successor),
        Input::Reply(reply) => turn.reply(reply),
        Input::Returned(returned) => turn.returned(returned),
        Input::Sent {
            step,
            phase,
            attempt,
        } => turn.sent(&step, phase, attempt),
        Input::Unsent(steps) => turn.unsent(&steps),
        Input::Wake => turn.wake(),
        Input::GoOn if turn.saga.paused.is_none() && turn.go_on() => Ok(()),
        Input::GoOn => Err(Refusal::Settled),
        Input::Signal(signal) => turn.signal(signal),
        Input::SignalForSuccessor(signal) => turn.keep_for_successor(signal),
        Input::Operator(action) => turn.operate(action),
        Input::Parent(order) => turn.obey(order),
    };
    if taken.is_ok() {
        turn.walk();
        turn.leave_off();
    }
    turn.illegal.map_or(taken, |illegal| Err(illegal.into()))?;
    if let (Some(unstarted), Some(why)) = (unstarted, turn.too_large) {
        *turn.saga = unstarted;
        return Err(Refusal::TooLarge(why));
    }
    let wake_at = turn.saga.wake_at();
    Ok(Decision {
        events: turn.events,
        emissions: turn.emissions,
        wake_at,
    })
}

/// One decision in the making.
pub(super) struct Turn<'a> {
    pub(super) sabotage: Sabotage,
    pub(super) definition: &'a Definition,
    pub(super) saga: &'a mut Saga,
    pub(super) now: Timestamp,
    pub(super) events: Vec<Event>,
    pub(super) emissions: Vec<Emission>,
    /// Blocks still to enter or to leave in this decision, the next one last.
    pub(super) moves: Vec<Move>,
    /// The block that expressions are evaluated for, and its places in the loops around it.
    pub(super) focus: (BlockId, Vec<u32>),
    /// What the decision has cost so far.
    pub(super) spent: Spent,
    /// Whether it goes on where the one before it left off.
    pub(super) goes_on: bool,
    /// Why the saga would hold more than one saga may, if that is so.
    pub(super) too_large: Option<String>,
    /// What can't be, if it came to that: nothing more is decided then.
    pub(super) illegal: Option<IllegalEvent>,
}

impl Turn<'_> {
    pub(super) fn emit(&mut self, event: Event) {
        if self.illegal.is_some() {
            return;
        }
        match apply(self.saga, &event) {
            Ok(()) => self.events.push(event),
            Err(illegal) => self.illegal = Some(illegal),
        }
    }

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
    fn listen(&mut self, starter: Starter) -> Result<(), Refusal> {
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

    pub(super) fn reply(&mut self, reply: Reply) -> Result<(), Refusal> {
        if self.saga.paused.is_some() {
            self.expects(&reply.step, reply.phase)?;
            let reply = self.kept_if_possible(reply);
            self.emit(Event::Held { reply });
            return Ok(());
        }
        let Reply {
            step,
            phase,
            mut outcome,
            stated,
            body,
            mut reason,
        } = reply;
        let waiting = self.expects(&step, phase)?;
        if let Some(why) = self.unusable(&step, phase, (outcome, stated), &body) {
            (outcome, reason) = (Outcome::Failed, Some(why));
        }
        // A second "try again" while a retry is planned, or a person is asked, says nothing new.
        let in_flight = matches!(waiting, Waiting::Reply(_));
        if outcome == Outcome::Failed && !in_flight
            || outcome == Outcome::Rejected && waiting == Waiting::Person
        {
            return Err(Refusal::Settled);
        }
        if self.heed_time() && self.expects(&step, phase).is_err() {
            // The roll-back has given it up already.
            return Ok(());
        }
        let reason = reason.unwrap_or_else(|| "no reason given".to_owned());
        match outcome {
            Outcome::Succeeded => match self.saga.has_room(&body) {
                Err(why) if self.saga.keeps_reply(&step, phase) => self.no_room(&step, phase, why),
                _ => self.succeeded(step, phase, body),
            },
            Outcome::Rejected => self.rejected(&step, phase, &reason),
            Outcome::Failed => self.trouble(&step, phase, reason),
        }
        Ok(())
    }

    /// Whether an answer to this command can still change anything, and what the step waits for.
    pub(super) fn expects(&self, path: &StepPath, phase: Phase) -> Result<Waiting, Refusal> {
        let never = || Refusal::NeverAsked {
            step: path.clone(),
            phase,
        };
        let state = self.saga.steps.get(path).ok_or_else(never)?;
        if self.saga.forced.is_some() {
            return Err(Refusal::Settled);
        }
        let step = self.definition.step(&path.name).ok_or_else(never)?;
        let was_asked = match phase {
            Phase::Reserve | Phase::Action => {
                let forward = step.forward.as_ref().map(Forward::phase);
                forward == Some(phase) && state.status != StepStatus::Skipped
            }
            Phase::Confirm | Phase::Compensate => state.status == answered(phase),
        };
        let is_asked = state.status == asked(phase);
        if is_asked && state.waiting != Waiting::Nothing {
            Ok(state.waiting)
        } else if was_asked || is_asked {
            Err(Refusal::Settled)
        } else {
            Err(never())
        }
    }

    pub(super) fn succeeded(&mut self, path: StepPath, phase: Phase, reply: Arc<Value>) {
        self.emit(Event::Succeeded {
            step: path.clone(),
            phase,
            reply,
        });
        match (phase, self.saga.pass) {
            (Phase::Reserve | Phase::Action, Pass::Rollback) => self.undo(&path),
            (Phase::Confirm, Pass::Confirm) => self.confirmed_all(),
            _ => self.step_done(&path),
        }
    }

    fn rejected(&mut self, path: &StepPath, phase: Phase, reason: &str) {
        match phase {
            // Behind the pivot nothing may be refused either.
            Phase::Reserve | Phase::Action if self.saga.pass == Pass::Finish => {
                self.suspend(path, phase, format!("rejected: {reason}"));
            }
            Phase::Reserve | Phase::Action => {
                self.emit(Event::Rejected {
                    step: path.clone(),
                    reason: reason.to_owned(),
                });
                if self.saga.pass == Pass::Rollback || self.goes_on_without(path) {
                    self.step_done(path);
                } else {
                    self.roll_back(format!("{path} rejected: {reason}"));
                }
            }
            // Neither may be refused: what was promised can't be kept. A person must look.
            Phase::Confirm | Phase::Compensate => {
                self.suspend(path, phase, format!("rejected: {reason}"));
            }
        }
    }

    /// An attempt failed or was not answered: plan the next one, or give up.
    pub(super) fn trouble(&mut self, path: &StepPath, phase: Phase, reason: String) {
        let Some(step) = self.definition.step(&path.name) else {
            return;
        };
        let attempt = self.saga.steps.get(path).map_or(1, |state| state.attempt);
        let forward =
            matches!(phase, Phase::Reserve | Phase::Action) && self.saga.pass != Pass::Finish;
        let attempts = if forward {
            step.retry.attempts
        } else {
            step.suspend_after
        };
        let rolling_back = self.saga.pass == Pass::Rollback;
        if attempt < attempts && !(forward && rolling_back) {
            let at = self
                .now
                .after(backoff(&step.retry, self.saga.id, path, phase, attempt));
            self.emit(Event::RetryPlanned {
                step: path.clone(),
                phase,
                at,
                reason,
            });
        } else if forward {
            let summary = format!("{path} {phase}: {reason}, after {attempt} attempt(s)");
            self.give_up(path, reason);
            if !rolling_back {
                self.roll_back(summary);
            }
        } else {
            self.suspend(path, phase, format!("{reason}, after {attempt} attempts"));
        }
    }

    fn goes_on_without(&self, path: &StepPath) -> bool {
        self.definition
            .step(&path.name)
            .is_some_and(|step| step.on_reject == OnReject::Continue)
    }

    fn wake(&mut self) -> Result<(), Refusal> {
        if self.saga.paused.is_some() {
            return Err(Refusal::Settled);
        }
        let mut anything = self.turn_round_if_late();
        anything |= self.go_on();
        self.walk();
        while let Some((at, path)) = self.saga.timers.first().cloned()
            && at <= self.now
            && !self.is_full()
        {
            anything = true;
            self.timer_due(&path);
            self.walk();
        }
        if anything {
            Ok(())
        } else {
            Err(Refusal::Settled)
        }
    }

    fn timer_due(&mut self, path: &StepPath) {
        let Some(state) = self.saga.steps.get(path) else {
            return;
        };
        let (phase, attempt) = (state.phase, state.attempt);
        if matches!(state.waiting, Waiting::Signal(_) | Waiting::Sleep(_)) {
            self.waited(path);
        } else if matches!(state.waiting, Waiting::Retry(_)) {
            self.ask_next(path);
        } else if self.was_sent_late(path) {
            // It has all its time, from now on.
        } else if self.is_at_work(path, phase) {
            self.ask(path, phase, attempt, None);
        } else {
            let timeout = self
                .definition
                .step(&path.name)
                .map_or(std::time::Duration::ZERO, |step| step.timeout);
            self.trouble(path, phase, format!("no answer within {timeout:?}"));
        }
    }

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
