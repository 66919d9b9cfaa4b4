//! Messages to AMQP properties and back.
//!
//! `user_id` is read but never sent: the server closes the channel over a name that is not the
//! connection's own. A message says how durable it is only if it is not; ours all are.
//!
//! Invariant: what [`outgoing`] lets through fits its frame and its field lengths. The server
//! would close the channel, or the connection, over anything else, and take down with it what
//! others publish.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::Value;

use super::header::{
    HEADER_DEPTH_MAX, MICROS_A_SECOND, encoded_bytes, from_field, is_never_sent, short, timestamp,
    to_field,
};
use super::wire::{self, Kept, Taken};
use super::{copies, exact};
use crate::broker::Outgoing;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::message::{Headers, Message, Properties, Unreadable};

/// Most bytes of properties and headers: half a frame, for they must fit one.
pub const PROPERTIES_BYTES_MAX: usize = 64 * 1024;

/// AMQP's mark of a message that shall survive the broker's restart.
const PERSISTENT: u8 = 2;
/// And of one that need not.
const TRANSIENT: u8 = 1;
/// Longest time that RabbitMQ lets a message expire after.
const EXPIRATION_MILLIS_MAX: u64 = u32::MAX as u64;

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

#[cfg(test)]
mod tests;
