//! Large decisions in portions.
//!
//! A loop whose payload carries the whole input multiplies: ten thousand items of a megabyte would
//! be one journal entry of ten gigabytes. So a decision that has written or sent as much as one may
//! leaves the rest of the walk for the next one: what is left is an event like any other
//! ([`Event::LeftOff`]), the saga is due again at once, and whichever node comes first goes on from
//! there. Confirming and rolling back are walks, too, and come in portions alike.
//!
//! The whole is bounded as well ([`super::reckon`]).

use std::iter;
use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::turn::Turn;
use super::walk::block_named;
use crate::definition::BlockId;
use crate::id::{Phase, StepPath};
use crate::limits::{PORTION_BYTES, PORTION_COMMANDS, PORTION_EVENTS};
use crate::saga::event::Event;
use crate::saga::pass::Pass;
use crate::saga::portion::{LeftOff, Move};
use crate::saga::sabotage::PlantedBug;
use crate::saga::step::{StepState, StepStatus, Waiting};

impl Turn<'_> {
    /// Whether the rest is for the next decision; what has gone wrong does not go on at all.
    pub(super) fn is_full(&self) -> bool {
        self.illegal.is_some()
            || self.spent.bytes >= PORTION_BYTES
            || self.spent.commands >= PORTION_COMMANDS
            || self.events.len() >= PORTION_EVENTS
    }

    /// Goes on where the last decision left off; whether it had.
    pub(super) fn go_on(&mut self) -> bool {
        let Some(left_off) = self.saga.left_off.clone() else {
            return false;
        };
        self.goes_on = true;
        self.moves.extend(left_off.moves);
        true
    }

    /// Drops what is still to be entered or left, because the walk takes another way.
    pub(super) fn drop_moves(&mut self) {
        self.moves.retain(Move::outlasts_turning);
    }

    /// The saga would hold more than one saga may: it rolls back, or is not even begun.
    pub(super) fn is_too_large(&mut self, why: String) {
        self.too_large.get_or_insert_with(|| why.clone());
        self.roll_back(why);
    }

    /// Writes down what there was no room for.
    pub(super) fn leave_off(&mut self) {
        let is_cut = !self.moves.is_empty() && !self.goes_on;
        if is_cut
            && self.saga.pass == Pass::Forward
            && let Err(why) = self.reckon_moves()
        {
            self.is_too_large(why);
        }
        if self.sabotage.has(PlantedBug::ForgetLeftOff) {
            return;
        }
        let nothing_was_left = !self.goes_on || self.saga.left_off.is_none();
        if self.moves.is_empty() && nothing_was_left || self.saga.status().is_ended() {
            return;
        }
        let mut moves = Vec::new();
        if let Some(before) = self.saga.left_off.as_ref().filter(|_| !self.goes_on) {
            moves.clone_from(&before.moves);
        }
        moves.append(&mut self.moves);
        moves.iter_mut().for_each(Move::forget_items);
        let at = self.now;
        self.emit(Event::LeftOff(LeftOff { at, moves }));
    }

    /// Enters a loop's body for the next item of those that are left.
    pub(super) fn enter_items(
        &mut self,
        body: BlockId,
        around: Vec<u32>,
        next: u32,
        end: u32,
        list: Option<Arc<Vec<Value>>>,
    ) {
        self.focus = (body, around.clone());
        let list = match list {
            None if self.saga.pass != Pass::Rollback => self.list_of(body, &around).map(Arc::new),
            list => list,
        };
        let item = list.as_ref().and_then(|list| list.get(next as usize));
        let item = item.cloned().map(Arc::new);
        let mut indices = around.clone();
        indices.push(next);
        if next + 1 < end {
            self.moves.push(Move::Items {
                body,
                around,
                next: next + 1,
                end,
                list,
            });
        }
        self.moves.push(Move::Enter {
            block: body,
            indices,
            item,
        });
    }

    /// Asks the next reserved step to confirm; after the last one, looks whether all have.
    pub(super) fn confirm_after(&mut self, after: Option<StepPath>) {
        let is_reserved = |path: &StepPath, state: &StepState| {
            state.status == StepStatus::Reserved
                && self
                    .definition
                    .step(&path.name)
                    .is_some_and(|step| step.confirm.is_some())
        };
        match self.next_step(after, is_reserved) {
            Some(path) => {
                let after = Some(path.clone());
                self.moves.push(Move::Confirm { after });
                self.ask(&path, Phase::Confirm, 1, None);
            }
            None => self.confirmed_all(),
        }
    }

    /// What is still to be done, in this decision or a later one.
    fn moves_left(&self) -> impl Iterator<Item = &Move> {
        let left_off = self.saga.left_off.as_ref().filter(|_| !self.goes_on);
        let before = left_off.map_or(&[][..], |left_off| left_off.moves.as_slice());
        self.moves.iter().chain(before)
    }

    /// Whether there are still reservations that were not even asked to confirm.
    pub(super) fn confirms_are_left(&self) -> bool {
        self.moves_left()
            .any(|it| matches!(it, Move::Confirm { .. }))
    }

    /// Whether a roll-back that comes in portions has not come to this step yet. It will, and then
    /// see what was answered meanwhile: to undo or leave the step before would count it twice.
    pub(super) fn is_yet_to_be_undone(&self, path: &StepPath) -> bool {
        let is_around = |outer: BlockId, indices: &[u32]| {
            let inner = block_named(self.definition, &path.name);
            let mut blocks = iter::successors(inner, |block| self.definition.block(*block).parent);
            path.indices.starts_with(indices) && blocks.any(|block| block == outer)
        };
        self.saga.pass == Pass::Rollback
            && self.moves_left().any(|it| match it {
                Move::Enter { block, indices, .. } => is_around(*block, indices),
                Move::Items {
                    body,
                    around,
                    next,
                    end,
                    ..
                } => {
                    let index = path.indices.get(around.len());
                    is_around(*body, around) && index.is_some_and(|it| (next..end).contains(&it))
                }
                _ => false,
            })
    }

    pub(super) fn try_again_after(
        &mut self,
        after: Option<StepPath>,
        retries: bool,
        by: String,
        why: String,
    ) {
        let waits = |_: &StepPath, state: &StepState| match state.waiting {
            Waiting::Person => true,
            Waiting::Retry(_) => retries,
            _ => false,
        };
        let Some(step) = self.next_step(after, waits) else {
            return;
        };
        self.moves.push(Move::TryAgain {
            after: Some(step.clone()),
            retries,
            by: by.clone(),
            why: why.clone(),
        });
        self.try_step_again(&step, by, why, None);
    }

    fn next_step(
        &self,
        after: Option<StepPath>,
        wanted: impl Fn(&StepPath, &StepState) -> bool,
    ) -> Option<StepPath> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut steps = self.saga.steps.range((from, Bound::Unbounded));
        let found = steps.find(|(path, state)| wanted(path, state));
        found.map(|(path, _)| path.clone())
    }
}
