//! A dead letter as people look at it.

use serde::Serialize;
use uuid::Uuid;

use super::hex;
use crate::message::Properties;
use crate::store::DeadLetter;

/// Longest part of a body that is shown, in bytes; the whole is in the database.
pub const LETTER_BODY_BYTES_MAX: usize = 64 * 1024;

/// A message nobody could handle.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LetterView {
    /// The row's id.
    pub id: Uuid,
    /// When it was recorded, RFC 3339.
    pub at: String,
    /// The queue it was taken from.
    pub queue: String,
    /// Which error it was, such as `BST-0010`.
    pub code: String,
    /// What was wrong and what to do.
    pub reason: String,
    /// The message's properties and headers.
    pub properties: Properties,
    /// The body, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in hexadecimal, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_hex: Option<String>,
    /// The body's length; more than is shown if it was cut.
    pub body_bytes: usize,
}

impl LetterView {
    /// The view of a letter.
    pub fn new(letter: &DeadLetter) -> Self {
        let body = &letter.message.body;
        let shown = &body[..body.len().min(LETTER_BODY_BYTES_MAX)];
        let text = match std::str::from_utf8(shown) {
            Ok(text) => Some(text),
            // Cut in the middle of a character.
            Err(error) if error.error_len().is_none() && shown.len() < body.len() => {
                std::str::from_utf8(&shown[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        Self {
            id: letter.id,
            at: letter.at.to_string(),
            queue: letter.queue.clone(),
            code: letter.code.to_string(),
            reason: letter.reason.clone(),
            properties: letter.message.properties.clone(),
            body: text.map(str::to_owned),
            body_hex: text.is_none().then(|| hex(shown)),
            body_bytes: body.len(),
        }
    }
}
