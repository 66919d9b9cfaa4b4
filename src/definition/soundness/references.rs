//! What an expression may refer to where it stands.
//!
//! The forward pass runs the blocks up to the pivot in order; the confirm pass, after it, the
//! confirm-only steps and what stands behind the pivot. Within one item of a loop `steps.x` is that
//! item's reply; from outside the loop it is the list of all items' replies. An
//! expression may read the reply of a step only if that step has surely had its turn, and only
//! after asking (`has(steps.x)`) if it may have been skipped: a saga must not fail in its middle
//! for a slip that was there to see when it was loaded.

use std::cmp::Ordering;

use super::super::draft::{Draft, Place, Use};
use super::super::expression::Expression;
use super::super::kinds::{OnReject, OnTimeout};
use super::super::problem::{Position, Rule, did_you_mean};
use super::super::tree::{BlockId, BlockKind};

impl Draft<'_> {
    /// Notes every reference that can't be resolved when its expression is evaluated.
    pub(super) fn check_references(&self) -> Vec<(Position, Rule, String)> {
        let tree = Tree { draft: self };
        let of = |usage: &Use| {
            let at = usage.at;
            let problems = tree.check(usage).into_iter();
            problems.map(move |(rule, message)| (at, rule, message))
        };
        self.uses.iter().flat_map(of).collect()
    }
}

/// The finished tree.
struct Tree<'d, 'a> {
    draft: &'d Draft<'a>,
}

impl Tree<'_, '_> {
    fn check(&self, usage: &Use) -> Vec<(Rule, String)> {
        let mut problems = Vec::new();
        let references = &usage.references;
        for name in &references.given {
            if usage.place.given() != Some(*name) {
                let why = format!(
                    "there is no `{name}` here; it is known {}",
                    where_given(name)
                );
                problems.push((Rule::UnknownReference, why));
            }
        }
        if let Some(only) = only_root(usage.place) {
            let used = [
                ("input", references.input.is_used()),
                ("item", references.item.is_used()),
                ("saga", references.saga.is_used()),
                ("steps", !references.steps.is_empty()),
            ];
            let others = used.iter().filter(|(name, used)| *used && *name != only);
            problems.extend(others.map(|(name, _)| {
                let why =
                    format!("there is no `{name}` yet when this is computed; use only `{only}`");
                (Rule::UnknownReference, why)
            }));
            return problems;
        }
        if references.item.is_used() && !self.has_item(usage.place) {
            let message = match usage.place {
                Place::ForEach(_) => {
                    "`item` is what this `for_each` will give, so its list must come from elsewhere"
                }
                _ => "there is no `item` here; only a block with `for_each` has one",
            };
            problems.push((Rule::UnknownReference, message.to_owned()));
        }
        for step in &references.steps {
            problems.extend(self.check_step(usage, step));
        }
        problems
    }

    fn check_step(&self, usage: &Use, step: &str) -> Option<(Rule, String)> {
        let Some(target) = self.draft.steps.get(step).copied() else {
            let known = self.draft.steps.keys().map(String::as_str);
            let message = format!("there is no step `{step}`{}", hint(step, known));
            return Some((Rule::UnknownReference, message));
        };
        if matches!(self.kind(target), BlockKind::Sleep(_)) {
            let message = format!("`{step}` is a sleep, which has no reply; drop this");
            return Some((Rule::UnknownReference, message));
        }
        if let Some(why) = self.not_yet_run(usage.place, target, step) {
            return Some((Rule::NotYetRun, why));
        }
        if let Some(why) = self.is_surely_missing(usage, step) {
            return Some((Rule::NotYetRun, why));
        }
        let why = self.may_be_absent(usage, target, step)?;
        let test = if step.contains('-') {
            format!("\"{step}\" in steps")
        } else {
            format!("has(steps.{step})")
        };
        let message = format!("`{step}` {why}; ask first, as in `{test} ? … : …`");
        Some((Rule::MayBeSkipped, message))
    }

