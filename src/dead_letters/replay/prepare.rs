//! What a replay sends, where to, and whether it may. Pure.

use serde_json::Value;
use uuid::Uuid;

use super::ReplayOptions;
use crate::broker::rabbitmq;
use crate::error::code;
use crate::id::{SagaId, Timestamp};
use crate::message::{
    DOMAIN_EVENT_QUEUE, Destination, HEADER_EVENT_EXCHANGE, HEADER_EVENT_ROUTING_KEY, Message,
};
use crate::store::dead_letters::{
    HEADER_LETTER, HEADER_ORIGIN, HEADER_REPLAYS, Letter, LetterHead, LetterStatus,
};
use crate::store::{OutboxMessage, Status};

/// Why a letter is not replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was handled.
    #[error("it was {0} already; `--again` replays it all the same")]
    Handled(LetterStatus),
    /// Its replay has not been confirmed.
    #[error("its replay is on its way; wait until it is confirmed")]
    OnItsWay,
    /// Its saga is over.
    #[error("its saga {0} has ended ({1}); `--force` sends it all the same")]
    Ended(SagaId, Status),
    /// It keeps coming back.
    #[error(
        "its message was replayed {0} times; mend the cause, or allow more with `--replays-max`"
    )]
    TooOften(u32),
    /// Nobody knows where it belongs.
    #[error("the broker does not say which queue it died in; name one with `--to`")]
    NoQueue,
    /// RabbitMQ would not take it.
    #[error("RabbitMQ would refuse its message: {0}; `edit` mends it")]
    Unsendable(String),
}

/// What a replay of this letter sends, if it may be sent.
pub fn prepare(
    letter: &Letter,
    saga: Option<Status>,
    options: &ReplayOptions,
    id: Uuid,
    due_at: Timestamp,
) -> Result<OutboxMessage, Refusal> {
    let head = &letter.head;
    let destination = check(head, saga, options)?;
    let mut message: Message = letter.message().clone();
    let headers = &mut message.properties.headers;
    headers.retain(|name, _| !is_brokers(name));
    headers.insert(HEADER_LETTER.to_owned(), Value::from(head.id.to_string()));
    headers.insert(HEADER_REPLAYS.to_owned(), Value::from(head.replays + 1));
    // An event's queue alone does not say which event it is.
    if let (Some(DOMAIN_EVENT_QUEUE), Some(exchange), Some(key)) = (
        head.origin.queue.as_deref(),
        &head.origin.exchange,
        &head.origin.routing_key,
    ) && !exchange.is_empty()
    {
        headers.insert(HEADER_EVENT_EXCHANGE.to_owned(), exchange.as_str().into());
        headers.insert(HEADER_EVENT_ROUTING_KEY.to_owned(), key.as_str().into());
    }
    let origin = head.origin.queue.clone().or_else(|| {
        let to = &destination;
        to.exchange.is_empty().then(|| to.routing_key.clone())
    });
    if let Some(queue) = origin {
        headers.insert(HEADER_ORIGIN.to_owned(), Value::from(queue));
    }
    rabbitmq::check_sendable(&message).map_err(Refusal::Unsendable)?;
    Ok(OutboxMessage {
        id,
        destination,
        message,
        due_at,
    })
}

/// Whether a letter may be replayed, and where to.
pub(super) fn check(
    head: &LetterHead,
    saga: Option<Status>,
    options: &ReplayOptions,
) -> Result<Destination, Refusal> {
    match head.status {
        LetterStatus::Open => {}
        LetterStatus::Replaying => return Err(Refusal::OnItsWay),
        handled if !options.again => return Err(Refusal::Handled(handled)),
        _ => {}
    }
    if let (Some(id), Some(status)) = (head.saga, saga)
        && matches!(status, Status::Completed | Status::Compensated)
        && !options.force
    {
        return Err(Refusal::Ended(id, status));
    }
    if head.replays >= options.replays_max {
        return Err(Refusal::TooOften(head.replays));
    }
    if let Some(to) = &options.to {
        return Ok(to.clone());
    }
    let queue = match &head.origin.queue {
        Some(queue) => queue,
        // What we buried ourselves was taken from where it belongs.
        None if head.code != code::DEAD_LETTERED => &head.queue,
        None => return Err(Refusal::NoQueue),
    };
    Ok(Destination::queue(queue))
}

/// The broker's own books, by which it would take the replay for one that goes in circles.
fn is_brokers(name: &str) -> bool {
    ["x-death", "x-first-death-", "x-last-death-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || ["x-delivery-count", "x-acquired-count"].contains(&name)
}
