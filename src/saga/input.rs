//! What a saga can be told.

use std::sync::Arc;

use serde_json::Value;

use super::family::ParentOrder;
use super::incoming::{OperatorAction, Reply, Returned, Signal, Starter};
use super::line::{Line, Successor};
use crate::id::{Phase, StepPath};

/// Something that happened to a saga and calls for a decision.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// It was started. Only ever the first input.
    Start {
        /// What it works on; already checked against the definition's schema.
        input: Arc<Value>,
        /// Who wants to hear of it.
        starter: Option<Starter>,
    },
    /// It was started in the line of those that have had its key. Only ever the first input.
    StartInLine {
        /// As for `Start`.
        input: Arc<Value>,
        /// As for `Start`.
        starter: Option<Starter>,
        /// Its place.
        line: Line,
    },
    /// Another start with its key wants to replace it.
    Supersede(Successor),
    /// The same start again, by somebody who wants to hear how it ends.
    Listen(Starter),
    /// A participant answered.
    Reply(Reply),
    /// A command found no queue.
    Returned(Returned),
    /// A command may have been sent only now.
    Sent {
        /// The step that asked.
        step: StepPath,
        /// Which of its commands.
        phase: Phase,
        /// Which attempt of it.
        attempt: u32,
    },
    /// The commands of these steps were not sent yet although their answers are due. To be said before
    /// [`Input::Wake`], which takes what is due for unanswered.
    Unsent(Vec<StepPath>),
    /// Its `wake_at` has come (or a node looks early: then nothing is due and nothing happens).
    Wake,
    /// Go on where the last decision left off, and do nothing else: that is no matter of time.
    GoOn,
    /// Something from outside that a `wait` may be waiting for.
    Signal(Signal),
    /// The same, sent to whoever has its key, while its successor waits for that key.
    SignalForSuccessor(Signal),
    /// A person steps in.
    Operator(OperatorAction),
    /// The saga that runs this one wants something of it.
    Parent(ParentOrder),
}
