//! Messages to AMQP properties and back.
//!
//! JSON header values become: text → long string, integers → 64-bit integers (text beyond that
//! range), other numbers → doubles, `true`/`false` → booleans, `null` → void, arrays and objects
//! → arrays and tables. Back, every AMQP integer and float becomes a number; decimals become text
//! (exact), timestamps RFC 3339 text, byte strings text if they are UTF-8 and `0x…` hex otherwise.
//! So text, integers, booleans, doubles and nestings of them come back as they were sent; what
//! does not is kept beside the JSON (see [`mod@exact`]).
//!
//! `user_id` is read but never sent: the server closes the channel over a name that is not the
//! connection's own. A message says how durable it is only if it is not; ours all are.
//!
//! Invariant: what [`outgoing`] lets through fits its frame and its field lengths. The server
//! would close the channel, or the connection, over anything else, and take down with it what
//! others publish.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use serde_json::Value;

use super::wire::{self, Kept, Taken};
use super::{copies, exact};
use crate::broker::Outgoing;
use crate::id::Timestamp;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::message::{HEADER_COPIES, Headers, Message, Properties, Unreadable};

/// Most bytes of properties and headers: half a frame, for they must fit one.
pub const PROPERTIES_BYTES_MAX: usize = 64 * 1024;

/// Deepest nesting of a header value; deeper parts become `null`.
pub const HEADER_DEPTH_MAX: usize = 16;

/// AMQP's mark of a message that shall survive the broker's restart.
const PERSISTENT: u8 = 2;
/// And of one that need not.
const TRANSIENT: u8 = 1;
/// Longest time that RabbitMQ lets a message expire after.
const EXPIRATION_MILLIS_MAX: u64 = u32::MAX as u64;
const MICROS_A_SECOND: i64 = 1_000_000;

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

/// A message as the library takes it.
pub(super) struct Prepared {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) mandatory: bool,
    /// Whether it is mandatory only until those whom it is for have had the time to bind again.
    pub(super) is_awaited: bool,
    pub(super) properties: BasicProperties,
    pub(super) body: bytes::Bytes,
}

/// Prepares a message, or says why AMQP can't carry it.
pub(super) fn outgoing(outgoing: Outgoing) -> Result<Prepared, String> {
    let Message { properties, body } = outgoing.message;
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(format!(
            "its body has {} bytes, {MESSAGE_BYTES_MAX} are possible",
            body.len()
        ));
    }
    let copies = copies::of(&properties.headers)?;
    let properties = copies::add(to_amqp(properties, PROPERTIES_BYTES_MAX)?, copies);
    Ok(Prepared {
        exchange: short(outgoing.destination.exchange, "exchange name")?,
        routing_key: short(outgoing.destination.routing_key, "routing key")?,
        mandatory: outgoing.mandatory,
        is_awaited: false,
        properties,
        body,
    })
}

/// Says why the server would never take a message, if so.
pub(super) fn check_sendable(message: &Message) -> Result<(), String> {
    let message = message.clone();
    outgoing(Outgoing {
        destination: crate::message::Destination::queue("any"),
        message,
        mandatory: true,
    })
    .map(drop)
}

/// Says why properties can't be those of an AMQP message, if so; however many bytes they have.
pub(super) fn check_properties(properties: &Properties) -> Result<(), String> {
    to_amqp(properties.clone(), usize::MAX).map(drop)
}

/// A message as it was delivered. `kept` has its list of properties if the library could not take it.
pub(super) fn incoming(properties: &BasicProperties, kept: &Kept, body: Vec<u8>) -> Message {
    let properties = match kept.take(properties) {
        Taken::Untouched => from_amqp(properties),
        Taken::List(list) => kept_properties(&list),
        Taken::Gone => {
            let why = "its properties can't be read, and were too many to be kept".to_owned();
            let bytes = String::new();
            Properties {
                unreadable: Some(Box::new(Unreadable { why, bytes })),
                ..Properties::default()
            }
        }
    };
    Message {
        properties,
        body: body.into(),
    }
}

fn kept_properties(list: &[u8]) -> Properties {
    let unreadable = wire::flaw(list).map(|flaw| {
        Box::new(Unreadable {
            why: flaw.to_string(),
            bytes: hex::encode(list),
        })
    });
    Properties {
        unreadable,
        ..from_amqp(&wire::read(list))
    }
}

