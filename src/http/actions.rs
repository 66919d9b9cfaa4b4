//! What a person decides about one saga: cancel it, try again, skip, pause, end it by force.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::Deserialize;

use super::Shared;
use super::problem::Problem;
use super::sagas::{json_body, parse, saga_id};
use crate::error::code;
use crate::id::StepPath;
use crate::saga::{OperatorAction, OperatorKind};
use crate::view::{HeadView, read_head};

/// Longest words of an operator, in bytes; they go into the journal.
const OPERATOR_BYTES_MAX: usize = 1_000;

/// Who does something to a saga, and why; it all goes into its journal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionRequest {
    by: String,
    why: String,
    /// What the action is deduplicated by.
    id: Option<String>,
    /// Which step, for `retry` and `skip`.
    step: Option<StepPath>,
}

/// `POST /sagas/{id}/{action}`: what a person decides about one saga.
pub(super) async fn operate(
    State(context): Shared,
    place: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<HeadView>, Problem> {
    let Path((id, action)) = place.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let id = saga_id(&id)?;
    let request: ActionRequest = parse(&json_body(&context, &headers, body)?)?;
    for (field, words) in [("by", &request.by), ("why", &request.why)] {
        if words.trim().is_empty() || words.len() > OPERATOR_BYTES_MAX {
            return Err(Problem::malformed(format!(
                "`{field}` must have between 1 and {OPERATOR_BYTES_MAX} bytes: it goes into the journal"
            )));
        }
    }
    let kind = operator_kind(&action, request.step)?;
    let action = OperatorAction {
        id: request
            .id
            .unwrap_or_else(|| context.api.engine.new_id().to_string()),
        by: request.by,
        why: request.why,
        kind,
    };
    context.api.engine.operate(id, action).await?;
    let head = read_head(&**context.api.engine.store(), id).await?;
    let head = head.ok_or_else(|| Problem::no_saga(id))?;
    Ok(Json(HeadView::new(&head)))
}

fn operator_kind(action: &str, step: Option<StepPath>) -> Result<OperatorKind, Problem> {
    Ok(match (action, step) {
        ("retry", step) => OperatorKind::Retry { step },
        ("skip", Some(step)) => OperatorKind::Skip { step },
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
