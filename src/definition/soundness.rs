//! Rules beyond the grammar: what an expression may refer to where it stands.
//!
//! The forward pass runs the blocks in order, the confirm pass the confirm-only steps after it. An
//! expression may read the reply of a step only if that step has surely had its turn, and only
//! after asking (`has(steps.x)`) if it may have been skipped: a saga must not fail in its middle
//! for a slip that was there to see when it was loaded.

use std::cmp::Ordering;

use super::draft::{Draft, Place, Use};
use super::expression::Expression;
use super::problem::{Rule, did_you_mean};
use super::{NodeId, NodeKind};

impl Draft<'_> {
    /// Notes every reference that can't be resolved when its expression is evaluated.
    pub fn check_references(&mut self) {
        let mut found = Vec::new();
        for usage in &self.uses {
            let tree = Tree { draft: self };
            let problems = tree.check(usage);
            found.extend(
                problems
                    .into_iter()
                    .map(|(rule, message)| (usage.at, rule, message)),
            );
        }
        for (at, rule, message) in found {
            self.findings.add(at, rule, message);
        }
    }
}

/// The finished tree.
struct Tree<'d, 'a> {
    draft: &'d Draft<'a>,
}

impl Tree<'_, '_> {
    fn check(&self, usage: &Use) -> Vec<(Rule, String)> {
        let mut problems = Vec::new();
        if usage.references.item.is_used() && !self.has_item(usage.place) {
            let message = match usage.place {
                Place::ForEach(_) => {
                    "`item` is what this `for_each` will give; its list must come from elsewhere"
                }
                _ => "there is no `item` here: only a block with `for_each` has one",
            };
            problems.push((Rule::UnknownReference, message.to_owned()));
        }
        if usage.place == Place::Key && usage.references.saga.is_used() {
            let message = "the key is computed before the saga exists; use only `input`";
            problems.push((Rule::UnknownReference, message.to_owned()));
        }
        for step in &usage.references.steps {
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
        if let Some(why) = self.not_yet_run(usage.place, target, step) {
            return Some((Rule::NotYetRun, why));
        }
        if self.may_be_skipped(usage, target, step) {
            let test = if step.contains('-') {
                format!("\"{step}\" in steps")
            } else {
                format!("has(steps.{step})")
            };
            let message = format!(
                "step `{step}` may be skipped by its `when`; ask first, as in `{test} ? … : …`"
            );
            return Some((Rule::MayBeSkipped, message));
        }
        None
    }

    /// Why the step can't have run when the expression is evaluated.
    fn not_yet_run(&self, place: Place, target: NodeId, step: &str) -> Option<String> {
        let (user, user_runs_late) = match place {
            Place::Key => {
                return Some(
                    "the key is computed before any step has run; use only `input`".into(),
                );
            }
            Place::Output => return None,
            Place::With(id) => (id, self.runs_late(id)),
            Place::When(id) | Place::ForEach(id) => (id, false),
        };
        let target_runs_late = self.runs_late(target);
        if user == target || self.is_inside(target, user) {
            return Some(format!("step `{step}` can't use its own reply"));
        }
        if user_runs_late && !target_runs_late {
            return None;
        }
        if target_runs_late && !user_runs_late {
            return Some(format!(
                "step `{step}` has only a `confirm`, so it runs at the end, after this"
            ));
        }
        match self.order(target, user) {
            Some(Ordering::Less) => None,
            Some(_) => Some(format!("step `{step}` runs after this")),
            None => Some(format!(
                "step `{step}` runs at the same time as this, in one `parallel`"
            )),
        }
    }

    /// Whether a `when` can have skipped the step although the expression is evaluated.
    fn may_be_skipped(&self, usage: &Use, target: NodeId, step: &str) -> bool {
        if usage.references.tested.contains(step) {
            return false;
        }
        let user = match usage.place {
            Place::Key | Place::Output => None,
            Place::With(id) | Place::When(id) | Place::ForEach(id) => Some(id),
        };
        let around_user: Vec<NodeId> = user.into_iter().flat_map(|id| self.ancestry(id)).collect();
        // The conditions on the way from the target up to the block it shares with the user.
        let mut conditions: Vec<&Expression> = Vec::new();
        for id in self.ancestry(target) {
            if around_user.contains(&id) {
                break;
            }
            let node = &self.draft.nodes[usize::from(id.0)];
            if matches!(node.kind, NodeKind::ForEach { .. }) {
                // Its reply is a list, with null for a skipped item: always there.
                conditions.clear();
            }
            conditions.extend(&node.when);
        }
        // A block is only evaluated if the conditions around it hold; its own `when` is one of them
        // for all but itself.
        let guards = around_user.iter().filter_map(|id| {
            if usage.place == Place::When(*id) {
                return None;
            }
            self.draft.nodes[usize::from(id.0)].when.as_ref()
        });
        let is_guarded = |condition: &Expression| {
            guards.clone().any(|guard| {
                guard.source == condition.source || guard.references().tested.contains(step)
            })
        };
        !conditions.into_iter().all(is_guarded)
    }

    /// Whether `item` means something there.
    fn has_item(&self, place: Place) -> bool {
        let (Place::With(id) | Place::When(id) | Place::ForEach(id)) = place else {
            return false;
        };
        self.ancestry(id)
            .skip(1)
            .any(|id| matches!(self.kind(id), NodeKind::ForEach { .. }))
    }

    /// Whether it is a confirm-only step, which runs after the pivot.
    fn runs_late(&self, id: NodeId) -> bool {
        matches!(self.kind(id), NodeKind::Step(step) if step.forward.is_none() && step.confirm.is_some())
    }

    /// Whether `inner` is somewhere below `outer`.
    fn is_inside(&self, inner: NodeId, outer: NodeId) -> bool {
        self.ancestry(inner).any(|id| id == outer)
    }

    /// Which of two blocks runs first; `None` if they run at the same time.
    fn order(&self, one: NodeId, other: NodeId) -> Option<Ordering> {
        let mut one: Vec<NodeId> = self.ancestry(one).collect();
        let mut other: Vec<NodeId> = self.ancestry(other).collect();
        one.reverse();
        other.reverse();
        let shared = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
        let around = *one.get(shared.checked_sub(1)?)?;
        let position = |path: &[NodeId]| {
            let id = path.get(shared)?;
            Some(self.draft.nodes[usize::from(id.0)].position)
        };
        match self.kind(around) {
            NodeKind::Parallel(_) => None,
            _ => Some(position(&one)?.cmp(&position(&other)?)),
        }
    }

    /// The block and those around it, innermost first.
    fn ancestry(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(Some(id), |id| self.draft.nodes[usize::from(id.0)].parent)
    }

    fn kind(&self, id: NodeId) -> &NodeKind {
        &self.draft.nodes[usize::from(id.0)].kind
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
