//! What `steps.<name>` means where an expression stands.
//!
//! Inside a loop it is the reply of *this* item's step; from outside it is the list of all items'
//! replies, in item order, with null where there is none.

use serde_json::Value;

use super::turn::Turn;
use crate::definition::{BlockId, BlockKind, StepReplies};
use crate::id::StepPath;
use crate::saga::step::BlockPath;

impl StepReplies for Turn<'_> {
    fn reply(&self, step: &str) -> Option<Value> {
        let block = *self.definition.steps.get(step)?;
        let (at, indices) = (self.focus.0, &self.focus.1);
        let loops = self.loops_around(block);
        let around = self.loops_around(at);
        let shared = loops
            .iter()
            .zip(&around)
            .take_while(|(a, b)| a == b)
            .count();
        let shared = shared.min(indices.len());
        self.replies(step, &loops[shared..], indices[..shared].to_vec())
    }
}

impl Turn<'_> {
    /// The reply at these indices, or the list of those in the loops that are left.
    fn replies(&self, step: &str, loops: &[BlockId], indices: Vec<u32>) -> Option<Value> {
        let Some((outermost, inner)) = loops.split_first() else {
            let state = self.saga.steps.get(&StepPath::at(step, &indices))?;
            return state.reply.as_deref().cloned();
        };
        let at = BlockPath {
            block: *outermost,
            indices: indices.clone(),
        };
        let known = self.saga.blocks.get(&at).filter(|known| !known.skipped)?;
        let all = (0..known.begun).map(|index| {
            let mut deeper = indices.clone();
            deeper.push(index);
            self.replies(step, inner, deeper).unwrap_or_default()
        });
        Some(Value::Array(all.collect()))
    }

    /// The `for_each` blocks around a block, outermost first.
    fn loops_around(&self, block: BlockId) -> Vec<BlockId> {
        let mut loops = Vec::new();
        let mut at = self.definition.block(block);
        while let Some(parent) = at.parent {
            at = self.definition.block(parent);
            if matches!(at.kind, BlockKind::ForEach { .. }) {
                loops.push(at.id);
            }
        }
        loops.reverse();
        loops
    }
}
