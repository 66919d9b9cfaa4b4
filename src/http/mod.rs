//! The HTTP API of a node: start sagas, look at them, ask how the node does.
//!
//! Separate from the engine because it is one way among others (queues, the command line) to the
//! same things. Every answer is JSON, every error `{code, reason}`. Everything is bounded: bodies,
//! the time a request may take, the number of requests at once.
//!
//! Deliberately absent: authentication (bind to the loopback interface, or put a proxy in front),
//! TLS, and any decision: what a start means is the engine's word.

mod actions;
mod dead_letters;
mod health;
mod host;
#[cfg(test)]
mod letters_tests;
pub mod metrics;
mod problem;
mod sagas;
mod schedules;
mod signals;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::engine::{Engine, Space};
use crate::environment::{Environment, Shutdown};
use crate::error::code;
use crate::limits;
use crate::store::dead_letters::DeadLetterStore;
pub use host::is_loopback;
use problem::Problem;

/// What a request may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Longest time from a request's head to its answer.
    pub request_time_max: Duration,
    /// Most requests at once; health checks and metrics are not counted.
    pub requests_max: usize,
    /// Where a replay may be sent to, other than to where its letter died.
    pub replay_to: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: limits::BODY.bytes,
            request_time_max: Duration::from_secs(30),
            requests_max: 1_000,
            replay_to: Vec::new(),
        }
    }
}

/// What the API speaks for.
pub struct Api {
    /// The node.
    pub engine: Arc<Engine>,
    /// The dead letters of the node's database.
    pub letters: Arc<dyn DeadLetterStore>,
    /// Clock and ids.
    pub environment: Arc<dyn Environment>,
    /// Where metrics are read from; `/metrics` is empty without.
    pub metrics: Option<PrometheusHandle>,
    /// Requested as soon as the node is to stop: then it is no longer ready.
    pub stopping: Shutdown,
    /// What a request may cost.
    pub limits: Limits,
}

/// What handlers share.
struct Context {
    api: Api,
    permits: Semaphore,
    /// Memory for bodies, in KiB.
    room: Semaphore,
}

type Shared = State<Arc<Context>>;

/// The routes.
pub fn router(api: Api) -> Router {
    let body_limit = DefaultBodyLimit::max(api.limits.body_bytes_max);
    let context = Arc::new(Context {
        permits: Semaphore::new(api.limits.requests_max),
        room: Semaphore::new(limits::kibibytes(limits::DOOR_BYTES) as usize),
        api,
    });
    let bounded = middleware::from_fn_with_state(Arc::clone(&context), bound);
    Router::new()
        .route("/sagas", get(sagas::list))
        .route("/sagas/{saga}", post(sagas::start).get(sagas::show))
        .route("/sagas/{saga}/{action}", post(actions::operate))
        .route("/sagas/{saga}/signals/{signal}", post(signals::to_saga))
        .route(
            "/sagas/{saga}/keys/{key}/signals/{signal}",
            post(signals::to_key),
        )
        .route("/schedules", get(schedules::list))
        .route("/schedules/{saga}", post(schedules::set))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/groups", get(dead_letters::groups))
        .route("/dead-letters/stats", get(dead_letters::stats))
        .route("/dead-letters/audit", get(dead_letters::audit))
        .route("/dead-letters/export", get(dead_letters::export))
        .route("/dead-letters/import", post(dead_letters::import))
        .route("/dead-letters/replay", post(dead_letters::replay))
        .route("/dead-letters/discard", post(dead_letters::discard))
        .route("/dead-letters/purge", post(dead_letters::purge))
        .route("/dead-letters/{letter}", get(dead_letters::show))
        .route("/dead-letters/{letter}/document", get(dead_letters::shown))
        .route("/dead-letters/{letter}/edit", post(dead_letters::edit))
        .route_layer(bounded)
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(body_limit)
        .with_state(context)
}

/// Answers requests until `stop`, then lets those under way come to their end. On the loopback
/// interface, requests for other hosts are turned away.
pub async fn serve(listener: TcpListener, router: Router, stop: Shutdown) -> std::io::Result<()> {
    let router = if is_loopback(&listener.local_addr()?) {
        router.layer(middleware::from_fn(host::local_only))
    } else {
        router
    };
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.requested().await })
        .await
}

/// Turns requests away that are too many, and ends those that take too long.
async fn bound(State(context): Shared, request: Request, next: Next) -> Response {
    let Ok(_permit) = context.permits.try_acquire() else {
        let most = context.api.limits.requests_max;
        let reason = format!("the node handles {most} requests already; try again in a moment");
        return Problem::unavailable(code::NODE_BUSY, reason).into_response();
    };
    let time = context.api.limits.request_time_max;
    let bytes = bytes_of(&request, context.api.limits.body_bytes_max);
    let answered = async {
        // Nothing closes the semaphore.
        let _room = context.room.acquire_many(bytes).await;
        match take_in(&context, request).await {
            Ok((request, _space)) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    match tokio::time::timeout(time, answered).await {
        Ok(response) => response,
        Err(_) => {
            let reason = format!(
                "no answer within {}; a start may have succeeded all the same, and starting again with the same input is safe",
                crate::view::spoken(time)
            );
            Problem::unavailable(code::REQUEST_TIMEOUT, reason).into_response()
        }
    }
}

/// Bytes that a request's body may have, in KiB.
fn bytes_of(request: &Request, body_bytes_max: usize) -> u32 {
    if request.body().is_end_stream() {
        return 0;
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let bytes = length.unwrap_or(body_bytes_max).min(body_bytes_max);
    if bytes <= limits::SMALL_BODY_BYTES {
        return 0;
    }
    limits::kibibytes(bytes.min(limits::DOOR_BYTES))
}

/// Takes in the whole body, and waits until there is room for what it will be once it is read.
async fn take_in(context: &Context, request: Request) -> Result<(Request, Space), Problem> {
    if request.body().is_end_stream() {
        return Ok((request, Space::default()));
    }
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head.clone(), body);
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|wrong| sagas::unreadable(context, &wrong))?;
    let space = context.api.engine.room().take_for(&body).await;
    Ok((Request::from_parts(head, body.into()), space))
}

async fn unknown_path() -> Problem {
    Problem::not_found(
        code::REQUEST_MALFORMED,
        "there is nothing at this path; see docs/operating.md for those there are",
    )
}

async fn wrong_method() -> Problem {
    Problem::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        code::REQUEST_MALFORMED,
        "this path does not take this method",
    )
}
