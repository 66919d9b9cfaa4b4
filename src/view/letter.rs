//! A dead letter as people look at it.

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::id::SagaId;
use crate::message::{Message, Properties, mask};
use crate::store::dead_letters::{
    AuditEntry, Letter, LetterEdit, LetterGroup, LetterHead, LetterOrigin, LetterStatus,
};

/// Longest part of a body that is shown, in bytes; the whole is in the database.
pub const LETTER_BODY_BYTES_MAX: usize = 64 * 1024;

/// A letter without its message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LetterHeadView {
    /// The letter's id.
    pub id: Uuid,
    /// When it was recorded, RFC 3339.
    pub at: String,
    /// The queue it was taken from.
    pub queue: String,
    /// What is to become of it.
    pub status: LetterStatus,
    /// Which error it was, such as `BST-0010`.
    pub code: String,
    /// What was wrong and what to do.
    pub reason: String,
    /// Where it died first.
    pub origin: LetterOrigin,
    /// AMQP `type`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// AMQP `message_id`.
    pub message_id: Option<String>,
    /// The same for all letters with the same cause.
    pub fingerprint: String,
    /// The saga it belongs to.
    pub saga_id: Option<SagaId>,
    /// The saga's step and phase.
    pub step: Option<String>,
    /// How often its message was replayed.
    pub replays: u32,
    /// The letter whose replay it is, or that the same message was before.
    pub came_back_from: Option<Uuid>,
    /// How often it was delivered again after it was stored.
    pub seen_again: u32,
    /// How often it was edited.
    pub edits: u32,
    /// The body's length as received.
    pub body_bytes: u64,
    /// When it was replayed or discarded.
    pub handled_at: Option<String>,
}

impl LetterHeadView {
    /// The view of a head.
    pub fn new(head: &LetterHead) -> Self {
        Self {
            id: head.id,
            at: head.at.to_string(),
            queue: head.queue.clone(),
            status: head.status,
            code: head.code.to_string(),
            reason: mask::text(&head.reason).into_owned(),
            origin: head.origin.clone(),
            kind: head.kind.clone(),
            message_id: masked(head.message_id.as_ref()),
            fingerprint: head.fingerprint.clone(),
            saga_id: head.saga,
            step: head.step.clone(),
            replays: head.replays,
            came_back_from: head.came_back_from,
            seen_again: head.seen_again,
            edits: head.edits,
            body_bytes: head.body_bytes,
            handled_at: head.handled_at.map(|at| at.to_string()),
        }
    }
}

fn masked(text: Option<&String>) -> Option<String> {
    text.map(|text| mask::text(text).into_owned())
}

/// A page of letters.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LetterListView {
    /// In the order asked for.
    pub dead_letters: Vec<LetterHeadView>,
    /// What to pass as `after` for the next page, if there may be one.
    pub next: Option<String>,
}

impl LetterListView {
    /// A page of at most `limit` letters.
    pub fn new(heads: &[LetterHead], limit: usize) -> Self {
        let full = heads.len() >= limit;
        let last = heads.last().filter(|_| full);
        Self {
            dead_letters: heads.iter().map(LetterHeadView::new).collect(),
            next: last.map(|head| format!("{},{}", head.at.as_micros(), head.id)),
        }
    }
}

/// A message nobody could handle.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LetterView {
    /// All but the message.
    #[serde(flatten)]
    pub head: LetterHeadView,
    /// The message that a replay sends.
    #[serde(flatten)]
    pub message: MessageView,
    /// The message as received, if it was edited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original: Option<MessageView>,
    /// Who edited it, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Value>,
}

/// A message with its body as far as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessageView {
    /// The message's properties and headers.
    pub properties: Properties,
    /// The body, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in hexadecimal, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_hex: Option<String>,
    /// Whether more of it is in the database.
    pub body_cut: bool,
}

impl LetterView {
    /// The view of a letter, of its edits and of what was done to it.
    pub fn new(letter: &Letter, edits: &[LetterEdit], audit: &[AuditEntry]) -> Self {
        let done = audit.iter().map(AuditView::new);
        let mut history: Vec<Value> = done
            .filter_map(|entry| serde_json::to_value(entry).ok())
            .collect();
        history.extend(edits.iter().map(|edit| {
            let at = edit.at.to_string();
            json!({ "edit": edit.number, "at": at, "by": edit.by, "why": edit.why })
        }));
        Self {
            head: LetterHeadView::new(&letter.head),
            message: MessageView::new(letter.message()),
            original: letter
                .edited
                .as_ref()
                .map(|_| MessageView::new(&letter.original)),
            history,
        }
    }
}

impl MessageView {
    /// The view of a message: without macs.
    pub fn new(message: &Message) -> Self {
        let message = mask::message(message);
        let body = &message.body;
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
            properties: message.properties,
            body: text.map(str::to_owned),
            body_hex: text.is_none().then(|| hex::encode(shown)),
            body_cut: shown.len() < body.len(),
        }
    }
}

/// Letters of one cause.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupView {
    /// What they have in common.
    pub fingerprint: String,
    /// How many there are.
    pub count: u64,
    /// How many are open.
    pub open: u64,
    /// When the first was recorded, RFC 3339.
    pub first_at: String,
    /// When the newest was recorded.
    pub last_at: String,
    /// The newest one.
    pub newest: LetterHeadView,
}

impl GroupView {
    /// The view of a group.
    pub fn new(group: &LetterGroup) -> Self {
        Self {
            fingerprint: group.fingerprint.clone(),
            count: group.count,
            open: group.open,
            first_at: group.first_at.to_string(),
            last_at: group.last_at.to_string(),
            newest: LetterHeadView::new(&group.newest),
        }
    }
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditView {
    /// Its number.
    pub seq: u64,
    /// When, RFC 3339.
    pub at: String,
    /// What was done.
    pub action: String,
    /// To which letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub letter: Option<Uuid>,
    /// Who, why and the particulars.
    #[serde(flatten)]
    pub body: Value,
}

impl AuditView {
    /// The view of an entry.
    pub fn new(entry: &AuditEntry) -> Self {
        Self {
            seq: entry.seq,
            at: entry.at.to_string(),
            action: entry.action.clone(),
            letter: entry.letter,
            body: serde_json::from_str(&entry.body).unwrap_or_default(),
        }
    }
}
