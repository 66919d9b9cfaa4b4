//! Reading back: aggregates, their events, documents of projections.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Shared;
use super::problem::Problem;
use crate::aggregates;
use crate::environment::Environment;
use crate::error::code;
use crate::participant::history::{At, HistoryError, Kinds, state_at};
use crate::projection::{Freshness, ProjectionError, ReadError, ReadModel, told};
use crate::store::feed::{EventQuery, Position};
use crate::store::participant::AggregateKey;
use crate::store::projections::ReadModels;
use crate::store::{LIST_ROWS_MAX, is_key};

/// Rows of a page when the request does not say.
const ROWS_DEFAULT: usize = 100;

/// What is read back.
#[derive(Clone)]
pub struct Aggregates {
    /// Where aggregates, events and documents are.
    pub store: Arc<dyn ReadModels>,
    /// Projections that can be read.
    pub model: ReadModel,
    /// Kinds whose events can be replayed.
    pub kinds: Kinds,
}

impl Aggregates {
    /// With the shipped kinds and projections.
    pub fn shipped(environment: &Arc<dyn Environment>, store: Arc<dyn ReadModels>) -> Self {
        Self {
            model: ReadModel::new(
                Arc::clone(environment),
                Arc::clone(&store),
                aggregates::projections(),
            ),
            store,
            kinds: aggregates::kinds(),
        }
    }
}

/// One aggregate, from its path.
type KindAndId = Result<Path<(String, String)>, PathRejection>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Listed {
    id: String,
    revision: u64,
}

