//! Sources of expressions: what is let in, and what the parser makes of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use serde_json::Value;

use crate::definition::problem::shortened;

/// Longest source of an expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 1024;
/// Deepest nesting of brackets in an expression.
const BRACKETS_DEEP_MAX: usize = 32;
/// Longest reason in an error, in characters.
pub(super) const WHY_CHARS_MAX: usize = 300;

/// CEL's standard functions, without ours: enough to parse, and to try a pattern.
static PLAIN: LazyLock<Arc<cel::Env>> =
    LazyLock::new(|| Arc::new(cel::Env::stdlib().with_optional_support(false)));

/// Bounds that hold before the parser sees the source: it recurses for each bracket.
pub(super) fn check_source(source: &str) -> Result<(), String> {
    if source.is_empty() {
        return Err("it is empty; write what to compute, as in `${ input.order_id }`".to_owned());
    }
    if source.len() > EXPRESSION_BYTES_MAX {
        return Err(format!(
            "it is longer than {EXPRESSION_BYTES_MAX} bytes; let a participant compute this"
        ));
    }
    let mut depth = 0_usize;
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > BRACKETS_DEEP_MAX {
            return Err(format!(
                "its brackets are nested deeper than {BRACKETS_DEEP_MAX}"
            ));
        }
    }
    Ok(())
}

/// Parses it, or says why it can't be.
pub(super) fn parse(source: &str) -> Result<IdedExpr, String> {
    // The generated parser panics on some malformed sources.
    match catch_unwind(|| PLAIN.parser().parse(source)) {
        Ok(Ok(program)) => Ok(program),
        Ok(Err(errors)) => {
            let first = errors.errors.first().map_or_else(
                || "it is not CEL".to_owned(),
                |error| {
                    let what = error.msg.trim_start_matches("Syntax error: ");
                    let column = error.pos.1.max(0) + 1;
                    format!("{} (at its character {column})", shortened(what, 160))
                },
            );
            Err(first)
        }
        Err(_) => Err("it is not CEL".to_owned()),
    }
}

/// Whether the engine takes a pattern: it may be malformed, or, short as it is, compile to more than
/// the engine allows (`\w{500}`).
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    // JSON's escapes are CEL's.
    let program = parse(&format!("''.matches({})", Value::from(pattern)))?;
    let context = cel::Context::with_env(Arc::clone(&PLAIN));
    let tried = catch_unwind(AssertUnwindSafe(|| {
        cel::Value::resolve(&program, &context).map(drop)
    }));
    let why = match tried {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the engine fails on it".to_owned(),
    };
    Err(format!(
        "the pattern of `matches` can't be used: {}",
        shortened(&why, WHY_CHARS_MAX)
    ))
}
