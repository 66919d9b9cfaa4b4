//! What the truth of a condition shows about replies: `has(steps.x)` that there is one, `!has(steps.x)`
//! that there is none.
//!
//! Reads conditions as they are mostly written: tests, `!`, `&&`, `||`, `? :` and comparisons with
//! `true` and `false`. Of any other condition nothing is concluded, which at worst asks for a plainer
//! one.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use super::nodes::{root, text};

/// What is known about replies where an expression stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::definition) struct Presence {
    /// Steps that have one.
    pub there: BTreeSet<String>,
    /// Steps that have none.
    pub missing: BTreeSet<String>,
}

impl Presence {
    /// What follows from the condition's being true, or false; `None` if it never is.
    pub fn shown(condition: &IdedExpr, truth: bool) -> Option<Self> {
        match &condition.expr {
            Expr::Literal(LiteralValue::Boolean(literal)) => {
                (*literal.inner() == truth).then(Self::default)
            }
            Expr::Select(select) if select.test && root(&select.operand) == Some("steps") => {
                Some(Self::of(&select.field, truth))
            }
            Expr::Call(call) if call.target.is_none() => Self::of_call(call, truth),
            _ => Some(Self::default()),
        }
    }

    fn of_call(call: &CallExpr, truth: bool) -> Option<Self> {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_NOT, [inner]) => Self::shown(inner, !truth),
            (operators::LOGICAL_AND, [one, other]) if truth => {
                Self::both(Self::shown(one, true), Self::shown(other, true))
            }
            (operators::LOGICAL_AND, [one, other]) => {
                Self::either(Self::shown(one, false), Self::shown(other, false))
            }
            (operators::LOGICAL_OR, [one, other]) if truth => {
                Self::either(Self::shown(one, true), Self::shown(other, true))
            }
            (operators::LOGICAL_OR, [one, other]) => {
                Self::both(Self::shown(one, false), Self::shown(other, false))
            }
            (operators::CONDITIONAL, [asked, yes, no]) => Self::either(
                Self::both(Self::shown(asked, true), Self::shown(yes, truth)),
                Self::both(Self::shown(asked, false), Self::shown(no, truth)),
            ),
            (operators::EQUALS, [one, other]) => Self::compared(one, other, truth),
            (operators::NOT_EQUALS, [one, other]) => Self::compared(one, other, !truth),
            (operators::IN, [name, of]) if root(of) == Some("steps") => {
                Some(text(name).map_or_else(Self::default, |step| Self::of(step, truth)))
            }
            _ => Some(Self::default()),
        }
    }

    /// `condition == true` and its like.
    fn compared(one: &IdedExpr, other: &IdedExpr, truth: bool) -> Option<Self> {
        let literal = |node: &IdedExpr| match &node.expr {
            Expr::Literal(LiteralValue::Boolean(literal)) => Some(*literal.inner()),
            _ => None,
        };
        match (literal(one), literal(other)) {
            (None, Some(literal)) => Self::shown(one, literal == truth),
            (Some(literal), None) => Self::shown(other, literal == truth),
            _ => Some(Self::default()),
        }
    }

    fn of(step: &str, is_there: bool) -> Self {
        let step = BTreeSet::from([step.to_owned()]);
        let none = BTreeSet::new();
        let (there, missing) = if is_there { (step, none) } else { (none, step) };
        Self { there, missing }
    }

    fn both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        Some(one?.and(&other?))
    }

    fn either(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (one, other) = match (one, other) {
            (Some(one), Some(other)) => (one, other),
            (only, None) | (None, only) => return only,
        };
        Some(Self {
            there: &one.there & &other.there,
            missing: &one.missing & &other.missing,
        })
    }

    /// This, and what else is known.
    pub fn and(&self, other: &Self) -> Self {
        Self {
            there: &self.there | &other.there,
            missing: &self.missing | &other.missing,
        }
    }
}