/// `GET /aggregates/{kind}`: ids and revisions, in order of the ids.
pub(super) async fn list(
    State(context): Shared,
    kind: Result<Path<String>, PathRejection>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let kind = super::sagas::path(kind)?;
    let query = queried(query)?;
    let limit = rows(query.limit);
    let after = query.after.as_deref();
    if !is_key(&kind) || !after.is_none_or(is_key) {
        return Err(Problem::malformed("no kind and no id is like that"));
    }
    let store = &context.api.aggregates.store;
    let found = store.aggregates(&kind, after, limit).await?;
    let next = (found.len() == limit).then(|| found.last().map(|row| row.key.id.clone()));
    let found = found.into_iter().map(|row| Listed {
        id: row.key.id,
        revision: row.revision,
    });
    let listed: Vec<_> = found.collect();
    Ok(Json(json!({
        "kind": kind,
        "aggregates": listed,
        "next": next.flatten(),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    /// A revision, or the time up to which what was recorded counts.
    at: Option<String>,
    /// When it is to be valid.
    valid_at: Option<String>,
}

/// `GET /aggregates/{kind}/{id}`: its state, now or as it was.
pub(super) async fn show(
    State(context): Shared,
    path: KindAndId,
    query: Result<Query<ShowQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let key = key(path)?;
    let query = queried(query)?;
    let at =
        At::parse(query.at.as_deref(), query.valid_at.as_deref()).map_err(Problem::malformed)?;
    let Aggregates { store, kinds, .. } = &context.api.aggregates;
    let found = state_at(kinds, &**store, &key, at).await?;
    let found = found.ok_or_else(|| no_aggregate(&key))?;
    Ok(Json(json!({
        "kind": key.kind,
        "id": key.id,
        "revision": found.revision,
        "state": found.state,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    after: Option<u64>,
    limit: Option<usize>,
}

/// `GET /aggregates/{kind}/{id}/events`: what happened to it, in order.
pub(super) async fn history(
    State(context): Shared,
    path: KindAndId,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let key = key(path)?;
    let query = queried(query)?;
    let (after, limit) = (query.after.unwrap_or(0), rows(query.limit));
    let store = &context.api.aggregates.store;
    let found = store.history(&key, after, limit).await?;
    if found.events.is_empty() && store.aggregate(&key).await?.is_none() {
        return Err(no_aggregate(&key));
    }
    let next = found.last_of_more().map(|placed| placed.event.seq);
    let events: Vec<Value> = found.events.iter().map(told).collect();
    Ok(Json(json!({ "events": events, "next": next })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    after: Option<Position>,
    correlation: Option<String>,
    kind: Option<String>,
    limit: Option<usize>,
}

/// `GET /events`: what happened to all aggregates, in one order. Whoever asks again with `after` set to
/// the answer's `next` skips nothing and reads nothing twice.
pub(super) async fn events(
    State(context): Shared,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let query = queried(query)?;
    let store = &context.api.aggregates.store;
    let after = query.after.unwrap_or_default();
    if after > Position::END {
        return Err(Problem::malformed("`after` is no position"));
    }
    let settled = store.settled().await?;
    let limit = rows(query.limit);
    let found = store
        .events(&EventQuery {
            kinds: query.kind.into_iter().collect(),
            correlation: query.correlation,
            after,
            upto: settled,
            limit,
        })
        .await?;
    let next = found.read_upto(settled.max(after));
    let events: Vec<Value> = found.events.iter().map(told).collect();
    Ok(Json(json!({
        "events": events,
        "next": next,
        "more": found.more,
    })))
}

/// `GET /projections`: their generations, and how far each has come.
pub(super) async fn projections(State(context): Shared) -> Result<Json<Value>, Problem> {
    let Aggregates { store, model, .. } = &context.api.aggregates;
    let settled = store.settled().await?;
    let found = store.generations(None).await?;
    let generations: Vec<Value> = found
        .into_iter()
        .map(|it| {
            json!({
                "name": it.name,
                "generation": it.generation,
                "version": it.version,
                "position": it.position,
                "serving": it.serving,
            })
        })
        .collect();
    let names: Vec<_> = model.projections().names().collect();
    Ok(Json(json!({
        "projections": names,
        "generations": generations,
        "settled": settled,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentQuery {
    #[serde(rename = "as")]
    freshness: Option<As>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum As {
    Kept,
    Now,
    OnDemand,
}

/// `GET /projections/{name}/{key}`: a document.
pub(super) async fn document(
    State(context): Shared,
    path: KindAndId,
    query: Result<Query<DocumentQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Path((name, key)) = path.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let freshness = match queried(query)?.freshness {
        None | Some(As::Kept) => Freshness::Kept,
        Some(As::Now) => Freshness::Now,
        Some(As::OnDemand) => Freshness::OnDemand,
    };
    let model = &context.api.aggregates.model;
    let found = model.read(&name, &key, freshness).await?;
    let found = found.ok_or_else(|| {
        let why = format!("`{name}` has no document `{key}`: no event belongs to it yet");
        Problem::not_found(code::DOCUMENT_NOT_FOUND, why)
    })?;
    Ok(Json(json!({
        "projection": name,
        "key": key,
        "document": found.document,
        "position": found.position,
        "as": match found.freshness {
            Freshness::Kept => "kept",
            Freshness::Now => "now",
            Freshness::OnDemand => "on-demand",
        },
    })))
}

fn queried<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    let Query(query) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    Ok(query)
}

fn rows(limit: Option<usize>) -> usize {
    limit.unwrap_or(ROWS_DEFAULT).clamp(1, LIST_ROWS_MAX)
}

fn key(path: KindAndId) -> Result<AggregateKey, Problem> {
    let Path((kind, id)) = path.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let key = AggregateKey { kind, id };
    if is_key(&key.kind) && is_key(&key.id) {
        Ok(key)
    } else {
        Err(no_aggregate(&key))
    }
}

fn no_aggregate(key: &AggregateKey) -> Problem {
    let why = format!("there is no {} `{}`", key.kind, key.id);
    Problem::not_found(code::AGGREGATE_NOT_FOUND, why)
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Self {
        let status = match &error {
            HistoryError::NoSuchRevision { .. } => StatusCode::NOT_FOUND,
            HistoryError::UnknownKind(_) => StatusCode::NOT_IMPLEMENTED,
            HistoryError::TooLong { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            HistoryError::Store(_) => {
                return match error {
                    HistoryError::Store(error) => error.into(),
                    other => Self::malformed(other.to_string()),
                };
            }
        };
        Self::new(status, code::STATE_UNKNOWN, error.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unknown(_) => Self::not_found(code::DOCUMENT_NOT_FOUND, error.to_string()),
            ReadError::NotOnDemand(_) => Self::new(
                StatusCode::CONFLICT,
                code::DOCUMENT_UNAVAILABLE,
                error.to_string(),
            ),
            ReadError::Behind(_) => {
                Self::unavailable(code::DOCUMENT_UNAVAILABLE, error.to_string())
            }
            ReadError::Projection(ProjectionError::Store(error)) => error.into(),
            ReadError::Projection(error) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                code::PROJECTION_STOPPED,
                error.to_string(),
            ),
        }
    }
}
