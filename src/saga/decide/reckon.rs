//! What is still to come, reckoned beforehand.
//!
//! A walk that is cut into portions could go on for gigabytes, and what is sent behind the pivot
//! can't be refused any more. So when a walk is cut for the first time, and once more at the pivot,
//! the payloads that are still to be computed are added up; a saga that would hold more than one
//! saga may is rolled back, or not even begun. What can't be known yet is left to its time.

use std::sync::Arc;

use serde_json::Value;

use super::turn::Turn;
use crate::definition::{Block, BlockId, BlockKind, Definition, Step};
use crate::id::StepPath;
use crate::limits::{BODY, COMPUTED, Limit};
use crate::saga::held::Held;
use crate::saga::portion::Move;
use crate::saga::sabotage::PlantedBug;

/// No limit at all.
const ANY: Limit = Limit {
    bytes: usize::MAX,
    depth: usize::MAX,
    values: usize::MAX,
};

impl Turn<'_> {
    /// How large a block's payload may be. A sub-saga takes it as any start.
    pub(super) fn payload_limit(&self, node: &Block) -> &'static Limit {
        match &node.kind {
            _ if self.sabotage.has(PlantedBug::AnyPayload) => &ANY,
            BlockKind::Saga(_) => &BODY,
            _ => &COMPUTED,
        }
    }

    /// Reckons what the moves that are left would compute, and says if it is too much.
    pub(super) fn reckon_moves(&mut self) -> Result<(), String> {
        let mut sum = self.saga.held;
        for at in (0..self.moves.len()).rev() {
            match self.moves[at].clone() {
                Move::Enter {
                    block,
                    indices,
                    item,
                } => self.reckon(block, &indices, item, &mut sum)?,
                Move::Items {
                    body,
                    around,
                    next,
                    end,
                    list,
                } => {
                    self.focus = (body, around.clone());
                    let list = list.or_else(|| self.list_of(body, &around).map(Arc::new));
                    for index in next..end {
                        let item = list.as_ref().and_then(|list| list.get(index as usize));
                        let mut indices = around.clone();
                        indices.push(index);
                        self.reckon(body, &indices, item.cloned().map(Arc::new), &mut sum)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Behind the pivot nothing can be refused, so what comes there is reckoned before it; unless
    /// the saga is so small that nothing can get too large.
    pub(super) fn reckon_the_rest(&mut self) -> Result<(), String> {
        let blocks = self.saga.blocks.values();
        let most: usize = 1 + blocks.map(|block| block.children as usize).sum::<usize>();
        // Eight times: a payload may well have the same thing twice.
        if self.saga.held.bytes.saturating_mul(8 * most) < COMPUTED.bytes {
            return Ok(());
        }
        let mut sum = self.saga.held;
        self.reckon(Definition::ROOT, &[], None, &mut sum)
    }

    /// Adds what a block would compute as far as that can be known now. What can't be is left to
    /// the time when it is computed.
    fn reckon(
        &mut self,
        block: BlockId,
        indices: &[u32],
        item: Option<Arc<Value>>,
        sum: &mut Held,
    ) -> Result<(), String> {
        let definition = self.definition;
        let node = definition.block(block);
        self.focus = (block, indices.to_vec());
        if !self.wanted(node, item.as_deref()).unwrap_or(false) {
            return Ok(());
        }
        match &node.kind {
            BlockKind::Step(step) => self.reckon_step(step, indices, item.as_deref(), sum),
            BlockKind::Saga(block) => self.reckon_step(&block.step, indices, item.as_deref(), sum),
            BlockKind::Sequence(children) | BlockKind::Parallel(children) => children
                .iter()
                .try_for_each(|child| self.reckon(*child, indices, item.clone(), sum)),
            BlockKind::ForEach {
                body,
                items,
                sequential: false,
                ..
            } => {
                let Ok(list) = self.items(items, item.as_deref()) else {
                    return Ok(());
                };
                for (index, item) in (0..).zip(list) {
                    let mut indices = indices.to_vec();
                    indices.push(index);
                    self.reckon(*body, &indices, Some(Arc::new(item)), sum)?;
                }
                Ok(())
            }
            BlockKind::ForEach { .. } | BlockKind::Wait(_) | BlockKind::Sleep(_) => Ok(()),
        }
    }

    fn reckon_step(
        &self,
        step: &Step,
        indices: &[u32],
        item: Option<&Value>,
        sum: &mut Held,
    ) -> Result<(), String> {
        let path = StepPath::at(step.name.clone(), indices);
        let Some(with) = &step.with else {
            return Ok(());
        };
        if self.saga.steps.contains_key(&path) {
            return Ok(()); // computed already
        }
        let extent = with
            .reckon(&self.scope(item), &COMPUTED)
            .map_err(|excess| format!("{path}: its `with` gets too large: {excess}"))?;
        *sum = sum.with(extent);
        sum.check().map_err(|why| format!("{path}: {why}"))
    }
}
