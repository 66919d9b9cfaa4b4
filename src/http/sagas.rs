//! Starting sagas, looking at them, resuming them.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::problem::Problem;
use super::{Context, Shared, parts};
use crate::engine::{StartAnswer, StartError};
use crate::error::code;
use crate::id::SagaId;
use crate::limits::{self, UnreadableJson};
use crate::saga::{Status, holdup};
use crate::view::{
    HeadView, SagaView, SummaryView, WhyView, json_of, look_around, read_head, read_history,
};

/// The answer to a start.
#[derive(Serialize)]
struct Started {
    saga_id: SagaId,
    saga: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// A saga's status; or `restarting`, while it waits for the saga that it replaces.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<SagaId>,
    /// What a restart waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<&'static str>,
}

/// `POST /sagas/{name}`: the body is the input.
pub(super) async fn start(
    State(context): Shared,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    start_named(&context, path(name)?, &headers, body).await
}

/// The same for a saga called `groups`.
pub(super) async fn start_groups(
    State(context): Shared,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    start_named(&context, "groups".to_owned(), &headers, body).await
}

/// The same for a saga called `live`.
pub(super) async fn start_live(
    State(context): Shared,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    start_named(&context, "live".to_owned(), &headers, body).await
}

async fn start_named(
    context: &Context,
    name: String,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = json_body(context, headers, body)?;
    let input = Arc::new(parse_value(&body)?);
    let answer = match context
        .api
        .engine
        .start_saga(&name, Arc::clone(&input))
        .await
    {
        Ok(answer) => answer,
        Err(error) => return Err(refused(context, &name, &body, error)),
    };
    // Only now: to start it, the node may have learned another version.
    let newest = context.api.engine.catalogue().newest(&name);
    let key = newest.and_then(|definition| definition.key_of(&input).ok());
    let started = |saga_id, status: Status| Started {
        saga_id,
        saga: name,
        key,
        status: status.as_str(),
        replaces: None,
        waiting: None,
    };
    let (code, started) = match answer {
        StartAnswer::Started(id) => (StatusCode::CREATED, started(id, Status::Running)),
        StartAnswer::Existing(id, status) => (StatusCode::OK, started(id, status)),
        StartAnswer::Restarting {
            saga,
            replaces,
            status,
        } => {
            let started = Started {
                status: "restarting",
                replaces: Some(replaces),
                waiting: Some(holdup(status)),
                ..started(saga, status)
            };
            (StatusCode::ACCEPTED, started)
        }
    };
    let location = [(header::LOCATION, format!("/sagas/{}", started.saga_id))];
    Ok((code, location, Json(started)).into_response())
}

/// Why a start was refused; for an input that breaks the schema, with each problem.
fn refused(context: &Context, name: &str, body: &[u8], error: StartError) -> Problem {
    let broken_schema =
        matches!(&error, StartError::Refused(wrong) if wrong.code == code::INPUT_INVALID);
    let problem = Problem::from(error);
    if !broken_schema {
        return problem;
    }
    let input: Value = serde_json::from_slice(body).unwrap_or_default();
    let definition = context.api.engine.catalogue().newest(name);
    let wrong = definition.and_then(|definition| definition.check_input(&input).err());
    problem.with_problems(wrong.unwrap_or_default())
}

/// What of a saga to answer with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    /// `head`: the row alone, for those who poll. `summary`: without steps and timeline.
    only: Option<Only>,
    /// Of a summary: whether the whole journal is read and verified.
    verify: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Only {
    Head,
    Summary,
}

/// `GET /sagas/{id}`: the row, the steps, what happened.
pub(super) async fn show(
    State(context): Shared,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<ShowQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let id = saga_id(&path(id)?)?;
    let Query(query) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let store = &**context.api.engine.store();
    if matches!(query.only, Some(Only::Head)) {
        let head = read_head(store, id).await?;
        let head = head.ok_or_else(|| Problem::no_saga(id))?;
        return Ok(Json(HeadView::new(&head)).into_response());
    }
    let is_summary = matches!(query.only, Some(Only::Summary));
    let text = if is_summary && query.verify != Some(true) {
        json_of(&parts::summary(&context, id).await?)
    } else {
        let view = whole(&context, id).await?;
        if is_summary {
            json_of(&SummaryView::of(view))
        } else {
            json_of(&view)
        }
    };
    let text = text.map_err(|error| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(status, code::JOURNAL_UNREADABLE, error.to_string())
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// A saga with all that is to be seen of it and around it.
async fn whole(context: &Context, id: SagaId) -> Result<SagaView, Problem> {
    let store = &**context.api.engine.store();
    let history = read_history(store, id).await?;
    let history = history.ok_or_else(|| Problem::no_saga(id))?;
    let definition = parts::definition_of(context, &history.head).await?;
    let mut view = SagaView::new(&history, definition.as_deref());
    if let Some(why) = &mut view.why {
        look(context, id, why).await;
    }
    Ok(view)
}

/// Sees what there is around a saga that waits.
pub(super) async fn look(context: &Context, id: SagaId, why: &mut WhyView) {
    let broker = &**context.api.engine.broker();
    let around = look_around(id, why, Some(broker), &*context.api.letters).await;
    why.see(&around);
}

pub(super) fn path(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(text)| text)
        .map_err(|wrong| Problem::malformed(wrong.body_text()))
}

pub(super) fn saga_id(text: &str) -> Result<SagaId, Problem> {
    text.parse().map_err(|_| {
        Problem::malformed("a saga's id is a UUID, as in /sagas/019a9b2e-0000-7000-8000-000000000000; to find one by its key: /sagas?name=…&key=…")
    })
}

/// The body of a request that changes something. It must say that it is JSON: a page of another
/// origin can't, without the browser asking us first.
pub(super) fn json_body(
    context: &Context,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Bytes, Problem> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code::REQUEST_MALFORMED,
            "the body must be JSON: send the header `content-type: application/json`",
        ));
    }
    body.map_err(|wrong| unreadable(context, &wrong))
}

/// Why a body could not be taken in.
pub(super) fn unreadable(context: &Context, wrong: &BytesRejection) -> Problem {
    if wrong.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let most = context.api.limits.body_bytes_max;
        let reason = format!(
            "the body is larger than {most} bytes; keep large things elsewhere and send a reference"
        );
        Problem::new(wrong.status(), code::BODY_TOO_LARGE, reason)
    } else {
        Problem::malformed(wrong.body_text())
    }
}

/// A body that is a saga's input or a signal's payload.
pub(super) fn parse_value(body: &[u8]) -> Result<Value, Problem> {
    limits::read(body, &limits::BODY).map_err(|error| {
        let status = match error {
            UnreadableJson::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            UnreadableJson::NotJson(_) => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, error.code(), error.about("the body"))
    })
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() {
            code::REQUEST_MALFORMED
        } else {
            code::BODY_NOT_JSON
        };
        let reason = format!("the body is not what is expected: {error}");
        Problem::new(StatusCode::BAD_REQUEST, code, reason)
    })
}
