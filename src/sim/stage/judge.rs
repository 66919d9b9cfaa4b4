//! Whether a play was sound: all or nothing, in reverse order, nothing after the end, and an end.
//!
//! Judged from what participants did and what the journals say, not from what the core believes.

use std::collections::BTreeMap;

use super::ledger::Effect;
use super::play::{Play, SagaPlay};
use crate::definition::{BlockId, BlockKind, Definition, Step};
use crate::id::{Phase, StepPath};
use crate::saga::{Event, OperatorKind, Status};

/// Most pairs of compensations whose order is compared, for each saga.
const PAIRS_MAX: usize = 100_000;

impl Play {
    /// Everything that speaks against "all or nothing, in reverse order, and it ends", in words.
    pub fn wrong(&self) -> Vec<String> {
        judge(self)
    }

    /// Demands that every saga ended and was all or nothing.
    ///
    /// # Panics
    /// With all that is wrong, and the timelines.
    pub fn assert_sound(&self) {
        let wrong = self.wrong();
        assert!(
            wrong.is_empty(),
            "seed {}:\n  - {}\n\n{}",
            self.seed,
            wrong.join("\n  - "),
            self.timeline()
        );
    }
}

/// Everything that is wrong, in words.
fn judge(play: &Play) -> Vec<String> {
    let mut wrong = play.ledger.wrong.clone();
    for saga in &play.sagas {
        let name = format!("{} `{}`", saga.name, saga.key);
        let found = of_saga(play, saga);
        wrong.extend(found.into_iter().map(|what| format!("{name}: {what}")));
    }
    wrong
}

fn of_saga(play: &Play, saga: &SagaPlay) -> Vec<String> {
    let mut wrong = Vec::new();
    let journal = saga.view().journal;
    wrong.extend(journal.problem);
    if !saga.status.is_ended() {
        wrong.push(format!("never ends; it is {}", saga.ended_as()));
        return wrong;
    }
    let Some(definition) = saga.definition.as_deref() else {
        return wrong;
    };
    if saga.state.forced.is_none() {
        wrong.extend(all_or_nothing(play, saga, definition));
        if saga.status == Status::Compensated {
            wrong.extend(reverse_order(saga, definition));
        }
    }
    if let Some(ended_at) = saga.history.head.ended_at {
        // A read that comes late leaves nothing behind.
        let is_read = |effect: &Effect| {
            let step = definition.step(&effect.step.name);
            matches!(effect.phase, Phase::Reserve | Phase::Action)
                && step.is_some_and(|step| step.compensate.is_none())
        };
        let late = saga.effects().iter().filter(|effect| effect.at > ended_at);
        wrong.extend(
            late.filter(|effect| !is_read(effect))
                .map(|effect| format!("{} {} happened after the end", effect.step, effect.phase)),
        );
    }
    wrong
}

/// Completed: what was reserved is confirmed and nothing is undone. Compensated: what was done is
/// undone and nothing is confirmed. And nothing happens twice.
fn all_or_nothing(play: &Play, saga: &SagaPlay, definition: &Definition) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, counts) in play.ledger.counts(saga.id) {
        let Some(step) = definition.step(&path.name) else {
            wrong.push(format!("{path} is no step of its definition"));
            continue;
        };
        if counts.forward > 1 || counts.confirmed > 1 || counts.compensated > 1 {
            wrong.push(format!("{path} took effect more than once: {counts:?}"));
        }
        if skipped_by_hand(saga, &path) {
            continue;
        }
        let reserves = step.forward.is_some();
        let (confirms, undoes) = (step.confirm.is_some(), step.compensate.is_some());
        let done = counts.forward > 0;
        let complaint = match saga.status {
            Status::Completed if counts.compensated > 0 => "was undone",
            Status::Completed if reserves && confirms && done && counts.confirmed == 0 => {
                "was not confirmed"
            }
            Status::Compensated if counts.confirmed > 0 => "was confirmed",
            Status::Compensated if done && undoes && counts.compensated == 0 => "was not undone",
            _ => continue,
        };
        wrong.push(format!("is {}, but {path} {complaint}", saga.status));
    }
    wrong
}

/// A person has answered for the participant.
fn skipped_by_hand(saga: &SagaPlay, path: &StepPath) -> bool {
    events(saga).any(|event| {
        matches!(event, Event::Operated(action)
            if matches!(&action.kind, OperatorKind::Skip { step, .. } if step == path))
    })
}

fn events(saga: &SagaPlay) -> impl Iterator<Item = Event> {
    let records = saga
        .history
        .entries
        .iter()
        .filter_map(|entry| entry.record().ok());
    records.flat_map(|record| record.events)
}

/// Of two steps that run one after the other, the later one is undone before the earlier one is.
fn reverse_order(saga: &SagaPlay, definition: &Definition) -> Vec<String> {
    let (mut asked, mut undone) = (BTreeMap::new(), BTreeMap::new());
    for (number, event) in events(saga).enumerate() {
        match event {
            Event::Asked {
                step,
                phase: Phase::Compensate,
                ..
            } => {
                asked.entry(step).or_insert(number);
            }
            Event::Succeeded {
                step,
                phase: Phase::Compensate,
                ..
            } => {
                undone.insert(step, number);
            }
            _ => {}
        }
    }
    let pairs = asked
        .iter()
        .flat_map(|earlier| undone.iter().map(move |later| (earlier, later)));
    pairs
        .take(PAIRS_MAX)
        .filter(|((earlier, asked), (later, undone))| {
            asked < undone && runs_before(definition, earlier, later)
        })
        .map(|((earlier, _), (later, _))| {
            format!("{earlier} was undone before {later}, which came after it")
        })
        .collect()
}

/// Whether the definition has `one` run before `other`: where their ways through the tree part,
/// they part in a sequence, or in a loop that goes one by one.
fn runs_before(definition: &Definition, one: &StepPath, other: &StepPath) -> bool {
    let (Some(a), Some(b)) = (way(definition, one), way(definition, other)) else {
        return false;
    };
    let parting = a.iter().zip(&b).position(|(a, b)| a != b);
    let Some(at) = parting.filter(|at| *at > 0) else {
        return false;
    };
    let (block, _) = a[at - 1];
    let (mine, theirs) = (a[at], b[at]);
    match &definition.block(block).kind {
        BlockKind::Sequence(_) => {
            definition.block(mine.0).position < definition.block(theirs.0).position
        }
        BlockKind::ForEach { sequential, .. } => *sequential && mine.1 < theirs.1,
        _ => false,
    }
}

/// The blocks from the root to a step, each with its place in the loop right around it.
fn way(definition: &Definition, path: &StepPath) -> Option<Vec<(BlockId, Option<u32>)>> {
    let mut indices = path.indices.clone();
    let mut at = definition.named(&path.name)?;
    let mut way = Vec::new();
    loop {
        let Some(parent) = at.parent.map(|parent| definition.block(parent)) else {
            way.push((at.id, None));
            way.reverse();
            return Some(way);
        };
        let index = match &parent.kind {
            BlockKind::ForEach { .. } => Some(indices.pop()?),
            _ => None,
        };
        way.push((at.id, index));
        at = parent;
    }
}

/// Whether a step stands where there is no way back.
pub(super) fn is_behind_pivot(definition: &Definition, step: &Step) -> bool {
    let Some(pivot) = definition.blocks.iter().find(|node| node.pivot) else {
        return false;
    };
    let mut at = definition.named(&step.name);
    while let Some(node) = at {
        if node.parent == Some(Definition::ROOT) {
            return node.position > pivot.position;
        }
        at = node.parent.map(|parent| definition.block(parent));
    }
    false
}
