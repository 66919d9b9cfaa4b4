//! There and back, what is refused, and what is not sent again.

use lapin::types::{ByteArray, DecimalValue};
use serde_json::json;

use super::*;
use crate::id::Timestamp;
use crate::message::Destination;

fn with_headers(headers: Value) -> Outgoing {
    let mut message = Message::default();
    message.properties.headers = serde_json::from_value(headers).unwrap();
    Outgoing {
        destination: Destination::queue("q"),
        message,
        mandatory: true,
    }
}

#[test]
fn properties_and_headers_come_back_as_they_were_sent() {
    let mut sent = with_headers(json!({
        "text": "ü", "empty": "", "integer": -7, "big": i64::MAX, "float": 1.5, "yes": true,
        "nothing": null, "list": [1, "two", [3]], "table": { "a": { "b": 1 } },
    }));
    let properties = &mut sent.message.properties;
    properties.message_id = Some("m".into());
    properties.kind = Some("orders.open".into());
    properties.correlation_id = Some("c".into());
    properties.reply_to = Some("r".into());
    properties.content_type = Some("application/json".into());
    properties.timestamp = Some(Timestamp::from_micros(1_700_000_000_000_000));
    let prepared = outgoing(sent.clone()).ok().unwrap();
    assert_eq!(*prepared.properties.delivery_mode(), Some(2));
    let back = incoming(
        &prepared.properties,
        &Kept::default(),
        prepared.body.to_vec(),
    );
    assert_eq!(back, sent.message);
}

#[test]
fn foreign_header_types_become_sensible_json() {
    for (value, expected) in [
        (AMQPValue::ShortShortUInt(255), json!(255)),
        (AMQPValue::LongInt(-1), json!(-1)),
        (AMQPValue::Float(0.5), json!(0.5)),
        (AMQPValue::Double(f64::NAN), json!(null)),
        (AMQPValue::Timestamp(0), json!("1970-01-01T00:00:00Z")),
        (AMQPValue::Timestamp(u64::MAX), json!(u64::MAX)),
        (
            AMQPValue::ByteArray(ByteArray::from(b"ok".to_vec())),
            json!("ok"),
        ),
        (
            AMQPValue::LongString(vec![0xff, 0x00].into()),
            json!("0xff00"),
        ),
        (
            AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 5 }),
            json!("0.05"),
        ),
        (
            AMQPValue::DecimalValue(DecimalValue {
                scale: 0,
                value: 12,
            }),
            json!("12"),
        ),
        (
            AMQPValue::DecimalValue(DecimalValue {
                scale: 200,
                value: 1,
            }),
            json!(format!("0.{}1", "0".repeat(199))),
        ),
        (AMQPValue::Void, json!(null)),
    ] {
        assert_eq!(from_field(&value, HEADER_DEPTH_MAX), expected);
    }
}

#[test]
fn what_would_break_the_channel_is_refused_with_the_reason() {
    let long = "x".repeat(256);
    let mut long_key = with_headers(json!({}));
    long_key.destination.routing_key.clone_from(&long);
    let mut long_id = with_headers(json!({}));
    long_id.message.properties.message_id = Some(long.clone());
    let mut long_body = with_headers(json!({}));
    long_body.message.body = vec![0; MESSAGE_BYTES_MAX + 1].into();
    let mut odd_expiration = with_headers(json!({}));
    odd_expiration.message.properties.expiration = Some("5m".into());
    let mut late = with_headers(json!({}));
    late.message.properties.expiration = Some("4294967296".into());
    let mut odd_mode = with_headers(json!({}));
    odd_mode.message.properties.delivery_mode = Some(3);
    for (message, word) in [
        (odd_expiration, "expiration"),
        (late, "expiration"),
        (odd_mode, "delivery mode"),
        (long_key, "routing key"),
        (long_id, "message id"),
        (long_body, "body"),
        (with_headers(json!({ &long: 1 })), "header name"),
        (with_headers(json!({ "t": { &long: 1 } })), "header name"),
        (
            with_headers(json!({ "a": "x".repeat(PROPERTIES_BYTES_MAX) })),
            "headers",
        ),
        (
            with_headers(json!({ "a": vec![0; PROPERTIES_BYTES_MAX / 8] })),
            "headers",
        ),
    ] {
        let reason = outgoing(message).err().unwrap();
        assert!(reason.contains(word), "{reason}");
    }
}

#[test]
fn the_servers_own_headers_are_not_sent_again() {
    let sent = with_headers(json!({
        "x-death": [], "x-first-death-queue": "q", "x-last-death-reason": "r",
        "x-delivery-count": 3, "CC": "elsewhere", "BCC": ["elsewhere"], "mine": 1,
    }));
    let prepared = outgoing(sent).ok().unwrap();
    let back = incoming(&prepared.properties, &Kept::default(), Vec::new());
    assert_eq!(
        back.properties.headers,
        Headers::from([("mine".to_owned(), json!(1))])
    );
}

#[test]
fn nesting_beyond_the_limit_is_cut_and_never_overflows() {
    let mut deep = AMQPValue::Void;
    for _ in 0..1_000 {
        deep = AMQPValue::FieldArray(vec![deep].into());
    }
    let json = from_field(&deep, HEADER_DEPTH_MAX);
    assert_eq!(json.to_string().matches('[').count(), HEADER_DEPTH_MAX);
}
