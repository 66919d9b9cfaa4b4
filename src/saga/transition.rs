//! Which events can be, where a step, a counting block or the saga stands.
//!
//! The one place that knows: [`apply`](super::apply()) asks it before it changes anything, when an
//! event is decided and when a journal is folded. The table of steps stands in the module's
//! documentation ([`super`]). Where a saga stands, and what of it a step may go through there:
//!
//! * before the pivot steps are asked to reserve or act, and nothing is confirmed;
//! * past it they are confirmed, nothing is compensated and nothing fails for good;
//! * in the roll-back nothing new is begun; who was asked already is heard out, or asked again.

use std::fmt::Display;

use super::event::Event;
use super::pass::Pass;
use super::step::{BlockState, StepStatus};
use crate::id::Phase;

/// An event that can't be where it stands: a journal that says so is not one of ours, and a
/// decision that wants it is a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event `{event}` can't be: {why}")]
pub struct IllegalEvent {
    /// Its name, as in the journal, with its phase.
    pub event: String,
    /// Where that stands which it is about.
    pub why: String,
}

impl IllegalEvent {
    pub(super) fn new(event: &Event, why: impl Display) -> Self {
        let said = serde_json::to_value(event).unwrap_or_default();
        let words = [&said["event"], &said["phase"]].map(|word| word.as_str());
        Self {
            event: words.into_iter().flatten().collect::<Vec<_>>().join(" "),
            why: why.to_string(),
        }
    }
}

/// Where a step stands after an event about it; it stood at `status`, or had none yet.
///
/// # Errors
/// It can't be: a guess would be worse.
pub fn next(status: Option<StepStatus>, event: &Event) -> Result<StepStatus, IllegalEvent> {
    use StepStatus::{
        Compensating, Confirming, Done, Rejected, Reserving, Skipped, Undelivered, Unknown, Waiting,
    };
    Ok(match (event, status) {
        // What could not be computed behind the pivot can turn out not to be wanted.
        (Event::Skipped { .. }, None | Some(Reserving | Confirming)) => Skipped,
        (Event::Asked { phase, .. }, before) if can_be_asked(*phase, before) => asked(*phase),
        (Event::Succeeded { phase, .. }, Some(at)) if at == asked(*phase) => answered(*phase),
        (
            Event::RetryPlanned { phase, .. }
            | Event::Returned { phase, .. }
            | Event::Unsent { phase, .. }
            | Event::SentLate { phase, .. }
            | Event::Suspended { phase, .. },
            Some(at),
        ) if at == asked(*phase) => at,
        // Never asked: its payload can't be computed.
        (Event::Suspended { phase, .. }, None) if *phase != Phase::Compensate => asked(*phase),
        (Event::Resumed { .. }, Some(at @ (Reserving | Confirming | Compensating))) => at,
        (Event::Rejected { .. }, Some(Reserving)) => Rejected,
        (Event::NeverDelivered { .. }, Some(Reserving)) => Undelivered,
        (Event::OutcomeUnknown { .. }, Some(Reserving)) => Unknown,
        // A `wait` behind the pivot whose time could not be computed was suspended before it began.
        (Event::Waiting { .. }, None | Some(Reserving))
        | (Event::Unjudged { .. }, Some(Waiting)) => Waiting,
        (Event::Received { .. } | Event::Elapsed { .. }, Some(Waiting)) => Done,
        (_, status) => {
            let step = event.step().map_or_else(String::new, ToString::to_string);
            let stands = status.map_or("not reached yet", StepStatus::as_str);
            return Err(IllegalEvent::new(
                event,
                format!("step `{step}` is {stands}"),
            ));
        }
    })
}

/// Whether a command can be sent: for the first time, or once more.
fn can_be_asked(phase: Phase, status: Option<StepStatus>) -> bool {
    use StepStatus::{Reserved, Unknown};
    match status {
        Some(at) if at == asked(phase) => true,
        None => phase != Phase::Compensate,
        Some(Reserved) => matches!(phase, Phase::Confirm | Phase::Compensate),
        Some(Unknown) => phase == Phase::Compensate,
        Some(_) => false,
    }
}

