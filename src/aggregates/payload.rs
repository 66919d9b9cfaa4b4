//! What aggregates read of a command, and what they say if it is not there.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::canonical::respelled;
use crate::participant::{Command, Rejection};

/// A payload as a type, or a rejection that says what is wrong with it.
pub(super) fn payload<T: DeserializeOwned>(command: &Command) -> Result<T, Rejection> {
    if let Ok(payload) = T::deserialize(&command.payload) {
        return Ok(payload);
    }
    // A whole number may be written `10.0`; and read from text, what is wrong has a better name.
    let text = respelled(&command.payload).to_string();
    serde_json::from_str(&text)
        .map_err(|error| Rejection::new(format!("payload of `{}`: {error}", command.name)))
}

/// A text field of the payload: the id of the aggregate that is meant.
pub(super) fn id_field(command: &Command, field: &str) -> Result<String, Rejection> {
    command
        .payload
        .get(field)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| {
            Rejection::new(format!(
                "payload of `{}`: `{field}` must be there and be text",
                command.name
            ))
        })
}

/// A command's name that no aggregate was registered for.
pub(super) fn not_handled(command: &Command) -> Rejection {
    Rejection::new(format!("`{}` is not handled here", command.name))
}
