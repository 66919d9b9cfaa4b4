//! `decide`: one input in, events and emissions out. One file a verb.

mod child;
mod loops;
mod operator;
mod passes;
mod portion;
mod reckon;
mod replies;
mod reply;
mod retry;
mod returned;
mod send;
mod signal;
mod start;
mod succession;
mod too_late;
mod turn;
mod unsent;
mod wake;
mod walk;

pub use wake::NO_ANSWER;

use self::turn::{Spent, Turn};
use crate::definition::Definition;
use crate::id::Timestamp;
use crate::saga::emission::Decision;
use crate::saga::input::Input;
use crate::saga::pass::Pass;
use crate::saga::refusal::Refusal;
use crate::saga::sabotage::Sabotage;
use crate::saga::state::Saga;

pub use self::child::answer_to_parent;
pub use self::send::end_of;

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