    /// Why the step can't have run when the expression is evaluated.
    fn not_yet_run(&self, place: Place, target: BlockId, step: &str) -> Option<String> {
        // The output is computed when all is over.
        let user = place.block()?;
        let user_runs_late = self.is_asked_late(place, user);
        let target_runs_late = self.runs_late(target);
        let is_inside = user != target && self.is_inside(target, user);
        if user == target {
            return Some(format!("step `{step}` can't use its own reply"));
        }
        if is_inside && !matches!(place, Place::Until(_)) {
            return Some(match place {
                // The loop of one block reads as that block's own.
                Place::ForEach(_) => format!("step `{step}` can't use its own reply"),
                _ => format!("step `{step}` is inside this block, so it runs after this"),
            });
        }
        if user_runs_late && !target_runs_late {
            return None;
        }
        if target_runs_late && !user_runs_late {
            return Some(if self.draft.is_confirm_only(target) {
                format!("step `{step}` has only a `confirm`, so it runs at the end, after this")
            } else {
                format!("`{step}` stands behind the pivot, so it runs after this")
            });
        }
        if is_inside {
            return None;
        }
        match self.order(target, user) {
            Some(Ordering::Less) => None,
            Some(_) => Some(format!("step `{step}` runs after this")),
            None => Some(format!(
                "step `{step}` runs at the same time as this, in one `parallel`"
            )),
        }
    }

