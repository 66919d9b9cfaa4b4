//! What a replay sends, and whether it may. Pure.

use serde_json::Value;
use uuid::Uuid;

use super::options::ReplayOptions;
use crate::broker::rabbitmq;
use crate::dead_letters::route::{NoRoute, Route, is_own};
use crate::id::{SagaId, Timestamp};
use crate::message::{
    DOMAIN_EVENT_QUEUE, Destination, HEADER_COPIES, HEADER_EVENT_EXCHANGE,
    HEADER_EVENT_ROUTING_KEY, Headers, Message, REPLY_QUEUE,
};
use crate::store::dead_letters::{
    HEADER_EXCHANGE, HEADER_KEYS, HEADER_LETTER, HEADER_ORIGIN, HEADER_REPLAYS, Letter, LetterHead,
    LetterStatus, Trail,
};
use crate::store::{OutboxMessage, Status};

/// Why a letter is not replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayRefusal {
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
    /// There is no way for it, or none by which it could come back.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// Its answer would go to Backstitch, where nobody waits for it.
    #[error(
        "BST-0058: an edit or import made `{0}`, which is Backstitch's own, the queue for its answer; name another as `reply_to`"
    )]
    Answers(String),
    /// RabbitMQ would not take it.
    #[error(
        "RabbitMQ would refuse its message: {0}; `edit` mends it, `edit --drop-header` for many at once"
    )]
    Unsendable(String),
}

impl ReplayRefusal {
    /// The same words for all letters that are refused for the same reason.
    pub fn summary(&self) -> String {
        match self {
            Self::Ended(_, status) => {
                format!("their sagas have ended ({status}); `--force` sends them all the same")
            }
            other => other.to_string(),
        }
    }
}

/// What a replay of this letter sends by its route.
pub(super) fn prepare(
    letter: &Letter,
    trail: &Trail,
    route: &Route,
    id: Uuid,
    due_at: Timestamp,
) -> Result<OutboxMessage, ReplayRefusal> {
    let head = &letter.head;
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
    note(headers, trail, &route.destination, &route.copies);
    rabbitmq::check_sendable(&message).map_err(|why| unsendable(why, &message))?;
    Ok(OutboxMessage {
        id,
        destination: route.destination.clone(),
        message,
        due_at,
    })
}

/// Notes in a message where it died and how it came there, and has it published with further keys.
pub(in crate::dead_letters) fn note(
    headers: &mut Headers,
    trail: &Trail,
    to: &Destination,
    copies: &[String],
) {
    for name in [HEADER_ORIGIN, HEADER_EXCHANGE, HEADER_KEYS, HEADER_COPIES] {
        headers.remove(name);
    }
    let alone = to.exchange.is_empty();
    let queue = trail.queue.as_ref();
    if let Some(queue) = queue.or(alone.then_some(&to.routing_key)) {
        headers.insert(HEADER_ORIGIN.to_owned(), Value::from(queue.as_str()));
    }
    if let Some(exchange) = trail.exchange.as_deref().filter(|name| !name.is_empty())
        && alone
        && queue.is_some()
        && !trail.keys.is_empty()
    {
        headers.insert(HEADER_EXCHANGE.to_owned(), exchange.into());
        headers.insert(HEADER_KEYS.to_owned(), trail.keys.clone().into());
    }
    if !copies.is_empty() {
        headers.insert(HEADER_COPIES.to_owned(), copies.to_vec().into());
    }
}

/// Whether a letter may be replayed.
pub(super) fn check(
    head: &LetterHead,
    saga: Option<Status>,
    options: &ReplayOptions,
) -> Result<(), ReplayRefusal> {
    match head.status {
        LetterStatus::Open => {}
        LetterStatus::Replaying => return Err(ReplayRefusal::OnItsWay),
        handled if !options.again => return Err(ReplayRefusal::Handled(handled)),
        _ => {}
    }
    if let (Some(id), Some(status)) = (head.saga, saga)
        && matches!(status, Status::Completed | Status::Compensated)
        && !options.force
    {
        return Err(ReplayRefusal::Ended(id, status));
    }
    if head.replays >= options.replays_max {
        return Err(ReplayRefusal::TooOften(head.replays));
    }
    Ok(())
}

/// Whether the answer to a letter's message may go where it says. To a queue of ours only if it came
/// like that: else whoever it is sent to would speak for us. Replies are no matter: they need our mac.
pub(super) fn check_answer(letter: &Letter, imported: bool) -> Result<(), ReplayRefusal> {
    let reply_to = letter.message().properties.reply_to.as_deref();
    let came_so = !imported && letter.original.properties.reply_to.as_deref() == reply_to;
    match reply_to {
        Some(queue) if is_own(queue) && queue != REPLY_QUEUE && !came_so => {
            Err(ReplayRefusal::Answers(queue.to_owned()))
        }
        _ => Ok(()),
    }
}

/// Which header is to blame, if the headers are too many bytes.
fn unsendable(why: String, message: &Message) -> ReplayRefusal {
    if !why.contains("headers") {
        return ReplayRefusal::Unsendable(why);
    }
    let bytes = |value: &Value| value.to_string().len();
    let headers = message.properties.headers.iter();
    let largest = headers.max_by_key(|(_, value)| bytes(value));
    ReplayRefusal::Unsendable(match largest {
        Some((name, _)) => format!("{why} (`{name}` is the largest)"),
        None => why,
    })
}

/// The broker's own books, by which it would take the replay for one that goes in circles.
fn is_brokers(name: &str) -> bool {
    ["x-death", "x-first-death-", "x-last-death-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || ["x-delivery-count", "x-acquired-count"].contains(&name)
}
