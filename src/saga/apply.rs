//! `apply`: how an event changes a saga. Nothing else does.

use std::sync::Arc;

use super::event::Event;
use super::expiry::expiry_of;
use super::family::Family;
use super::incoming::{OperatorAction, OperatorKind, Signal};
use super::pass::Pass;
use super::portion::Move;
use super::state::{Forced, Saga};
use super::step::{StepState, StepStatus, Waiting};
use super::transition::{IllegalEvent, next, next_block, next_pass};
use crate::id::{Phase, StepPath};

/// Changes the saga as the event says. Folding a journal with it rebuilds the saga.
///
/// # Errors
/// The event can't be where the saga stands. The saga is as before.
pub fn apply(saga: &mut Saga, event: &Event) -> Result<(), IllegalEvent> {
    let pass = next_pass(saga.pass, saga.forced.is_some(), event)?;
    if let Some(path) = event.step() {
        let known = saga.steps.get(path).map(|state| state.status);
        apply_to_step(saga, path, next(known, event)?, event)?;
    } else if let Some(at) = event.block() {
        let block = next_block(saga.blocks.get(at).copied(), event)?;
        saga.blocks.insert(at.clone(), block);
    } else {
        apply_to_saga(saga, event)?;
    }
    saga.pass = pass;
    Ok(())
}

fn apply_to_step(
    saga: &mut Saga,
    path: &StepPath,
    status: StepStatus,
    event: &Event,
) -> Result<(), IllegalEvent> {
    let cant = |why| IllegalEvent::new(event, why);
    let known = saga.steps.get(path);
    match event {
        Event::Asked { with, .. } => {
            let again = known.is_some_and(|state| state.status == status);
            if let Some(with) = with {
                let replaced = known.and_then(|state| state.with.as_ref());
                saga.held.replace(replaced.map(AsRef::as_ref), with);
            }
            saga.unconfirmed += u32::from(saga.pass == Pass::Confirm && !again);
        }
        Event::Succeeded { phase, reply, .. } => {
            let counted = u32::from(saga.pass == Pass::Confirm && *phase == Phase::Confirm);
            let left = saga.unconfirmed.checked_sub(counted);
            let is_kept = saga.keeps_reply(path, *phase);
            saga.unconfirmed = left.ok_or_else(|| cant("all that was reserved is confirmed"))?;
            if *phase == Phase::Reserve
                && let Ok(Some(at)) = expiry_of(reply)
            {
                saga.leases.insert((at, path.clone()));
            }
            if is_kept {
                saga.held.add(reply);
                saga.update(path, status, |state| state.reply = Some(Arc::clone(reply)));
            }
        }
        Event::Returned { certain: true, .. } if known.is_none_or(|it| it.deliverable == 0) => {
            return Err(cant("all that was sent has come back"));
        }
        Event::Received { id, .. } => {
            let kept = saga.signals.iter().position(|signal| signal.id == *id);
            let kept = kept.ok_or_else(|| cant("no such signal is kept"))?;
            let Signal { body, at, .. } = saga.signals.remove(kept);
            saga.update(path, status, |state| {
                state.reply = Some(body);
                state.signal_at = at;
            });
        }
        _ => {}
    }
    saga.update(path, status, |state| change(state, event));
    Ok(())
}

/// What an event says of a step, besides where it then stands.
fn change(state: &mut StepState, event: &Event) {
    match event {
        Event::Asked {
            phase,
            attempt,
            with,
            due,
            ..
        } => {
            if state.phase != *phase {
                state.deliverable = 0;
            }
            if state.returned_until.take().is_none() {
                state.returns = 0;
            }
            state.deliverable += 1;
            state.unsent_since = None;
            state.phase = *phase;
            state.attempt = *attempt;
            state.waiting = Waiting::Reply(*due);
            if let Some(with) = with {
                state.with = Some(Arc::clone(with));
            }
        }
        Event::Skipped { .. } => *state = StepState::new(StepStatus::Skipped),
        Event::Succeeded { .. } | Event::Received { .. } => {
            state.but_not.clear();
            state.settle(None);
        }
        Event::Rejected { reason, .. }
        | Event::NeverDelivered { reason, .. }
        | Event::OutcomeUnknown { reason, .. } => state.settle(Some(reason.clone())),
        // What went wrong while it waited still tells why it goes on without.
        Event::Elapsed { .. } => state.waiting = Waiting::Nothing,
        Event::RetryPlanned { at, reason, .. } => {
            state.waiting = Waiting::Retry(*at);
            state.returned_until = None;
            state.unsent_since = None;
            state.reason = Some(reason.clone());
        }
        Event::Returned {
            again,
            due,
            certain,
            reason,
            ..
        } => {
            state.deliverable -= u32::from(*certain);
            state.returns += 1;
            state.returned_until = Some(*due);
            state.unsent_since = None;
            state.waiting = Waiting::Retry(*again);
            state.reason = Some(reason.clone());
        }
        Event::Unsent { until, .. } => {
            if let (None, Waiting::Reply(due)) = (state.unsent_since, state.waiting) {
                state.unsent_since = Some(due);
            }
            state.waiting = Waiting::Reply(*until);
        }
        Event::SentLate { due, .. } => {
            state.unsent_since = None;
            state.waiting = Waiting::Reply(*due);
        }
        Event::Suspended { phase, reason, .. } => {
            state.phase = *phase;
            state.unsent_since = None;
            state.waiting = Waiting::Person;
            state.reason = Some(reason.clone());
        }
        Event::Resumed { .. } => {
            state.waiting = Waiting::Nothing;
            state.attempt = 0;
        }
        Event::Waiting {
            until,
            signal,
            but_not,
            ..
        } => {
            state.phase = Phase::Action;
            state.but_not.clone_from(but_not);
            state.waiting = match until {
                Some(until) if !signal => Waiting::Sleep(*until),
                until => Waiting::Signal(*until),
            };
        }
        Event::Unjudged { reason, .. } => state.reason = Some(reason.clone()),
        _ => {}
    }
}

