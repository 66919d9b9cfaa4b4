//! Expressions `${ … }`: CEL, compiled at load, evaluated over a saga's data.
//!
//! Most expressions only name a value (`input.order_id`); those never reach CEL and are read
//! straight from the JSON. The others are compiled within bounds that hold for the worst source a
//! stranger can write ([`references`]), and evaluated within bounds on the data ([`convert`]), so
//! that neither can hang or kill a node.
//!
//! Numbers are JSON's, not CEL's: one kind, of which whole ones and fractions mix, compared by value
//! and reckoned with exactly ([`number`]). One that is only carried keeps its spelling; a computed one
//! is written in the shortest way.
//!
//! Deliberately absent: clock, randomness, I/O, regular expressions that come from data, and CEL's
//! timestamps: a point in time is RFC 3339 text, which compares in time's order.

mod convert;
mod number;
mod path;
pub(in crate::definition) use self::path::kind;
mod nodes;
mod presence;
pub(in crate::definition) mod references;
mod scope;
mod source;
mod unify;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::common::types::DYN_TYPE;
use serde_json::Value;

use self::path::Path;
use self::references::{HASH, References};
pub use self::scope::{EvaluationScope, SagaFacts, StepReplies};
pub use self::source::EXPRESSION_BYTES_MAX;
use self::source::{WHY_CHARS_MAX, check_source, parse};
use super::problem::shortened;

/// Stack for the parser, which recurses for each operator.
const STACK_BYTES: usize = 64 << 20;

/// One compiled expression.
#[derive(Debug)]
pub struct Expression {
    /// As written, without `${` and `}`.
    pub source: String,
    // Most of an expression's size, and hardly ever looked at when it is evaluated.
    references: Box<References>,
    compiled: Compiled,
}

#[derive(Debug)]
enum Compiled {
    Path(Path),
    Cel(Box<IdedExpr>),
}

/// An expression could not be evaluated on this data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("${{ {expression} }}: {why}")]
pub struct EvaluationError {
    /// The expression.
    pub expression: String,
    /// What went wrong.
    pub why: String,
}

/// CEL's standard functions and ours; building them is the dear part of an evaluation, so it is
/// done once.
static CEL: LazyLock<Arc<cel::Env>> = LazyLock::new(|| {
    let mut env = cel::Env::stdlib().with_optional_support(false);
    let hash = env.add_overload(HASH, "hash_dyn", vec![DYN_TYPE], convert::hash);
    // A name that the standard library does not have; each call would fail, and a test with it.
    debug_assert!(hash.is_ok());
    let numbers = number::declare(&mut env);
    debug_assert!(numbers.is_ok());
    Arc::new(env)
});

impl Expression {
    /// Compiles the text between `${` and `}`, or says why it can't be.
    ///
    /// Expects a stack of several MiB: the parser recurses for each operator.
    pub(in crate::definition) fn compile(source: &str) -> Result<Self, String> {
        let source = source.trim();
        check_source(source)?;
        let (compiled, references) = if let Some(path) = Path::parse(source) {
            let references = path.references()?;
            (Compiled::Path(path), references)
        } else {
            let program = parse(source)?;
            let references = References::of(&program)?;
            (Compiled::Cel(Box::new(unify::unify(program))), references)
        };
        Ok(Self {
            source: source.to_owned(),
            references: Box::new(references),
            compiled,
        })
    }

    /// Whether compiling it costs next to nothing: it only names a value.
    pub(in crate::definition) fn is_cheap(source: &str) -> bool {
        Path::parse(source.trim()).is_some()
    }

    /// Compiles an expression of a command, outside any definition; `input` is what it is about.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn of_command(source: &str) -> Result<Self, String> {
        let compile = || Self::compile(source);
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        std::thread::scope(|scope| match thread.spawn_scoped(scope, compile) {
            Ok(compiling) => compiling
                .join()
                .unwrap_or_else(|_| Err("compiling it failed".to_owned())),
            Err(error) => Err(format!("no thread to compile it with: {error}")),
        })
    }

    /// Stands for one that could not be compiled, in a tree that is never run.
    pub(in crate::definition) fn placeholder() -> Self {
        Self {
            source: String::new(),
            references: Box::default(),
            compiled: Compiled::Path(Path::input()),
        }
    }

    /// What it refers to.
    pub(in crate::definition) fn references(&self) -> &References {
        &self.references
    }

    /// Evaluates to a JSON value.
    pub fn evaluate(&self, scope: &EvaluationScope<'_>) -> Result<Value, EvaluationError> {
        let result = match &self.compiled {
            Compiled::Path(path) => path.evaluate(scope),
            Compiled::Cel(program) => execute(program, &self.references, scope),
        };
        result.map_err(|why| EvaluationError {
            expression: self.source.clone(),
            why: shortened(&why, WHY_CHARS_MAX),
        })
    }
}

fn execute(
    program: &IdedExpr,
    references: &References,
    scope: &EvaluationScope<'_>,
) -> Result<Value, String> {
    let replies: Vec<(&str, Value)> = references
        .steps
        .iter()
        .filter_map(|step| Some((step.as_str(), scope.steps.reply(step)?)))
        .collect();
    let mut context = cel::Context::with_env(Arc::clone(&CEL));
    convert::bind(&mut context, references, scope, &replies)?;
    // CEL's interpreter still has a few panics of its own; none may end a node.
    let result = catch_unwind(AssertUnwindSafe(|| {
        let value = cel::Value::resolve_val(program, &context)?;
        Ok(convert::to_json(value.as_ref()))
    }));
    match result {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => Err(explain(&error, references, &replies)),
        Err(_) => Err("CEL failed on this data".to_owned()),
    }
}

/// CEL only knows that a key is missing; if it is a step's name, say that.
fn explain(
    error: &cel::ExecutionError,
    references: &References,
    replies: &[(&str, Value)],
) -> String {
    match error {
        cel::ExecutionError::NoSuchKey(key)
            if references.steps.contains(key.as_str())
                && !replies.iter().any(|(step, _)| *step == key.as_str()) =>
        {
            path::no_reply(key)
        }
        cel::ExecutionError::NoSuchKey(key) => format!("there is no `{key}`"),
        cel::ExecutionError::FunctionError { function, message } => {
            format!("{function}: {message}")
        }
        cel::ExecutionError::UnsupportedBinaryOperator(operator, ..) => format!(
            "`{operator}` does not take these two together; numbers go with numbers and text with text (`string(x)` makes text of a number)"
        ),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
