//! Correlation ids without what signs them, for all that people see.
//!
//! A mac is worth an answer: whoever knows one can speak for a participant. So no view, no error and no
//! export has one; the message that is sent does. Separate from [`correlation`](super::correlation)
//! because macs are hidden wherever they turn up: a client library may have copied the id into a header
//! or the body.
//!
//! A mask is as long as a mac, so that nothing else moves, and the same for the same mac: a document
//! that somebody edits can be given its macs back. It is a hash, so it does not tell the mac.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{HEADER_CHILD_SEAL, Message, Properties};
use crate::id::{NAME_BYTES_MAX, Phase, STEP_INDICES_MAX};

/// Digits of a mac.
const MAC_CHARS: usize = 32;
/// A saga's id, with hyphens.
const UUID_CHARS: usize = 36;
/// A step's path: its name, and the numbers of places in lists with their brackets and commas.
const STEP_CHARS_MAX: usize = NAME_BYTES_MAX + STEP_INDICES_MAX * 11 + 1;
/// How a mask begins; no mac does, for these are no digits.
const MASKED: &str = "masked:";

/// The text without macs.
pub fn text(text: &str) -> Cow<'_, str> {
    let found = macs(text.as_bytes());
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut masked = text.to_owned();
    for place in found {
        let mask = mask_of(&text[place.clone()]);
        masked.replace_range(place, &mask);
    }
    Cow::Owned(masked)
}

/// The message without macs: in its properties, its headers and its body.
pub fn message(message: &Message) -> Message {
    let body = &message.body;
    let mut masked = body.to_vec();
    for place in macs(body) {
        let mac = String::from_utf8_lossy(&body[place.clone()]).into_owned();
        masked[place].copy_from_slice(mask_of(&mac).as_bytes());
    }
    Message {
        properties: properties(&message.properties),
        body: masked.into(),
    }
}

/// The properties without macs.
pub fn properties(properties: &Properties) -> Properties {
    let mut masked = properties.clone();
    for field in texts_of(&mut masked) {
        *field = text(field).into_owned();
    }
    if let Some(unreadable) = &mut masked.unreadable
        && let Ok(bytes) = hex::decode(&unreadable.bytes)
    {
        let whole = Message {
            body: bytes.into(),
            ..Message::default()
        };
        unreadable.bytes = hex::encode(message(&whole).body);
    }
    for headers in [&mut masked.headers, &mut masked.exact] {
        for (name, value) in headers {
            change_texts(value, &mut |text| match mac_alone(text) {
                Some(mac) if name == HEADER_CHILD_SEAL => mask_of(mac),
                _ => self::text(text).into_owned(),
            });
        }
    }
    masked
}

/// Gives a masked message the macs that it had: those of `before`, of which it is an edited copy.
pub fn restore(edited: &mut Message, before: &Message) {
    let known = Known::of(before);
    if known.0.is_empty() {
        return;
    }
    for field in texts_of(&mut edited.properties) {
        known.unmask(field);
    }
    for headers in [&mut edited.properties.headers, &mut edited.properties.exact] {
        for value in headers.values_mut() {
            change_texts(value, &mut |text| {
                let mut text = text.to_owned();
                known.unmask(&mut text);
                text
            });
        }
    }
    if let Ok(body) = std::str::from_utf8(&edited.body)
        && body.contains(MASKED)
    {
        let mut body = body.to_owned();
        known.unmask(&mut body);
        edited.body = body.into();
    }
}

/// Macs by their masks.
struct Known(BTreeMap<String, String>);

impl Known {
    fn of(message: &Message) -> Self {
        let mut known = Self(BTreeMap::new());
        let mut properties = message.properties.clone();
        for field in texts_of(&mut properties) {
            known.learn(field.as_bytes());
        }
        for headers in [&mut properties.headers, &mut properties.exact] {
            for (name, value) in headers {
                change_texts(value, &mut |text| {
                    known.learn(text.as_bytes());
                    if let Some(seal) = mac_alone(text).filter(|_| name == HEADER_CHILD_SEAL) {
                        known.0.insert(mask_of(seal), seal.to_owned());
                    }
                    text.to_owned()
                });
            }
        }
        known.learn(&message.body);
        known
    }

