//! The tree that a definition becomes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::expression::Expression;
use super::kinds::{Call, EventRule, Forward, InputSchema, Sleep, StartRules, Step, SubSaga, Wait};
use super::label::LabelRule;
use super::template::Template;

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
