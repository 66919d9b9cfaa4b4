//! How far schedules have come, and setting one back (or on) by hand.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::actions::author;
use super::guard::Signed;
use super::problem::Problem;
use super::sagas::{json_body, parse, path};
use super::{Context, Shared, audit};
use crate::error::code;
use crate::id::Timestamp;
use crate::store::dead_letters::Actor;
use crate::store::{Moved, ScheduleRow};
use crate::view::ScheduleView;

/// Ticks to come that are told of each.
const TICKS_TOLD: usize = 5;

/// All schedules.
#[derive(Serialize)]
pub(super) struct Listed {
    /// The time by which they tick, RFC 3339.
    now: String,
    schedules: Vec<Line>,
}

/// One, and when it ticks.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    view: ScheduleView,
    /// The next ticks, if this node has its definition.
    next: Vec<String>,
}

/// Where to, who, why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveRequest {
    to: String,
    #[serde(alias = "on_behalf_of")]
    by: Option<String>,
    why: String,
    /// Which, if the definition has had several.
    rhythm: Option<String>,
}

/// `GET /schedules`: how far each has come.
pub(super) async fn list(State(context): Shared) -> Result<Json<Listed>, Problem> {
    let now = context.api.engine.now();
    let rows = context.api.engine.store().schedules().await?;
    let line = |row: &ScheduleRow| Line {
        view: ScheduleView::new(row, now),
        next: ticks(&context, row, now)
            .iter()
            .map(Timestamp::to_string)
            .collect(),
    };
    Ok(Json(Listed {
        now: now.to_string(),
        schedules: rows.iter().map(line).collect(),
    }))
}

/// The ticks of a schedule that are still to come.
fn ticks(context: &Context, row: &ScheduleRow, now: Timestamp) -> Vec<Timestamp> {
    let newest = context.api.engine.catalogue().newest(&row.key.name);
    let every = newest
        .as_ref()
        .and_then(|newest| newest.start.every.as_ref());
    let Some(every) = every.filter(|every| every.rhythm() == row.key.rhythm) else {
        return Vec::new();
    };
    let from = row.settled.max(now);
    let following = std::iter::successors(every.next_after(from), |tick| every.next_after(*tick));
    following.take(TICKS_TOLD).collect()
}

/// `POST /schedules/{saga}`: sets a position. Ticks after it that have passed are started as
/// `catch_up` says.
pub(super) async fn set(
    State(context): Shared,
    Signed(caller): Signed,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ScheduleView>, Problem> {
    let name = path(name)?;
    let request: MoveRequest = parse(&json_body(&context, &headers, body)?)?;
    let said = request.by.as_deref();
    let by = author(&caller, said, &request.why, "the schedule's row")?;
    let to: Timestamp = request.to.parse().map_err(|_| {
        let to: String = request.to.chars().take(40).collect();
        Problem::malformed(format!(
            "`to` must be a point in time as RFC 3339 has it, such as 2026-01-31T12:00:00Z, not `{to}`"
        ))
    })?;
    let row = one(&context, &name, request.rhythm.as_deref()).await?;
    let now = context.api.engine.now();
    let moved = Moved {
        by,
        why: request.why,
        at: now,
    };
    let store = context.api.engine.store();
    let found = store.move_schedule(&row.key, to, &moved).await?;
    if !found {
        return Err(unknown(&name));
    }
    tracing::warn!(
        saga.name = %name, from = %row.settled, %to, by = %moved.by, why = %moved.why,
        "a person has set the schedule's position"
    );
    let actor = Actor {
        by: moved.by.clone(),
        why: moved.why.clone(),
        at: now,
    };
    let detail = json!({ "name": name, "rhythm": row.key.rhythm, "to": to.to_string() });
    audit::note(&context, &actor, "schedule-move", detail).await;
    let row = ScheduleRow {
        settled: to,
        moved: Some(moved),
        ..row
    };
    Ok(Json(ScheduleView::new(&row, now)))
}

/// The schedule that is meant: the only one of that name that nodes have loaded, or the one named
/// by its rhythm.
async fn one(context: &Context, name: &str, rhythm: Option<&str>) -> Result<ScheduleRow, Problem> {
    let rows = context.api.engine.store().schedules().await?;
    let mut rows: Vec<ScheduleRow> = rows
        .into_iter()
        .filter(|row| row.key.name == name && rhythm.is_none_or(|it| it == row.key.rhythm))
        .collect();
    if rows.iter().any(|row| row.absent_since.is_none()) {
        rows.retain(|row| row.absent_since.is_none());
    }
    match rows.len() {
        0 => Err(unknown(name)),
        1 => Ok(rows.remove(0)),
        _ => {
            let rhythms: Vec<&str> = rows.iter().map(|row| row.key.rhythm.as_str()).collect();
            Err(Problem::malformed(format!(
                "`{name}` has had several schedules; say which in `rhythm`: `{}`",
                rhythms.join("`, `")
            )))
        }
    }
}

fn unknown(name: &str) -> Problem {
    let name: String = name.chars().take(100).collect();
    let reason = format!("no schedule of `{name}` is known; GET /schedules lists those that are");
    Problem::new(StatusCode::NOT_FOUND, code::SCHEDULE_UNKNOWN, reason)
}
