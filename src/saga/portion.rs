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

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decide::{PlantedBug, Turn};
use super::event::{Event, OperatorAction, Refusal, Reply};
use super::state::{Pass, Saga};
use super::step::{StepState, StepStatus, Waiting};
use super::walk::block_named;
use crate::definition::BlockId;
use crate::id::{Phase, StepPath, Timestamp};
use crate::limits::{Excess, Extent, PORTION_BYTES, PORTION_COMMANDS, PORTION_EVENTS, SAGA};
use crate::message::Outcome;

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
    fn forget_items(&mut self) {
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

/// How much data a saga holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Bytes, as JSON.
    pub bytes: usize,
    /// JSON values.
    pub values: usize,
    /// Objects among them.
    #[serde(default)]
    pub objects: usize,
}

impl Held {
    pub(super) fn add(&mut self, value: &Value) {
        *self = self.with(Extent::of(value));
    }

    pub(super) fn replace(&mut self, before: Option<&Value>, value: &Value) {
        self.add(value);
        if let Some(before) = before {
            self.remove(before);
        }
    }

    /// Snapshots of an older version did not say what was held, so there may be less than is removed.
    pub(super) fn remove(&mut self, value: &Value) {
        let extent = Extent::of(value);
        self.bytes = self.bytes.saturating_sub(extent.bytes);
        self.values = self.values.saturating_sub(extent.values);
        self.objects = self.objects.saturating_sub(extent.objects);
    }

    /// Bytes of memory that it takes, roughly.
    pub fn memory(self) -> usize {
        self.whole().memory()
    }

    fn whole(self) -> Extent {
        Extent {
            bytes: self.bytes,
            depth: 0,
            values: self.values,
            objects: self.objects,
        }
    }

    pub(super) fn with(self, more: Extent) -> Self {
        Self {
            bytes: self.bytes + more.bytes,
            values: self.values + more.values,
            objects: self.objects + more.objects,
        }
    }

    /// Whether one saga may hold so much.
    ///
    /// # Errors
    /// Says of what it is too much.
    pub(super) fn check(self) -> Result<(), String> {
        SAGA.check(self.whole()).map_err(too_much)
    }
}

/// What a decision has cost so far.
#[derive(Debug, Default)]
pub(super) struct Spent {
    bytes: usize,
    commands: usize,
}

impl Spent {
    /// Something that is written.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// A command.
    pub(super) fn add_command(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.commands += 1;
    }
}

impl Saga {
    /// Whether the last decision has left off in the middle, so that the next one is due.
    pub fn is_left_off(&self) -> bool {
        self.left_off.is_some() && self.paused.is_none()
    }

    /// Whether it has room for one more value before it holds more than a saga may.
    ///
    /// # Errors
    /// Says of what it would hold too much.
    pub(super) fn has_room(&self, value: &Value) -> Result<(), String> {
        self.held.with(Extent::of(value)).check()
    }

    /// Whether it keeps the body of a yes to this command: later steps and the output speak of the
    /// reservation, and a confirm-only step has just this.
    pub(super) fn keeps_reply(&self, path: &StepPath, phase: Phase) -> bool {
        let state = self.steps.get(path);
        match phase {
            Phase::Reserve | Phase::Action => true,
            Phase::Confirm => state.is_some_and(|state| state.reply.is_none()),
            Phase::Compensate => false,
        }
    }
}

fn too_much(excess: Excess) -> String {
    match excess {
        Excess::Bytes { most, .. } => format!(
            "the saga would hold more than the {most} bytes that one saga may: its input, payloads and replies together"
        ),
        Excess::Values { most } | Excess::Depth { most } => format!(
            "the saga would hold more than the {most} JSON values that one saga may: its input, payloads and replies together"
        ),
    }
}

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

    /// A yes whose body the saga can't hold. Before the pivot it counts like no answer at all: the
    /// step is compensated, and that without its reservation, as after a time-out.
    pub(super) fn no_room(&mut self, path: &StepPath, phase: Phase, why: String) {
        let goes_forward = self.saga.pass == Pass::Forward;
        if !goes_forward && self.saga.pass != Pass::Rollback {
            return self.suspend(path, phase, format!("it said yes, but {why}"));
        }
        self.emit(Event::OutcomeUnknown {
            step: path.clone(),
            reason: format!("it said yes, but {why}"),
        });
        if goes_forward {
            self.roll_back(format!("{path}: {why}"));
        } else {
            self.undo(path);
        }
    }

    /// An answer as it is kept while the saga is paused: without its body, it has to be given again.
    pub(super) fn kept_if_possible(&self, reply: Reply) -> Reply {
        match self.saga.has_room(&reply.body) {
            Ok(()) => reply,
            Err(why) => Reply {
                outcome: Outcome::Failed,
                body: Arc::default(),
                reason: Some(why),
                ..reply
            },
        }
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

    /// Takes the next of the answers that came while the saga was paused.
    pub(super) fn take_answer(&mut self) {
        if self.saga.paused.is_some() {
            return; // again: they are taken when it is resumed
        }
        let Some(reply) = self.saga.answers.front().cloned() else {
            return;
        };
        self.moves.push(Move::Answers);
        self.emit(Event::AnswerTaken);
        // What it answers may have been settled by the answer before it.
        let _: Result<(), Refusal> = self.reply(reply);
    }
}
