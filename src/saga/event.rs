//! What goes into a saga (inputs), what is recorded (events), what comes out (emissions).
//!
//! Events are the journal's words: they are stored for as long as the saga is, so a field may be
//! added with a default, but never change its meaning.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::child::{ChildAnswer, Parent};
use super::portion::LeftOff;
pub use super::refusal::Refusal;
use super::succession::{Line, Successor};
use crate::canonical;
use crate::definition::BlockId;
use crate::id::{Phase, StepPath, Timestamp};
use crate::message::{Destination, Outcome};

/// Something from outside: sent to this saga, or a domain event correlated to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// Its name.
    pub name: String,
    /// What it is deduplicated by.
    pub id: String,
    /// Its payload.
    pub body: Arc<Value>,
    /// When a saga first had it; the saga's business, not the sender's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl Signal {
    /// What it says, in short: its name, and a hash of its payload.
    pub(super) fn mark(&self) -> String {
        let payload = canonical::fingerprint(&self.body);
        format!("{} {}", self.name, hex::encode(&payload[..MARK_BYTES]))
    }
}

/// Bytes of a payload's hash that are remembered: whoever wants his payload taken for another's can't
/// find one.
const MARK_BYTES: usize = 16;

/// A person's decision about one saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorAction {
    /// What it is deduplicated by.
    pub id: String,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// What.
    pub kind: OperatorKind,
}

/// What a person can do to a saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum OperatorKind {
    /// Roll back, while that is still possible.
    Cancel,
    /// Try a step, or all that wait for a person or a retry, again at once.
    Retry {
        /// Which; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepPath>,
        /// What the command carries from now on, instead of what it carried.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "super::step::present"
        )]
        with: Option<Arc<Value>>,
    },
    /// Take a suspended command for done: the person has seen to it. `why` is the evidence.
    Skip {
        /// Which step's.
        step: StepPath,
        /// What came of it, for the blocks that use the step's reply.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "super::step::present"
        )]
        reply: Option<Arc<Value>>,
    },
    /// Decide nothing until resumed; answers and signals are kept.
    Pause,
    /// Go on after a pause, and try again what waits for a person.
    Resume,
    /// Call it completed, whatever is still open.
    ForceComplete,
    /// Call it compensated, whatever is still open.
    ForceCompensated,
}

impl OperatorKind {
    /// The name for people, as on the command line.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry { .. } => "retry",
            Self::Skip { .. } => "skip",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::ForceComplete => "force-complete",
            Self::ForceCompensated => "force-compensated",
        }
    }
}

/// A participant's answer to one command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The step that asked.
    pub step: StepPath,
    /// Which of its commands.
    pub phase: Phase,
    /// Yes, no, or try again.
    pub outcome: Outcome,
    /// Whether it says so itself; an answer that says nothing is taken for a yes.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub stated: bool,
    /// The result.
    pub body: Arc<Value>,
    /// Why it was rejected or failed.
    pub reason: Option<String>,
}

fn yes() -> bool {
    true
}

/// Who started a saga and where they want to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Starter {
    /// The queue to answer to.
    pub reply_to: String,
    /// Copied into each answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// A block that counts its children: a `parallel` or a `for_each`, at a place in its own
/// enclosing `for_each` lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockPath {
    /// The block.
    pub block: BlockId,
    /// Positions in the enclosing `for_each` lists, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indices: Vec<u32>,
}

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
            deserialize_with = "super::step::present"
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

/// Something to tell the world once the decision is committed.
#[derive(Debug, Clone, PartialEq)]
pub enum Emission {
    /// A command to a participant.
    Command {
        /// The step it belongs to.
        step: StepPath,
        /// Which command.
        phase: Phase,
        /// From 1.
        attempt: u32,
        /// Its name, such as `inventory.reserve`.
        command: String,
        /// Where to.
        to: Destination,
        /// The payload.
        body: Value,
        /// When the answer is overdue.
        deadline: Timestamp,
        /// The outbox row that it becomes, if its answer is waited for.
        row: Option<Uuid>,
    },
    /// A life-cycle change, for whoever listens.
    Notice {
        /// `started`, `confirming`, `completed`, …; the routing key is `<saga>.<change>`.
        change: &'static str,
        /// The payload.
        body: Value,
    },
    /// The start of the saga that has its key from now on.
    Successor(Successor),
    /// An answer to the starter.
    Answer {
        /// Who.
        starter: Starter,
        /// `accepted`, `completed` or `compensated`; `refused` to one that is replaced while waiting.
        kind: &'static str,
        /// Yes for `accepted` and `completed`, else no.
        outcome: Outcome,
        /// Why not.
        reason: Option<String>,
        /// The payload.
        body: Value,
    },
    /// An answer to the saga that runs this one.
    ToParent {
        /// Who.
        parent: Parent,
        /// What.
        answer: ChildAnswer,
    },
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    /// To append to the journal as one entry; already applied to the saga. Never empty.
    pub events: Vec<Event>,
    /// To publish once committed.
    pub emissions: Vec<Emission>,
    /// When to look again if nothing comes.
    pub wake_at: Option<Timestamp>,
}
