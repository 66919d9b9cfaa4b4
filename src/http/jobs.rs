//! Acting on many sagas: making a job, looking at it, stopping it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::actions::{author, present};
use super::guard::Signed;
use super::problem::Problem;
use super::sagas::{json_body, parse, path};
use super::{Context, Shared};
use crate::access::Caller;
use crate::access::rights::{Reach, Scope};
use crate::error::code;
use crate::id::SagaId;
use crate::jobs::{JobAction, JobResultView, JobView, Rate, Skip};
use crate::saga::OperatorKind;
use crate::store::dead_letters::Actor;
use crate::store::jobs::JOB_ROWS_MAX;
use crate::store::search::{COUNT_MAX, SearchPage};
use crate::store::{Filter, JobCommand, JobRow, JobState};
use crate::view::{CountView, HeadView};

/// Sagas that a dry run shows.
const SAMPLE_ROWS: usize = 10;
/// Rows of a page when the request does not say.
const ROWS_DEFAULT: usize = 100;
/// Most sagas that may come first.
const CANARY_MAX: u32 = 50;
/// Where the words go, for messages.
const INTO: &str = "the journal of each saga and the audit log";

/// What is to be done, to which sagas, how.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    action: String,
    /// Which sagas, as the query of a list says it.
    filter: String,
    #[serde(alias = "on_behalf_of")]
    by: Option<String>,
    why: String,
    rate: Option<String>,
    #[serde(default)]
    canary: u32,
    #[serde(default)]
    dry_run: bool,
    /// For `skip`: what comes of each step instead.
    #[serde(default, alias = "result", deserialize_with = "present")]
    reply: Option<Value>,
    /// For `signal`.
    signal: Option<String>,
    #[serde(default)]
    payload: Value,
}

/// `POST /jobs`: makes a job; or, with `dry_run`, says what it would be about.
pub(super) async fn make(
    State(context): Shared,
    Signed(caller): Signed,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let order: Order = parse(&json_body(&context, &headers, body)?)?;
    let by = author(&caller, order.by.as_deref(), &order.why, INTO)?;
    let action = action(&order)?;
    let needed = match &action {
        JobAction::Signal { .. } => Scope::SignalsSend,
        JobAction::Operate(OperatorKind::ForceComplete | OperatorKind::ForceCompensated) => {
            Scope::SagasForce
        }
        _ => Scope::SagasOperate,
    };
    must_reach(&caller, needed)?;
    let now = context.api.engine.now();
    let filter = filter(&order.filter, &action, &context)?;
    let rate = order.rate.as_deref().map(str::parse::<Rate>).transpose();
    let rate = rate.map_err(Problem::malformed)?;
    if order.canary > CANARY_MAX {
        return Err(Problem::malformed(format!(
            "`canary` is at most {CANARY_MAX}"
        )));
    }
    let search = &context.api.search;
    let total = search.count(&filter, COUNT_MAX).await?;
    if order.dry_run {
        let sample = SearchPage {
            ascending: true,
            ..SearchPage::newest(SAMPLE_ROWS)
        };
        let sample = search.search(&filter, &sample).await?;
        let sample: Vec<_> = sample.iter().map(HeadView::new).collect();
        let answer = json!({ "total": CountView::from(total), "sample": sample });
        return Ok(Json(answer).into_response());
    }
    let job = JobRow {
        id: context.api.engine.new_id(),
        made_at: now,
        by,
        why: order.why,
        filter: filter.text(),
        action: serde_json::to_string(&action).unwrap_or_default(),
        per_minute: rate.map(|rate| rate.per_minute),
        canary: order.canary,
        total,
        state: JobState::Running,
        note: None,
        cursor: None,
        done: 0,
        refused: 0,
        canary_seen: false,
        version: 0,
        held_until: crate::id::Timestamp::default(),
        updated_at: now,
    };
    context.api.jobs.put_job(&job).await?;
    tracing::info!(job.id = %job.id, by = job.by, action = action.as_str(), filter = job.filter, "a job is made");
    Ok((StatusCode::CREATED, Json(JobView::new(&job))).into_response())
}

/// Whoever acts on many may act on each.
fn must_reach(caller: &Caller, scope: Scope) -> Result<(), Problem> {
    match caller.rights.reach(scope) {
        Reach::All => Ok(()),
        _ => Err(Problem::new(
            StatusCode::FORBIDDEN,
            code::SCOPE_MISSING,
            format!("this action needs the scope `{scope}` for all sagas"),
        )),
    }
}

/// Which sagas; live ones where nothing is said of it: the others can't be acted on.
fn filter(text: &str, action: &JobAction, context: &Context) -> Result<Filter, Problem> {
    let now = context.api.engine.now();
    let mut filter = Filter::read(text, now)?;
    if filter.is_empty() {
        return Err(Problem::malformed(format!(
            "`filter` says nothing, and `{}` would be done to all sagas; say which, as in `name=place-order&status=suspended`, or `status=live` for all",
            action.as_str()
        )));
    }
    if filter.statuses.is_empty() {
        filter.set("status", "live", now)?;
    }
    Ok(filter)
}

