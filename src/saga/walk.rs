//! The walk over the definition's tree: forward, to the end, or back.
//!
//! Three passes visit the same blocks. Forward and finish go in order, the one stopping at steps
//! with a `reserve` or `action`, the other at confirm-only steps; roll-back goes in reverse order.
//! Blocks to enter and blocks that are done wait on a list instead of on the call stack, so a
//! definition can't overflow it.

use std::sync::Arc;

use serde_json::Value;

use super::decide::Turn;
use super::event::{BlockPath, Event};
use super::state::{Pass, StepStatus, Waiting};
use crate::definition::{
    EvaluationError, Expression, FOR_EACH_ITEMS_MAX, Forward, Node, NodeId, NodeKind, Scope, Step,
};
use crate::id::{Phase, StepPath};

/// One thing the walk has still to do.
#[derive(Debug)]
pub(super) enum Move {
    /// Enter a block.
    Enter {
        block: NodeId,
        indices: Vec<u32>,
        item: Option<Arc<Value>>,
    },
    /// A block is done: go on behind it.
    Leave { block: NodeId, indices: Vec<u32> },
}

impl Move {
    /// Enter a block outside any `for_each`.
    pub(super) fn enter(block: NodeId) -> Self {
        Self::Enter {
            block,
            indices: Vec::new(),
            item: None,
        }
    }
}

