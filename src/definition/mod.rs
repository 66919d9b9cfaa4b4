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
mod bounds;
mod destination;
mod draft;
mod duration;
mod event;
pub mod expression;
mod fields;
mod grammar;
mod input;
mod kinds;
mod label;
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
mod tree;
mod waits;
mod yaml;

pub use bounds::{
    BLOCKS_MAX, BUSINESS_KEY_BYTES_MAX, DEPTH_MAX, FOR_EACH_ITEMS_MAX, INSTANCES_MAX, LABELS_MAX,
    SOURCE_BYTES_MAX, STEP_TIMEOUT_DEFAULT, STEP_TIMEOUT_RANGE, SUB_SAGA_ASKS,
    SUB_SAGA_TIMEOUT_DEFAULT, SUB_SAGAS_DEEP_MAX, SUSPEND_AFTER_DEFAULT, WAIT_MAX,
};
pub use duration::parse_duration;
pub use expression::{EvaluationError, EvaluationScope, Expression, SagaFacts, StepReplies};
pub use input::{INPUT_PROBLEMS_MAX, check_key};
pub use kinds::{
    Call, CatchUp, ConflictRule, Delay, EventRule, Every, Forward, InputSchema, OnReject,
    OnTimeout, ReplyRules, Retry, Sleep, StartRules, Step, SubSaga, Wait, parse_delay,
};
pub use label::{Label, LabelRule, LabelValue};
pub use names::check_name;
pub use parse::{hash_of, parse, parse_all, parse_stored};
pub use problem::{End, PROBLEMS_MAX, Problem, Problems, Rule};
pub use template::Template;
pub use ticks::{TICK_GRACE, TICKS_COUNTED_MAX};
pub use tree::{Block, BlockId, BlockKind, Definition};

/// The JSON Schema of the language itself, for editors.
pub const LANGUAGE_SCHEMA: &str = include_str!("language.schema.json");

#[cfg(test)]
mod tests;
