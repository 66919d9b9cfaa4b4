//! Declaring queues, exchanges and bindings, and saying what differs when something is in the way.
//!
//! Everything is declared on a channel of its own, because the server closes the channel at the
//! first thing it refuses.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ErrorKind, ExchangeKind};

use super::link::{Failure, Link, Live, REQUEST_TIME_MAX, within};
use crate::broker::{BrokerError, DELIVERY_LIMIT, Queue, Topology};

/// A limit for queues without a dead-letter queue that no message reaches. It must be given:
/// without one, RabbitMQ 4 drops a message after 20 deliveries, and 3.10 requeues to the back.
pub const DELIVERY_LIMIT_NONE: u32 = 1_000_000_000;

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
pub(super) const PRECONDITION_FAILED: u16 = 406;

/// Creates what is missing.
pub(super) async fn declare(
    link: &Link,
    live: &Live,
    topology: &Topology,
) -> Result<(), BrokerError> {
    let channel = live.channel(link).await.map_err(unavailable)?;
    let queues = topology.queues.iter().map(|queue| (queue, false));
    let in_order = topology.queues_in_order.iter().map(|queue| (queue, true));
    for (queue, in_order) in queues.chain(in_order) {
        let what = format!("queue `{}`", queue.name);
        let declared = channel.queue_declare(
            name(&queue.name)?,
            QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            },
            arguments(queue, in_order)?,
        );
        let declared = within(REQUEST_TIME_MAX, declared).await;
        declared.map_err(|failure| refused(what, failure))?;
    }
    for exchange in &topology.topic_exchanges {
        let what = format!("exchange `{exchange}`");
        let declared = channel.exchange_declare(
            name(exchange)?,
            ExchangeKind::Topic,
            ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            },
            FieldTable::default(),
        );
        let declared = within(REQUEST_TIME_MAX, declared).await;
        declared.map_err(|failure| refused(what, failure))?;
    }
    for binding in &topology.bindings {
        let what = format!("binding of `{}` to `{}`", binding.queue, binding.exchange);
        let bound = channel.queue_bind(
            name(&binding.queue)?,
            name(&binding.exchange)?,
            name(&binding.routing_key)?,
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        let bound = within(REQUEST_TIME_MAX, bound).await;
        bound.map_err(|failure| refused(what, failure))?;
    }
    close(&channel).await;
    Ok(())
}

/// Messages that wait in a queue; `None` if there is no such queue.
pub(super) async fn queue_len(
    link: &Link,
    live: &Live,
    queue: &str,
) -> Result<Option<u64>, BrokerError> {
    let name = name(queue)?;
    let channel = live.channel(link).await.map_err(unavailable)?;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let found = channel.queue_declare(name, options, FieldTable::default());
    match within(REQUEST_TIME_MAX, found).await {
        Ok(found) => {
            close(&channel).await;
            Ok(Some(u64::from(found.message_count())))
        }
        Err(failure) if code(&failure) == Some(NOT_FOUND) => Ok(None),
        Err(failure) => Err(refused(format!("queue `{queue}`"), failure)),
    }
}

/// Whether an exchange is there; when in doubt, it is.
pub(super) async fn exchange_exists(link: &Link, live: &Live, exchange: &str) -> bool {
    let (Ok(name), Ok(channel)) = (name(exchange), live.channel(link).await) else {
        return true;
    };
    let found = channel.exchange_declare(
        name,
        ExchangeKind::Topic, // not looked at: passive
        ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        },
        FieldTable::default(),
    );
    match within(REQUEST_TIME_MAX, found).await {
        Ok(()) => {
            close(&channel).await;
            true
        }
        Err(failure) => code(&failure) != Some(NOT_FOUND),
    }
}

/// The error for a queue that could not be consumed from.
pub(super) fn not_consumed(queue: &str, failure: Failure) -> BrokerError {
    match code(&failure) {
        Some(NOT_FOUND) => BrokerError::NoQueue(queue.to_owned()),
        _ => refused(format!("queue `{queue}`"), failure),
    }
}

/// A name as AMQP takes it.
pub(super) fn name(text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|_| {
        BrokerError::Refused(format!(
            "`{}…` is longer than the 255 bytes a name may have",
            text.chars().take(40).collect::<String>()
        ))
    })
}

pub(super) fn unavailable(failure: Failure) -> BrokerError {
    BrokerError::Unavailable(Box::new(failure))
}

/// Closes a channel; if that fails, the connection's end closes it.
pub(super) async fn close(channel: &Channel) {
    let closed = channel.close(200, "OK".into());
    if let Err(failure) = within(REQUEST_TIME_MAX, closed).await {
        tracing::debug!(%failure, "a channel did not close cleanly");
    }
}

fn arguments(queue: &Queue, in_order: bool) -> Result<FieldTable, BrokerError> {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    if in_order {
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    // The server gives up when a message has come back more often than the limit.
    let mut limit = DELIVERY_LIMIT_NONE;
    if let Some(dead_letters) = &queue.dead_letter_to {
        limit = DELIVERY_LIMIT - 1;
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert(
            "x-dead-letter-routing-key".into(),
            text(name(dead_letters)?.as_str()),
        );
        // Together these two lose nothing on the way to the dead-letter queue.
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments.insert("x-overflow".into(), text("reject-publish"));
    }
    let limit = AMQPValue::LongLongInt(i64::from(limit));
    arguments.insert("x-delivery-limit".into(), limit);
    Ok(arguments)
}

/// The server's reply code, if it was the server that refused.
fn code(failure: &Failure) -> Option<u16> {
    match failure {
        Failure::Library(error) => match error.kind() {
            ErrorKind::ProtocolError(error) => Some(error.get_id()),
            _ => None,
        },
        Failure::TimeOut(_) => None,
    }
}

fn refused(what: String, failure: Failure) -> BrokerError {
    let text = match &failure {
        Failure::Library(error) => match error.kind() {
            ErrorKind::ProtocolError(error) => error.get_message().to_string(),
            _ => return unavailable(failure),
        },
        Failure::TimeOut(_) => return unavailable(failure),
    };
    match code(&failure) {
        Some(PRECONDITION_FAILED | RESOURCE_LOCKED) => BrokerError::Clash {
            what,
            difference: text.trim_start_matches("PRECONDITION_FAILED - ").to_owned(),
        },
        Some(NOT_FOUND | ACCESS_REFUSED) => BrokerError::Refused(format!("{what}: {text}")),
        _ => unavailable(failure),
    }
}
