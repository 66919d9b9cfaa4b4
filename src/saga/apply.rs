//! `apply`: how an event changes a saga. Nothing else does.

use std::sync::Arc;

use serde_json::Value;

use super::child::apply_child;
use super::event::{Event, OperatorAction, OperatorKind};
use super::portion::Move;
use super::state::{BlockState, Forced, Pass, Saga, StepState, StepStatus, Waiting};
use super::too_late::expiry_of;
use crate::id::{Phase, StepPath, Timestamp};

/// Changes the saga as the event says. Folding a journal with it rebuilds the saga.
#[allow(clippy::too_many_lines)] // one short arm an event; a reader looks for one of them
pub fn apply(saga: &mut Saga, event: &Event) {
    match event {
        Event::Started {
            input,
            at,
            deadline,
            starter,
        } => {
            saga.held.add(input);
            saga.input = Arc::clone(input);
            saga.facts.started_at = *at;
            saga.deadline = *deadline;
            saga.starter.clone_from(starter);
            saga.pass = Pass::Forward;
        }
        Event::Listening(starter) => saga.listeners.push(starter.clone()),
        Event::InLine(line) => saga.line.clone_from(line),
        Event::Superseding(successor) => saga.line.follow(successor),
        Event::KeptForSuccessor(signal) => saga.line.kept.push(signal.clone()),
        Event::Asked {
            step,
            phase,
            attempt,
            with,
            due,
        } => {
            apply_asked(saga, step, *phase, *attempt, with.as_ref(), *due);
        }
        Event::Skipped { step } => {
            let state = StepState {
                status: StepStatus::Skipped,
                ..StepState::asked(Phase::Confirm, 0, Waiting::Nothing)
            };
            saga.steps.insert(step.clone(), state);
        }
        Event::BlockSkipped { at } => {
            let skipped = BlockState {
                children: 0,
                remaining: 0,
                begun: 0,
                skipped: true,
            };
            saga.blocks.insert(at.clone(), skipped);
        }
        Event::Opened {
            at,
            children,
            sequential,
        } => {
            let open = BlockState {
                children: *children,
                remaining: *children,
                begun: if *sequential {
                    (*children).min(1)
                } else {
                    *children
                },
                skipped: false,
            };
            saga.blocks.insert(at.clone(), open);
        }
        Event::NextItem { at } => {
            if let Some(block) = saga.blocks.get_mut(at) {
                block.begun += 1;
            }
        }
        Event::Advanced { at } => {
            if let Some(block) = saga.blocks.get_mut(at) {
                block.remaining = block.remaining.saturating_sub(1);
            }
        }
        Event::Succeeded { step, phase, reply } => apply_succeeded(saga, step, *phase, reply),
        Event::Rejected { step, reason } => saga.update(step, |state| {
            state.settle(StepStatus::Rejected, Some(reason.clone()));
        }),
        Event::RetryPlanned {
            step, at, reason, ..
        } => saga.update(step, |state| {
            state.waiting = Waiting::Retry(*at);
            state.returned_until = None;
            state.reason = Some(reason.clone());
        }),
        Event::Returned {
            step,
            again,
            due,
            certain,
            reason,
            ..
        } => saga.update(step, |state| {
            state.deliverable = state.deliverable.saturating_sub(u32::from(*certain));
            state.returns += 1;
            state.returned_until = Some(*due);
            state.waiting = Waiting::Retry(*again);
            state.reason = Some(reason.clone());
        }),
        Event::NeverDelivered { step, reason } => saga.update(step, |state| {
            state.settle(StepStatus::Undelivered, Some(reason.clone()));
        }),
        Event::OutcomeUnknown { step, reason } => saga.update(step, |state| {
            state.settle(StepStatus::Unknown, Some(reason.clone()));
        }),
        Event::Suspended {
            step,
            phase,
            reason,
        } => apply_suspended(saga, step, *phase, reason),
        Event::Resumed { step, .. } => saga.update(step, |state| {
            state.waiting = Waiting::Nothing;
            state.attempt = 0;
        }),
        Event::Waiting {
            step,
            until,
            signal,
            but_not,
        } => apply_waiting(saga, step, *until, *signal, but_not),
        Event::Signalled(signal) => {
            saga.held.add(&signal.body);
            saga.remember_signal(signal);
            saga.signals.push(signal.clone());
        }
        Event::Received { step, id } => {
            let kept = saga.signals.iter().position(|signal| signal.id == *id);
            let signal = kept.map(|at| saga.signals.remove(at));
            saga.update(step, |state| {
                state.signal_at = signal.as_ref().and_then(|signal| signal.at);
                state.reply = signal.map(|signal| signal.body);
                state.but_not.clear();
                state.settle(StepStatus::Done, None);
            });
        }
        Event::Unjudged { step, reason, .. } => saga.update(step, |state| {
            state.reason = Some(reason.clone());
        }),
        // What went wrong while it waited still tells why it goes on without.
        Event::Elapsed { step } => saga.update(step, |state| {
            let reason = state.reason.take();
            state.settle(StepStatus::Done, reason);
        }),
        Event::Operated(action) => apply_operated(saga, action),
        Event::Held { reply } => {
            if let Some(held) = &mut saga.paused {
                saga.held.add(&reply.body);
                held.push(reply.clone());
            }
        }
        Event::AnswerTaken => {
            if let Some(taken) = saga.answers.pop_front() {
                saga.held.remove(&taken.body);
            }
        }
        Event::LeftOff(left_off) => {
            saga.left_off = Some(left_off.clone()).filter(|it| !it.moves.is_empty());
        }
        Event::ChildOf(_) | Event::ParentAsked { .. } | Event::Prepared { .. } => {
            apply_child(saga, event);
        }
        Event::PivotPassed => {
            saga.pass = Pass::Confirm;
            saga.leases.clear();
        }
        Event::ReservationsConfirmed => saga.pass = Pass::Finish,
        Event::RollbackStarted { reason } => {
            saga.pass = Pass::Rollback;
            saga.leases.clear();
            turn_round(saga);
            saga.reason = Some(reason.clone());
        }
        Event::Completed {
            output,
            output_error,
            at,
        } => {
            saga.pass = Pass::Completed;
            saga.output = Some(Arc::clone(output));
            saga.output_error.clone_from(output_error);
            saga.ended_at = Some(*at);
            saga.left_off = None;
        }
        Event::Compensated { at } => {
            saga.pass = Pass::Compensated;
            saga.ended_at = Some(*at);
            saga.left_off = None;
        }
    }
}

