//! A saga's state.
//!
//! The state is the fold of the journal's events and of nothing else; it is never stored but as a
//! snapshot of that fold. Sums that a decision needs (how many children a block still waits for,
//! when the next timer is due) are kept here, so that a decision costs the same in a saga of ten
//! steps as in one of ten thousand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::family::Family;
use super::held::Held;
use super::incoming::{Reply, Signal, Starter};
use super::line::Line;
use super::pass::Pass;
use super::portion::LeftOff;
use super::status::Status;
use super::step::{BlockPath, BlockState, StepState, StepStatus, Waiting};
use crate::definition::SagaFacts;
use crate::id::{OutboxId, Phase, SagaId, StepPath, Timestamp};
use crate::limits::Extent;

/// A saga as the fold of its journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saga {
    /// `saga` in expressions.
    pub facts: SagaFacts,
    /// The id.
    pub id: SagaId,
    /// The definition's name.
    pub name: String,
    /// What it works on; null before the start.
    pub input: Arc<Value>,
    /// Who wants to hear of it.
    pub starter: Option<Starter>,
    /// Who wanted the same saga started, and wants to hear how it ends; bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Starter>,
    /// What is being done.
    pub pass: Pass,
    /// Why it is being, or was, rolled back.
    pub reason: Option<String>,
    /// Past it, and before the pivot, it is rolled back.
    pub deadline: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The result, once completed.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::saga::step::present"
    )]
    pub output: Option<Arc<Value>>,
    /// Why the result could not be computed; `output` is null then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_error: Option<String>,
    /// Steps that were reached.
    pub steps: BTreeMap<StepPath, StepState>,
    /// Counting blocks that were entered in this pass or before.
    #[serde(with = "block_map")]
    pub blocks: BTreeMap<BlockPath, BlockState>,
    /// When something of a step is due, earliest first.
    pub timers: BTreeSet<(Timestamp, StepPath)>,
    /// Confirms of reservations that are not answered yet.
    pub unconfirmed: u32,
    /// Steps that wait for a person.
    pub suspended: BTreeSet<StepPath>,
    /// Signals that no `wait` has taken yet, oldest first.
    #[serde(default)]
    pub signals: Vec<Signal>,
    /// Ids of signals and operator actions that were seen, oldest first; bounded.
    #[serde(default)]
    pub seen: VecDeque<String>,
    /// What the signals among them said, for whoever sends another one with the same id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub said: BTreeMap<String, String>,
    /// When reservations lapse, earliest first.
    #[serde(default)]
    pub leases: BTreeSet<(Timestamp, StepPath)>,
    /// Whether a person has paused it, and the answers that came since.
    #[serde(default)]
    pub paused: Option<Vec<Reply>>,
    /// Answers that came while it was paused and are still to be taken, oldest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub answers: VecDeque<Reply>,
    /// What the last decision had no room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_off: Option<LeftOff>,
    /// How much data it holds.
    #[serde(default)]
    pub held: Held,
    /// Whether a person ended it by hand, who and why.
    #[serde(default)]
    pub forced: Option<Forced>,
    /// Its place in the line of those that have had its key.
    #[serde(default)]
    pub line: Line,
    /// The saga that runs this one, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
}

/// Ids of signals and operator actions that one saga remembers.
pub const SEEN_IDS_MAX: usize = 1_000;

/// Starters that one saga tells how it ended, besides the one that began it.
pub const LISTENERS_MAX: usize = 100;

/// Signals that one saga keeps for a `wait` to come.
pub const SIGNALS_KEPT_MAX: usize = 100;

/// How long before a reservation lapses its saga must be past the pivot, so that the confirm
/// still arrives in time.
pub const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// An end that a person decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forced {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

/// A step whose answer is overdue, and the outbox row that its command was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// The step.
    pub step: StepPath,
    /// The row.
    pub row: Uuid,
}

impl Saga {
    /// A saga that has not started.
    pub fn new(id: SagaId, name: &str, key: &str, started_at: Timestamp) -> Self {
        Self {
            facts: SagaFacts {
                id: id.to_string(),
                key: key.to_owned(),
                started_at,
            },
            id,
            name: name.to_owned(),
            input: Arc::new(Value::Null),
            starter: None,
            listeners: Vec::new(),
            pass: Pass::New,
            reason: None,
            deadline: None,
            ended_at: None,
            output: None,
            output_error: None,
            steps: BTreeMap::new(),
            blocks: BTreeMap::new(),
            timers: BTreeSet::new(),
            unconfirmed: 0,
            suspended: BTreeSet::new(),
            signals: Vec::new(),
            said: BTreeMap::new(),
            seen: VecDeque::new(),
            leases: BTreeSet::new(),
            paused: None,
            answers: VecDeque::new(),
            left_off: None,
            held: Held::default(),
            forced: None,
            line: Line::default(),
            family: None,
        }
    }

    /// Where it stands, for the row and for people.
    pub fn status(&self) -> Status {
        match self.pass {
            Pass::Completed => Status::Completed,
            Pass::Compensated => Status::Compensated,
            _ if !self.suspended.is_empty() || self.paused.is_some() => Status::Suspended,
            Pass::New | Pass::Forward | Pass::Prepared => Status::Running,
            Pass::Confirm | Pass::Finish => Status::Confirming,
            Pass::Rollback => Status::Compensating,
        }
    }

