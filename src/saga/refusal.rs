//! Why an input changes nothing.
//!
//! Separate from the events because a refusal is no event: nothing is recorded of it.

use std::borrow::Cow;

use super::transition::IllegalEvent;
use crate::id::{Phase, StepPath};

/// Why an input changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A duplicate, or an answer to a question that has been settled otherwise: no-op.
    #[error("nothing is waiting for this any more")]
    Settled,
    /// An answer to a question that was never asked: someone else's mistake.
    #[error("step `{step}` of this saga was never asked to {phase}")]
    NeverAsked {
        /// The step.
        step: StepPath,
        /// The phase.
        phase: Phase,
    },
    /// A signal or a person's action for a saga that has ended.
    #[error("this saga has ended")]
    Ended,
    /// A signal for a saga that is rolled back: no `wait` of it will come.
    #[error("this saga is being rolled back: {0}")]
    RollingBack(String),
    /// A signal that no `wait` of the saga's definition is about.
    #[error("no `wait` of this saga is for a signal called `{0}`")]
    NoSuchSignal(String),
    /// A signal with an id that was seen before, and another name or payload.
    #[error(
        "a signal with the id `{0}` came before, and said something else; if this is another signal, give it an id of its own"
    )]
    OtherSignal(String),
    /// More signals than a saga keeps.
    #[error("this saga keeps as many signals as it may; nothing waits for them")]
    TooManySignals,
    /// A person's action that makes no sense where the saga stands.
    #[error("that is not possible: {0}")]
    NotPossible(Cow<'static, str>),
    /// A start of a saga that would hold more than one saga may.
    #[error("{0}")]
    TooLarge(String),
    /// What follows from the input can't be: a bug, or a journal that is not ours. Unlike after any
    /// other refusal, the saga may be changed, and is to be thrown away.
    #[error(transparent)]
    Illegal(#[from] IllegalEvent),
    /// A start for a saga that has started.
    #[error("this saga has started already")]
    AlreadyStarted,
}
