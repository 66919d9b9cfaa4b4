//! What a letter can be searched by, read from its message.
//!
//! Separate because every way into the database must derive the same: the engine's letters, the
//! participants' and those drained from queues.

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::occurrence::content_key;
use super::trail::Trail;
use super::{HEADER_LETTER, HEADER_REPLAYS, LetterOrigin};
use crate::id::SagaId;
use crate::message::correlation::Correlation;
use crate::store::DeadLetter;

/// Characters of a fingerprint, all hexadecimal digits.
const FINGERPRINT_CHARS: usize = 16;

/// What a letter can be searched by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterFacts {
    /// Whose consumer refused it, and how it came there.
    pub origin: LetterOrigin,
    /// The same for all letters with the same cause.
    pub fingerprint: String,
    /// The same for deliveries that can't be told apart by what they carry.
    pub key: Uuid,
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
        let origin = LetterOrigin::from(Trail::of(&letter.message, &letter.queue));
        let queue = origin.queue.as_deref().unwrap_or(&letter.queue);
        let kind = properties.kind.as_deref().unwrap_or_default();
        let code = letter.code.to_string();
        let replays = properties.headers.get(HEADER_REPLAYS);
        let came_from = letter.message.header(HEADER_LETTER);
        Self {
            fingerprint: fingerprint(&[queue, kind, &code], &letter.reason),
            key: content_key(&letter.queue, &letter.message),
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

impl From<Trail> for LetterOrigin {
    fn from(trail: Trail) -> Self {
        Self {
            exchange: trail.exchange,
            routing_key: trail.keys.into_iter().next(),
            queue: trail.queue,
            reason: trail.reason,
            count: trail.count,
        }
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
}
