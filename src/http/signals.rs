//! Signals: something from outside that a saga waits for, by the saga's id or its name and key.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::Serialize;

use super::problem::Problem;
use super::sagas::{json_body, parse_value, saga_id};
use super::{Context, Shared};
use crate::engine::{Addressee, SignalAnswer};
use crate::id::SagaId;
use crate::store::SagaKey;

/// Header that says what a signal is deduplicated by.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// What becomes of a request that nothing tells from another one.
const NO_KEY: &str =
    "without an `Idempotency-Key` every request is a signal of its own, also if it says the same";

/// The answer to a signal.
#[derive(Serialize)]
pub(super) struct Signalled {
    outcome: Outcome,
    saga_id: SagaId,
    signal: String,
    /// What it is deduplicated by.
    id: String,
    /// What the sender should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// The saga has it.
    Accepted,
    /// The saga had it before.
    Duplicate,
}

/// `POST /sagas/{id}/signals/{signal}`: the body is the payload.
pub(super) async fn to_saga(
    State(context): Shared,
    place: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Signalled>, Problem> {
    let Path((id, signal)) = place.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let to = Addressee::Saga(saga_id(&id)?);
    send(&context, to, signal, &headers, body).await
}

/// `POST /sagas/{name}/keys/{key}/signals/{signal}`: the body is the payload.
pub(super) async fn to_key(
    State(context): Shared,
    place: Result<Path<(String, String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Signalled>, Problem> {
    let Path((name, key, signal)) = place.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let to = Addressee::Key(SagaKey { name, key });
    send(&context, to, signal, &headers, body).await
}

async fn send(
    context: &Context,
    to: Addressee,
    signal: String,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Signalled>, Problem> {
    let payload = parse_value(&json_body(context, headers, body)?)?;
    let (id, note) = match headers.get(IDEMPOTENCY_KEY).map(|key| key.to_str()) {
        None => (context.api.engine.new_id().to_string(), Some(NO_KEY)),
        Some(Ok(key)) => (key.to_owned(), None),
        Some(Err(_)) => return Err(Problem::malformed("`Idempotency-Key` is not plain text")),
    };
    let sent = context.api.engine.signal(to, &signal, id.clone(), payload);
    let (outcome, saga_id) = match sent.await? {
        SignalAnswer::Accepted(saga) => (Outcome::Accepted, saga),
        SignalAnswer::Duplicate(saga) => (Outcome::Duplicate, saga),
    };
    Ok(Json(Signalled {
        outcome,
        saga_id,
        signal,
        id,
        note,
    }))
}

#[cfg(test)]
mod tests;