    /// Why there may be no reply although the step has had its turn, unless the expression asks.
    fn may_be_absent(&self, usage: &Use, target: BlockId, step: &str) -> Option<&'static str> {
        if !usage.references.unasked.contains(step) {
            return None;
        }
        let around_user: Vec<BlockId> = usage
            .place
            .block()
            .into_iter()
            .flat_map(|id| self.ancestry(id))
            .collect();
        let mut goes_on_without = self.goes_on_without(target);
        // The conditions on the way from the target up to the block it shares with the user.
        let mut conditions: Vec<(&Expression, Option<BlockId>)> = Vec::new();
        for id in self.ancestry(target) {
            if around_user.contains(&id) {
                break;
            }
            if matches!(self.kind(id), BlockKind::ForEach { .. }) {
                // Its reply is a list, with null for a skipped item: always there.
                conditions.clear();
                goes_on_without = None;
            }
            let when = self.draft.block(id).when.as_ref();
            conditions.extend(when.map(|when| (when, self.loop_around(id))));
        }
        let guards = self.guards(usage);
        let asked = |(guard, _): &(&Expression, _)| guard.references().shows.there.contains(step);
        if guards.iter().any(asked) {
            return None;
        }
        // The same text means the same only about the same item.
        let is_guarded = |condition: &(&Expression, Option<BlockId>)| {
            let same = |guard: &(&Expression, Option<BlockId>)| {
                guard.0.source == condition.0.source && guard.1 == condition.1
            };
            guards.iter().any(same)
        };
        if !conditions.iter().all(is_guarded) {
            return Some("may be skipped by its `when`");
        }
        goes_on_without
    }

    /// The conditions that hold when the expression is evaluated, each with the loop it is asked in.
    /// Of a block that does not run nothing is evaluated, so its own `when` is one of them for all but
    /// itself.
    fn guards(&self, usage: &Use) -> Vec<(&Expression, Option<BlockId>)> {
        let around = usage.place.block().into_iter();
        around
            .flat_map(|id| self.ancestry(id))
            .filter(|id| usage.place != Place::When(*id))
            .filter_map(|id| {
                let when = self.draft.block(id).when.as_ref()?;
                Some((when, self.loop_around(id)))
            })
            .collect()
    }

    /// Why there is no reply whenever the expression reads it.
    fn is_surely_missing(&self, usage: &Use, step: &str) -> Option<String> {
        if usage.references.missing.contains(step) {
            return Some(format!(
                "`{step}` is used just where the expression has found that it has no reply; swap the two, or drop the `!`"
            ));
        }
        if !usage.references.unasked.contains(step) {
            return None;
        }
        let guards = self.guards(usage).into_iter();
        let mut denying =
            guards.filter(|(guard, _)| guard.references().shows.missing.contains(step));
        let (guard, _) = denying.next()?;
        let source = super::super::problem::shortened(guard.source.trim(), 60);
        Some(format!(
            "`{step}` has no reply where `when: ${{ {source} }}` holds, so this always fails; drop the `!`, or what uses it"
        ))
    }

    /// Why a block that has run may have no reply.
    fn goes_on_without(&self, id: BlockId) -> Option<&'static str> {
        match self.kind(id) {
            BlockKind::Step(step) if step.on_reject == OnReject::Continue => {
                Some("may be rejected, and the saga goes on without it")
            }
            BlockKind::Saga(block) if block.step.on_reject == OnReject::Continue => {
                Some("may roll back, and the saga goes on without it")
            }
            BlockKind::Wait(wait)
                if wait.timeout.is_some() && wait.on_timeout == OnTimeout::Continue =>
            {
                Some("may get no signal in time, and the saga goes on without it")
            }
            _ => None,
        }
    }

    /// Whether `item` means something there.
    fn has_item(&self, place: Place) -> bool {
        let Some(id) = place.block() else {
            return false;
        };
        // What a loop goes over is not about its own items; when it ends is.
        let skip = usize::from(!matches!(place, Place::Until(_)));
        self.ancestry(id)
            .skip(skip)
            .any(|id| matches!(self.kind(id), BlockKind::ForEach { .. }))
    }

    /// The innermost loop around a block.
    fn loop_around(&self, id: BlockId) -> Option<BlockId> {
        self.ancestry(id)
            .skip(1)
            .find(|id| matches!(self.kind(*id), BlockKind::ForEach { .. }))
    }

    /// Whether it runs after the pivot.
    fn runs_late(&self, id: BlockId) -> bool {
        self.draft.is_confirm_only(id) || self.draft.is_behind_pivot(id)
    }

    /// Whether an expression of a block is asked after the pivot.
    fn is_asked_late(&self, place: Place, id: BlockId) -> bool {
        match place {
            Place::With(_) | Place::When(_) => self.runs_late(id),
            _ => self.draft.is_behind_pivot(id),
        }
    }

    /// Whether `inner` is somewhere below `outer`.
    fn is_inside(&self, inner: BlockId, outer: BlockId) -> bool {
        self.ancestry(inner).any(|id| id == outer)
    }

    /// Which of two blocks runs first; `None` if they run at the same time.
    fn order(&self, one: BlockId, other: BlockId) -> Option<Ordering> {
        let mut one: Vec<BlockId> = self.ancestry(one).collect();
        let mut other: Vec<BlockId> = self.ancestry(other).collect();
        one.reverse();
        other.reverse();
        let shared = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
        let around = *one.get(shared.checked_sub(1)?)?;
        let position = |path: &[BlockId]| {
            let id = path.get(shared)?;
            Some(self.draft.block(*id).position)
        };
        match self.kind(around) {
            BlockKind::Parallel(_) => None,
            _ => Some(position(&one)?.cmp(&position(&other)?)),
        }
    }

    /// The block and those around it, innermost first.
    fn ancestry(&self, id: BlockId) -> impl Iterator<Item = BlockId> {
        std::iter::successors(Some(id), |id| self.draft.block(*id).parent)
    }

    fn kind(&self, id: BlockId) -> &BlockKind {
        &self.draft.block(id).kind
    }
}

/// What alone is known when an expression is computed before, or outside, a saga's life.
fn only_root(place: Place) -> Option<&'static str> {
    match place {
        Place::Key | Place::Label => Some("input"),
        Place::Event => Some("event"),
        Place::Tick => Some("tick"),
        _ => None,
    }
}

/// Where a name that is not always there is known.
fn where_given(name: &str) -> &'static str {
    match name {
        "signal" => "in the `match` of a wait; later the signal is `steps.<wait>`",
        "event" => "in `key` and `with` of `on`",
        _ => "in `with` of a schedule",
    }
}

/// In CEL `steps.send-receipt` is a subtraction; that needs another hint than a slip does.
fn hint<'k>(step: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    let dashed = known
        .clone()
        .find(|name| name.split('-').next() == Some(step) && name.contains('-'));
    match dashed {
        Some(name) => format!("; a name with dashes is written `steps[\"{name}\"]`"),
        None => did_you_mean(step, known),
    }
}
