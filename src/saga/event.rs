//! What happened to a saga: the journal's words.
//!
//! They are stored for as long as the saga is, so a field may be added with a default, but never
//! change its meaning.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::family::Parent;
use super::incoming::{OperatorAction, Reply, Signal, Starter};
use super::line::{Line, Successor};
use super::portion::LeftOff;
use super::step::BlockPath;
use crate::id::{Phase, StepPath, Timestamp};

/// One fact in a saga's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The saga began.
    Started {
        /// The input.
        input: Arc<Value>,
        /// When.
        at: Timestamp,
        /// Past it, and before the pivot, the saga is rolled back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
        /// Who wants to hear of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        starter: Option<Starter>,
    },
    /// It has a place in the line of those that have had its key; comes before `Started`.
    InLine(Line),
    /// Another start with its key will replace it once it has ended.
    Superseding(Successor),
    /// Somebody who wanted the same saga started wants to hear how it ends.
    Listening(Starter),
    /// A signal came that its successor will be told once it has started.
    KeptForSuccessor(Signal),
    /// A command was sent.
    Asked {
        /// The step.
        step: StepPath,
        /// Which command.
        phase: Phase,
        /// From 1, counted anew in each phase.
        attempt: u32,
        /// The payload, when it was computed for this command.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "crate::saga::step::present"
        )]
        with: Option<Arc<Value>>,
        /// When the answer is overdue.
        due: Timestamp,
    },
    /// A `when` was false for a step.
    Skipped {
        /// The step.
        step: StepPath,
    },
    /// A `when` was false for a block.
    BlockSkipped {
        /// The block.
        at: BlockPath,
    },
    /// A counting block was entered.
    Opened {
        /// The block.
        at: BlockPath,
        /// How many children it has.
        children: u32,
        /// Whether they are entered one after the other, the first one now.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        sequential: bool,
    },
    /// The next child of a sequential block was entered.
    NextItem {
        /// The block.
        at: BlockPath,
    },
    /// One child of a counting block is done.
    Advanced {
        /// The block.
        at: BlockPath,
    },
    /// A command was answered with yes.
    Succeeded {
        /// The step.
        step: StepPath,
        /// Which command.
        phase: Phase,
        /// The answer.
        reply: Arc<Value>,
    },
    /// A `reserve` or `action` was answered with a business no.
    Rejected {
        /// The step.
        step: StepPath,
        /// The participant's words.
        reason: String,
    },
    /// An attempt failed or timed out; there will be another.
    RetryPlanned {
        /// The step.
        step: StepPath,
        /// Which command.
        phase: Phase,
        /// When.
        at: Timestamp,
        /// What went wrong.
        reason: String,
    },
    /// A command found no queue; it is sent again, or its attempt has failed.
    Returned {
        /// The step.
        step: StepPath,
        /// Which command.
        phase: Phase,
        /// When it is sent again.
        again: Timestamp,
        /// When the attempt's time is up.
        due: Timestamp,
        /// Whether it was certainly not delivered.
        certain: bool,
        /// Where nobody listens.
        reason: String,
    },
    /// Its answer is due, and the command was not sent yet: it is waited for.
    Unsent {
        /// The step.
        step: StepPath,
        /// Which command.
        phase: Phase,
        /// When it is looked again.
        until: Timestamp,
    },
    /// A command that was unsent when its answer was due has been sent.
    SentLate {
        /// The step.
        step: StepPath,
        /// Which command.
        phase: Phase,
        /// When its answer is due now.
        due: Timestamp,
    },
    /// No command for this `reserve` or `action` found a queue: it was not done.
    NeverDelivered {
        /// The step.
        step: StepPath,
        /// What went wrong.
        reason: String,
    },
    /// Nobody knows whether a `reserve` or `action` was done; it will be compensated.
    OutcomeUnknown {
        /// The step.
        step: StepPath,
        /// What went wrong.
        reason: String,
    },
    /// A `confirm` or `compensate` can't be brought to an end without a person.
    Suspended {
        /// The step.
        step: StepPath,
        /// Which command.
        phase: Phase,
        /// What went wrong.
        reason: String,
    },
    /// A suspended step is tried again.
    Resumed {
        /// The step.
        step: StepPath,
        /// Who wanted it.
        by: String,
        /// Why.
        why: String,
    },
    /// A `wait` or `sleep` began.
    Waiting {
        /// The block.
        step: StepPath,
        /// Until when, at most; for a `sleep`, exactly.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// Whether a signal ends it.
        signal: bool,
        /// Ids of signals that were kept when it began and do not count for it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        but_not: Vec<String>,
    },
    /// A signal came, and is kept until a `wait` takes it.
    Signalled(Signal),
    /// A `wait` took a signal.
    Received {
        /// The block.
        step: StepPath,
        /// The signal's id.
        id: String,
    },
    /// A `wait` could not tell whether a signal is the one that it waits for: its `match` failed. The
    /// signal is kept.
    Unjudged {
        /// The block.
        step: StepPath,
        /// The signal's id.
        id: String,
        /// What went wrong.
        reason: String,
    },
    /// A `sleep` is over, or a `wait` that goes on without its signal.
    Elapsed {
        /// The block.
        step: StepPath,
    },
    /// A person stepped in; what follows from it are the next events.
    Operated(OperatorAction),
    /// An answer came while the saga was paused.
    Held {
        /// The answer.
        reply: Reply,
    },
    /// The oldest of those answers is taken.
    AnswerTaken,
    /// The decision had no room for the rest of the walk; the next one goes on with it. Without
    /// moves: nothing is left.
    LeftOff(LeftOff),
    /// It is run by another saga, as a step of that one.
    ChildOf(Parent),
    /// The saga that runs it asked for more than that it be there.
    ParentAsked {
        /// `confirm` or `compensate`.
        phase: Phase,
    },
    /// It stands before its pivot, and will pass it or be undone as its parent says.
    Prepared {
        /// The definition's `output`, computed so far.
        output: Arc<Value>,
    },
    /// The point of no return: from here on the saga is only driven forward.
    PivotPassed,
    /// All that was reserved is confirmed; the confirm-only steps follow.
    ReservationsConfirmed,
    /// From here on everything is undone.
    RollbackStarted {
        /// Why.
        reason: String,
    },
    /// The end: all done.
    Completed {
        /// The definition's `output`, computed.
        output: Arc<Value>,
        /// Why it could not be; `output` is null then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output_error: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// The end: all undone.
    Compensated {
        /// When.
        at: Timestamp,
    },
}

impl Event {
    /// The step that it is about, if it is about one.
    pub(super) fn step(&self) -> Option<&StepPath> {
        match self {
            Self::Asked { step, .. }
            | Self::Skipped { step }
            | Self::Succeeded { step, .. }
            | Self::Rejected { step, .. }
            | Self::RetryPlanned { step, .. }
            | Self::Returned { step, .. }
            | Self::Unsent { step, .. }
            | Self::SentLate { step, .. }
            | Self::NeverDelivered { step, .. }
            | Self::OutcomeUnknown { step, .. }
            | Self::Suspended { step, .. }
            | Self::Resumed { step, .. }
            | Self::Waiting { step, .. }
            | Self::Received { step, .. }
            | Self::Unjudged { step, .. }
            | Self::Elapsed { step } => Some(step),
            _ => None,
        }
    }

    /// The counting block that it is about, if it is about one.
    pub(super) fn block(&self) -> Option<&BlockPath> {
        match self {
            Self::BlockSkipped { at }
            | Self::Opened { at, .. }
            | Self::NextItem { at }
            | Self::Advanced { at } => Some(at),
            _ => None,
        }
    }
}
