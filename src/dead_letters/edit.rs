//! Mending a message: as a document that people and JSON Patch (RFC 6902) can change.
//!
//! The document has the message's `properties` (headers among them) and its body: as `body` if it
//! is JSON, as `body_text` if it is other text, as `body_base64` if it is neither. What an edit
//! does not touch stays byte for byte; a JSON body that is touched is written anew, compact.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::desk::{DeadLetterError, Desk, change};
use crate::broker::rabbitmq;
use crate::message::{Message, Properties, mask};
use crate::store::dead_letters::{Letter, LetterAction, LetterStatus, PublishedReplays};

/// Most operations of one patch.
pub const PATCH_OPERATIONS_MAX: usize = 1_000;
/// The properties that a message has. One that is misspelt must not vanish without a word.
const PROPERTIES: [&str; 16] = [
    "message_id",
    "type",
    "correlation_id",
    "reply_to",
    "content_type",
    "timestamp",
    "content_encoding",
    "priority",
    "expiration",
    "user_id",
    "app_id",
    "cluster_id",
    "delivery_mode",
    "headers",
    "exact",
    "unreadable",
];
/// Lines of unchanged text shown around a change.
const CONTEXT_LINES: usize = 2;

/// The message as a document, without macs.
pub fn document(message: &Message) -> Value {
    let message = &mask::message(message);
    let mut document = Map::new();
    let properties = serde_json::to_value(&message.properties).unwrap_or_default();
    document.insert("properties".to_owned(), properties);
    let (name, body) = match std::str::from_utf8(&message.body) {
        Ok(text) => match serde_json::from_str(text) {
            Ok(json) => ("body", json),
            Err(_) => ("body_text", Value::from(text)),
        },
        Err(_) => ("body_base64", Value::from(STANDARD.encode(&message.body))),
    };
    document.insert(name.to_owned(), body);
    Value::Object(document)
}

/// The message that a changed document describes.
///
/// # Errors
/// Says what is wrong with it.
pub fn from_document(document: &Value, before: &Message) -> Result<Message, String> {
    let fields = document
        .as_object()
        .ok_or("the document is not an object")?;
    let known = ["properties", "body", "body_text", "body_base64"];
    if let Some(odd) = fields.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("`{odd}` is none of {}", known.join(", ")));
    }
    let properties = fields.get("properties").ok_or("`properties` is missing")?;
    let names = properties.as_object().into_iter().flat_map(Map::keys);
    if let Some(odd) = names
        .into_iter()
        .find(|name| !PROPERTIES.contains(&name.as_str()))
    {
        let known = PROPERTIES.join(", ");
        return Err(format!("`properties/{odd}` is none of {known}"));
    }
    let properties: Properties = serde_json::from_value(properties.clone())
        .map_err(|error| format!("`properties`: {error}"))?;
    let bodies: Vec<_> = fields
        .iter()
        .filter(|(name, _)| *name != "properties")
        .collect();
    let [(name, body)] = bodies[..] else {
        return Err("write one of `body`, `body_text` and `body_base64`".to_owned());
    };
    let unchanged = self::document(before).get(name) == Some(body);
    let body = match (name.as_str(), body) {
        _ if unchanged => before.body.clone(),
        ("body", json) => json.to_string().into(),
        ("body_text", Value::String(text)) => text.clone().into(),
        ("body_base64", Value::String(text)) => STANDARD
            .decode(text)
            .map_err(|error| format!("`body_base64`: {error}"))?
            .into(),
        (name, _) => return Err(format!("`{name}` is not text")),
    };
    let mut message = Message { properties, body };
    mask::restore(&mut message, before);
    Ok(message)
}

/// Applies a JSON Patch.
///
/// # Errors
/// Names the operation that can't be done; then nothing is.
pub fn patch(document: &Value, patch: &Value) -> Result<Value, String> {
    let operations = patch
        .as_array()
        .ok_or("a JSON Patch is an array of operations")?;
    if operations.len() > PATCH_OPERATIONS_MAX {
        return Err(format!(
            "a patch has at most {PATCH_OPERATIONS_MAX} operations"
        ));
    }
    let mut result = document.clone();
    for (number, operation) in operations.iter().enumerate() {
        apply(&mut result, operation)
            .map_err(|why| format!("operation {} of the patch: {why}", number + 1))?;
    }
    Ok(result)
}