fn to_amqp(properties: Properties, header_bytes_max: usize) -> Result<BasicProperties, String> {
    if let Some(unreadable) = &properties.unreadable {
        return Err(format!(
            "{}, so it can't be sent as it came; remove `/properties/unreadable` to send what could be read of it",
            unreadable.why
        ));
    }
    let mut amqp = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(text) = properties.message_id {
        amqp = amqp.with_message_id(short(text, "message id")?);
    }
    if let Some(text) = properties.kind {
        amqp = amqp.with_type(short(text, "type")?);
    }
    if let Some(text) = properties.correlation_id {
        amqp = amqp.with_correlation_id(short(text, "correlation id")?);
    }
    if let Some(text) = properties.reply_to {
        amqp = amqp.with_reply_to(short(text, "reply-to")?);
    }
    if let Some(text) = properties.content_type {
        amqp = amqp.with_content_type(short(text, "content type")?);
    }
    let seconds = properties
        .timestamp
        .map(|t| t.as_micros() / MICROS_A_SECOND);
    if let Some(seconds) = seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
        amqp = amqp.with_timestamp(seconds);
    }
    if let Some(text) = properties.content_encoding {
        amqp = amqp.with_content_encoding(short(text, "content encoding")?);
    }
    if let Some(text) = properties.expiration {
        amqp = amqp.with_expiration(short(milliseconds(text)?, "expiration")?);
    }
    if let Some(text) = properties.app_id {
        amqp = amqp.with_app_id(short(text, "app id")?);
    }
    if let Some(text) = properties.cluster_id {
        amqp = amqp.with_cluster_id(short(text, "cluster id")?);
    }
    if let Some(priority) = properties.priority {
        amqp = amqp.with_priority(priority);
    }
    if let Some(mode) = properties.delivery_mode {
        if ![TRANSIENT, PERSISTENT].contains(&mode) {
            return Err(format!(
                "its delivery mode is {mode}, {TRANSIENT} and {PERSISTENT} are possible"
            ));
        }
        amqp = amqp.with_delivery_mode(mode);
    }
    let headers = table(properties.headers, &properties.exact, header_bytes_max)?;
    if !headers.inner().is_empty() {
        amqp = amqp.with_headers(headers);
    }
    Ok(amqp)
}

fn table(headers: Headers, exact: &Headers, bytes_max: usize) -> Result<FieldTable, String> {
    let mut table = FieldTable::default();
    let mut bytes = 0;
    for (name, value) in headers {
        if is_never_sent(&name) {
            continue;
        }
        bytes += name.len() + encoded_bytes(&value, HEADER_DEPTH_MAX);
        if bytes > bytes_max {
            return Err(format!(
                "its headers have more than the {bytes_max} bytes that are possible"
            ));
        }
        let field = match exact::restored(&value, exact.get(&name)) {
            Some(field) => field,
            None => to_field(value, HEADER_DEPTH_MAX)?,
        };
        table.insert(short(name, "header name")?, field);
    }
    Ok(table)
}

pub(super) fn is_never_sent(name: &str) -> bool {
    let mut prefixes = NEVER_SENT_PREFIXES.iter();
    NEVER_SENT.contains(&name) || prefixes.any(|prefix| name.starts_with(prefix))
}

/// At least as much as the value takes on the wire.
fn encoded_bytes(value: &Value, depth: usize) -> usize {
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

fn from_amqp(amqp: &BasicProperties) -> Properties {
    let text = |field: &Option<ShortString>| field.as_ref().map(|text| text.as_str().to_owned());
    let headers: Headers = amqp
        .headers()
        .iter()
        .flat_map(FieldTable::inner)
        .map(json)
        .collect();
    let exact = amqp
        .headers()
        .as_ref()
        .map(|table| exact::inexact(table, &headers));
    Properties {
        message_id: text(amqp.message_id()),
        kind: text(amqp.kind()),
        correlation_id: text(amqp.correlation_id()),
        reply_to: text(amqp.reply_to()),
        content_type: text(amqp.content_type()),
        timestamp: amqp.timestamp().and_then(timestamp),
        content_encoding: text(amqp.content_encoding()),
        priority: *amqp.priority(),
        expiration: text(amqp.expiration()),
        user_id: text(amqp.user_id()),
        app_id: text(amqp.app_id()),
        cluster_id: text(amqp.cluster_id()),
        delivery_mode: amqp.delivery_mode().filter(|mode| *mode != PERSISTENT),
        headers,
        exact: exact.unwrap_or_default(),
        unreadable: None,
    }
}

fn json((name, value): (&ShortString, &AMQPValue)) -> (String, Value) {
    (
        name.as_str().to_owned(),
        from_field(value, HEADER_DEPTH_MAX),
    )
}

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

fn timestamp(seconds: u64) -> Option<Timestamp> {
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

/// RabbitMQ closes the channel over anything but a number in its range.
fn milliseconds(text: String) -> Result<String, String> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit());
    let millis: Option<u64> = text.parse().ok().filter(|_| number);
    if millis.is_some_and(|millis| millis <= EXPIRATION_MILLIS_MAX) {
        return Ok(text);
    }
    Err(format!(
        "its expiration `{text}` is not a number of milliseconds from 0 to {EXPIRATION_MILLIS_MAX}"
    ))
}

pub(super) fn short(text: String, what: &str) -> Result<ShortString, String> {
    let bytes = text.len();
    ShortString::try_new(text)
        .map_err(|_| format!("its {what} has {bytes} bytes, 255 are possible"))
}

#[cfg(test)]
mod tests;
