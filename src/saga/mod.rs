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

mod apply;
mod child;
mod decide;
mod event;
pub mod format;
pub mod journal;
mod loops;
mod operator;
mod portion;
mod reckon;
mod refusal;
mod replies;
mod retry;
mod returned;
mod sabotage;
mod sends;
mod state;
mod status;
mod succession;
#[cfg(test)]
mod tests;
mod too_late;
mod waits;
mod walk;

pub use apply::apply;
pub use child::{ChildAnswer, Family, Parent, ParentOrder, answer_to_parent};
pub use decide::{Flaw, Sabotage, decide, decide_sabotaged};
pub use event::{
    BlockPath, Decision, Event, Input, OperatorAction, OperatorKind, Refusal, Reply, Send, Signal,
    Starter,
};
pub use portion::{Held, LeftOff, Move};
pub use returned::Returned;
pub use sends::end_of;
pub use state::{
    BlockState, Forced, LEASE_MARGIN, LISTENERS_MAX, Pass, SEEN_IDS_MAX, SIGNALS_KEPT_MAX, Saga,
    StepState, StepStatus, Waiting,
};
pub use status::Status;
pub use succession::{Line, Successor, holdup};
