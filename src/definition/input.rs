//! What a definition says about one start: whether its input is right, and what its key is.

use serde_json::Value;

use super::bounds::BUSINESS_KEY_BYTES_MAX;
use super::expression::{EvaluationError, EvaluationScope};
use super::kinds::InputSchema;
use super::problem::shortened;
use super::schema::within_bound;
use super::template::Template;
use super::tree::Definition;
use crate::numeral;

/// Most problems of an input that are reported.
pub const INPUT_PROBLEMS_MAX: usize = 10;
/// Longest report of one problem, in characters: it may quote the input.
const REPORT_CHARS_MAX: usize = 300;

impl Definition {
    /// Checks an input against the schema; else says where it is wrong (a JSON pointer) and how.
    pub fn check_input(&self, input: &Value) -> Result<(), Vec<String>> {
        match &self.input {
            Some(schema) => schema.check("the input", input),
            None => Ok(()),
        }
    }

    /// The business key of a saga with this input: text or a whole number.
    pub fn key_of(&self, input: &Value) -> Result<String, EvaluationError> {
        of_input(&self.key, input)
    }

    /// What a saga with this input belongs to, if the definition says so: what a key can be.
    pub fn correlation_of(&self, input: &Value) -> Result<Option<String>, EvaluationError> {
        let correlate = self.correlate.as_ref();
        let correlation = correlate.map(|it| of_input(it, input)).transpose();
        correlation.map_err(|error| EvaluationError {
            why: error.why.replacen("the key", "the correlation", 1),
            ..error
        })
    }
}

impl InputSchema {
    /// Checks a value (`what` it is, for messages); else says where it is wrong and how.
    pub fn check(&self, what: &str, value: &Value) -> Result<(), Vec<String>> {
        let report = |error: jsonschema::ValidationError<'_>| {
            let pointer = error.instance_path().to_string();
            let place = if pointer.is_empty() { what } else { &pointer };
            // Masked: the report goes to logs and dead letters, the value may be personal.
            shortened(&format!("{place}: {}", error.masked()), REPORT_CHARS_MAX)
        };
        let evaluate = || -> Vec<String> {
            let errors = self.validator.iter_errors(value);
            errors.take(INPUT_PROBLEMS_MAX).map(report).collect()
        };
        let wrong = within_bound(evaluate).unwrap_or_else(|| {
            vec![format!(
                "{what}: to check it against this schema is too costly; let fewer `anyOf`, `allOf` and `oneOf` apply to one value"
            )]
        });
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

fn of_input(template: &Template, input: &Value) -> Result<String, EvaluationError> {
    let scope = EvaluationScope {
        input,
        steps: &(),
        item: None,
        given: None,
        saga: None,
    };
    checked_key(template, template.render(&scope)?)
}

/// What a key template gave, if it can be a key: text or a whole number.
pub(super) fn checked_key(template: &Template, key: Value) -> Result<String, EvaluationError> {
    let refuse = |why: String| EvaluationError {
        expression: template.written(),
        why,
    };
    let key = match key {
        Value::String(text) => text,
        // `50.0` is 50, so its saga is the one with the key `50`.
        Value::Number(number) => match numeral::whole_text(&number) {
            Some(text) => text,
            None => {
                return Err(refuse(format!(
                    "the key is {}; it must be text or a whole number that is not too long",
                    shortened(number.as_str(), BUSINESS_KEY_BYTES_MAX)
                )));
            }
        },
        other => {
            return Err(refuse(format!(
                "the key is {}; it must be text or a whole number",
                super::expression::kind(&other)
            )));
        }
    };
    check_key(&key).map_err(refuse)?;
    Ok(key)
}

/// Whether a text can be a saga's key; else why not.
pub fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    if key.len() > BUSINESS_KEY_BYTES_MAX {
        return Err(format!(
            "the key is {} bytes long; at most {BUSINESS_KEY_BYTES_MAX} are allowed",
            key.len()
        ));
    }
    // It becomes a header and a column; neither takes all control characters.
    if key.chars().any(char::is_control) {
        return Err("the key has control characters".to_owned());
    }
    Ok(())
}
