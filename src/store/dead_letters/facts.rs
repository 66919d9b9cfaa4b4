//! What a letter can be searched by, read from its message.
//!
//! Separate because every way into the database must derive the same: the engine's letters, the
//! participants' and those drained from queues.

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{HEADER_LETTER, HEADER_ORIGIN, HEADER_REPLAYS, LetterOrigin};
use crate::id::SagaId;
use crate::message::Message;
use crate::message::correlation::Correlation;
use crate::store::DeadLetter;

/// Characters of a fingerprint, all hexadecimal digits.
const FINGERPRINT_CHARS: usize = 16;

/// What a letter can be searched by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterFacts {
    /// Where it died first.
    pub origin: LetterOrigin,
    /// The same for all letters with the same cause.
    pub fingerprint: String,
    /// The saga it belongs to.
    pub saga: Option<SagaId>,
    /// The saga's step and phase.
    pub step: Option<String>,
    /// How often its message was replayed before.
    pub replays: u32,
    /// The letter whose replay it is.
    pub came_back_from: Option<Uuid>,
}

impl LetterFacts {
    /// Reads them.
    pub fn of(letter: &DeadLetter) -> Self {
        let properties = &letter.message.properties;
        let correlation = properties.correlation_id.as_deref();
        let correlation = correlation.and_then(|text| Correlation::parse(text).ok());
        let origin = origin(&letter.message);
        let queue = origin.queue.as_deref().unwrap_or(&letter.queue);
        let kind = properties.kind.as_deref().unwrap_or_default();
        let code = letter.code.to_string();
        let replays = properties.headers.get(HEADER_REPLAYS);
        let came_from = letter.message.header(HEADER_LETTER);
        Self {
            fingerprint: fingerprint(&[queue, kind, &code], &letter.reason),
            saga: correlation.as_ref().map(|of| of.saga),
            step: correlation.map(|of| format!("{}/{}", of.step, of.phase)),
            replays: replays
                .and_then(Value::as_u64)
                .map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX)),
            came_back_from: came_from.and_then(|text| text.parse().ok()),
            origin,
        }
    }
}

/// Where the broker says that a message died first.
pub(in crate::store) fn origin(message: &Message) -> LetterOrigin {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let header = |name| text(message.properties.headers.get(name));
    let deaths = message.properties.headers.get("x-death");
    let deaths = deaths
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let queue = header("x-first-death-queue");
    let reason = header("x-first-death-reason");
    // The broker puts the latest death first.
    let first = deaths.iter().rev().find(|death| {
        let same =
            |name, known: &Option<String>| known.is_none() || text(death.get(name)) == *known;
        same("queue", &queue) && same("reason", &reason)
    });
    let field = |name| first.and_then(|death| death.get(name));
    let keys = field("routing-keys").and_then(Value::as_array);
    LetterOrigin {
        exchange: header("x-first-death-exchange").or_else(|| text(field("exchange"))),
        routing_key: keys.and_then(|keys| text(keys.first())),
        queue: queue
            .or_else(|| text(field("queue")))
            .or_else(|| header(HEADER_ORIGIN)),
        reason: reason.or_else(|| text(field("reason"))),
        count: field("count").and_then(Value::as_u64).unwrap_or(0),
    }
}

/// A short hash of what letters of one cause have in common: `parts` as they are, and the reason
/// without what differs from one message to the next (numbers, ids).
pub fn fingerprint(parts: &[&str], reason: &str) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    for word in reason.split_inclusive(|c| !is_word(c)) {
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (word, rest) = word.split_at(end);
        let varies = word.contains(|c: char| c.is_ascii_digit());
        hasher.update(if varies { "#" } else { word }.as_bytes());
        hasher.update(rest.as_bytes());
    }
    let digest = hasher.finalize();
    hex::encode(&digest[..FINGERPRINT_CHARS / 2])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn causes_are_told_apart_and_their_numbers_are_not() {
        let of = |reason| fingerprint(&["q", "t", "BST-0050"], reason);
        let same = [
            "order 17 of 019a9b2e-0000-7000-8000-000000000000: no stock",
            "order 4 of 119a9b2e-0000-7000-8000-00000000000f: no stock",
        ];
        assert_eq!(of(same[0]), of(same[1]));
        assert_ne!(of(same[0]), of("order 17 of 3: no money"));
        assert_ne!(of(same[0]), fingerprint(&["q", "u", "BST-0050"], same[0]));
        assert_eq!(of("").len(), FINGERPRINT_CHARS);
    }

    #[test]
    fn the_first_death_is_found_whatever_the_broker_tells() {
        let message = |headers: Value| {
            let mut message = Message::default();
            message.properties.headers = serde_json::from_value(headers).unwrap();
            message
        };
        let deaths = json!([
            { "count": 1, "exchange": "retry", "queue": "wait", "reason": "expired",
              "routing-keys": ["w"] },
            { "count": 4, "exchange": "shop", "queue": "orders", "reason": "rejected",
              "routing-keys": ["order.new", "cc"] },
        ]);
        let expected = LetterOrigin {
            exchange: Some("shop".to_owned()),
            routing_key: Some("order.new".to_owned()),
            queue: Some("orders".to_owned()),
            reason: Some("rejected".to_owned()),
            count: 4,
        };
        let full = json!({
            "x-death": deaths, "x-first-death-queue": "orders",
            "x-first-death-reason": "rejected", "x-first-death-exchange": "shop",
        });
        assert_eq!(origin(&message(full)), expected);
        assert_eq!(origin(&message(json!({ "x-death": deaths }))), expected);
        for odd in [
            json!({}),
            json!({ "x-death": 1 }),
            json!({ "x-death": [1, {}] }),
        ] {
            assert_eq!(origin(&message(odd)).queue, None);
        }
    }
}
