//! Header values that JSON can't hold exactly, kept beside the JSON.
//!
//! AMQP has eighteen types, JSON six: a 32-bit integer, a timestamp or bytes that are no text come
//! back from JSON as something else. For each header of which that is true the AMQP value itself
//! is kept, as data, so that a message that was stored and is published again is the one that came.
//!
//! Invariant: the JSON has the last word. When a person has edited a header, the kept value no
//! longer stands for it and is ignored. Deliberately absent: values nested deeper than the limit.

use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

use super::header::{HEADER_DEPTH_MAX, from_field, is_never_sent, to_field};
use crate::message::Headers;

/// The headers whose values would not come back from JSON as they are.
pub(super) fn inexact(table: &FieldTable, headers: &Headers) -> Headers {
    let fields = table.inner().iter();
    fields
        .filter(|(name, value)| !is_never_sent(name.as_str()) && is_flat(value, HEADER_DEPTH_MAX))
        .filter_map(|(name, value)| {
            let json = headers.get(name.as_str())?.clone();
            let same = matches!(to_field(json, HEADER_DEPTH_MAX), Ok(back) if back == *value);
            if same {
                return None;
            }
            let kept = serde_json::to_value(value).ok()?;
            let comes_back = read(&kept).is_some_and(|back| back == *value);
            comes_back.then(|| (name.as_str().to_owned(), kept))
        })
        .collect()
}

/// The value to send for a header, if the kept one still stands for it.
pub(super) fn restored(json: &Value, kept: Option<&Value>) -> Option<AMQPValue> {
    let value = read(kept?)?;
    (is_flat(&value, HEADER_DEPTH_MAX) && from_field(&value, HEADER_DEPTH_MAX) == *json)
        .then_some(value)
}

fn read(kept: &Value) -> Option<AMQPValue> {
    serde_json::from_value(kept.clone()).ok()
}

fn is_flat(value: &AMQPValue, depth: usize) -> bool {
    if depth == 0 {
        return false;
    }
    match value {
        AMQPValue::FieldArray(items) => items.as_slice().iter().all(|v| is_flat(v, depth - 1)),
        AMQPValue::FieldTable(table) => table.inner().values().all(|v| is_flat(v, depth - 1)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::types::{ByteArray, DecimalValue};
    use serde_json::json;

    use super::super::convert::{incoming, outgoing};
    use super::super::wire::Kept;
    use super::*;
    use crate::broker::Outgoing;
    use crate::message::{Destination, Message, Properties};

    fn foreign() -> FieldTable {
        let mut nested = FieldTable::default();
        nested.insert("short".into(), AMQPValue::ShortInt(-3));
        let mut table = FieldTable::default();
        for (name, value) in [
            ("tiny", AMQPValue::ShortShortUInt(255)),
            ("int", AMQPValue::LongInt(-1)),
            ("long", AMQPValue::LongLongInt(i64::MIN)),
            ("float", AMQPValue::Float(0.1)),
            ("when", AMQPValue::Timestamp(u64::MAX)),
            (
                "bytes",
                AMQPValue::ByteArray(ByteArray::from(b"ok".to_vec())),
            ),
            ("binary", AMQPValue::LongString(vec![0xff, 0x00].into())),
            (
                "price",
                AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 5 }),
            ),
            (
                "list",
                AMQPValue::FieldArray(vec![AMQPValue::LongInt(1)].into()),
            ),
            ("table", AMQPValue::FieldTable(nested)),
            ("text", AMQPValue::LongString("plain".into())),
        ] {
            table.insert(name.into(), value);
        }
        table
    }

    fn send(properties: Properties) -> BasicProperties {
        let sent = Outgoing {
            destination: Destination::queue("q"),
            message: Message {
                properties,
                ..Message::default()
            },
            mandatory: true,
        };
        outgoing(sent).ok().unwrap().properties
    }

    #[test]
    fn every_type_and_property_survives_storage() {
        let came = BasicProperties::default()
            .with_headers(foreign())
            .with_content_encoding("gzip".into())
            .with_priority(7)
            .with_expiration("60000".into())
            .with_app_id("shop".into())
            .with_cluster_id("c".into())
            .with_delivery_mode(1)
            .with_timestamp(1_700_000_000);
        let message = incoming(&came, &Kept::default(), Vec::new());
        let stored = serde_json::to_string(&message.properties).unwrap();
        let back: Properties = serde_json::from_str(&stored).unwrap();
        assert_eq!(send(back), came);
        assert!(!message.properties.exact.contains_key("text"), "{stored}");
    }

    #[test]
    fn an_edited_header_is_sent_as_edited() {
        let came = BasicProperties::default().with_headers(foreign());
        let mut properties = incoming(&came, &Kept::default(), Vec::new()).properties;
        properties.headers.insert("int".into(), json!(7));
        properties.headers.remove("when");
        let sent = send(properties).headers().clone().unwrap();
        assert_eq!(sent.inner().get("int"), Some(&AMQPValue::LongLongInt(7)));
        assert_eq!(sent.inner().get("when"), None);
        assert_eq!(
            sent.inner().get("tiny"),
            Some(&AMQPValue::ShortShortUInt(255))
        );
    }
}