/// Where a step stands while this command is not answered.
pub(super) fn asked(phase: Phase) -> StepStatus {
    match phase {
        Phase::Reserve | Phase::Action => StepStatus::Reserving,
        Phase::Confirm => StepStatus::Confirming,
        Phase::Compensate => StepStatus::Compensating,
    }
}

/// Where a step stands once this command was answered with yes.
pub(super) fn answered(phase: Phase) -> StepStatus {
    match phase {
        Phase::Reserve | Phase::Action => StepStatus::Reserved,
        Phase::Confirm => StepStatus::Confirmed,
        Phase::Compensate => StepStatus::Compensated,
    }
}

/// What a counting block has counted after an event about it; it was not entered before if it is
/// `None`.
pub(super) fn next_block(
    block: Option<BlockState>,
    event: &Event,
) -> Result<BlockState, IllegalEvent> {
    let why = match (event, block) {
        (Event::BlockSkipped { .. }, None) => return Ok(BlockState::left_out()),
        (Event::BlockSkipped { .. }, Some(_)) => "the block was entered before",
        (_, Some(BlockState { skipped: true, .. })) => "the block is skipped",
        (
            Event::Opened {
                children,
                sequential,
                ..
            },
            _,
        ) => return Ok(BlockState::opened(*children, *sequential)),
        (_, None) => "the block was never entered",
        (Event::NextItem { .. }, Some(block)) if block.begun < block.children => {
            let begun = block.begun + 1;
            return Ok(BlockState { begun, ..block });
        }
        (Event::NextItem { .. }, Some(_)) => "all items of the block are begun",
        (_, Some(block)) if block.remaining > 0 => {
            let remaining = block.remaining - 1;
            return Ok(BlockState { remaining, ..block });
        }
        _ => "all children of the block are done",
    };
    Err(IllegalEvent::new(event, why))
}

/// Which way the saga goes after an event. A person can force its end from anywhere.
pub(super) fn next_pass(pass: Pass, forced: bool, event: &Event) -> Result<Pass, IllegalEvent> {
    use Pass::{Compensated, Completed, Confirm, Finish, Forward, New, Prepared, Rollback};
    let ended = matches!(pass, Completed | Compensated);
    let under_way = pass != New && !ended;
    let can_be = match event {
        Event::Started { .. } | Event::ChildOf(_) | Event::InLine(_) => pass == New,
        Event::Superseding(_) => pass != New,
        Event::KeptForSuccessor(_) => matches!(pass, Forward | Rollback),
        Event::ParentAsked { .. } => matches!(pass, Forward | Prepared | Rollback),
        Event::Prepared { .. } => pass == Forward,
        Event::PivotPassed | Event::RollbackStarted { .. } => matches!(pass, Forward | Prepared),
        Event::ReservationsConfirmed => pass == Confirm,
        Event::Completed { .. } => pass == Finish || forced && under_way,
        Event::Compensated { .. } => pass == Rollback || forced && under_way,
        Event::Signalled(_) => under_way && pass != Rollback,
        Event::Asked { phase, .. } => match phase {
            Phase::Reserve | Phase::Action => matches!(pass, Forward | Finish | Rollback),
            Phase::Confirm => matches!(pass, Confirm | Finish),
            Phase::Compensate => pass == Rollback,
        },
        Event::Rejected { .. } | Event::NeverDelivered { .. } | Event::OutcomeUnknown { .. } => {
            matches!(pass, Forward | Rollback)
        }
        Event::Opened { .. } | Event::Advanced { .. } => {
            matches!(pass, Forward | Finish | Rollback)
        }
        Event::Skipped { .. }
        | Event::BlockSkipped { .. }
        | Event::NextItem { .. }
        | Event::Waiting { .. } => matches!(pass, Forward | Finish),
        _ => under_way,
    };
    if !can_be {
        return Err(IllegalEvent::new(event, pass.as_words()));
    }
    Ok(match event {
        Event::Started { .. } => Forward,
        Event::Prepared { .. } => Prepared,
        Event::PivotPassed => Confirm,
        Event::ReservationsConfirmed => Finish,
        Event::RollbackStarted { .. } => Rollback,
        Event::Completed { .. } => Completed,
        Event::Compensated { .. } => Compensated,
        _ => pass,
    })
}
