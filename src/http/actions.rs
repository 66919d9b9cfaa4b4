//! What a person decides about one saga: cancel it, try again, skip, pause, end it by force.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::guard::Signed;
use super::problem::Problem;
use super::sagas::{json_body, parse, path, saga_id};
use super::{Context, Shared, audit};
use crate::access::Caller;
use crate::error::code;
use crate::id::StepPath;
use crate::saga::{OperatorAction, OperatorKind};
use crate::store::dead_letters::Actor;
use crate::view::{HeadView, read_head};

/// Longest words of an operator, in bytes; they go into the journal.
const OPERATOR_BYTES_MAX: usize = 1_000;

/// Who does something to a saga, and why; it all goes into its journal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionRequest {
    #[serde(alias = "on_behalf_of")]
    by: Option<String>,
    why: String,
    /// What the action is deduplicated by.
    id: Option<String>,
    /// Which step, for `retry` and `skip`.
    step: Option<StepPath>,
    /// What the command carries from now on, for `retry` of a step.
    #[serde(default, deserialize_with = "present")]
    with: Option<Value>,
    /// What came of it, for `skip`.
    #[serde(default, alias = "result", deserialize_with = "present")]
    reply: Option<Value>,
}

/// What is there is `Some`, also if it is null.
pub(super) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// `POST /sagas/{id}/{action}`: what a person decides about one saga.
pub(super) async fn operate(
    State(context): Shared,
    Signed(caller): Signed,
    place: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<HeadView>, Problem> {
    let Path((id, action)) = place.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    act(&context, &caller, &id, &action, &headers, body).await
}

/// `POST /sagas/{id}/force-complete`, which needs a scope of its own.
pub(super) async fn force_complete(
    State(context): Shared,
    Signed(caller): Signed,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<HeadView>, Problem> {
    act(
        &context,
        &caller,
        &path(id)?,
        "force-complete",
        &headers,
        body,
    )
    .await
}

/// `POST /sagas/{id}/force-compensated`, likewise.
pub(super) async fn force_compensated(
    State(context): Shared,
    Signed(caller): Signed,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<HeadView>, Problem> {
    act(
        &context,
        &caller,
        &path(id)?,
        "force-compensated",
        &headers,
        body,
    )
    .await
}

async fn act(
    context: &Context,
    caller: &Caller,
    id: &str,
    action: &str,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<HeadView>, Problem> {
    let id = saga_id(id)?;
    let request: ActionRequest = parse(&json_body(context, headers, body)?)?;
    let by = author(caller, request.by.as_deref(), &request.why, "the journal")?;
    let kind = operator_kind(action, &request)?;
    let action = OperatorAction {
        id: request
            .id
            .unwrap_or_else(|| context.api.engine.new_id().to_string()),
        by,
        why: request.why,
        kind,
    };
    let actor = Actor {
        by: action.by.clone(),
        why: action.why.clone(),
        at: context.api.engine.now(),
    };
    let (step, action_id) = (request.step.map(|step| step.to_string()), action.id.clone());
    let audited = audited(&action.kind);
    context.api.engine.operate(id, action).await?;
    let head = read_head(&**context.api.engine.store(), id).await?;
    let head = head.ok_or_else(|| Problem::no_saga(id))?;
    let detail =
        json!({ "saga": id, "name": head.name, "key": head.key, "step": step, "id": action_id });
    audit::note(context, &actor, audited, detail).await;
    Ok(Json(HeadView::new(&head)))
}

/// As the audit log calls it.
fn audited(kind: &OperatorKind) -> &'static str {
    match kind {
        OperatorKind::Retry { .. } => "saga-retry",
        OperatorKind::Skip { .. } => "saga-skip",
        OperatorKind::Cancel => "saga-cancel",
        OperatorKind::Pause => "saga-pause",
        OperatorKind::Resume => "saga-resume",
        OperatorKind::ForceComplete => "saga-force-complete",
        OperatorKind::ForceCompensated => "saga-force-compensated",
    }
}

/// Who does it, as it is put down: whoever is signed in, and for whom they say they do it; where
/// nobody must sign in, whoever they say they are. Fails if nobody is named, or nothing for `why`.
pub(super) fn author(
    caller: &Caller,
    said: Option<&str>,
    why: &str,
    into: &str,
) -> Result<String, Problem> {
    let author = caller.author(said).unwrap_or_default();
    for (field, words) in [("by", said.unwrap_or(&author)), ("why", why)] {
        if words.trim().is_empty() || words.len() > OPERATOR_BYTES_MAX {
            return Err(Problem::malformed(format!(
                "`{field}` must have between 1 and {OPERATOR_BYTES_MAX} bytes: it goes into {into}"
            )));
        }
    }
    Ok(author)
}

fn operator_kind(action: &str, request: &ActionRequest) -> Result<OperatorKind, Problem> {
    let shared = |value: &Option<Value>| value.clone().map(Arc::new);
    let step = request.step.clone();
    for (field, given, only) in [
        ("with", request.with.is_some(), "retry"),
        ("reply", request.reply.is_some(), "skip"),
    ] {
        if given && action != only {
            let why = format!("`{field}` is for `{only}`, not for `{action}`");
            return Err(Problem::malformed(why));
        }
    }
    Ok(match (action, step) {
        ("retry", step) => OperatorKind::Retry {
            step,
            with: shared(&request.with),
        },
        ("skip", Some(step)) => OperatorKind::Skip {
            step,
            reply: shared(&request.reply),
        },
        ("skip", None) => {
            return Err(Problem::malformed(
                "`skip` needs `step`, as in \"stock[2]\"".to_owned(),
            ));
        }
        (_, Some(_)) => {
            return Err(Problem::malformed(format!(
                "`{action}` is about the whole saga, not a `step`"
            )));
        }
        ("cancel", None) => OperatorKind::Cancel,
        ("pause", None) => OperatorKind::Pause,
        ("resume", None) => OperatorKind::Resume,
        ("force-complete", None) => OperatorKind::ForceComplete,
        ("force-compensated", None) => OperatorKind::ForceCompensated,
        _ => {
            let known = "cancel, retry, skip, pause, resume, force-complete, force-compensated";
            return Err(Problem::not_found(
                code::REQUEST_MALFORMED,
                format!("`{action}` can't be done to a saga; what can: {known}"),
            ));
        }
    })
}
