//! A saga definition: from YAML to a tree that is proven sound.
//!
//! Everything that can be wrong with a file is found here, all at once, with line and column, so
//! that the core may rely on the tree: names are unique, expressions compile, every reservation
//! can be undone. Pure: no I/O, no clock.
//!
//! The tree is an arena in preorder ([`Definition::blocks`]); node 0 is the root sequence. Modifiers
//! become nodes or fields: `for_each` wraps its block in a [`BlockKind::ForEach`], `when` stays on
//! the block itself and so is evaluated for each item.

mod block;
mod destination;
mod draft;
mod duration;
mod event;
pub mod expression;
mod fields;
mod grammar;
mod input;
mod kinds;
mod labels;
mod names;
mod pace;
mod parse;
mod problem;
mod repeat;
mod reply;
mod schedule;
mod schema;
mod soundness;
mod start;
mod step;
mod sub_saga;
mod template;
mod ticks;
mod waits;
mod yaml;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

pub use duration::parse_duration;
pub use expression::{EvaluationError, EvaluationScope, Expression, SagaFacts, StepReplies};
pub use input::{INPUT_PROBLEMS_MAX, check_key};
pub use kinds::{
    CatchUp, ConflictRule, Delay, EventRule, Every, OnReject, OnTimeout, Sleep, StartRules,
    SubSaga, Wait, parse_delay,
};
pub use labels::{Label, LabelRule, LabelValue};
pub use names::check_name;
pub use parse::{hash_of, parse, parse_all, parse_stored};
pub use problem::{End, PROBLEMS_MAX, Problem, Problems, Rule};
pub use template::Template;
pub use ticks::{TICK_GRACE, TICKS_COUNTED_MAX};

use crate::message::Destination;

/// Largest definition file, in bytes.
pub const SOURCE_BYTES_MAX: usize = 1024 * 1024;
/// Most blocks in a definition.
pub const BLOCKS_MAX: usize = 1_000;
/// Deepest nesting of blocks.
pub const DEPTH_MAX: usize = 16;
/// Most items of one `for_each`, unless the definition says less.
pub const FOR_EACH_ITEMS_MAX: usize = 10_000;
/// Most labels of a definition.
pub const LABELS_MAX: usize = 16;
/// Longest business key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;
/// How long a participant has to answer when the step does not say.
pub const STEP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Shortest and longest `timeout` of a step.
pub const STEP_TIMEOUT_RANGE: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_hours(30 * 24));
/// Longest `wait`, `sleep`, or `timeout` of a saga: ten years.
pub const WAIT_MAX: Duration = Duration::from_hours(3_660 * 24);
/// How long a sub-saga has to reach its pivot when the block does not say.
pub const SUB_SAGA_TIMEOUT_DEFAULT: Duration = Duration::from_hours(1);
/// How often a sub-saga is asked within its time: a command that got lost is made up for, and one
/// that did not is answered again.
pub const SUB_SAGA_ASKS: u32 = 4;
/// Most steps, waits, sleeps and sub-sagas that one saga may come to have, all items counted.
pub const INSTANCES_MAX: usize = 100_000;
/// Deepest nesting of sagas that run one another.
pub const SUB_SAGAS_DEEP_MAX: usize = 8;
/// Attempts of a confirm or compensate after which a person is asked.
pub const SUSPEND_AFTER_DEFAULT: u32 = 20;

/// The JSON Schema of the language itself, for editors.
pub const LANGUAGE_SCHEMA: &str = include_str!("language.schema.json");

/// A definition that was checked.
#[derive(Debug)]
pub struct Definition {
    /// The saga's name, as starters use it.
    pub name: String,
    /// Its version; running sagas keep theirs.
    pub version: u32,
    /// For people.
    pub description: Option<String>,
    /// SHA-256 of `source`.
    pub hash: [u8; 32],
    /// The YAML it came from.
    pub source: String,
    /// Computes the business key from the input.
    pub key: Template,
    /// Computes from the input what its commands, and the events they lead to, belong to.
    pub correlate: Option<Template>,
    /// How it is started besides by command.
    pub start: StartRules,
    /// What its sagas are searched by.
    pub labels: Vec<LabelRule>,
    /// What inputs must look like.
    pub input: Option<InputSchema>,
    /// Past it, and before the pivot, the saga compensates.
    pub timeout: Option<Duration>,
    /// The blocks, in preorder; 0 is the root sequence.
    pub blocks: Vec<Block>,
    /// Computed when the saga completes.
    pub output: Option<Template>,
    /// Steps, and `wait`, `sleep` and `saga` blocks, by name.
    pub steps: BTreeMap<String, BlockId>,
}

impl Definition {
    /// The root sequence.
    pub const ROOT: BlockId = BlockId(0);

