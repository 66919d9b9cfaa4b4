//! Routing keys that a message is published with beside its destination's: AMQP's header `CC`.
//!
//! RabbitMQ gives a copy to whatever queue is bound for one of them, and remembers them all: a message
//! that dies in a queue is dead-lettered with each. A replay that goes to one queue alone, through the
//! default exchange, so still dies by the key with which it was published at first. Separate from the
//! other headers because a `CC` that was *received* must never be sent again.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray};
use serde_json::Value;

use super::header::short;
use crate::message::{HEADER_COPIES, Headers};

/// Most routing keys that a message is published with, beside its destination's.
const COPIES_MAX: usize = 16;

/// The further routing keys that we want a message published with, as AMQP has them.
pub(super) fn of(headers: &Headers) -> Result<FieldArray, String> {
    let keys = headers.get(HEADER_COPIES).and_then(Value::as_array);
    let keys = keys.into_iter().flatten().filter_map(Value::as_str);
    let keys: Result<Vec<AMQPValue>, String> = keys
        .take(COPIES_MAX)
        .map(|key| {
            let key = short(key.to_owned(), "routing key")?;
            Ok(AMQPValue::LongString(key.as_str().into()))
        })
        .collect();
    Ok(keys?.into())
}

/// Adds them.
pub(super) fn add(properties: BasicProperties, copies: FieldArray) -> BasicProperties {
    if copies.as_slice().is_empty() {
        return properties;
    }
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert("CC".into(), AMQPValue::FieldArray(copies));
    properties.with_headers(headers)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::convert::{incoming, outgoing};
    use super::super::wire::Kept;
    use crate::broker::Outgoing;
    use crate::message::{Destination, HEADER_COPIES, Headers, Message};

    #[test]
    fn further_routing_keys_are_sent_as_the_broker_reads_them() {
        let headers = json!({ HEADER_COPIES: ["order.new", "b"], "CC": ["elsewhere"] });
        let mut message = Message::default();
        message.properties.headers = serde_json::from_value(headers).unwrap();
        let prepared = outgoing(Outgoing {
            destination: Destination::queue("q"),
            message,
            mandatory: true,
        });
        let back = incoming(
            &prepared.ok().unwrap().properties,
            &Kept::default(),
            Vec::new(),
        );
        assert_eq!(
            back.properties.headers,
            Headers::from([("CC".to_owned(), json!(["order.new", "b"]))])
        );
    }
}
