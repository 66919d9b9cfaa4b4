//! THE CORE: what a saga does next, and nothing else.
//!
//! [`decide()`] takes a saga and an input and says which events happened and what to send;
//! [`apply()`] folds an event into the state. Neither knows I/O, clock, randomness or logging: time
//! is an argument, jitter is hashed, ids are derived, so the same inputs give the same bytes, in
//! production, in the simulator and when a journal is replayed.
//!
//! Invariants:
//! * A saga ends `completed` or `compensated`; what ended does not change again.
//! * Nothing is confirmed before the pivot; nothing is compensated after it.
//! * Roll-back covers every step whose forward command was sent and not rejected: answered with
//!   yes, or with an outcome nobody knows. It goes in reverse order of the definition.
//! * A step that is waiting for its first answer when the roll-back comes is heard out (until its
//!   time-out) before it is compensated, so a participant is never told to undo what it is doing.
//! * A saga that another one runs passes its pivot only when that one says so, and once it has said
//!   that it is prepared it is undone only when that one says so.
//! * Every decision appends at least one event; an input that changes nothing is a [`Refusal`].
//!
//! `decide` takes the saga by `&mut` and applies each event as it emits it, because the next event
//! depends on it; a saga of ten thousand steps is not copied at each reply. A refused input leaves
//! the saga untouched. A caller whose commit fails throws the saga away and loads it again.
//!
//! # What can be
//!
//! Where a step stands decides what can happen to it ([`transition::next`]). A dot is an
//! [`IllegalEvent`]: the decision is given up, or the journal refused with the place. So is whatever
//! is about another command than the one that was sent (*yes*, *again*, *suspended*).
//!
//! | status \ event | ask forward | ask confirm | ask compensate | yes | no | undelivered | unknown | again | suspended | resumed | skipped | waits | unjudged | over |
//! | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
//! | none | reserving | confirming | · | · | · | · | · | · | its command's | · | skipped | waiting | · | · |
//! | reserving | reserving | · | · | reserved | rejected | undelivered | unknown | reserving | reserving | reserving | skipped | waiting | · | · |
//! | reserved | · | confirming | compensating | · | · | · | · | · | · | · | · | · | · | · |
//! | unknown | · | · | compensating | · | · | · | · | · | · | · | · | · | · | · |
//! | confirming | · | confirming | · | confirmed | · | · | · | confirming | confirming | confirming | skipped | · | · | · |
//! | compensating | · | · | compensating | compensated | · | · | · | compensating | compensating | compensating | · | · | · | · |
//! | waiting | · | · | · | · | · | · | · | · | · | · | · | · | waiting | done |
//! | skipped | · | · | · | · | · | · | · | · | · | · | · | · | · | · |
//! | rejected | · | · | · | · | · | · | · | · | · | · | · | · | · | · |
//! | undelivered | · | · | · | · | · | · | · | · | · | · | · | · | · | · |
//! | confirmed | · | · | · | · | · | · | · | · | · | · | · | · | · | · |
//! | compensated | · | · | · | · | · | · | · | · | · | · | · | · | · | · |
//! | done | · | · | · | · | · | · | · | · | · | · | · | · | · | · |
//!
//! *forward* is `reserve` or `action`; *again* is a retry that is planned, or a command that found no
//! queue, or was still to be sent when its answer was due, or was sent that late; *over* is a signal that is taken, or a time that has come. A step that was not reached can't be
//! suspended over a compensation. What was suspended behind the pivot before it began can turn out to be
//! skipped, or to be a `wait`. Which event can be in which pass: [`transition`], with diagrams in
//! `docs/state-machine.md`.

// Nouns, each built of others, in no circle.
mod emission;
mod event;
mod family;
mod held;
mod incoming;
mod input;
mod line;
mod pass;
mod portion;
mod state;
mod status;
mod step;
mod trouble;

// What can be, and what follows.
mod apply;
mod decide;
mod expiry;
mod refusal;
mod sabotage;
pub mod transition;

// How it is written down.
pub mod format;
pub mod journal;

#[cfg(test)]
mod tests;

pub use apply::apply;
pub use decide::{NO_ANSWER, answer_to_parent, decide, decide_sabotaged, end_of};
pub use emission::{Decision, Emission};
pub use event::Event;
pub use family::{ChildAnswer, Family, Parent, ParentOrder};
pub use held::Held;
pub use incoming::{OperatorAction, OperatorKind, Reply, Returned, Signal, Starter};
pub use input::Input;
pub use line::{Line, Successor, holdup};
pub use pass::Pass;
pub use portion::{LeftOff, Move};
pub use refusal::Refusal;
pub use sabotage::{PlantedBug, Sabotage};
pub use state::{
    Forced, LEASE_MARGIN, LISTENERS_MAX, Overdue, SEEN_IDS_MAX, SIGNALS_KEPT_MAX, Saga,
};
pub use status::Status;
pub use step::{BlockPath, BlockState, StepState, StepStatus, Waiting};
pub use transition::IllegalEvent;
pub use trouble::{Obstacle, StepPhase};
