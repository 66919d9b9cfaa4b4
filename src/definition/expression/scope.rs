//! What expressions are evaluated on.

use serde_json::Value;

use crate::id::Timestamp;

/// What expressions may refer to.
pub struct EvaluationScope<'a> {
    /// `input`.
    pub input: &'a Value,
    /// `steps.<name>`.
    pub steps: &'a dyn StepReplies,
    /// `item`, inside a `for_each`.
    pub item: Option<&'a Value>,
    /// `signal`, `event` or `tick` by its name, where the language gives one.
    pub given: Option<(&'static str, &'a Value)>,
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
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SagaFacts {
    /// `saga.id`.
    pub id: String,
    /// `saga.key`.
    pub key: String,
    /// `saga.started_at`, a CEL timestamp's RFC 3339 text.
    pub started_at: Timestamp,
}

impl SagaFacts {
    /// The fields of `saga`.
    pub(in crate::definition) const FIELDS: [&'static str; 3] = ["id", "key", "started_at"];

    pub(super) fn field(&self, name: &str) -> Option<String> {
        match name {
            "id" => Some(self.id.clone()),
            "key" => Some(self.key.clone()),
            "started_at" => Some(self.started_at.to_string()),
            _ => None,
        }
    }
}
