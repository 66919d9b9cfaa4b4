//! Server-sent events: numbers that change, a saga's journal as it grows, sagas of a filter as they change.
//!
//! However many listen, the database is asked once a second for each kind of thing at most, and less often where that
//! takes long; nobody is asked for anything while nobody listens. A stream counts towards [`STREAMS_MAX`]
//! and not towards the limits on requests; it says something every 15 seconds, and ends when the node
//! stops or when its reader may no longer read. Whoever comes again with `Last-Event-ID` goes on where
//! the stream broke off.

mod counters;
mod heads;
mod journal;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::problem::Problem;
use super::sagas::saga_id;
use super::{Context, Shared, guard, search};
use crate::error::code;
use crate::store::FilterError;
use crate::view::read_head;

/// Most streams of a node; each keeps a connection.
pub(super) const STREAMS_MAX: usize = 64;
/// How often a stream says that it is there.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// After so many of these it is asked whether the reader may still read.
const HEARTBEATS_A_CHECK: u32 = 2;
/// How often the database is asked what is new, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many times as long as a look took the next one waits.
const REST: u32 = 20;
/// Longest wait for the next look.
const REST_MAX: Duration = Duration::from_secs(30);
/// Longest time for a look.
const LOOK_TIME_MAX: Duration = Duration::from_secs(5);
/// Events that wait for a slow reader before the stream waits for it, too.
const WAITING_MAX: usize = 16;

/// What streams are fed from.
pub(super) struct Live {
    seats: Arc<Semaphore>,
    counters: counters::Counters,
    journals: journal::Journals,
    heads: heads::Heads,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            seats: Arc::new(Semaphore::new(STREAMS_MAX)),
            counters: counters::Counters::default(),
            journals: journal::Journals::default(),
            heads: heads::Heads::default(),
        }
    }
}

/// Where a stream's events go.
type Feed = mpsc::Sender<Event>;
/// The reader has gone.
struct Gone;

/// `GET /live`: what lives and what became of sagas in the last hour, when it changes.
pub(super) async fn counters(
    State(context): Shared,
    request: Request,
) -> Result<Response, Problem> {
    let seat = seat(&context)?;
    let numbers = context.live.counters.listen(&context);
    let feed = |feed| async move { counters::feed(numbers, feed).await };
    Ok(stream_of(&context, seat, request, feed))
}

/// `GET /sagas/{saga}/live`: what happens to a saga.
pub(super) async fn saga(
    State(context): Shared,
    id: Result<axum::extract::Path<String>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let id = saga_id(&super::sagas::path(id)?)?;
    let head = read_head(&**context.api.engine.store(), id).await?;
    let head = head.ok_or_else(|| Problem::no_saga(id))?;
    let from = last_event(request.headers()).map(str::parse).transpose();
    let wrong = |_| Problem::malformed("`Last-Event-ID` is the number of a journal entry");
    let from = from.map_err(wrong)?.unwrap_or(head.revision);
    let seat = seat(&context)?;
    let listener = context.live.journals.listen(&context, &head);
    let of = Arc::clone(&context);
    let feed = move |feed| async move { journal::feed(&of, &head, listener, from, feed).await };
    Ok(stream_of(&context, seat, request, feed))
}

/// `GET /sagas/live`: sagas of a filter, as they change.
pub(super) async fn heads(
    State(context): Shared,
    query: RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let (filter, others) = search::parameters(query, context.api.engine.now())?;
    if let Some((name, value)) = others.first() {
        return Err(FilterError::unknown(name, value).into());
    }
    let from = last_event(request.headers()).map(heads::Place::parse);
    let from = from.transpose().map_err(Problem::malformed)?;
    let seat = seat(&context)?;
    let listener = context.live.heads.listen(&context);
    let of = Arc::clone(&context);
    let feed = move |feed| async move { heads::feed(&of, filter, listener, from, feed).await };
    Ok(stream_of(&context, seat, request, feed))
}

fn seat(context: &Context) -> Result<OwnedSemaphorePermit, Problem> {
    let seats = Arc::clone(&context.live.seats);
    seats.try_acquire_owned().map_err(|_| {
        let reason =
            format!("{STREAMS_MAX} streams are open already; try again later, or ask now and then");
        Problem::unavailable(code::NODE_BUSY, reason)
    })
}

fn last_event(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("last-event-id")?.to_str().ok()?.trim();
    Some(value).filter(|value| !value.is_empty())
}

/// Answers with what `feed` says, for as long as the reader is there and may read.
fn stream_of<F>(
    context: &Arc<Context>,
    seat: OwnedSemaphorePermit,
    request: Request,
    feed: impl FnOnce(Feed) -> F,
) -> Response
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (sender, events) = mpsc::channel(WAITING_MAX);
    let (context, parts) = (Arc::clone(context), request.into_parts().0);
    let feeding = feed(sender.clone());
    tokio::spawn(async move {
        let _seat = seat;
        tokio::select! {
            _ = feeding => {}
            () = sender.closed() => {}
            () = context.api.stopping.requested() => {}
            _ = accompany(&context, parts, &sender) => {}
        }
    });
    let events = stream::unfold(events, |mut events| async move {
        let event = events.recv().await?;
        Some((Ok::<_, Infallible>(event), events))
    });
    Sse::new(events).into_response()
}

/// Says now and then that the stream is there; ends when its reader may no longer read.
async fn accompany(context: &Arc<Context>, parts: Parts, feed: &Feed) -> Result<(), Gone> {
    loop {
        for _ in 0..HEARTBEATS_A_CHECK {
            context.api.environment.sleep(HEARTBEAT_EVERY).await;
            send(feed, Event::default().comment("")).await?;
        }
        if !guard::may_still(context, &parts).await {
            return Ok(());
        }
    }
}

async fn send(feed: &Feed, event: Event) -> Result<(), Gone> {
    feed.send(event).await.map_err(|_| Gone)
}

/// Waits until it is time for the next look, which began at that time.
async fn rest(context: &Context, began: Duration) {
    let took = context.api.environment.elapsed().saturating_sub(began);
    let wait = (took * REST).clamp(LOOK_EVERY, REST_MAX);
    tokio::select! {
        () = context.api.environment.sleep(wait) => {}
        () = context.api.stopping.requested() => {}
    }
}