    fn learn(&mut self, bytes: &[u8]) {
        for place in macs(bytes) {
            let mac = String::from_utf8_lossy(&bytes[place]).into_owned();
            self.0.insert(mask_of(&mac), mac);
        }
    }

    fn unmask(&self, text: &mut String) {
        for (mask, mac) in &self.0 {
            if text.contains(mask.as_str()) {
                *text = text.replace(mask.as_str(), mac);
            }
        }
    }
}

/// The properties in which somebody may have put a correlation id.
fn texts_of(properties: &mut Properties) -> impl Iterator<Item = &mut String> {
    let Properties {
        message_id,
        kind,
        correlation_id,
        reply_to,
        content_type,
        content_encoding,
        user_id,
        app_id,
        cluster_id,
        ..
    } = properties;
    let fields = [
        message_id,
        kind,
        correlation_id,
        reply_to,
        content_type,
        content_encoding,
        user_id,
        app_id,
        cluster_id,
    ];
    fields.into_iter().flatten()
}

/// Changes each text in a value.
fn change_texts(value: &mut Value, change: &mut impl FnMut(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| change_texts(item, change)),
        Value::Object(fields) => fields.values_mut().for_each(|of| change_texts(of, change)),
        _ => {}
    }
}

/// Where macs stand: at the end of a whole correlation id, `<saga id>/<step>/<phase>/<mac>`. Anything
/// less may be somebody's address.
fn macs(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(slash) = bytes[from..].iter().position(|byte| *byte == b'/') {
        let start = from + slash + 1;
        from = start;
        let end = start + MAC_CHARS;
        let is_mac = bytes
            .get(start..end)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let goes_on = bytes.get(end).is_some_and(u8::is_ascii_hexdigit);
        if is_mac && !goes_on && ends_in_command(&bytes[..start]) {
            found.push(start..end);
            from = end;
        }
    }
    found
}

/// Whether that ends in `<saga id>/<step>/<phase>/`.
fn ends_in_command(bytes: &[u8]) -> bool {
    let in_front = || {
        let phases = [
            Phase::Reserve,
            Phase::Confirm,
            Phase::Compensate,
            Phase::Action,
        ];
        let bytes = before_slash(bytes)?;
        let bytes = phases
            .iter()
            .find_map(|phase| bytes.strip_suffix(phase.as_str().as_bytes()))?;
        let bytes = before_slash(bytes)?;
        let step = bytes.iter().rev().take(STEP_CHARS_MAX);
        let step = step.take_while(|byte| is_of_step(**byte)).count();
        let bytes = before_slash(&bytes[..bytes.len() - step]).filter(|_| step > 0)?;
        bytes.last_chunk::<UUID_CHARS>()
    };
    in_front().is_some_and(|id| id[8] == b'-' && Uuid::try_parse_ascii(id).is_ok())
}

/// Some write a slash in JSON with a backslash.
fn before_slash(bytes: &[u8]) -> Option<&[u8]> {
    let bytes = bytes.strip_suffix(b"/")?;
    Some(bytes.strip_suffix(b"\\").unwrap_or(bytes))
}

fn is_of_step(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_[],".contains(&byte)
}

fn mac_alone(text: &str) -> Option<&str> {
    let is_mac = text.len() == MAC_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_mac.then_some(text)
}

