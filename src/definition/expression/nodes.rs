//! What single nodes of an expression are.

use cel::common::ast::{Expr, IdedExpr, LiteralValue};

/// The names an expression may start from.
pub(super) const ROOTS: [&str; 7] = ["input", "steps", "item", "saga", "signal", "event", "tick"];

/// The root a node names. Loops can't shadow them, so the name is enough.
pub(super) fn root(node: &IdedExpr) -> Option<&'static str> {
    match &node.expr {
        Expr::Ident(name) => ROOTS.into_iter().find(|root| root == name),
        _ => None,
    }
}

/// The text that a node writes out.
pub(super) fn text(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}
