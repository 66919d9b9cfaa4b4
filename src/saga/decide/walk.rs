//! The walk over the definition's tree: forward, to the end, or back.
//!
//! Three passes visit the same blocks. Forward and finish go in order, the one stopping at steps
//! with a `reserve` or `action`, the other at confirm-only steps; roll-back goes in reverse order.
//! Blocks to enter and blocks that are done wait on a list instead of on the call stack, so a
//! definition can't overflow it.

use std::sync::Arc;

use serde_json::Value;

use super::turn::Turn;
use crate::definition::{
    Block, BlockId, BlockKind, Definition, EvaluationError, EvaluationScope, Forward, Sleep, Step,
    SubSaga, Wait,
};
use crate::id::{Phase, StepPath};
use crate::saga::event::Event;
use crate::saga::pass::Pass;
use crate::saga::portion::Move;
use crate::saga::sabotage::PlantedBug;
use crate::saga::step::{BlockPath, StepStatus, Waiting};

impl Turn<'_> {
    /// Enters and leaves blocks until everything waits for something outside, or the rest is for
    /// the next decision.
    pub(super) fn walk(&mut self) {
        while !self.is_full()
            && let Some(next) = self.moves.pop()
        {
            match next {
                Move::Enter {
                    block,
                    indices,
                    item,
                } => self.enter_either_way(block, indices, item),
                Move::Items {
                    body,
                    around,
                    next,
                    end,
                    list,
                } => self.enter_items(body, around, next, end, list),
                Move::Leave { block, indices } => self.leave(block, indices),
                Move::Confirm { after } => self.confirm_after(after),
                Move::Answers => self.take_answer(),
                Move::Resume(action) => self.go_on_as_told(action),
                Move::TryAgain {
                    after,
                    retries,
                    by,
                    why,
                } => self.try_again_after(after, retries, by, why),
            }
        }
    }

    fn enter_either_way(&mut self, block: BlockId, indices: Vec<u32>, item: Option<Arc<Value>>) {
        let node = self.definition.block(block);
        self.focus = (block, indices.clone());
        if self.saga.pass == Pass::Rollback {
            return self.enter_backward(node, indices);
        }
        // After the walk was left off, the item is not at hand.
        let item = item.or_else(|| self.item_at(block, &indices));
        self.enter(node, indices, item);
    }

    /// A step is settled in this pass.
    pub(super) fn step_done(&mut self, path: &StepPath) {
        if self.is_yet_to_be_undone(path) {
            return;
        }
        if let Some(block) = block_named(self.definition, &path.name) {
            self.moves.push(Move::Leave {
                block,
                indices: path.indices.clone(),
            });
        }
    }

    /// What expressions see.
    pub(super) fn scope<'s>(&'s self, item: Option<&'s Value>) -> EvaluationScope<'s> {
        EvaluationScope {
            input: &self.saga.input,
            steps: self,
            item,
            given: None,
            saga: Some(&self.saga.facts),
        }
    }

    /// Sends a resumed step's command, with another payload if a person gives one; else computes its
    /// payload if that is what had failed.
    pub(super) fn ask_again(&mut self, path: &StepPath, with: Option<Arc<Value>>) {
        let Some(state) = self.saga.steps.get(path) else {
            return;
        };
        let phase = state.phase;
        let never_computed = state.with.is_none() && self.saga.pass == Pass::Finish;
        let Some(block) = block_named(self.definition, &path.name) else {
            return;
        };
        if never_computed && with.is_none() {
            let item = self.item_at(block, &path.indices);
            self.moves.push(Move::Enter {
                block,
                indices: path.indices.clone(),
                item,
            });
        } else {
            self.ask(path, phase, 1, with);
        }
    }

    fn enter(&mut self, node: &Block, indices: Vec<u32>, item: Option<Arc<Value>>) {
        let finishing = self.saga.pass == Pass::Finish;
        if finishing && !self.has_work_left(node) {
            self.leave_block(node.id, indices);
            return;
        }
        let at = BlockPath {
            block: node.id,
            indices,
        };
        // In the finish pass a block that was asked before is not asked again: its answer stands.
        let asked = finishing && self.was_asked(node, &at);
        match &node.kind {
            BlockKind::Step(step) => self.enter_step(node, step, at.indices, item),
            BlockKind::Saga(block) => self.enter_step(node, &block.step, at.indices, item),
            _ if asked => self.enter_block(node, at.indices, item),
            _ => match self.wanted(node, item.as_deref()) {
                Ok(true) => {
                    self.note_wanted(node, &at);
                    self.enter_block(node, at.indices, item);
                }
                Ok(false) => self.skip(node, at),
                Err(error) => self.cannot_compute(node, &at, &error),
            },
        }
    }

    /// Whether a block's `when` was answered in an earlier pass, or by a person since.
    fn was_asked(&self, node: &Block, at: &BlockPath) -> bool {
        match name_of(node) {
            Some(name) => self.is_over(&StepPath::at(name, &at.indices)),
            None => self.saga.blocks.contains_key(at),
        }
    }

    /// Counting blocks are noted when they open; a sequence only needs to be if it was asked about.
    fn note_wanted(&mut self, node: &Block, at: &BlockPath) {
        if let (BlockKind::Sequence(children), Some(_)) = (&node.kind, &node.when) {
            self.emit(Event::Opened {
                at: at.clone(),
                children: u32::try_from(children.len()).unwrap_or(u32::MAX),
                sequential: true,
            });
        }
    }

    fn skip(&mut self, node: &Block, at: BlockPath) {
        let BlockPath { block, indices } = at.clone();
        match name_of(node) {
            Some(name) => self.emit(Event::Skipped {
                step: StepPath::at(name, &indices),
            }),
            None => self.emit(Event::BlockSkipped { at }),
        }
        self.leave_block(block, indices);
    }

    /// An expression of a block fails on this data: roll back, or past the pivot ask a person.
    pub(super) fn cannot_compute(&mut self, node: &Block, at: &BlockPath, error: &EvaluationError) {
        if self.saga.pass == Pass::Finish {
            let name = name_of(node).map_or_else(|| unnamed(node.id), str::to_owned);
            let path = StepPath::at(name, &at.indices);
            self.suspend(&path, Phase::Action, error.to_string());
        } else {
            self.roll_back(format!("line {}: {error}", node.line));
        }
    }

    pub(super) fn leave_block(&mut self, block: BlockId, indices: Vec<u32>) {
        self.moves.push(Move::Leave { block, indices });
    }

    fn enter_step(
        &mut self,
        node: &Block,
        step: &Step,
        indices: Vec<u32>,
        item: Option<Arc<Value>>,
    ) {
        let finishing = self.saga.pass == Pass::Finish;
        let path = StepPath {
            name: step.name.clone(),
            indices,
        };
        let settled = self
            .saga
            .steps
            .get(&path)
            .is_some_and(|state| !state.is_resumed());
        let too_early = step.forward.is_none() && !finishing;
        if settled || too_early {
            self.step_done(&path);
            return;
        }
        let turnout = self.turnout(node, step, item.as_deref());
        let phase = step.forward.as_ref().map_or(Phase::Confirm, Forward::phase);
        match turnout {
            Ok(Turnout::Runs(with)) => match self.room_for(with.as_deref()) {
                Ok(()) => self.ask(&path, phase, 1, with),
                Err(why) if finishing => self.suspend(&path, phase, why),
                Err(why) => self.is_too_large(format!("{path}: {why}")),
            },
            Ok(Turnout::Skipped) => {
                self.emit(Event::Skipped { step: path.clone() });
                self.step_done(&path);
            }
            // Behind the pivot there is no way back; a person must look.
            Err(error) if finishing => self.suspend(&path, phase, error.to_string()),
            Err(error) => self.roll_back(format!("{path}: {error}")),
        }
    }

    /// Whether the step runs, and what its commands carry. Of one that does not run nothing else is
    /// computed: `when` is what guards the rest.
    fn turnout(
        &self,
        node: &Block,
        step: &Step,
        item: Option<&Value>,
    ) -> Result<Turnout, EvaluationError> {
        let render = || {
            let with = step.with.as_ref();
            let most = self.payload_limit(node);
            let with = with.map(|with| with.render_within(&self.scope(item), most));
            Ok(with.transpose()?.map(Arc::new))
        };
        if self.sabotage.has(PlantedBug::RenderSkipped) {
            render()?;
        }
        if self.wanted(node, item)? {
            render().map(Turnout::Runs)
        } else {
            Ok(Turnout::Skipped)
        }
    }

    fn room_for(&self, with: Option<&Value>) -> Result<(), String> {
        with.map_or(Ok(()), |with| self.saga.has_room(with))
    }

    fn enter_block(&mut self, node: &Block, indices: Vec<u32>, item: Option<Arc<Value>>) {
        let block = node.id;
        let at = BlockPath {
            block,
            indices: indices.clone(),
        };
        if self.saga.blocks.get(&at).is_some_and(|known| known.skipped) {
            self.leave_block(block, indices);
            return;
        }
        match &node.kind {
            BlockKind::Sequence(children) => match children.first() {
                Some(first) => self.moves.push(Move::Enter {
                    block: *first,
                    indices,
                    item,
                }),
                None => self.leave_block(block, indices),
            },
            BlockKind::Parallel(children) => {
                let children = children.iter().map(|child| Move::Enter {
                    block: *child,
                    indices: indices.clone(),
                    item: item.clone(),
                });
                self.open(at, children.len(), children.rev().collect());
            }
            BlockKind::ForEach { .. } => self.enter_loop(node, at, item.as_deref()),
            BlockKind::Wait(wait) => self.enter_wait(node, wait, at, item.as_deref()),
            BlockKind::Sleep(sleep) => self.enter_sleep(node, sleep, at, item.as_deref()),
            BlockKind::Step(_) | BlockKind::Saga(_) => {}
        }
    }

    /// Starts to count a block's children and enters them all, by these moves.
    pub(super) fn open(&mut self, at: BlockPath, children: usize, mut moves: Vec<Move>) {
        if children == 0 {
            self.leave_block(at.block, at.indices.clone());
        }
        self.emit(Event::Opened {
            at,
            children: u32::try_from(children).unwrap_or(u32::MAX),
            sequential: false,
        });
        self.moves.append(&mut moves);
    }

    fn enter_backward(&mut self, node: &Block, indices: Vec<u32>) {
        let block = node.id;
        match &node.kind {
            BlockKind::Step(step) => self.undo_if_needed(&StepPath {
                name: step.name.clone(),
                indices,
            }),
            BlockKind::Wait(Wait { name, .. }) | BlockKind::Sleep(Sleep { name, .. }) => {
                self.wait_no_more(&StepPath::at(name.clone(), &indices));
            }
            BlockKind::Saga(SubSaga { name, .. }) => {
                self.undo_child_if_needed(&StepPath::at(name.clone(), &indices));
            }
            BlockKind::Sequence(children) => match children.last() {
                Some(last) => self.moves.push(Move::Enter {
                    block: *last,
                    indices,
                    item: None,
                }),
                None => self.leave_block(block, indices),
            },
            BlockKind::Parallel(children) => {
                let at = BlockPath { block, indices };
                if self.was_opened(&at) {
                    let children = children.iter().map(|child| Move::Enter {
                        block: *child,
                        indices: at.indices.clone(),
                        item: None,
                    });
                    self.open(at.clone(), children.len(), children.rev().collect());
                } else {
                    self.leave_block(block, at.indices);
                }
            }
            BlockKind::ForEach {
                body, sequential, ..
            } => {
                let at = BlockPath { block, indices };
                if self.was_opened(&at) {
                    self.unwind_loop(at, *body, *sequential);
                } else {
                    self.leave_block(block, at.indices);
                }
            }
        }
    }

    fn was_opened(&self, at: &BlockPath) -> bool {
        self.saga.blocks.get(at).is_some_and(|known| !known.skipped)
    }

    pub(super) fn undo_if_needed(&mut self, path: &StepPath) {
        let known = self
            .saga
            .steps
            .get(path)
            .map(|state| (state.status, state.waiting));
        match known {
            Some((StepStatus::Unknown, _)) if self.sabotage.has(PlantedBug::ForgetUnknown) => {
                self.step_done(path);
            }
            Some((StepStatus::Reserved | StepStatus::Unknown, _)) => self.undo(path),
            // It may be at work right now: hear it out.
            Some((StepStatus::Reserving, Waiting::Reply(_))) => {}
            Some((StepStatus::Reserving, _)) => {
                let reason = "an attempt had failed when the roll-back came".to_owned();
                self.give_up(path, reason);
            }
            _ => self.step_done(path),
        }
    }

    fn leave(&mut self, block: BlockId, indices: Vec<u32>) {
        let node = self.definition.block(block);
        if node.pivot && self.saga.pass == Pass::Forward {
            self.pass_pivot();
            return;
        }
        let Some(parent) = node.parent.map(|parent| self.definition.block(parent)) else {
            match self.saga.pass {
                Pass::Forward => self.pass_pivot(),
                Pass::Finish => self.complete(),
                Pass::Rollback => self.compensated(),
                _ => {}
            }
            return;
        };
        match &parent.kind {
            BlockKind::Sequence(children) => {
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
                    None => self.leave_block(parent.id, indices),
                }
            }
            BlockKind::Parallel(_) => {
                self.advance(parent.id, indices);
            }
            BlockKind::ForEach { .. } => self.leave_item(parent, indices),
            BlockKind::Step(_) | BlockKind::Wait(_) | BlockKind::Sleep(_) | BlockKind::Saga(_) => {}
        }
    }

    /// One more child of a counting block is done; the block too, if it was the last one.
    pub(super) fn advance(&mut self, block: BlockId, indices: Vec<u32>) {
        let at = BlockPath { block, indices };
        self.emit(Event::Advanced { at: at.clone() });
        if self
            .saga
            .blocks
            .get(&at)
            .is_some_and(|block| block.remaining == 0)
        {
            self.leave_block(block, at.indices);
        }
    }

    pub(super) fn wanted(
        &self,
        node: &Block,
        item: Option<&Value>,
    ) -> Result<bool, EvaluationError> {
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

    /// Whether the finish pass has anything to do here: confirm-only steps, or all that stands
    /// behind an early pivot.
    fn has_work_left(&self, node: &Block) -> bool {
        if self.definition.blocks.iter().any(|node| node.pivot) {
            return true;
        }
        let any = |children: &[BlockId]| {
            children
                .iter()
                .any(|child| self.has_work_left(self.definition.block(*child)))
        };
        match &node.kind {
            BlockKind::Step(step) => step.forward.is_none(),
            BlockKind::Wait(_) | BlockKind::Sleep(_) | BlockKind::Saga(_) => false,
            BlockKind::Sequence(children) | BlockKind::Parallel(children) => any(children),
            BlockKind::ForEach { body, .. } => any(std::slice::from_ref(body)),
        }
    }
}

/// What a step's `when` says, and then its `with`.
enum Turnout {
    /// It does not run.
    Skipped,
    /// It runs, with this payload if it has one.
    Runs(Option<Arc<Value>>),
}

/// The name of a block that has one.
pub(super) fn name_of(node: &Block) -> Option<&str> {
    match &node.kind {
        BlockKind::Step(Step { name, .. })
        | BlockKind::Wait(Wait { name, .. })
        | BlockKind::Sleep(Sleep { name, .. })
        | BlockKind::Saga(SubSaga { name, .. }) => Some(name),
        BlockKind::Sequence(_) | BlockKind::Parallel(_) | BlockKind::ForEach { .. } => None,
    }
}

/// What stands for the name of a block that has none; `@` can't begin a name.
fn unnamed(block: BlockId) -> String {
    format!("@{}", block.0)
}

/// The block that [`unnamed`] named.
pub(super) fn block_named(definition: &Definition, name: &str) -> Option<BlockId> {
    match name.strip_prefix('@') {
        Some(number) => number.parse().ok().map(BlockId),
        None => definition.steps.get(name).copied(),
    }
}
