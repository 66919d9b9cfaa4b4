//! Header values: JSON to AMQP and back.
//!
//! JSON header values become: text → long string, integers → 64-bit integers (text beyond that
//! range), other numbers → doubles, `true`/`false` → booleans, `null` → void, arrays and objects
//! → arrays and tables. Back, every AMQP integer and float becomes a number; decimals become text
//! (exact), timestamps RFC 3339 text, byte strings text if they are UTF-8 and `0x…` hex otherwise.
//! So text, integers, booleans, doubles and nestings of them come back as they were sent; what
//! does not is kept beside the JSON (see [`super::exact`]).

use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use serde_json::Value;

use crate::id::Timestamp;
use crate::message::HEADER_COPIES;

/// Deepest nesting of a header value; deeper parts become `null`.
pub const HEADER_DEPTH_MAX: usize = 16;

/// Timestamps are whole seconds on the wire.
pub(super) const MICROS_A_SECOND: i64 = 1_000_000;

/// Headers by which RabbitMQ routes copies or keeps its own books. Republished, they would send a
/// message elsewhere, or make the server take it for one that goes in circles.
const NEVER_SENT: [&str; 5] = [
    "CC",
    "BCC",
    "x-delivery-count",
    "x-acquired-count",
    HEADER_COPIES,
];
const NEVER_SENT_PREFIXES: [&str; 3] = ["x-death", "x-first-death-", "x-last-death-"];

/// Whether a header of this name is the broker's own business.
pub(super) fn is_never_sent(name: &str) -> bool {
    let mut prefixes = NEVER_SENT_PREFIXES.iter();
    NEVER_SENT.contains(&name) || prefixes.any(|prefix| name.starts_with(prefix))
}

/// At least as much as the value takes on the wire.
pub(super) fn encoded_bytes(value: &Value, depth: usize) -> usize {
    const FIXED: usize = 24;
    if depth == 0 {
        return FIXED;
    }
    FIXED
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(|v| encoded_bytes(v, depth - 1)).sum(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, v)| name.len() + encoded_bytes(v, depth - 1))
                .sum(),
            _ => 0,
        }
}

/// What is sent for a value; deeper parts than this become nothing.
pub(super) fn to_field(value: Value, depth: usize) -> Result<AMQPValue, String> {
    if depth == 0 {
        return Ok(AMQPValue::Void);
    }
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(flag) => AMQPValue::Boolean(flag),
        Value::String(text) => AMQPValue::LongString(text.into()),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => AMQPValue::LongLongInt(integer),
            (None, Some(float)) if number.is_f64() => AMQPValue::Double(float),
            _ => AMQPValue::LongString(number.to_string().into()),
        },
        Value::Array(items) => {
            let fields: Result<Vec<AMQPValue>, String> =
                items.into_iter().map(|v| to_field(v, depth - 1)).collect();
            AMQPValue::FieldArray(fields?.into())
        }
        Value::Object(fields) => {
            let mut table = FieldTable::default();
            for (name, value) in fields {
                table.insert(short(name, "header name")?, to_field(value, depth - 1)?);
            }
            AMQPValue::FieldTable(table)
        }
    })
}

/// What is read of a value; deeper parts than this become `null`.
pub(super) fn from_field(value: &AMQPValue, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    match value {
        AMQPValue::Boolean(flag) => Value::from(*flag),
        AMQPValue::ShortShortInt(integer) => Value::from(*integer),
        AMQPValue::ShortShortUInt(integer) => Value::from(*integer),
        AMQPValue::ShortInt(integer) => Value::from(*integer),
        AMQPValue::ShortUInt(integer) => Value::from(*integer),
        AMQPValue::LongInt(integer) => Value::from(*integer),
        AMQPValue::LongUInt(integer) => Value::from(*integer),
        AMQPValue::LongLongInt(integer) => Value::from(*integer),
        AMQPValue::Float(float) => Value::from(*float),
        AMQPValue::Double(float) => Value::from(*float),
        AMQPValue::DecimalValue(decimal) => Value::from(exact(decimal.value, decimal.scale)),
        AMQPValue::ShortString(text) => Value::from(text.as_str()),
        AMQPValue::LongString(text) => Value::from(bytes_text(LongString::as_bytes(text))),
        AMQPValue::ByteArray(bytes) => Value::from(bytes_text(bytes.as_slice())),
        AMQPValue::Timestamp(seconds) => match timestamp(*seconds) {
            Some(timestamp) => Value::from(timestamp.to_string()),
            None => Value::from(*seconds),
        },
        AMQPValue::FieldArray(items) => {
            let items = items.as_slice().iter();
            items.map(|item| from_field(item, depth - 1)).collect()
        }
        AMQPValue::FieldTable(table) => table
            .inner()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), from_field(value, depth - 1)))
            .collect(),
        AMQPValue::Void => Value::Null,
    }
}

/// A time, from seconds since 1970.
pub(super) fn timestamp(seconds: u64) -> Option<Timestamp> {
    let micros = i64::try_from(seconds).ok()?.checked_mul(MICROS_A_SECOND)?;
    Some(Timestamp::from_micros(micros))
}

fn bytes_text(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    format!("0x{}", hex::encode(bytes))
}

/// `value` / 10^`scale`, without rounding.
fn exact(value: u32, scale: u8) -> String {
    let digits = format!("{value:0>width$}", width = usize::from(scale) + 1);
    match digits.split_at(digits.len() - usize::from(scale)) {
        (whole, "") => whole.to_owned(),
        (whole, part) => format!("{whole}.{part}"),
    }
}

/// A text of at most 255 bytes, as names and properties are.
pub(super) fn short(text: String, what: &str) -> Result<ShortString, String> {
    let bytes = text.len();
    ShortString::try_new(text)
        .map_err(|_| format!("its {what} has {bytes} bytes, 255 are possible"))
}