    /// Why it stands there: what a person asks first.
    pub fn status_reason(&self) -> Option<String> {
        if let Some(Forced { by, why }) = &self.forced {
            return Some(format!("forced by {by}: {why}"));
        }
        if self.paused.is_some() && !self.status().is_ended() {
            return Some("paused by a person".to_owned());
        }
        match self
            .suspended
            .first()
            .and_then(|step| Some((step, self.steps.get(step)?)))
        {
            Some((path, step)) => {
                let why = step.reason.as_deref().unwrap_or("no reason given");
                Some(format!("{path} {}: {why}", step.phase))
            }
            None => self.reason.clone().or_else(|| {
                let error = self.output_error.as_ref()?;
                Some(format!("its output can't be computed: {error}"))
            }),
        }
    }

    /// When something is due: the earliest timer, or the deadline while it still counts.
    pub fn wake_at(&self) -> Option<Timestamp> {
        if self.paused.is_some() {
            return None;
        }
        let forward = self.pass == Pass::Forward;
        let deadline = self.deadline.filter(|_| forward);
        let lease = self.lapses_at().filter(|_| forward);
        let timer = self.timers.first().map(|(at, _)| *at);
        let left_off = self.left_off.as_ref().map(|left_off| left_off.at);
        [timer, deadline, lease, left_off]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the first reservation lapses, less the time that confirming it takes.
    pub fn lapses_at(&self) -> Option<Timestamp> {
        self.leases.first().map(|(at, _)| at.before(LEASE_MARGIN))
    }

    /// Whether a signal or operator action was seen before.
    pub fn has_seen(&self, id: &str) -> bool {
        self.seen.iter().any(|seen| seen == id)
    }

    pub(super) fn remember(&mut self, id: &str) {
        if self.seen.len() >= SEEN_IDS_MAX
            && let Some(oldest) = self.seen.pop_front()
        {
            self.said.remove(&oldest);
        }
        self.seen.push_back(id.to_owned());
    }

    pub(super) fn remember_signal(&mut self, signal: &Signal) {
        self.remember(&signal.id);
        self.said.insert(signal.id.clone(), signal.mark());
    }

    /// Notes where a step stands and what else is known of it, and when something of it is due.
    pub(super) fn update(
        &mut self,
        step: &StepPath,
        status: StepStatus,
        change: impl FnOnce(&mut StepState),
    ) {
        let new = || StepState::new(status);
        let state = self.steps.entry(step.clone()).or_insert_with(new);
        let before = state.waiting.timer();
        state.status = status;
        change(state);
        let after = state.waiting.timer();
        if before != after {
            if let Some(at) = before {
                self.timers.remove(&(at, step.clone()));
            }
            if let Some(at) = after {
                self.timers.insert((at, step.clone()));
            }
        }
        if state.waiting == Waiting::Person {
            self.suspended.insert(step.clone());
        } else {
            self.suspended.remove(step);
        }
    }

    /// Whether it has ended and given up its key.
    pub fn is_superseded(&self) -> bool {
        self.line.successor.is_some() && self.ended_at.is_some()
    }

    /// The saga that signals to this one's key are for, if not this one: the one that replaces it
    /// once it is rolled back. Behind the pivot it needs its signals itself.
    pub fn heir(&self) -> Option<SagaId> {
        let successor = self.line.successor.as_ref()?;
        let goes_back = matches!(self.pass, Pass::Forward | Pass::Rollback);
        (goes_back && self.ended_at.is_none()).then_some(successor.saga)
    }

    /// Whether it was run by another saga and rolled back. It has done no business then, and a
    /// later attempt of that other one is to find its key free.
    pub fn is_undone_child(&self) -> bool {
        self.family.is_some() && self.pass == Pass::Compensated
    }

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

    /// Steps whose time-out is to be decided at this time. Whether their commands were sent at all
    /// must be known first.
    pub fn overdue(&self, now: Timestamp) -> Vec<Overdue> {
        if self.paused.is_some() {
            return Vec::new();
        }
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        due.filter_map(|(_, step)| {
            let row = self.row_of(step)?;
            let step = step.clone();
            Some(Overdue { step, row })
        })
        .collect()
    }

    /// The outbox row of the command that a step waits for an answer to.
    pub(super) fn row_of(&self, step: &StepPath) -> Option<Uuid> {
        let StepState {
            phase,
            attempt,
            returns,
            unsent_since,
            waiting: Waiting::Reply(due),
            ..
        } = self.steps.get(step)?
        else {
            return None;
        };
        let due = unsent_since.unwrap_or(*due);
        let sending = (*phase, *attempt, *returns);
        Some(OutboxId::of_command(self.id, step, sending, due).0)
    }
}

/// JSON keys must be text, so the map is stored as a list of pairs.
mod block_map {
    use super::{BTreeMap, BlockPath, BlockState};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        map: &BTreeMap<BlockPath, BlockState>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<BlockPath, BlockState>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
