//! One fingerprint for equal JSON values, however they were spelled.
//!
//! Separate because two layers must agree on it: expressions (`hash(input)` as a key) and the engine
//! (is this the same input again? the same signal?). Object keys count in order, white space not
//! at all; numbers count by their value, so `50`, `50.0` and `5e1` are the same. Fingerprints of inputs
//! are stored, so the form never changes.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::numeral;

/// SHA-256 of a value's canonical form.
pub fn fingerprint(value: &Value) -> [u8; 32] {
    let mut hasher = Sha256::new();
    add(&mut hasher, value);
    hasher.finalize().into()
}

/// The fingerprint in lower-case hexadecimal digits.
pub fn fingerprint_text(value: &Value) -> String {
    hex::encode(fingerprint(value))
}

/// The same value with each number in its one spelling, for readers that take `10` and not `10.0`.
pub fn respelled(value: &Value) -> Value {
    match value {
        Value::Number(number) => numeral::canonical(number)
            .parse()
            .map_or_else(|_| value.clone(), Value::Number),
        Value::Array(items) => items.iter().map(respelled).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            fields
                .map(|(name, value)| (name.clone(), respelled(value)))
                .collect()
        }
        _ => value.clone(),
    }
}

// Recursion is bounded by the JSON parser's limit.
fn add(hasher: &mut Sha256, value: &Value) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            hasher.update(b"{");
            for (name, value) in fields {
                hasher.update(Value::String(name.clone()).to_string());
                hasher.update(b":");
                add(hasher, value);
                hasher.update(b",");
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            for item in items {
                add(hasher, item);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        Value::Number(number) => hasher.update(&*numeral::canonical(number)),
        scalar => hasher.update(scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> String {
        fingerprint_text(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn spelling_does_not_matter_and_content_does() {
        let one = of(r#"{"a": 1, "b": [true, null, "x"]}"#);
        assert_eq!(one, of(r#"{ "b":[true,null,"\u0078"],"a":1 }"#));
        assert_eq!(one, of(r#"{"a": 1.0, "b": [true, null, "x"]}"#));
        for other in [
            r#"{"a": 1, "b": [true, null, "y"]}"#,
            r#"{"a": 1.0000000000000000000001, "b": [true, null, "x"]}"#,
            r#"{"a": "1", "b": [true, null, "x"]}"#,
            r#"{"a": 1, "b": [null, true, "x"]}"#,
        ] {
            assert_ne!(one, of(other), "{other}");
        }
    }

    #[test]
    fn the_form_is_the_one_that_is_stored() {
        // SHA-256 of `{"a":1,"b":[2,],}`.
        let stored = Sha256::digest(br#"{"a":1,"b":[2,],}"#);
        let value = serde_json::json!({ "b": [2], "a": 1 });
        assert_eq!(fingerprint(&value), <[u8; 32]>::from(stored));
    }
}
