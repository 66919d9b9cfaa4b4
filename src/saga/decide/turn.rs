//! One decision in the making: what the verbs beside this file share.

use crate::definition::{BlockId, Definition};
use crate::id::Timestamp;
use crate::saga::apply::apply;
use crate::saga::emission::Emission;
use crate::saga::event::Event;
use crate::saga::portion::Move;
use crate::saga::sabotage::Sabotage;
use crate::saga::state::Saga;
use crate::saga::transition::IllegalEvent;

/// One decision in the making.
pub(super) struct Turn<'a> {
    pub(super) sabotage: Sabotage,
    pub(super) definition: &'a Definition,
    pub(super) saga: &'a mut Saga,
    pub(super) now: Timestamp,
    pub(super) events: Vec<Event>,
    pub(super) emissions: Vec<Emission>,
    /// Blocks still to enter or to leave in this decision, the next one last.
    pub(super) moves: Vec<Move>,
    /// The block that expressions are evaluated for, and its places in the loops around it.
    pub(super) focus: (BlockId, Vec<u32>),
    /// What the decision has cost so far.
    pub(super) spent: Spent,
    /// Whether it goes on where the one before it left off.
    pub(super) goes_on: bool,
    /// Why the saga would hold more than one saga may, if that is so.
    pub(super) too_large: Option<String>,
    /// What can't be, if it came to that: nothing more is decided then.
    pub(super) illegal: Option<IllegalEvent>,
}

impl Turn<'_> {
    pub(super) fn emit(&mut self, event: Event) {
        if self.illegal.is_some() {
            return;
        }
        match apply(self.saga, &event) {
            Ok(()) => self.events.push(event),
            Err(illegal) => self.illegal = Some(illegal),
        }
    }
}

/// What a decision has cost so far.
#[derive(Debug, Default)]
pub(super) struct Spent {
    pub(super) bytes: usize,
    pub(super) commands: usize,
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
