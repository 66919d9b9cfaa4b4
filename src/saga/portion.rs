//! What a decision leaves to the next one: the moves that the walk has still to make.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::incoming::OperatorAction;
use crate::definition::BlockId;
use crate::id::{StepPath, Timestamp};

/// One thing the walk has still to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Move {
    /// Enter a block.
    Enter {
        /// The block.
        block: BlockId,
        /// Its places in the loops around it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        indices: Vec<u32>,
        /// The item it is about; computed again if it is not at hand.
        #[serde(skip)]
        item: Option<Arc<Value>>,
    },
    /// Enter a loop's body for these items, all of them at once.
    Items {
        /// The loop's body.
        body: BlockId,
        /// The loop's places in the loops around it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        around: Vec<u32>,
        /// The first one.
        next: u32,
        /// The one behind the last one.
        end: u32,
        /// All items; computed again if they are not at hand.
        #[serde(skip)]
        list: Option<Arc<Vec<Value>>>,
    },
    /// A block is done: go on behind it.
    Leave {
        /// The block.
        block: BlockId,
        /// Its places in the loops around it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        indices: Vec<u32>,
    },
    /// Confirm what is reserved.
    Confirm {
        /// What comes before this step, or is it, was asked already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<StepPath>,
    },
    /// Take the answers that came while the saga was paused.
    Answers,
    /// Then go on as a person wanted.
    Resume(OperatorAction),
    /// Try again what waits for a person.
    TryAgain {
        /// What comes before this step, or is it, was tried already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<StepPath>,
        /// What waits for its next attempt, too.
        retries: bool,
        /// Who wants it.
        by: String,
        /// Why.
        why: String,
    },
}

impl Move {
    /// Enter a block outside any `for_each`.
    pub(super) fn enter(block: BlockId) -> Self {
        Self::Enter {
            block,
            indices: Vec::new(),
            item: None,
        }
    }

    /// Forgets what can be computed again.
    pub(super) fn forget_items(&mut self) {
        match self {
            Self::Enter { item, .. } => *item = None,
            Self::Items { list, .. } => *list = None,
            _ => {}
        }
    }

    /// Whether it is about the saga as a whole, and so goes on when the walk turns round.
    pub(super) fn outlasts_turning(&self) -> bool {
        matches!(
            self,
            Self::Answers | Self::Resume(_) | Self::TryAgain { .. }
        )
    }
}

/// What a decision had no room for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOff {
    /// When.
    pub at: Timestamp,
    /// The moves, the next one last.
    pub moves: Vec<Move>,
}
