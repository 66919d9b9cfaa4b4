//! Which sagas run which, across the files that are loaded together.
//!
//! A block runs the newest version of the saga it names. That saga must be there, must not come to
//! run the first one again, and must be able to reach its pivot in the time it is given.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::bounds::SUB_SAGAS_DEEP_MAX;
use super::super::duration::format_duration;
use super::super::kinds::Delay;
use super::super::problem::{Findings, Position, Rule, did_you_mean};
use super::super::tree::{BlockId, BlockKind, Definition};

/// A definition as far as other files matter.
pub(in crate::definition) struct Caller<'d> {
    pub definition: &'d Definition,
    /// The sagas its blocks run, and where they are named.
    pub runs: &'d [(String, Position)],
}

/// Notes what is wrong with the sagas that the caller runs. `all` has every loaded definition.
pub(in crate::definition) fn check(
    caller: &Caller<'_>,
    all: &[Caller<'_>],
    findings: &mut Findings<'_>,
) {
    let newest = newest(all);
    for (name, at) in caller.runs {
        let Some(target) = newest.get(name.as_str()) else {
            let hint = did_you_mean(name, newest.keys().copied());
            let message = format!("no file defines a saga `{name}`{hint}");
            findings.add(*at, Rule::UnknownSaga, message);
            continue;
        };
        // An older version is not what others run, so it can't be part of a circle.
        let own = caller.definition;
        let is_newest = newest
            .get(own.name.as_str())
            .is_some_and(|newest| newest.definition.version == own.version);
        let mut path: Vec<&str> = Vec::new();
        path.extend(is_newest.then_some(own.name.as_str()));
        path.push(name.as_str());
        match depth_below(target, &newest, &mut BTreeMap::new(), &mut path) {
            Err(()) => {
                let circle = path.join("` runs `");
                let message =
                    format!("`{circle}`, and so on for ever; let one of them do without the other");
                findings.add(*at, Rule::RecursiveSaga, message);
            }
            Ok(depth) if depth >= SUB_SAGAS_DEEP_MAX => {
                let message = format!(
                    "sagas run one another deeper than {SUB_SAGAS_DEEP_MAX}; put steps of the inner ones here"
                );
                findings.add(*at, Rule::RecursiveSaga, message);
            }
            Ok(_) => check_time(caller, target, *at, findings),
        }
    }
}

/// The newest version of each saga.
fn newest<'a, 'd>(all: &'a [Caller<'d>]) -> BTreeMap<&'a str, &'a Caller<'d>> {
    let mut newest: BTreeMap<&str, &Caller<'_>> = BTreeMap::new();
    for caller in all {
        let name = caller.definition.name.as_str();
        let is_newer = newest
            .get(name)
            .is_none_or(|known| known.definition.version < caller.definition.version);
        if is_newer {
            newest.insert(name, caller);
        }
    }
    newest
}

/// How many sagas run one another below this one; an error, with the circle at the end of `path`,
/// if there is no end. What is known of others is kept in `known`, so that each is visited once.
fn depth_below<'a>(
    caller: &'a Caller<'_>,
    newest: &BTreeMap<&str, &'a Caller<'_>>,
    known: &mut BTreeMap<&'a str, usize>,
    path: &mut Vec<&'a str>,
) -> Result<usize, ()> {
    let name = caller.definition.name.as_str();
    if let Some(depth) = known.get(name) {
        return Ok(*depth);
    }
    let mut depth = 0;
    for (name, _) in caller.runs {
        let Some(target) = newest.get(name.as_str()) else {
            continue;
        };
        let is_circle = path.contains(&name.as_str());
        path.push(name.as_str());
        if is_circle {
            return Err(());
        }
        depth = depth.max(1 + depth_below(target, newest, known, path)?);
        path.pop();
    }
    known.insert(name, depth);
    Ok(depth)
}

/// A sub-saga whose sleeps alone take longer than the block gives it can never succeed.
fn check_time(caller: &Caller<'_>, target: &Caller<'_>, at: Position, findings: &mut Findings<'_>) {
    let target = target.definition;
    let given = caller
        .definition
        .blocks
        .iter()
        .filter_map(|node| match &node.kind {
            BlockKind::Saga(block) if block.saga == target.name => Some(block.timeout),
            _ => None,
        });
    let Some(given) = given.min() else { return };
    let needed = surely(target, Definition::ROOT);
    if needed > given {
        let message = format!(
            "`{}` sleeps for {}, so it can't reach its pivot in the {} it is given; give it a longer `timeout`",
            target.name,
            format_duration(needed),
            format_duration(given)
        );
        findings.add(at, Rule::Deadline, message);
    }
}

/// The sleeps that nothing skips or repeats, up to the pivot.
fn surely(definition: &Definition, id: BlockId) -> Duration {
    let node = definition.block(id);
    if node.when.is_some() {
        return Duration::ZERO;
    }
    match &node.kind {
        BlockKind::Sequence(children) => {
            let mut sum = Duration::ZERO;
            for child in children {
                sum = sum.saturating_add(surely(definition, *child));
                if definition.block(*child).pivot {
                    break;
                }
            }
            sum
        }
        BlockKind::Parallel(children) => children
            .iter()
            .map(|child| surely(definition, *child))
            .max()
            .unwrap_or_default(),
        BlockKind::Sleep(sleep) => match sleep.delay {
            Delay::Fixed(delay) => delay,
            Delay::Computed(_) => Duration::ZERO,
        },
        _ => Duration::ZERO,
    }
}