/// What was still to be entered or left is not any more.
fn turn_round(saga: &mut Saga) {
    if let Some(left_off) = &mut saga.left_off {
        left_off.moves.retain(Move::outlasts_turning);
    }
    saga.left_off.take_if(|left_off| left_off.moves.is_empty());
}

impl StepState {
    fn asked(phase: Phase, attempt: u32, waiting: Waiting) -> Self {
        Self {
            status: StepStatus::Reserving,
            phase,
            attempt,
            waiting,
            with: None,
            reply: None,
            reason: None,
            deliverable: 0,
            returns: 0,
            returned_until: None,
            but_not: Vec::new(),
            signal_at: None,
        }
    }

    fn settle(&mut self, status: StepStatus, reason: Option<String>) {
        self.status = status;
        self.reason = reason;
        self.waiting = Waiting::Nothing;
    }
}

fn apply_asked(
    saga: &mut Saga,
    step: &StepPath,
    phase: Phase,
    attempt: u32,
    with: Option<&Arc<Value>>,
    due: Timestamp,
) {
    if saga.pass == Pass::Confirm
        && saga
            .steps
            .get(step)
            .is_some_and(|state| state.status == StepStatus::Reserved)
    {
        saga.unconfirmed += 1;
    }
    let new = StepState::asked(phase, attempt, Waiting::Nothing);
    let state = saga.steps.entry(step.clone()).or_insert(new);
    if let Some(with) = with {
        saga.held.add(with);
        if let Some(replaced) = &state.with {
            saga.held.remove(replaced);
        }
    }
    saga.update(step, |state| {
        state.status = match phase {
            Phase::Reserve | Phase::Action => StepStatus::Reserving,
            Phase::Confirm => StepStatus::Confirming,
            Phase::Compensate => StepStatus::Compensating,
        };
        if state.phase != phase {
            state.deliverable = 0;
        }
        if state.returned_until.is_none() {
            state.returns = 0;
        }
        state.deliverable += 1;
        state.returned_until = None;
        state.phase = phase;
        state.attempt = attempt;
        state.waiting = Waiting::Reply(due);
        if let Some(with) = with {
            state.with = Some(Arc::clone(with));
        }
    });
}