fn apply(document: &mut Value, operation: &Value) -> Result<(), String> {
    let text = |name: &str| {
        let text = operation.get(name).and_then(Value::as_str);
        text.ok_or_else(|| format!("`{name}` is missing"))
    };
    let value = || {
        operation
            .get("value")
            .cloned()
            .ok_or("`value` is missing".to_owned())
    };
    let path = text("path")?;
    match text("op")? {
        "add" => add(document, path, value()?),
        "remove" => remove(document, path).map(drop),
        "replace" => {
            *at(document, path)? = value()?;
            Ok(())
        }
        "move" => {
            let from = text("from")?;
            if path.starts_with(&format!("{from}/")) {
                return Err(format!("`{from}` can't move into itself"));
            }
            let moved = remove(document, from)?;
            add(document, path, moved)
        }
        "copy" => {
            let copied = at(document, text("from")?)?.clone();
            add(document, path, copied)
        }
        "test" if *at(document, path)? == value()? => Ok(()),
        "test" => Err(format!("`{path}` has another value")),
        other => Err(format!("`{other}` is no operation")),
    }
}

fn at<'a>(document: &'a mut Value, path: &str) -> Result<&'a mut Value, String> {
    let missing = || format!("there is nothing at `{path}`");
    document.pointer_mut(path).ok_or_else(missing)
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (parent, name) = split(path)?;
    match at(document, parent)? {
        Value::Object(fields) => {
            fields.insert(name, value);
        }
        Value::Array(items) if name == "-" => items.push(value),
        Value::Array(items) => {
            let index = index(&name).filter(|index| *index <= items.len());
            items.insert(
                index.ok_or_else(|| format!("`{path}` is outside the list"))?,
                value,
            );
        }
        _ => return Err(format!("`{parent}` has no fields")),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, name) = split(path)?;
    let removed = match at(document, parent)? {
        Value::Object(fields) => fields.remove(&name),
        Value::Array(items) => {
            let index = index(&name).filter(|index| *index < items.len());
            index.map(|index| items.remove(index))
        }
        _ => None,
    };
    removed.ok_or_else(|| format!("there is nothing at `{path}`"))
}

fn split(path: &str) -> Result<(&str, String), String> {
    let parts = path.rsplit_once('/');
    let (parent, name) = parts.ok_or_else(|| format!("`{path}` does not begin with `/`"))?;
    Ok((parent, name.replace("~1", "/").replace("~0", "~")))
}

fn index(name: &str) -> Option<usize> {
    let plain = name == "0" || !name.starts_with(['0', '+']);
    name.parse().ok().filter(|_| plain)
}