fn action(order: &Order) -> Result<JobAction, Problem> {
    let only = |field: &str, given: bool, of: &str| {
        if !given || order.action == of {
            return Ok(());
        }
        let reason = format!("`{field}` is for `{of}`, not for `{}`", order.action);
        Err(Problem::malformed(reason))
    };
    only("reply", order.reply.is_some(), "skip")?;
    only("signal", order.signal.is_some(), "signal")?;
    only("payload", !order.payload.is_null(), "signal")?;
    Ok(match (order.action.as_str(), &order.signal) {
        ("retry", _) => JobAction::Operate(OperatorKind::Retry {
            step: None,
            with: None,
        }),
        ("skip", _) => JobAction::SkipWhereSuspended {
            skip: Skip {
                reply: order.reply.clone().map(Into::into),
            },
        },
        ("cancel", _) => JobAction::Operate(OperatorKind::Cancel),
        ("pause", _) => JobAction::Operate(OperatorKind::Pause),
        ("resume", _) => JobAction::Operate(OperatorKind::Resume),
        ("force-complete", _) => JobAction::Operate(OperatorKind::ForceComplete),
        ("force-compensated", _) => JobAction::Operate(OperatorKind::ForceCompensated),
        ("signal", Some(signal)) if !signal.is_empty() => JobAction::Signal {
            signal: signal.clone(),
            payload: order.payload.clone(),
        },
        ("signal", _) => return Err(Problem::malformed("`signal` must say which signal")),
        (other, _) => {
            return Err(Problem::malformed(format!(
                "`{other}` can't be done to sagas; what can: retry, skip, cancel, pause, resume, force-complete, force-compensated, signal"
            )));
        }
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    before: Option<Uuid>,
    limit: Option<usize>,
}

/// `GET /jobs`: newest first.
pub(super) async fn list(
    State(context): Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let limit = query.limit.unwrap_or(ROWS_DEFAULT).clamp(1, JOB_ROWS_MAX);
    let jobs = context.api.jobs.jobs(query.before, limit).await?;
    let next = (jobs.len() == limit).then(|| jobs.last().map(|job| job.id));
    let jobs: Vec<_> = jobs.iter().map(JobView::new).collect();
    Ok(Json(json!({ "jobs": jobs, "next": next.flatten() })))
}

/// `GET /jobs/{job}`.
pub(super) async fn show(
    State(context): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<JobView>, Problem> {
    let id = job_id(&path(id)?)?;
    let job = context.api.jobs.job(id).await?;
    let job = job.ok_or_else(|| no_job(id))?;
    Ok(Json(JobView::new(&job)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResultsQuery {
    refused: Option<bool>,
    after: Option<SagaId>,
    limit: Option<usize>,
}

/// `GET /jobs/{job}/results`: what became of each saga, in order of id.
pub(super) async fn results(
    State(context): Shared,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<ResultsQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let id = job_id(&path(id)?)?;
    let Query(query) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let limit = query.limit.unwrap_or(ROWS_DEFAULT).clamp(1, JOB_ROWS_MAX);
    let jobs = &context.api.jobs;
    if jobs.job(id).await?.is_none() {
        return Err(no_job(id));
    }
    let only_refused = query.refused.unwrap_or(false);
    let results = jobs
        .job_results(id, only_refused, query.after, limit)
        .await?;
    let next = (results.len() == limit).then(|| results.last().map(|result| result.saga));
    let results: Vec<_> = results.iter().map(JobResultView::new).collect();
    Ok(Json(json!({ "results": results, "next": next.flatten() })))
}

/// Who says it, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    #[serde(alias = "on_behalf_of")]
    by: Option<String>,
    why: String,
}

/// `POST /jobs/{job}/{command}`: `pause`, `resume`, `abort`.
pub(super) async fn command(
    State(context): Shared,
    Signed(caller): Signed,
    place: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<JobView>, Problem> {
    let Path((id, command)) = place.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let id = job_id(&id)?;
    let (command, state) = match command.as_str() {
        "pause" => (JobCommand::Pause, JobState::Paused),
        "resume" => (JobCommand::Resume, JobState::Running),
        "abort" => (JobCommand::Abort, JobState::Aborted),
        other => {
            return Err(Problem::not_found(
                code::REQUEST_MALFORMED,
                format!("`{other}` can't be said of a job; what can: pause, resume, abort"),
            ));
        }
    };
    let said: Said = parse(&json_body(&context, &headers, body)?)?;
    let actor = Actor {
        by: author(&caller, said.by.as_deref(), &said.why, INTO)?,
        why: said.why,
        at: context.api.engine.now(),
    };
    let job = context.api.jobs.command_job(id, command, &actor).await?;
    let job = job.ok_or_else(|| no_job(id))?;
    if job.state != state {
        let reason = format!("the job is {} and stays so", job.state);
        return Err(Problem::new(
            StatusCode::CONFLICT,
            code::NOT_POSSIBLE,
            reason,
        ));
    }
    Ok(Json(JobView::new(&job)))
}

fn job_id(text: &str) -> Result<Uuid, Problem> {
    text.parse()
        .map_err(|_| Problem::malformed("a job's id is a UUID"))
}

fn no_job(id: Uuid) -> Problem {
    Problem::not_found(code::JOB_NOT_FOUND, format!("there is no job {id}"))
}
