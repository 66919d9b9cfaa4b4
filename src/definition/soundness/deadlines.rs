//! Whether the times in a definition fit into one another.
//!
//! Two sums over the blocks before the pivot. What surely passes (sleeps that nothing skips) must
//! leave room for the deadlines that follow it, because the saga's own `timeout` comes otherwise
//! first. What may pass at worst, from a reservation to the pivot, must be less than the time that
//! the reservation holds; the saga's `timeout` bounds it.

use std::time::Duration;

use super::super::draft::Draft;
use super::super::duration::format_duration;
use super::super::kinds::{Delay, Retry, Step};
use super::super::problem::{Position, Rule};
use super::super::tree::{Block, BlockId, BlockKind, Definition};

type Found = (Position, Rule, String);
/// What each block may take at worst, by its number; `None` if nothing bounds it.
type Worst = Vec<Option<Duration>>;

impl Draft<'_> {
    /// Every deadline that can't be met or never comes.
    pub(super) fn check_deadlines(&self) -> Vec<Found> {
        let mut found = Vec::new();
        if let Some(saga) = self.saga_timeout {
            self.visit(Definition::ROOT, Duration::ZERO, saga, &mut found);
        }
        let worst = self.at_worst();
        let leases = self.blocks.iter().filter_map(|node| match &node.kind {
            BlockKind::Step(step) => self.check_lease(node.id, step.expires_in?, &worst),
            _ => None,
        });
        found.extend(leases);
        found
    }

    /// Checks the blocks before the pivot; `passed` is what surely has passed at a block's begin.
    fn visit(&self, id: BlockId, passed: Duration, saga: Duration, found: &mut Vec<Found>) {
        if self.is_behind_pivot(id) {
            return;
        }
        match &self.block(id).kind {
            BlockKind::Sequence(children) => {
                let mut passed = passed;
                for child in children {
                    self.visit(*child, passed, saga, found);
                    passed = passed.saturating_add(self.surely(*child));
                }
            }
            BlockKind::Parallel(children) => {
                for child in children {
                    self.visit(*child, passed, saga, found);
                }
            }
            BlockKind::ForEach { body, .. } => self.visit(*body, passed, saga, found),
            BlockKind::Step(_) | BlockKind::Wait(_) | BlockKind::Sleep(_) | BlockKind::Saga(_) => {
                found.extend(self.check_deadline(id, passed, saga));
            }
        }
    }

    fn check_deadline(&self, id: BlockId, passed: Duration, saga: Duration) -> Option<Found> {
        let (field, own, what) = match &self.block(id).kind {
            BlockKind::Step(step) if step.forward.is_some() && self.says(id, "timeout") => {
                ("timeout", step.timeout, "this timeout")
            }
            BlockKind::Saga(saga) if self.says(id, "timeout") => {
                ("timeout", saga.timeout, "this timeout")
            }
            BlockKind::Wait(wait) => match wait.timeout {
                Some(Delay::Fixed(timeout)) => ("timeout", timeout, "this timeout"),
                _ => return None,
            },
            BlockKind::Sleep(sleep) => match sleep.delay {
                Delay::Fixed(delay) => ("for", delay, "the end of this sleep"),
                Delay::Computed(_) => return None,
            },
            _ => return None,
        };
        if passed.saturating_add(own) <= saga {
            return None;
        }
        let before = if passed.is_zero() {
            String::new()
        } else {
            format!(" after sleeps of {}", format_duration(passed))
        };
        let message = format!(
            "{what} ({}{before}) never comes, because the saga's own timeout of {} comes first; shorten it or give the saga more time",
            format_duration(own),
            format_duration(saga)
        );
        Some((self.place(id, field), Rule::Deadline, message))
    }

    /// What a block takes at least, if it is run: the sleeps that nothing skips.
    fn surely(&self, id: BlockId) -> Duration {
        let node = self.block(id);
        if node.when.is_some() {
            return Duration::ZERO;
        }
        match &node.kind {
            BlockKind::Sequence(children) => children
                .iter()
                .map(|child| self.surely(*child))
                .fold(Duration::ZERO, Duration::saturating_add),
            BlockKind::Parallel(children) => children
                .iter()
                .map(|child| self.surely(*child))
                .max()
                .unwrap_or_default(),
            BlockKind::ForEach {
                items,
                body,
                sequential,
                until,
                ..
            } => {
                // A list may be empty; only a number says how often.
                let times: u32 = items.source.parse().unwrap_or(0);
                let times = if *sequential && until.is_none() {
                    times
                } else {
                    times.min(1)
                };
                self.surely(*body).saturating_mul(times)
            }
            BlockKind::Sleep(sleep) => match sleep.delay {
                Delay::Fixed(delay) => delay,
                Delay::Computed(_) => Duration::ZERO,
            },
            BlockKind::Step(_) | BlockKind::Wait(_) | BlockKind::Saga(_) => Duration::ZERO,
        }
    }

    /// Whether a reservation may lapse before the pivot.
    fn check_lease(
        &self,
        id: BlockId,
        lease: Duration,
        worst: &[Option<Duration>],
    ) -> Option<Found> {
        let worst = match (self.worst_to_pivot(id, worst), self.saga_timeout) {
            (Some(worst), Some(saga)) => Some(worst.min(saga)),
            (worst, saga) => worst.or(saga),
        };
        if worst.is_some_and(|worst| worst <= lease) {
            return None;
        }
        let lease = format_duration(lease);
        let long = worst.map_or_else(
            || "may take as long as it likes".to_owned(),
            |worst| format!("may take {}", format_duration(worst)),
        );
        let message = format!(
            "the reservation lapses after {lease}, but from here to its pivot the saga {long}; give the saga a `timeout` of at most {lease}, or shorten what comes between"
        );
        Some((self.place(id, "expires_in"), Rule::Lease, message))
    }

    /// What may pass at worst from a block's begin to the pivot; `None` if nothing bounds it.
    fn worst_to_pivot(&self, id: BlockId, all: &[Option<Duration>]) -> Option<Duration> {
        let of = |id: BlockId| all[usize::from(id.0)];
        let mut worst = of(id)?;
        let mut at = self.block(id);
        while let Some(parent) = at.parent.map(|parent| self.block(parent)) {
            match &parent.kind {
                BlockKind::Sequence(children) => {
                    for later in &children[at.position + 1..] {
                        worst = worst.saturating_add(of(*later)?);
                    }
                }
                BlockKind::Parallel(children) => {
                    for beside in children {
                        worst = worst.max(of(*beside)?);
                    }
                }
                // It may be the first item's.
                BlockKind::ForEach { .. } => worst = worst.max(of(parent.id)?),
                BlockKind::Step(_)
                | BlockKind::Wait(_)
                | BlockKind::Sleep(_)
                | BlockKind::Saga(_) => {}
            }
            at = parent;
        }
        Some(worst)
    }

    /// What each block may take at worst before the pivot.
    fn at_worst(&self) -> Worst {
        let mut worst = vec![None; self.blocks.len()];
        // What is inside a block has a higher number.
        for node in self.blocks.iter().rev() {
            worst[usize::from(node.id.0)] = self.one_at_worst(node, &worst);
        }
        worst
    }

    fn one_at_worst(&self, node: &Block, inner: &[Option<Duration>]) -> Option<Duration> {
        if self.is_behind_pivot(node.id) {
            return Some(Duration::ZERO);
        }
        let of = |id: &BlockId| inner[usize::from(id.0)];
        let fixed = |delay: &Delay| match delay {
            Delay::Fixed(delay) => Some(*delay),
            Delay::Computed(_) => None,
        };
        match &node.kind {
            BlockKind::Sequence(children) => children
                .iter()
                .try_fold(Duration::ZERO, |sum, id| Some(sum.saturating_add(of(id)?))),
            BlockKind::Parallel(children) => children
                .iter()
                .try_fold(Duration::ZERO, |most, id| Some(most.max(of(id)?))),
            BlockKind::ForEach {
                body,
                sequential,
                at_most,
                ..
            } => {
                let times = if *sequential { *at_most } else { 1 };
                let times = u32::try_from(times).unwrap_or(u32::MAX);
                Some(of(body)?.saturating_mul(times))
            }
            BlockKind::Step(step) => Some(all_attempts(step)),
            BlockKind::Wait(wait) => wait.timeout.as_ref().and_then(fixed),
            BlockKind::Sleep(sleep) => fixed(&sleep.delay),
            BlockKind::Saga(saga) => Some(saga.timeout),
        }
    }
}

/// What a step takes if none of its attempts is answered.
fn all_attempts(step: &Step) -> Duration {
    if step.forward.is_none() {
        return Duration::ZERO;
    }
    let Retry {
        attempts,
        first,
        factor,
        max,
    } = step.retry;
    let mut total = step.timeout.saturating_mul(attempts);
    let mut wait = first;
    for _ in 1..attempts {
        total = total.saturating_add(wait.min(max));
        wait = Duration::try_from_secs_f64(wait.as_secs_f64() * factor).map_or(max, |w| w.min(max));
    }
    total
}
