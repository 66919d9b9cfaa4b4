//! What an expression refers to, and whether it is small enough to be let in.
//!
//! One walk over the compiled tree does both. It counts nodes *after* CEL's macros are expanded,
//! bounds the depth (evaluation recurses), allows loops in one another only through their lists,
//! and knows every function by name, so that a slip is found at load and not in the middle of a
//! saga.

use std::collections::BTreeSet;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, SelectExpr, operators,
};

use super::nodes::{ROOTS, root, text};
use super::presence::Presence;
use super::scope::SagaFacts;
use super::source::check_pattern;
use crate::definition::problem::did_you_mean;

/// Most nodes of an expression.
const NODES_MAX: usize = 256;
/// Deepest nesting of operations.
const DEPTH_MAX: usize = 64;
/// Longest pattern for `matches`, in bytes.
const PATTERN_BYTES_MAX: usize = 100;

/// The names an expression may start from that have a meaning only in some places.
pub(super) const GIVEN: [&str; 3] = ["signal", "event", "tick"];
/// The fingerprint of a value.
pub(super) const HASH: &str = "hash";
/// What may be called.
const FUNCTIONS: [&str; 13] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "type",
    "dyn",
    HASH,
];
/// What expands to a loop or a test, for suggestions.
const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];
/// Names of types, to compare `type(x)` with.
const TYPES: [&str; 9] = [
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
];

/// What an expression refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::definition) struct References {
    /// What of `input`.
    pub input: Extent,
    /// What of `item`.
    pub item: Extent,
    /// What of `saga`.
    pub saga: Extent,
    /// Which of the names that have a meaning only in some places.
    pub given: BTreeSet<&'static str>,
    /// The steps whose replies it may read.
    pub steps: BTreeSet<String>,
    /// Those of them that it reads somewhere without having asked, by `has(steps.x)` or `"x" in steps`.
    pub unasked: BTreeSet<String>,
    /// Those of them that it reads just where it has found that there is no reply.
    pub missing: BTreeSet<String>,
    /// What it shows about replies if it is a condition and true.
    pub shows: Presence,
    /// Whether it loops.
    pub loops: bool,
}

/// How much of a root is used; only that is converted for CEL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::definition) enum Extent {
    /// Nothing.
    #[default]
    Nothing,
    /// These fields.
    Fields(BTreeSet<String>),
    /// Everything.
    Whole,
}

impl Extent {
    /// Whether it is used at all.
    pub fn is_used(&self) -> bool {
        *self != Self::Nothing
    }

    fn add(&mut self, field: Option<&str>) {
        match (&mut *self, field) {
            (Self::Whole, _) => {}
            (_, None) => *self = Self::Whole,
            (Self::Nothing, Some(field)) => *self = Self::Fields([field.to_owned()].into()),
            (Self::Fields(fields), Some(field)) => {
                fields.insert(field.to_owned());
            }
        }
    }
}

impl References {
    /// Walks a compiled expression; an error if it is too large or uses an unknown name.
    pub fn of(program: &IdedExpr) -> Result<Self, String> {
        let mut walk = Walk::default();
        walk.expression(program, 0)?;
        walk.references.shows = Presence::shown(program, true).unwrap_or_default();
        Ok(walk.references)
    }

    /// Notes that a value is read: of a step, whether that was asked about is in `known`.
    pub fn read(
        &mut self,
        root: &str,
        field: Option<&str>,
        known: &Presence,
    ) -> Result<(), String> {
        if let ("steps", Some(step)) = (root, field) {
            if known.missing.contains(step) {
                self.missing.insert(step.to_owned());
            } else if !known.there.contains(step) {
                self.unasked.insert(step.to_owned());
            }
        }
        self.add(root, field)
    }

