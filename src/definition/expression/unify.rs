//! Rewrites a compiled expression so that all its numbers are [`super::number::Numeral`]s: those that are
//! written in it, and those that CEL's own functions give.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::number::{INDEX, NUMBER};

/// Functions that give a number.
const GIVE_NUMBERS: [&str; 4] = ["size", "int", "uint", "double"];

/// Rewrites an expression so that all its numbers are of our kind.
///
/// Recursion is bounded: what is let in is no deeper than [`super::references`] allows.
pub(super) fn unify(mut node: IdedExpr) -> IdedExpr {
    let id = node.id;
    let gives_number = match &mut node.expr {
        Expr::Literal(literal) => matches!(
            literal,
            LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_)
        ),
        Expr::Call(call) => {
            unify_call(call, id);
            GIVE_NUMBERS.contains(&call.func_name.as_str())
        }
        Expr::Select(select) => {
            unify_in_place(&mut select.operand);
            false
        }
        Expr::List(list) => {
            list.elements.iter_mut().for_each(unify_in_place);
            false
        }
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    unify_in_place(&mut entry.key);
                    unify_in_place(&mut entry.value);
                }
            }
            false
        }
        Expr::Comprehension(comprehension) => {
            for part in [
                &mut comprehension.iter_range,
                &mut comprehension.accu_init,
                &mut comprehension.loop_cond,
                &mut comprehension.loop_step,
                &mut comprehension.result,
            ] {
                unify_in_place(part);
            }
            false
        }
        Expr::Ident(_) | Expr::Struct(_) | Expr::Unspecified => false,
    };
    if gives_number {
        called(NUMBER, node, id)
    } else {
        node
    }
}

fn unify_call(call: &mut CallExpr, id: u64) {
    if let Some(target) = &mut call.target {
        unify_in_place(target);
    }
    call.args.iter_mut().for_each(unify_in_place);
    if call.func_name == operators::INDEX
        && let Some(position) = call.args.get_mut(1)
        && !matches!(position.expr, Expr::Literal(LiteralValue::String(_)))
    {
        let inner = std::mem::take(position);
        *position = called(INDEX, inner, id);
    }
}

fn unify_in_place(node: &mut IdedExpr) {
    *node = unify(std::mem::take(node));
}

fn called(function: &str, argument: IdedExpr, id: u64) -> IdedExpr {
    IdedExpr {
        id,
        expr: Expr::Call(CallExpr {
            func_name: function.to_owned(),
            target: None,
            args: vec![argument],
        }),
    }
}
