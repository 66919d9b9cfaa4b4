//! The HTTP API of a node: start sagas, look at them, ask how the node does.
//!
//! Separate from the engine because it is one way among others (queues, the command line) to the
//! same things. Every answer is JSON, every error a problem (RFC 9457)
//! with `code` and `reason`. Everything is bounded: connections
//! and how slow they may be (`accept`), bodies, the time a request may take, the number of requests at
//! once, and of streams (`live`). Which endpoints there are, and what a caller needs for each, is one table (`routes`).
//!
//! Deliberately absent: any decision. What a start means is the engine's word, who may do what that of
//! `access`.

mod accept;
#[cfg(test)]
mod accept_tests;
mod actions;
mod activity;
mod audit;
mod cached;
mod dead_letters;
mod definitions;
mod described;
mod etag;
mod guard;
mod health;
mod host;
mod jobs;
#[cfg(test)]
mod letters_tests;
#[cfg(test)]
mod limits_tests;
mod live;
pub mod metrics;
mod once;
mod openapi;
mod overview;
mod parts;
mod problem;
mod reading;
#[cfg(test)]
mod reading_tests;
#[cfg(test)]
mod rights_tests;
mod routes;
mod sagas;
mod schedules;
mod search;
mod seats;
mod signals;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, HttpBody};
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, RawPathParams, Request, State};
use axum::http::{Extensions, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::access::Access;
use crate::engine::{Engine, Space};
use crate::environment::{Environment, Shutdown};
use crate::error::code;
use crate::limits;
use crate::store::dead_letters::DeadLetterStore;
use crate::store::{CensusStore, JobStore, RequestStore, SagaSearch};
use cached::Cached;
use guard::Need;
pub use host::is_loopback;
use problem::Problem;
pub use reading::Aggregates;
pub use tls::{Tls, TlsFiles};

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
    /// Who may do what.
    pub access: Arc<Access>,
    /// The aggregates of the node's database, and what is folded from their events.
    pub aggregates: Aggregates,
    /// Searches in the node's database.
    pub search: Arc<dyn SagaSearch>,
    /// Which database it is, for people.
    pub database: &'static str,
    /// What there is to do in the node's database, in numbers.
    pub census: Arc<dyn CensusStore>,
    /// Actions on many sagas.
    pub jobs: Arc<dyn JobStore>,
    /// What is kept of requests.
    pub requests: Arc<dyn RequestStore>,
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
    /// What `definitions` reads.
    definitions: Cached<definitions::Stored>,
    /// What `overview` reads.
    overview: overview::Kept,
    /// What streams are fed from.
    live: live::Live,
    /// What `parts` reads.
    parts: parts::Kept,
}

type Shared = State<Arc<Context>>;
type Params = Result<RawPathParams, RawPathParamsRejection>;

/// What paths of the API's first version begin with.
const VERSION: &str = "/v1";

/// The routes.
pub fn router(api: Api) -> Router {
    let body_limit = DefaultBodyLimit::max(api.limits.body_bytes_max);
    let context = Arc::new(Context {
        permits: Semaphore::new(api.limits.requests_max),
        room: Semaphore::new(limits::kibibytes(limits::DOOR_BYTES) as usize),
        definitions: definitions::kept(),
        overview: overview::Kept::new(api.engine.now()),
        live: live::Live::default(),
        parts: parts::Kept::default(),
        api,
    });
    let endpoints = routes::endpoints().into_iter();
    let routes = endpoints.fold(Router::new(), |router, endpoint| {
        let state = (Arc::clone(&context), endpoint.need);
        let handler = if endpoint.is_bounded {
            let bounded = middleware::from_fn_with_state(state, bound);
            endpoint.handler.layer(bounded)
        } else {
            let guarded = middleware::from_fn_with_state(state, admit);
            endpoint.handler.layer(guarded)
        };
        let handler: MethodRouter<_> = handler;
        // The version that is meant for programs to rely on; without one, the same.
        let versioned = format!("{VERSION}{}", endpoint.path);
        router
            .route(&versioned, handler.clone())
            .route(endpoint.path, handler)
    });
    routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(body_limit)
        .layer(middleware::from_fn(etag::tag))
        .layer(middleware::from_fn(guard::mark))
        .with_state(context)
}

/// What a request carries of its connection that says who sent it, for another request in its name.
pub fn carried(extensions: &Extensions) -> Extensions {
    let mut carried = Extensions::new();
    if let Some(certificate) = extensions.get::<accept::ClientCertificate>() {
        carried.insert(certificate.clone());
    }
    carried
}

/// Answers requests until `stop`, then lets those under way come to their end. On the loopback
/// interface, requests for other hosts, and from pages of others, are turned away.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    stop: Shutdown,
) -> std::io::Result<()> {
    let router = if is_loopback(&listener.local_addr()?) {
        router.layer(middleware::from_fn(host::local_only))
    } else {
        router
    };
    accept::run(listener, tls, router, stop).await
}

/// Lets those pass who may.
async fn admit(
    State((context, need)): State<(Arc<Context>, Need)>,
    params: Params,
    request: Request,
    next: Next,
) -> Response {
    let (mut head, body) = request.into_parts();
    match guard::pass(&context, need, params, &mut head).await {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(problem) => problem.into_response(),
    }
}

/// Turns requests away that are too many, and ends those that take too long.
async fn bound(
    State((context, need)): State<(Arc<Context>, Need)>,
    params: Params,
    request: Request,
    next: Next,
) -> Response {
    let Ok(_permit) = context.permits.try_acquire() else {
        let most = context.api.limits.requests_max;
        let reason = format!("the node handles {most} requests already; try again in a moment");
        return Problem::unavailable(code::NODE_BUSY, reason).into_response();
    };
    let time = context.api.limits.request_time_max;
    let bytes = bytes_of(&request, context.api.limits.body_bytes_max);
    let answered = async {
        // Before anything of the body is read.
        let (mut head, body) = request.into_parts();
        if let Err(problem) = guard::pass(&context, need, params, &mut head).await {
            return problem.into_response();
        }
        let request = Request::from_parts(head, body);
        // Nothing closes the semaphore.
        let _room = context.room.acquire_many(bytes).await;
        match take_in(&context, request).await {
            Ok((request, space)) => {
                let answering = once::answer(Arc::clone(&context), request, next);
                run_to_its_end(answering, space).await
            }
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

/// Has a request answered, and gives its space up when that is done: what was begun goes on, and takes its
/// memory, although nobody waits for the answer any more.
async fn run_to_its_end(
    answering: impl Future<Output = Response> + Send + 'static,
    space: Space,
) -> Response {
    let answering = async move {
        let response = answering.await;
        drop(space);
        response
    };
    match tokio::spawn(answering).await {
        Ok(response) => response,
        // Nobody aborts it.
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
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