fn apply_waiting(
    saga: &mut Saga,
    step: &StepPath,
    until: Option<Timestamp>,
    signal: bool,
    but_not: &[String],
) {
    let new = StepState::asked(Phase::Action, 0, Waiting::Nothing);
    saga.steps.entry(step.clone()).or_insert(new);
    saga.update(step, |state| {
        state.status = StepStatus::Waiting;
        state.but_not = but_not.to_vec();
        state.waiting = match until {
            Some(until) if !signal => Waiting::Sleep(until),
            until => Waiting::Signal(until),
        };
    });
}

fn apply_operated(saga: &mut Saga, action: &OperatorAction) {
    saga.remember(&action.id);
    let forced = || Forced {
        by: action.by.clone(),
        why: action.why.clone(),
    };
    match &action.kind {
        OperatorKind::Pause => saga.paused = Some(Vec::new()),
        OperatorKind::Resume => saga
            .answers
            .extend(saga.paused.take().into_iter().flatten()),
        OperatorKind::ForceComplete | OperatorKind::ForceCompensated => {
            saga.forced = Some(forced());
            saga.timers.clear();
            saga.suspended.clear();
            saga.paused = None;
        }
        OperatorKind::Cancel | OperatorKind::Retry { .. } | OperatorKind::Skip { .. } => {}
    }
}

fn apply_succeeded(saga: &mut Saga, step: &StepPath, phase: Phase, reply: &Arc<Value>) {
    if saga.pass == Pass::Confirm && phase == Phase::Confirm {
        saga.unconfirmed = saga.unconfirmed.saturating_sub(1);
    }
    if matches!(phase, Phase::Reserve)
        && let Ok(Some(at)) = expiry_of(reply)
    {
        saga.leases.insert((at, step.clone()));
    }
    let mut is_kept = false;
    saga.update(step, |state| {
        let status = match phase {
            Phase::Reserve | Phase::Action => StepStatus::Reserved,
            Phase::Confirm => StepStatus::Confirmed,
            Phase::Compensate => StepStatus::Compensated,
        };
        // Later steps and the output speak of the reservation; a confirm-only step has just this.
        if status == StepStatus::Reserved || state.reply.is_none() && phase == Phase::Confirm {
            state.reply = Some(Arc::clone(reply));
            is_kept = true;
        }
        state.settle(status, None);
    });
    if is_kept {
        saga.held.add(reply);
    }
}

fn apply_suspended(saga: &mut Saga, step: &StepPath, phase: Phase, reason: &str) {
    // A confirm-only step whose payload can't be computed is suspended before it was ever asked.
    let new = StepState::asked(phase, 0, Waiting::Nothing);
    saga.steps.entry(step.clone()).or_insert(new);
    saga.update(step, |state| {
        if phase == Phase::Confirm {
            state.status = StepStatus::Confirming;
        }
        state.phase = phase;
        state.waiting = Waiting::Person;
        state.reason = Some(reason.to_owned());
    });
    saga.suspended.insert(step.clone());
}
