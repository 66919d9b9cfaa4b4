//! What participants did, duplicates not counted: what all-or-nothing is judged from.

use std::collections::BTreeMap;

use crate::id::{Phase, SagaId, StepPath, Timestamp};
use crate::message::Outcome;
use crate::participant::barrier::Barrier;
use crate::store::memory::MemoryStore;

/// One thing that a participant did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// For which saga.
    pub saga: SagaId,
    /// For which step.
    pub step: StepPath,
    /// Which of its commands.
    pub phase: Phase,
    /// The command's name; empty for participants that bring their own store, which keeps none.
    pub command: String,
    /// When.
    pub at: Timestamp,
}

/// What all participants did, in order.
#[derive(Debug, Clone, Default)]
pub struct EffectLedger {
    /// In the order in which they happened.
    pub effects: Vec<Effect>,
    /// Commands that no orchestrator may ever send: a confirm of nothing, a compensation of what
    /// is confirmed, the same command with another payload.
    pub wrong: Vec<String>,
}

/// How often each of a step's commands took effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// `reserve` or `action`.
    pub forward: u32,
    /// `confirm`.
    pub confirmed: u32,
    /// `compensate`, of something or of nothing.
    pub compensated: u32,
}

impl EffectLedger {
    /// How often the commands of a saga's steps took effect.
    pub fn counts(&self, saga: SagaId) -> BTreeMap<StepPath, Counts> {
        let mut counts: BTreeMap<StepPath, Counts> = BTreeMap::new();
        for effect in self.effects.iter().filter(|effect| effect.saga == saga) {
            let of = counts.entry(effect.step.clone()).or_default();
            match effect.phase {
                Phase::Reserve | Phase::Action => of.forward += 1,
                Phase::Confirm => of.confirmed += 1,
                Phase::Compensate => of.compensated += 1,
            }
        }
        counts
    }

    /// Adds what participants with a store of their own have answered.
    pub(super) fn add_barriers(&mut self, store: &MemoryStore) {
        for row in store.barriers() {
            let barrier = match Barrier::decode(&row.body) {
                Ok(barrier) => barrier,
                Err(error) => {
                    self.wrong
                        .push(format!("the barrier of {}: {error}", row.key.step));
                    continue;
                }
            };
            let done = barrier
                .answers()
                .filter(|(_, answer)| answer.outcome == Outcome::Succeeded);
            self.effects.extend(done.map(|(phase, _)| Effect {
                saga: row.key.saga,
                step: row.key.step.clone(),
                phase,
                command: String::new(),
                at: row.at,
            }));
        }
        self.effects.sort_by_key(|effect| effect.at);
    }
}