fn apply_to_saga(saga: &mut Saga, event: &Event) -> Result<(), IllegalEvent> {
    let cant = |why| IllegalEvent::new(event, why);
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
        }
        Event::Listening(starter) => saga.listeners.push(starter.clone()),
        Event::InLine(line) => saga.line.clone_from(line),
        Event::Superseding(successor) => saga.line.follow(successor),
        Event::KeptForSuccessor(signal) => saga.line.kept.push(signal.clone()),
        Event::Signalled(signal) => {
            saga.held.add(&signal.body);
            saga.remember_signal(signal);
            saga.signals.push(signal.clone());
        }
        Event::Operated(action) => {
            if action.kind == OperatorKind::Pause && saga.paused.is_some() {
                return Err(cant("it is paused"));
            }
            apply_operated(saga, action);
        }
        Event::Held { reply } => {
            let held = saga.paused.as_mut();
            held.ok_or_else(|| cant("it is not paused"))?
                .push(reply.clone());
            saga.held.add(&reply.body);
        }
        Event::AnswerTaken => {
            let taken = saga.answers.pop_front();
            let taken = taken.ok_or_else(|| cant("no answer came while it was paused"))?;
            saga.held.remove(&taken.body);
        }
        Event::LeftOff(left_off) => {
            saga.left_off = Some(left_off.clone()).filter(|it| !it.moves.is_empty());
        }
        Event::ChildOf(parent) => {
            saga.family = Some(Family {
                parent: parent.clone(),
                asked: None,
                prepared: None,
            });
        }
        Event::ParentAsked { phase } => {
            let family = saga.family.as_mut();
            family.ok_or_else(|| cant("no saga runs it"))?.asked = Some(*phase);
        }
        Event::Prepared { output } => {
            let family = saga.family.as_mut();
            family.ok_or_else(|| cant("no saga runs it"))?.prepared = Some(Arc::clone(output));
        }
        Event::PivotPassed => saga.leases.clear(),
        Event::ReservationsConfirmed if saga.unconfirmed > 0 => {
            return Err(cant("not all that was reserved is confirmed"));
        }
        Event::RollbackStarted { reason } => {
            saga.leases.clear();
            turn_round(saga);
            saga.reason = Some(reason.clone());
        }
        Event::Completed {
            output,
            output_error,
            at,
        } => {
            saga.output = Some(Arc::clone(output));
            saga.output_error.clone_from(output_error);
            saga.ended_at = Some(*at);
            saga.left_off = None;
        }
        Event::Compensated { at } => {
            saga.ended_at = Some(*at);
            saga.left_off = None;
        }
        // About a step or a block.
        _ => {}
    }
    Ok(())
}

/// What was still to be entered or left is not any more.
fn turn_round(saga: &mut Saga) {
    if let Some(left_off) = &mut saga.left_off {
        left_off.moves.retain(Move::outlasts_turning);
    }
    saga.left_off.take_if(|left_off| left_off.moves.is_empty());
}

fn apply_operated(saga: &mut Saga, action: &OperatorAction) {
    saga.remember(&action.id);
    match &action.kind {
        OperatorKind::Pause => saga.paused = Some(Vec::new()),
        OperatorKind::Resume => saga
            .answers
            .extend(saga.paused.take().into_iter().flatten()),
        OperatorKind::ForceComplete | OperatorKind::ForceCompensated => {
            saga.forced = Some(Forced {
                by: action.by.clone(),
                why: action.why.clone(),
            });
            saga.timers.clear();
            saga.suspended.clear();
            saga.paused = None;
        }
        OperatorKind::Cancel | OperatorKind::Retry { .. } | OperatorKind::Skip { .. } => {}
    }
}
