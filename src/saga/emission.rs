//! What a decision has to tell the world, and the decision as a whole.

use serde_json::Value;
use uuid::Uuid;

use super::event::Event;
use super::family::{ChildAnswer, Parent};
use super::incoming::Starter;
use super::line::Successor;
use crate::id::{Phase, StepPath, Timestamp};
use crate::message::{Destination, Outcome};

/// What was decided.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    /// To append to the journal as one entry; already applied to the saga. Never empty.
    pub events: Vec<Event>,
    /// To publish once committed.
    pub emissions: Vec<Emission>,
    /// When to look again if nothing comes.
    pub wake_at: Option<Timestamp>,
}

/// Something to tell the world once the decision is committed.
#[derive(Debug, Clone, PartialEq)]
pub enum Emission {
    /// A command to a participant.
    Command {
        /// The step it belongs to.
        step: StepPath,
        /// Which command.
        phase: Phase,
        /// From 1.
        attempt: u32,
        /// Its name, such as `inventory.reserve`.
        command: String,
        /// Where to.
        to: Destination,
        /// The payload.
        body: Value,
        /// When the answer is overdue.
        deadline: Timestamp,
        /// The outbox row that it becomes, if its answer is waited for.
        row: Option<Uuid>,
    },
    /// A life-cycle change, for whoever listens.
    Notice {
        /// `started`, `confirming`, `completed`, …; the routing key is `<saga>.<change>`.
        change: &'static str,
        /// The payload.
        body: Value,
    },
    /// The start of the saga that has its key from now on.
    Successor(Successor),
    /// An answer to the starter.
    Answer {
        /// Who.
        starter: Starter,
        /// `accepted`, `completed` or `compensated`; `refused` to one that is replaced while waiting.
        kind: &'static str,
        /// Yes for `accepted` and `completed`, else no.
        outcome: Outcome,
        /// Why not.
        reason: Option<String>,
        /// The payload.
        body: Value,
    },
    /// An answer to the saga that runs this one.
    ToParent {
        /// Who.
        parent: Parent,
        /// What.
        answer: ChildAnswer,
    },
}
