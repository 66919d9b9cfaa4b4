//! `for_each`: the same block for each item, all at once or one after the other.

use std::sync::Arc;

use serde_json::Value;

use super::turn::Turn;
use crate::definition::{
    Block, BlockId, BlockKind, EvaluationError, Expression, FOR_EACH_ITEMS_MAX,
};
use crate::numeral;
use crate::saga::event::Event;
use crate::saga::pass::Pass;
use crate::saga::portion::Move;
use crate::saga::step::BlockPath;

impl Turn<'_> {
    pub(super) fn enter_loop(&mut self, node: &Block, at: BlockPath, item: Option<&Value>) {
        let BlockKind::ForEach {
            items,
            body,
            sequential,
            until,
            at_most,
        } = &node.kind
        else {
            return;
        };
        let mut list = match self.items(items, item) {
            Ok(list) => list,
            Err(error) => return self.cannot_compute(node, &at, &error),
        };
        if until.is_some() {
            list.truncate(*at_most);
        } else if list.len() > *at_most {
            let why = format!("{} items are more than the {at_most} allowed", list.len());
            let expression = items.source.clone();
            return self.cannot_compute(node, &at, &EvaluationError { expression, why });
        }
        // The finish pass goes over the items that the forward pass began.
        if let Some(known) = self.saga.blocks.get(&at)
            && self.saga.pass == Pass::Finish
        {
            list.truncate(known.begun as usize);
        }
        if *sequential {
            self.open_sequence(at, *body, list);
        } else {
            self.open_items(at, *body, list.len(), Some(Arc::new(list)));
        }
    }

    /// Enters all items at once.
    fn open_items(
        &mut self,
        at: BlockPath,
        body: BlockId,
        count: usize,
        list: Option<Arc<Vec<Value>>>,
    ) {
        let all = Move::Items {
            body,
            around: at.indices.clone(),
            next: 0,
            end: u32::try_from(count).unwrap_or(u32::MAX),
            list,
        };
        let moves = if count == 0 { Vec::new() } else { vec![all] };
        self.open(at, count, moves);
    }

    fn open_sequence(&mut self, at: BlockPath, body: BlockId, list: Vec<Value>) {
        let BlockPath { block, indices } = at.clone();
        let children = u32::try_from(list.len()).unwrap_or(u32::MAX);
        self.emit(Event::Opened {
            at,
            children,
            sequential: true,
        });
        match list.into_iter().next() {
            Some(first) => self.moves.push(Move::Enter {
                block: body,
                indices: deeper(&indices, 0),
                item: Some(Arc::new(first)),
            }),
            None => self.leave_block(block, indices),
        }
    }

    /// Enters what was begun of a loop in reverse order, or all at once if that is how it ran.
    pub(super) fn unwind_loop(&mut self, at: BlockPath, body: BlockId, sequential: bool) {
        let begun = self.saga.blocks.get(&at).map_or(0, |known| known.begun);
        if !sequential || begun == 0 {
            return self.open_items(at, body, begun as usize, None);
        }
        let indices = deeper(&at.indices, begun as usize - 1);
        self.emit(Event::Opened {
            at,
            children: begun,
            sequential: true,
        });
        self.moves.push(Move::Enter {
            block: body,
            indices,
            item: None,
        });
    }

    /// One item is done: count it, and in a sequential loop begin the next one.
    pub(super) fn leave_item(&mut self, node: &Block, mut indices: Vec<u32>) {
        let BlockKind::ForEach {
            body,
            sequential,
            until,
            ..
        } = &node.kind
        else {
            return;
        };
        let index = indices.pop().unwrap_or_default();
        if !sequential {
            self.advance(node.id, indices);
            return;
        }
        let at = BlockPath {
            block: node.id,
            indices,
        };
        self.emit(Event::Advanced { at: at.clone() });
        let remaining = self.saga.blocks.get(&at).map_or(0, |known| known.remaining);
        let backward = self.saga.pass == Pass::Rollback;
        self.focus = (*body, deeper(&at.indices, index as usize));
        let enough = match until {
            Some(until) if !backward => match self.is_enough(until, &at, *body, index) {
                Ok(enough) => enough,
                Err(error) => return self.cannot_compute(node, &at, &error),
            },
            _ => false,
        };
        if remaining == 0 || enough {
            self.leave_block(at.block, at.indices);
            return;
        }
        let next = if backward {
            index.saturating_sub(1)
        } else {
            index + 1
        };
        let indices = deeper(&at.indices, next as usize);
        if !backward {
            self.emit(Event::NextItem { at });
        }
        let item = if backward {
            None
        } else {
            self.item_at(*body, &indices)
        };
        self.moves.push(Move::Enter {
            block: *body,
            indices,
            item,
        });
    }

    fn is_enough(
        &self,
        until: &Expression,
        at: &BlockPath,
        body: BlockId,
        index: u32,
    ) -> Result<bool, EvaluationError> {
        let item = self.item_at(body, &deeper(&at.indices, index as usize));
        match until.evaluate(&self.scope(item.as_deref()))? {
            Value::Bool(enough) => Ok(enough),
            other => Err(EvaluationError {
                expression: until.source.clone(),
                why: format!("`until` must be true or false, not {other}"),
            }),
        }
    }

    pub(super) fn items(
        &self,
        items: &Expression,
        item: Option<&Value>,
    ) -> Result<Vec<Value>, EvaluationError> {
        let wrong = |why| {
            Err(EvaluationError {
                expression: items.source.clone(),
                why,
            })
        };
        let too_many = |count: u64| {
            format!("{count} items are more than the {FOR_EACH_ITEMS_MAX} a for_each may have")
        };
        match items.evaluate(&self.scope(item))? {
            Value::Array(list) if list.len() > FOR_EACH_ITEMS_MAX => {
                wrong(too_many(list.len() as u64))
            }
            Value::Array(list) => Ok(list),
            Value::Number(times) => match numeral::whole_u64(&times) {
                Some(times) if times <= FOR_EACH_ITEMS_MAX as u64 => {
                    Ok((0..times).map(Value::from).collect())
                }
                Some(times) => wrong(too_many(times)),
                None => wrong(format!("`for_each` can't be done {times} times")),
            },
            other => wrong(format!("`for_each` needs a list or a number, not {other}")),
        }
    }

    /// The item that a block at these indices is about, computed again.
    pub(super) fn item_at(&self, block: BlockId, indices: &[u32]) -> Option<Arc<Value>> {
        let (last, around) = indices.split_last()?;
        let all = self.list_of(block, around)?;
        all.into_iter().nth(*last as usize).map(Arc::new)
    }

    /// The items of the innermost loop around a block, computed again; the loop is at these places
    /// in the loops around it.
    pub(super) fn list_of(&self, block: BlockId, around: &[u32]) -> Option<Vec<Value>> {
        let mut at = self.definition.block(block);
        loop {
            at = self.definition.block(at.parent?);
            if let BlockKind::ForEach { items, .. } = &at.kind {
                let outer = self.item_at(at.id, around);
                return self.items(items, outer.as_deref()).ok();
            }
        }
    }
}

fn deeper(indices: &[u32], index: usize) -> Vec<u32> {
    let mut deeper = indices.to_vec();
    // Bounded by FOR_EACH_ITEMS_MAX.
    deeper.push(u32::try_from(index).unwrap_or(u32::MAX));
    deeper
}