    /// A block.
    ///
    /// # Panics
    /// For an id of another definition.
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[usize::from(id.0)]
    }

    /// The rules about events that it names: those that start it and those that it waits for.
    pub fn events(&self) -> impl Iterator<Item = &EventRule> {
        let waits = self.blocks.iter().filter_map(|node| match &node.kind {
            BlockKind::Wait(wait) => wait.on.as_ref(),
            _ => None,
        });
        self.start.on.iter().chain(waits)
    }

    /// Every command that its steps may send.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        let steps = self.blocks.iter().filter_map(|node| match &node.kind {
            BlockKind::Step(step) => Some(step),
            _ => None,
        });
        steps.flat_map(|step| {
            let forward = step.forward.as_ref().map(Forward::call);
            forward
                .into_iter()
                .chain(&step.confirm)
                .chain(&step.compensate)
        })
    }

    /// A block by its name: a step, `wait`, `sleep` or `saga`.
    pub fn named(&self, name: &str) -> Option<&Block> {
        self.steps.get(name).map(|id| self.block(*id))
    }

    /// A step by its name; for a `saga` block, the step that it amounts to.
    pub fn step(&self, name: &str) -> Option<&Step> {
        match &self.named(name)?.kind {
            BlockKind::Step(step) => Some(step),
            BlockKind::Saga(block) => Some(&block.step),
            _ => None,
        }
    }

    /// A block that runs another saga, by its name.
    pub fn sub_saga(&self, name: &str) -> Option<&SubSaga> {
        match &self.named(name)?.kind {
            BlockKind::Saga(block) => Some(block),
            _ => None,
        }
    }
}

/// A compiled JSON Schema.
pub struct InputSchema {
    /// The schema as written.
    pub schema: Value,
    pub(in crate::definition) validator: jsonschema::Validator,
}

impl std::fmt::Debug for InputSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("InputSchema").field(&self.schema).finish()
    }
}

/// A block's number in [`Definition::blocks`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct BlockId(pub u16);

/// A block.
#[derive(Debug)]
pub struct Block {
    /// Its number.
    pub id: BlockId,
    /// The block around it; `None` for the root.
    pub parent: Option<BlockId>,
    /// Its place among the parent's children.
    pub position: usize,
    /// Whether it runs at all; for a `for_each` body, asked for each item.
    pub when: Option<Expression>,
    /// Line in the file, from 1.
    pub line: usize,
    /// Whether the point of no return is behind this block instead of at the end of the forward
    /// pass. At most one block of a definition says so, and it stands in the root sequence.
    pub pivot: bool,
    /// What it is.
    pub kind: BlockKind,
}

/// What a block is.
#[derive(Debug)]
// Nearly all blocks are steps, so there is little to save by boxing them.
#[allow(clippy::large_enum_variant)]
pub enum BlockKind {
    /// One after the other.
    Sequence(Vec<BlockId>),
    /// All at once.
    Parallel(Vec<BlockId>),
    /// The body once an item.
    ForEach {
        /// Computes the list, or how many times (items 0, 1, 2, …).
        items: Expression,
        /// The block that is repeated.
        body: BlockId,
        /// One after the other instead of all at once.
        sequential: bool,
        /// Asked after each item of a sequential one: no further items, if true.
        until: Option<Expression>,
        /// Most items; more are an error, or with `until` simply not begun.
        at_most: usize,
    },
    /// Commands to a participant.
    Step(Step),
    /// Waits for a signal.
    Wait(Wait),
    /// Waits for time to pass.
    Sleep(Sleep),
    /// Runs another saga as a step.
    Saga(SubSaga),
}

/// A step: the commands of one unit of work.
#[derive(Debug)]
pub struct Step {
    /// Unique in the definition.
    pub name: String,
    /// The commands' payload.
    pub with: Option<Template>,
    /// What the forward pass sends: `None` for a confirm-only step.
    pub forward: Option<Forward>,
    /// Sent after the pivot.
    pub confirm: Option<Call>,
    /// Sent in roll-back. Always there if `forward` is, unless the step is `read_only`.
    pub compensate: Option<Call>,
    /// How long to wait for each answer.
    pub timeout: Duration,
    /// How `failed` answers and time-outs are retried.
    pub retry: Retry,
    /// Attempts of a confirm or compensate after which the saga is suspended.
    pub suspend_after: u32,
    /// What a rejection of the forward command leads to.
    pub on_reject: OnReject,
    /// What the answer to its first command must be like.
    pub reply: ReplyRules,
    /// How long a reservation holds, as far as the author knows; the participant's `expires_at`
    /// says it exactly.
    pub expires_in: Option<Duration>,
}

/// What a reply must be like to count as a yes.
#[derive(Debug, Default)]
pub struct ReplyRules {
    /// Whether it must say its outcome: an answer without the header is a failed attempt then.
    pub outcome_required: bool,
    /// What `steps.<name>` must look like.
    pub schema: Option<InputSchema>,
}

/// What a step's forward command is.
#[derive(Debug)]
pub enum Forward {
    /// Hold, to be confirmed or compensated.
    Reserve(Call),
    /// Do at once, to be compensated.
    Action(Call),
}

impl Forward {
    /// The command.
    pub fn call(&self) -> &Call {
        match self {
            Self::Reserve(call) | Self::Action(call) => call,
        }
    }

    /// Which phase it is.
    pub fn phase(&self) -> crate::id::Phase {
        match self {
            Self::Reserve(_) => crate::id::Phase::Reserve,
            Self::Action(_) => crate::id::Phase::Action,
        }
    }
}

/// A command and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The command's name, such as `inventory.reserve`.
    pub command: String,
    /// What `to:` says, else the participant's queue: the command up to its first dot.
    pub to: Destination,
}

/// How often and how fast to try again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts in all, the first included. Bounds `reserve` and `action`; `confirm` and
    /// `compensate` go on until `suspend_after`.
    pub attempts: u32,
    /// Wait before the second attempt.
    pub first: Duration,
    /// Each wait is this many times the one before.
    pub factor: f64,
    /// Longest wait.
    pub max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            first: Duration::from_millis(200),
            factor: 2.0,
            max: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests;