/// The lines that differ between two documents, with `-` and `+`.
pub fn diff(before: &Value, after: &Value) -> String {
    let lines = |document| {
        let text = serde_json::to_string_pretty(document).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (before, after) = (lines(before), lines(after));
    let start = before
        .iter()
        .zip(&after)
        .take_while(|(a, b)| a == b)
        .count();
    let rest = |lines: &[String]| lines.len() - start;
    let shorter = rest(&before).min(rest(&after));
    let ends = before.iter().rev().zip(after.iter().rev());
    let end = ends.take(shorter).take_while(|(a, b)| a == b).count();
    if start == before.len() && start == after.len() {
        return String::new();
    }
    let mut text = String::new();
    let mut put = |mark: &str, lines: &[String]| {
        for line in lines {
            text.push_str(mark);
            text.push_str(line);
            text.push('\n');
        }
    };
    put("  ", &before[start.saturating_sub(CONTEXT_LINES)..start]);
    put("- ", &before[start..before.len() - end]);
    put("+ ", &after[start..after.len() - end]);
    let tail = &before[before.len() - end..];
    put("  ", &tail[..tail.len().min(CONTEXT_LINES)]);
    text
}

impl Desk {
    /// A whole letter.
    pub async fn letter(&self, id: Uuid) -> Result<Letter, DeadLetterError> {
        let found = self.letters.load_letters(&[id]).await?.into_iter().next();
        found.ok_or(DeadLetterError::NotFound(id))
    }

    /// Has later replays of a letter send another message.
    pub async fn edit(
        &self,
        letter: &Letter,
        message: Message,
        by: &str,
        why: &str,
    ) -> Result<(), DeadLetterError> {
        let refused = |why: &str| DeadLetterError::Refused {
            letter: letter.head.id,
            why: why.to_owned(),
        };
        if letter.head.status == LetterStatus::Replaying {
            return Err(refused(
                "its replay is on its way; wait until it is confirmed",
            ));
        }
        if message == *letter.message() {
            return Err(refused("nothing would change"));
        }
        rabbitmq::check_sendable(&message)
            .map_err(|why| refused(&format!("RabbitMQ would refuse the message: {why}")))?;
        let changes = [change(&letter.head, LetterAction::Edit(Box::new(message)))];
        let nothing = PublishedReplays::default();
        let actor = self.actor(by, why);
        let lost = self
            .letters
            .change_letters(&actor, &changes, &nothing)
            .await?;
        if lost.is_empty() {
            Ok(())
        } else {
            Err(refused(
                "somebody else changed it meanwhile; look at it again",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(body: &'static [u8]) -> Message {
        Message {
            body: body.into(),
            ..Message::default()
        }
    }

    #[test]
    fn a_document_that_nobody_changed_is_the_message_byte_for_byte() {
        for body in [
            &b""[..],
            b"{ \"big\": 9007199254740993,\n \"dup\": 1, \"dup\": 2 }",
            b"1.0000000000000000000001",
            b"plain",
            b"\xff\x00",
        ] {
            let mut message = message(body);
            message.properties.headers.insert("a".to_owned(), json!(1));
            let document = document(&message);
            assert_eq!(from_document(&document, &message), Ok(message));
        }
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let before = message(b"{\"a\":[1,2],\"big\":9223372036854775807}");
        let operations = json!([
            { "op": "test", "path": "/body/a/0", "value": 1 },
            { "op": "add", "path": "/body/a/1", "value": 7 },
            { "op": "add", "path": "/body/a/-", "value": 9 },
            { "op": "copy", "from": "/body/a/0", "path": "/body/c" },
            { "op": "move", "from": "/body/c", "path": "/body/d" },
            { "op": "add", "path": "/properties/headers", "value": { "x/y": 1 } },
            { "op": "replace", "path": "/properties/headers/x~1y", "value": 2 },
            { "op": "remove", "path": "/body/a/2" },
        ]);
        let after = patch(&document(&before), &operations).unwrap();
        let after = from_document(&after, &before).unwrap();
        assert_eq!(
            after.body,
            "{\"a\":[1,7,9],\"big\":9223372036854775807,\"d\":1}"
        );
        assert_eq!(after.properties.headers["x/y"], 2);
        assert!(!diff(&document(&before), &document(&after)).is_empty());
        assert_eq!(diff(&document(&before), &document(&before)), "");
    }

    #[test]
    fn a_property_that_does_not_exist_is_refused() {
        let before = message(b"{}");
        let operation = json!([{ "op": "add", "path": "/properties/mesage_id", "value": "1" }]);
        let after = patch(&document(&before), &operation).unwrap();
        let refused = from_document(&after, &before).unwrap_err();
        assert!(refused.starts_with("`properties/mesage_id` is none of message_id"));
    }

    #[test]
    fn a_patch_that_does_not_fit_is_refused() {
        let document = document(&message(b"{\"a\":[1]}"));
        for operation in [
            json!({}),
            json!({ "op": "add", "path": "/body/a/9", "value": 1 }),
            json!({ "op": "add", "path": "/body/a/01", "value": 1 }),
            json!({ "op": "remove", "path": "/body/b" }),
            json!({ "op": "remove", "path": "" }),
            json!({ "op": "replace", "path": "/body/b", "value": 1 }),
            json!({ "op": "test", "path": "/body/a", "value": 1 }),
            json!({ "op": "move", "from": "/body", "path": "/body/a" }),
            json!({ "op": "fly", "path": "/body" }),
        ] {
            assert!(
                patch(&document, &json!([operation])).is_err(),
                "{operation}"
            );
        }
        assert!(patch(&document, &json!({})).is_err());
    }
}