fn mask_of(mac: &str) -> String {
    let digest = hex::encode(Sha256::digest(mac.as_bytes()));
    format!("{MASKED}{}", &digest[..MAC_CHARS - MASKED.len()])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::id::SagaId;
    use crate::message::correlation::{Correlation, Secret};

    fn signed() -> String {
        let correlation = Correlation {
            saga: SagaId(Uuid::from_u128(42)),
            step: "stock[2]".parse().unwrap(),
            phase: Phase::Reserve,
        };
        correlation.sign(&Secret::new([7; 32]))
    }

    /// With a correlation id wherever one may be, and a seal.
    fn command() -> Message {
        let id = signed();
        let seal = "0f".repeat(MAC_CHARS / 2);
        let headers = json!({
            "copied": id, "nested": [{ "id": id }], HEADER_CHILD_SEAL: seal, "plain": seal,
        });
        let unreadable = crate::message::Unreadable {
            why: "odd".to_owned(),
            bytes: hex::encode(format!("\u{1}{id}")),
        };
        Message {
            properties: Properties {
                correlation_id: Some(id.clone()),
                message_id: Some(id.clone()),
                headers: serde_json::from_value(headers.clone()).unwrap(),
                exact: serde_json::from_value(headers).unwrap(),
                unreadable: Some(Box::new(unreadable)),
                ..Properties::default()
            },
            body: json!({ "id": id, "rest": 1 }).to_string().into(),
        }
    }

    #[test]
    fn a_mac_is_nowhere_to_be_seen_and_everything_else_is() {
        let masked = message(&command());
        let shown = format!("{:?} {:?}", masked.properties, masked.body);
        let (plain, mac) = signed()
            .rsplit_once('/')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        assert!(!shown.contains(&mac), "{shown}");
        assert!(!shown.contains(&hex::encode(&mac)), "{shown}");
        assert!(shown.contains(&plain));
        let seal = "0f".repeat(MAC_CHARS / 2);
        assert_eq!(masked.properties.headers["plain"], json!(seal));
        assert_ne!(masked.properties.headers[HEADER_CHILD_SEAL], json!(seal));
        assert_eq!(masked.body.len(), command().body.len());
    }

    #[test]
    fn what_was_masked_is_restored_from_the_message_it_was() {
        let before = Message {
            properties: Properties {
                unreadable: None,
                ..command().properties
            },
            ..command()
        };
        let mut edited = message(&before);
        edited.properties.kind = Some("new".to_owned());
        restore(&mut edited, &before);
        let expected = Message {
            properties: Properties {
                kind: Some("new".to_owned()),
                ..before.properties.clone()
            },
            ..before.clone()
        };
        assert_eq!(edited, expected);
        // Nothing is learnt from another message.
        let mut edited = message(&before);
        restore(&mut edited, &Message::default());
        assert_eq!(edited, message(&before));
    }

    #[test]
    fn what_only_looks_like_it_is_left_alone() {
        let digits = "0123456789abcdef0123456789abcdef";
        for plain in [
            digits.to_owned(),
            format!("x/y/{digits}"),
            format!("/reserve/{digits}"),
            format!("é/confirm/{digits} é"),
            format!("shop/stock/reserve/{digits}"),
            format!("00000000-0000-0000-0000-00000000002a//reserve/{digits}"),
            format!("0000000-0000-0000-0000-00000000002a/stock/reserve/{digits}"),
            format!("00000000-0000-0000-0000-00000000002a/stock/refund/{digits}"),
            format!("/reserve/{digits}0"),
            format!("/reserve/{}", &digits[1..]),
            "/reserve/".to_owned(),
            String::new(),
        ] {
            assert_eq!(text(&plain), plain);
        }
    }

    #[test]
    fn a_whole_id_is_masked_whatever_stands_around_it() {
        let saga = "0192f0c0-7a6f-7a2d-9a7e-3f5c1d2e4b6a";
        let digits = "0123456789abcdef0123456789ABCDEF";
        for (before, after) in [
            ("", ""),
            ("é", " é"),
            ("\"", "\""),
            ("id=", "&x=1"),
            ("a-f", "/"),
        ] {
            for step in ["stock", "stock[2]", "a-b_c[4294967295,0,17]"] {
                for phase in ["reserve", "confirm", "compensate", "action"] {
                    for slash in ["/", r"\/"] {
                        let id = [saga, step, phase, digits].join(slash);
                        let shown = text(&format!("{before}{id}{after}")).into_owned();
                        assert!(!shown.contains(digits), "{shown}");
                        assert!(shown.contains(MASKED) && shown.contains(step), "{shown}");
                    }
                }
            }
        }
    }
}
