//! Expressions `${ … }`: CEL, compiled at load, evaluated over a saga's data.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::Timestamp;

/// What expressions may refer to.
pub struct Scope<'a> {
    /// `input`.
    pub input: &'a Value,
    /// `steps.<name>`.
    pub steps: &'a dyn StepReplies,
    /// `item`, inside a `for_each`.
    pub item: Option<&'a Value>,
    /// `saga.{id,key,started_at}`; absent while the key is being computed.
    pub saga: Option<&'a SagaFacts>,
}

/// The replies of steps that have succeeded.
pub trait StepReplies {
    /// The reply of a step; of one inside a `for_each`, the list of its replies in item order
    /// (null where there is none). `None` if the step has not run or was skipped.
    fn reply(&self, step: &str) -> Option<Value>;
}

/// No step has run.
impl StepReplies for () {
    fn reply(&self, _step: &str) -> Option<Value> {
        None
    }
}

/// What `saga` means in an expression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaFacts {
    /// `saga.id`.
    pub id: String,
    /// `saga.key`.
    pub key: String,
    /// `saga.started_at`, a CEL timestamp's RFC 3339 text.
    pub started_at: Timestamp,
}

/// One compiled expression.
#[derive(Debug)]
pub struct Expression {
    /// As written, without `${` and `}`.
    pub source: String,
}

/// A YAML value with expressions in its strings.
#[derive(Debug)]
pub struct Template;

/// An expression could not be evaluated on this data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("${{ {expression} }}: {why}")]
pub struct EvaluationError {
    /// The expression.
    pub expression: String,
    /// What went wrong.
    pub why: String,
}

impl Expression {
    /// Evaluates to a JSON value.
    pub fn evaluate(&self, _scope: &Scope<'_>) -> Result<Value, EvaluationError> {
        unimplemented!()
    }
}

impl Template {
    /// Renders to a JSON value; a string that is one expression keeps the expression's type.
    pub fn render(&self, _scope: &Scope<'_>) -> Result<Value, EvaluationError> {
        unimplemented!()
    }
}