impl Turn<'_> {
    /// Enters and leaves blocks until everything waits for something outside.
    pub(super) fn walk(&mut self) {
        while let Some(next) = self.moves.pop() {
            match next {
                Move::Enter {
                    block,
                    indices,
                    item,
                } => {
                    let node = self.definition.node(block);
                    match self.saga.pass {
                        Pass::Rollback => self.enter_backward(node, indices),
                        _ => self.enter(node, indices, item),
                    }
                }
                Move::Leave { block, indices } => self.leave(block, indices),
            }
        }
    }

    /// A step is settled in this pass.
    pub(super) fn step_done(&mut self, path: &StepPath) {
        if let Some(block) = self.definition.steps.get(&path.name) {
            self.moves.push(Move::Leave {
                block: *block,
                indices: path.indices.clone(),
            });
        }
    }

    /// What expressions see.
    pub(super) fn scope<'s>(&'s self, item: Option<&'s Value>) -> Scope<'s> {
        Scope {
            input: &self.saga.input,
            steps: &*self.saga,
            item,
            given: None,
            saga: Some(&self.saga.facts),
        }
    }

    /// Sends a resumed step's command, computing its payload if that is what had failed.
    pub(super) fn ask_again(&mut self, path: &StepPath) {
        let Some(state) = self.saga.steps.get(path) else {
            return;
        };
        let phase = state.phase;
        let never_computed = state.with.is_none() && self.saga.pass == Pass::Finish;
        let Some(block) = self.definition.steps.get(&path.name).copied() else {
            return;
        };
        if never_computed {
            let item = self.item_at(block, &path.indices);
            self.moves.push(Move::Enter {
                block,
                indices: path.indices.clone(),
                item,
            });
        } else {
            self.ask(path, phase, 1, None);
        }
    }

    fn enter(&mut self, node: &Node, indices: Vec<u32>, item: Option<Arc<Value>>) {
        let finishing = self.saga.pass == Pass::Finish;
        if finishing && !self.has_confirm_only(node) {
            self.moves.push(Move::Leave {
                block: node.id,
                indices,
            });
            return;
        }
        match &node.kind {
            NodeKind::Step(step) => self.enter_step(node, step, indices, item),
            // In the finish pass a block was asked before: its answer stands.
            _ if finishing => self.enter_block(node, indices, item),
            _ => match self.wanted(node, item.as_deref()) {
                Ok(true) => self.enter_block(node, indices, item),
                Ok(false) => {
                    let at = BlockPath {
                        block: node.id,
                        indices: indices.clone(),
                    };
                    self.emit(Event::BlockSkipped { at });
                    self.moves.push(Move::Leave {
                        block: node.id,
                        indices,
                    });
                }
                Err(error) => self.roll_back(format!("line {}: {error}", node.line)),
            },
        }
    }

    fn enter_step(
        &mut self,
        node: &Node,
        step: &Step,
        indices: Vec<u32>,
        item: Option<Arc<Value>>,
    ) {
        let confirm_only = step.forward.is_none();
        let path = StepPath {
            name: step.name.clone(),
            indices,
        };
        if confirm_only != (self.saga.pass == Pass::Finish) {
            self.step_done(&path);
            return;
        }
        let payload = self.wanted(node, item.as_deref()).and_then(|wanted| {
            let scope = self.scope(item.as_deref());
            let with = step
                .with
                .as_ref()
                .map(|with| with.render(&scope))
                .transpose()?;
            Ok(wanted.then_some(with))
        });
        match payload {
            Ok(Some(with)) => {
                let phase = step.forward.as_ref().map_or(Phase::Confirm, Forward::phase);
                self.ask(&path, phase, 1, with.map(Arc::new));
            }
            Ok(None) => {
                self.emit(Event::Skipped { step: path.clone() });
                self.step_done(&path);
            }
            // Behind the pivot there is no way back; a person must look.
            Err(error) if confirm_only => {
                self.suspend(&path, Phase::Confirm, error.to_string());
            }
            Err(error) => self.roll_back(format!("{path}: {error}")),
        }
    }

    fn enter_block(&mut self, node: &Node, indices: Vec<u32>, item: Option<Arc<Value>>) {
        let block = node.id;
        let at = BlockPath {
            block,
            indices: indices.clone(),
        };
        let known = self.saga.blocks.get(&at).copied();
        if known.is_some_and(|known| known.skipped) {
            self.moves.push(Move::Leave { block, indices });
            return;
        }
        match &node.kind {
            NodeKind::Sequence(children) => match children.first() {
                Some(first) => self.moves.push(Move::Enter {
                    block: *first,
                    indices,
                    item,
                }),
                None => self.moves.push(Move::Leave { block, indices }),
            },
            NodeKind::Parallel(children) => {
                let children = children
                    .iter()
                    .map(|child| (*child, indices.clone(), item.clone()));
                self.open(at, children.collect());
            }
            NodeKind::ForEach { items, body, .. } => match self.items(items, item.as_deref()) {
                Ok(items) => {
                    // The finish pass goes over the items that the forward pass opened.
                    let count = known.map_or(items.len(), |known| known.children as usize);
                    let children = (0..count).map(|index| {
                        let item = items.get(index).cloned().map(Arc::new);
                        (*body, deeper(&indices, index), item)
                    });
                    self.open(at, children.collect());
                }
                Err(error) => self.roll_back(format!("line {}: {error}", node.line)),
            },
            NodeKind::Step(_) | NodeKind::Wait(_) | NodeKind::Sleep(_) | NodeKind::Saga(_) => {}
        }
    }

    /// Starts to count a block's children and enters them all, the first one first.
    fn open(&mut self, at: BlockPath, children: Vec<(NodeId, Vec<u32>, Option<Arc<Value>>)>) {
        let count = u32::try_from(children.len()).unwrap_or(u32::MAX);
        if count == 0 {
            self.moves.push(Move::Leave {
                block: at.block,
                indices: at.indices.clone(),
            });
        }
        self.emit(Event::Opened {
            at,
            children: count,
        });
        for (block, indices, item) in children.into_iter().rev() {
            self.moves.push(Move::Enter {
                block,
                indices,
                item,
            });
        }
    }

    fn enter_backward(&mut self, node: &Node, indices: Vec<u32>) {
        let block = node.id;
        match &node.kind {
            NodeKind::Step(step) => self.undo_if_needed(&StepPath {
                name: step.name.clone(),
                indices,
            }),
            NodeKind::Sequence(children) => match children.last() {
                Some(last) => self.moves.push(Move::Enter {
                    block: *last,
                    indices,
                    item: None,
                }),
                None => self.moves.push(Move::Leave { block, indices }),
            },
            NodeKind::Wait(_) | NodeKind::Sleep(_) | NodeKind::Saga(_) => {}
            NodeKind::Parallel(_) | NodeKind::ForEach { .. } => {
                let at = BlockPath { block, indices };
                let Some(known) = self.saga.blocks.get(&at).filter(|known| !known.skipped) else {
                    // Never reached.
                    self.moves.push(Move::Leave {
                        block,
                        indices: at.indices,
                    });
                    return;
                };
                let children = match &node.kind {
                    NodeKind::ForEach { body, .. } => (0..known.children as usize)
                        .map(|index| (*body, deeper(&at.indices, index), None))
                        .collect(),
                    NodeKind::Parallel(children) => children
                        .iter()
                        .map(|child| (*child, at.indices.clone(), None))
                        .collect(),
                    _ => Vec::new(),
                };
                self.open(at, children);
            }
        }
    }

    fn undo_if_needed(&mut self, path: &StepPath) {
        let known = self
            .saga
            .steps
            .get(path)
            .map(|state| (state.status, state.waiting));
        match known {
            Some((StepStatus::Unknown, _)) if self.sabotage.forget_unknown => self.step_done(path),
            Some((StepStatus::Reserved | StepStatus::Unknown, _)) => self.undo(path),
            // It may be at work right now: hear it out.
            Some((StepStatus::Reserving, Waiting::Reply(_))) => {}
            Some((StepStatus::Reserving, _)) => {
                let reason = "an attempt had failed when the roll-back came".to_owned();
                self.emit(Event::OutcomeUnknown {
                    step: path.clone(),
                    reason,
                });
                self.undo(path);
            }
            _ => self.step_done(path),
        }
    }

    fn leave(&mut self, block: NodeId, indices: Vec<u32>) {
        let node = self.definition.node(block);
        let Some(parent) = node.parent.map(|parent| self.definition.node(parent)) else {
            match self.saga.pass {
                Pass::Forward => self.pass_pivot(),
                Pass::Finish => self.complete(),
                Pass::Rollback => self.compensated(),
                _ => {}
            }
            return;
        };
        match &parent.kind {
            NodeKind::Sequence(children) => {
                let next = match self.saga.pass {
                    Pass::Rollback => node.position.checked_sub(1),
                    _ => Some(node.position + 1),
                };
                match next.and_then(|next| children.get(next)) {
                    Some(next) => {
                        let item = self.item_at(*next, &indices);
                        self.moves.push(Move::Enter {
                            block: *next,
                            indices,
                            item,
                        });
                    }
                    None => self.moves.push(Move::Leave {
                        block: parent.id,
                        indices,
                    }),
                }
            }
            NodeKind::Parallel(_) => self.advance(parent.id, indices),
            NodeKind::ForEach { .. } => {
                let mut around = indices;
                around.pop();
                self.advance(parent.id, around);
            }
            NodeKind::Step(_) | NodeKind::Wait(_) | NodeKind::Sleep(_) | NodeKind::Saga(_) => {}
        }
    }

    fn advance(&mut self, block: NodeId, indices: Vec<u32>) {
        let at = BlockPath { block, indices };
        self.emit(Event::Advanced { at: at.clone() });
        if self
            .saga
            .blocks
            .get(&at)
            .is_some_and(|block| block.remaining == 0)
        {
            self.moves.push(Move::Leave {
                block,
                indices: at.indices,
            });
        }
    }

    fn wanted(&self, node: &Node, item: Option<&Value>) -> Result<bool, EvaluationError> {
        let Some(when) = &node.when else {
            return Ok(true);
        };
        match when.evaluate(&self.scope(item))? {
            Value::Bool(wanted) => Ok(wanted),
            other => Err(EvaluationError {
                expression: when.source.clone(),
                why: format!("`when` must be true or false, not {other}"),
            }),
        }
    }

    fn items(
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
        match items.evaluate(&self.scope(item))? {
            Value::Array(list) if list.len() > FOR_EACH_ITEMS_MAX => wrong(format!(
                "{} items are more than the {FOR_EACH_ITEMS_MAX} a for_each may have",
                list.len()
            )),
            Value::Array(list) => Ok(list),
            other => wrong(format!("`for_each` needs a list, not {other}")),
        }
    }

    /// The item that a block at these indices is about, computed again.
    fn item_at(&self, block: NodeId, indices: &[u32]) -> Option<Arc<Value>> {
        let (last, around) = indices.split_last()?;
        let mut at = self.definition.node(block);
        loop {
            at = self.definition.node(at.parent?);
            if let NodeKind::ForEach { items, .. } = &at.kind {
                let outer = self.item_at(at.id, around);
                let all = self.items(items, outer.as_deref()).ok()?;
                return all.into_iter().nth(*last as usize).map(Arc::new);
            }
        }
    }

    fn has_confirm_only(&self, node: &Node) -> bool {
        let any = |children: &[NodeId]| {
            children
                .iter()
                .any(|child| self.has_confirm_only(self.definition.node(*child)))
        };
        match &node.kind {
            NodeKind::Step(step) => step.forward.is_none(),
            NodeKind::Wait(_) | NodeKind::Sleep(_) | NodeKind::Saga(_) => false,
            NodeKind::Sequence(children) | NodeKind::Parallel(children) => any(children),
            NodeKind::ForEach { body, .. } => any(std::slice::from_ref(body)),
        }
    }
}

fn deeper(indices: &[u32], index: usize) -> Vec<u32> {
    let mut deeper = indices.to_vec();
    // Bounded by FOR_EACH_ITEMS_MAX.
    deeper.push(u32::try_from(index).unwrap_or(u32::MAX));
    deeper
}