    /// Notes the use of a root, or of one of its fields.
    fn add(&mut self, root: &str, field: Option<&str>) -> Result<(), String> {
        match (root, field) {
            ("input", _) => self.input.add(field),
            ("item", _) => self.item.add(field),
            ("saga", Some(field)) if !SagaFacts::FIELDS.contains(&field) => {
                return Err(format!(
                    "`saga` has no field `{field}`; it has id, key and started_at{}",
                    did_you_mean(field, SagaFacts::FIELDS)
                ));
            }
            ("saga", _) => self.saga.add(field),
            (root, _) if root != "steps" => {
                self.given
                    .extend(GIVEN.into_iter().filter(|name| *name == root));
            }
            (_, Some(step)) => {
                self.steps.insert(step.to_owned());
            }
            (_, None) => {
                return Err(
                    "`steps` can't be used as a whole; name the step, as in `steps.payment` or `steps[\"send-receipt\"]`"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// The walk's state.
#[derive(Default)]
struct Walk {
    references: References,
    nodes: usize,
    /// Variables of the loops around.
    variables: Vec<String>,
    /// Whether the walk is inside what a loop repeats.
    repeated: bool,
    /// What the conditions around show.
    known: Presence,
}

impl Walk {
    fn expression(&mut self, node: &IdedExpr, depth: usize) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > NODES_MAX || depth > DEPTH_MAX {
            return Err(format!(
                "it is too large: at most {NODES_MAX} operations, nested {DEPTH_MAX} deep; let a participant compute this"
            ));
        }
        let depth = depth + 1;
        match &node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.selection(select, depth),
            Expr::Call(call) => self.call(call, depth),
            Expr::List(list) => self.all(&list.elements, depth),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&entry.key, depth)?;
                    self.expression(&entry.value, depth)
                }
                EntryExpr::StructField(_) => Err(no_structs()),
            }),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth),
            Expr::Struct(_) | Expr::Unspecified => Err(no_structs()),
        }
    }

    fn all(&mut self, nodes: &[IdedExpr], depth: usize) -> Result<(), String> {
        nodes
            .iter()
            .try_for_each(|node| self.expression(node, depth))
    }

    fn name(&mut self, name: &str) -> Result<(), String> {
        if self.variables.iter().any(|variable| variable == name) || TYPES.contains(&name) {
            Ok(())
        } else if ROOTS.contains(&name) {
            self.references.read(name, None, &self.known)
        } else {
            Err(format!(
                "there is no `{name}`; expressions know input, steps, item and saga{}",
                did_you_mean(name, ROOTS)
            ))
        }
    }

    fn selection(&mut self, select: &SelectExpr, depth: usize) -> Result<(), String> {
        match root(&select.operand) {
            Some(name) => {
                if name == "steps" && select.test {
                    return self.references.add(name, Some(&select.field));
                }
                self.references.read(name, Some(&select.field), &self.known)
            }
            None => self.expression(&select.operand, depth),
        }
    }

    fn call(&mut self, call: &CallExpr, depth: usize) -> Result<(), String> {
        if call.target.is_none()
            && let [left, right] = call.args.as_slice()
        {
            match (call.func_name.as_str(), root(left), text(right)) {
                (operators::INDEX, Some(root), Some(field)) => {
                    return self.references.read(root, Some(field), &self.known);
                }
                (operators::IN, _, _) if root(right) == Some("steps") => {
                    let Some(step) = text(left) else {
                        return self.references.add("steps", None);
                    };
                    return self.references.add("steps", Some(step));
                }
                _ => {}
            }
        }
        self.function(call)?;
        if let Some(target) = &call.target {
            self.expression(target, depth)?;
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, [one, other]) => self.guarded(one, other, true, depth),
            (operators::LOGICAL_OR, [one, other]) => self.guarded(one, other, false, depth),
            (operators::CONDITIONAL, [asked, yes, no]) => {
                self.expression(asked, depth)?;
                self.knowing(asked, true, yes, depth)?;
                self.knowing(asked, false, no, depth)
            }
            (_, arguments) => self.all(arguments, depth),
        }
    }

    /// Each side of `&&` (`||`) only counts where the other one is true (false): in CEL it does not
    /// matter on which side the question stands.
    fn guarded(
        &mut self,
        one: &IdedExpr,
        other: &IdedExpr,
        truth: bool,
        depth: usize,
    ) -> Result<(), String> {
        self.knowing(other, truth, one, depth)?;
        self.knowing(one, truth, other, depth)
    }

    /// Walks on where a condition is true, or false.
    fn knowing(
        &mut self,
        condition: &IdedExpr,
        truth: bool,
        node: &IdedExpr,
        depth: usize,
    ) -> Result<(), String> {
        let shown = Presence::shown(condition, truth).unwrap_or_default();
        let before = self.known.clone();
        self.known = before.and(&shown);
        let walked = self.expression(node, depth);
        self.known = before;
        walked
    }

    fn function(&self, call: &CallExpr) -> Result<(), String> {
        let name = call.func_name.as_str();
        let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
        if is_operator {
            return Ok(());
        }
        if !FUNCTIONS.contains(&name) {
            let known = FUNCTIONS.into_iter().chain(MACROS);
            return Err(if MACROS.contains(&name) {
                format!("`{name}` is not called like that")
            } else {
                format!("there is no function `{name}`{}", did_you_mean(name, known))
            });
        }
        if name == "matches" {
            self.pattern(call)?;
        }
        if name == HASH {
            self.hash(call)?;
        }
        Ok(())
    }

    /// Its cost is that of its argument, which may be the whole input: not once an item.
    fn hash(&self, call: &CallExpr) -> Result<(), String> {
        if call.target.is_some() || call.args.len() != 1 {
            return Err("`hash` takes one value, as in `hash(input)`".to_owned());
        }
        if self.repeated {
            return Err("`hash` can't be used inside a loop; hash the whole list".to_owned());
        }
        Ok(())
    }

    /// A pattern is compiled at each evaluation: it must be known, small, and outside loops.
    fn pattern(&self, call: &CallExpr) -> Result<(), String> {
        let pattern =
            call.args.last().and_then(text).ok_or(
                "the pattern of `matches` must be written out as text, not come from data",
            )?;
        if self.repeated {
            return Err("`matches` can't be used inside a loop".to_owned());
        }
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(format!(
                "the pattern of `matches` is longer than {PATTERN_BYTES_MAX} bytes"
            ));
        }
        check_pattern(pattern)
    }

    fn comprehension(
        &mut self,
        comprehension: &ComprehensionExpr,
        depth: usize,
    ) -> Result<(), String> {
        if self.repeated {
            return Err(
                "loops (map, filter, all, exists) can't be nested in one another".to_owned(),
            );
        }
        if ROOTS.contains(&comprehension.iter_var.as_str()) {
            return Err(format!(
                "a loop's variable can't be called `{}`; choose another name",
                comprehension.iter_var
            ));
        }
        self.references.loops = true;
        self.expression(&comprehension.iter_range, depth)?;
        self.expression(&comprehension.accu_init, depth)?;
        let outer = self.variables.len();
        self.variables.push(comprehension.iter_var.clone());
        self.variables.extend(comprehension.iter_var2.clone());
        self.variables.push(comprehension.accu_var.clone());
        self.repeated = true;
        let inner = [
            &comprehension.loop_cond,
            &comprehension.loop_step,
            &comprehension.result,
        ]
        .into_iter()
        .try_for_each(|node| self.expression(node, depth));
        self.repeated = false;
        self.variables.truncate(outer);
        inner
    }
}

fn no_structs() -> String {
    "it is not an expression; for an object write `{\"name\": value}`".to_owned()
}
