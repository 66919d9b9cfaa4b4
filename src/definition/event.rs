//! What a rule about domain events makes of one event: a key, and an input or payload.
//!
//! Separate from the reading of rules (`start`), because it happens once an event and not once a
//! file. Which event a rule is about (exchange, routing key) is the engine's matter.

use serde_json::Value;

use super::expression::{EvaluationError, EvaluationScope};
use super::input::checked_key;
use super::kinds::EventRule;
use crate::limits::BODY;

impl EventRule {
    /// The key of the saga that an event is about; `None` if the rule does not say.
    pub fn key_of(&self, event: &Value) -> Result<Option<String>, EvaluationError> {
        let Some(template) = &self.key else {
            return Ok(None);
        };
        let key = template.render(&scope(event))?;
        checked_key(template, key).map(Some)
    }

    /// The input of the saga that an event starts, or the payload of the signal that it is: the
    /// event itself, if the rule does not say.
    pub fn content_of(&self, event: &Value) -> Result<Value, EvaluationError> {
        match &self.with {
            Some(template) => template.render_within(&scope(event), &BODY),
            None => Ok(event.clone()),
        }
    }
}

/// There is no input yet.
static NO_INPUT: Value = Value::Null;

fn scope(event: &Value) -> EvaluationScope<'_> {
    EvaluationScope {
        input: &NO_INPUT,
        steps: &(),
        item: None,
        given: Some(("event", event)),
        saga: None,
    }
}
