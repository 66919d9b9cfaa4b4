//! Finding sagas: lists, groups by cause, and what waits for people. The parameters are those of [`Filter`], and for a list
//! its order and page.

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;

use super::Shared;
use super::problem::Problem;
use crate::id::Timestamp;
use crate::store::search::{CAUSES_MAX, COUNT_MAX, PAGE_ROWS_MAX, SearchPage};
use crate::store::{Filter, FilterError};
use crate::view::{CauseGroupView, ListView, TASKS_MAX, TaskListView, read_tasks};

/// Rows of a page when the request does not say.
const ROWS_DEFAULT: usize = 100;
/// Longest query, in bytes.
const QUERY_BYTES_MAX: usize = 64 * 1024;

impl From<FilterError> for Problem {
    fn from(error: FilterError) -> Self {
        Self::malformed(error.to_string())
    }
}

/// A query's parameters: those of a filter, and the others in order.
pub(super) fn parameters(
    RawQuery(query): RawQuery,
    now: Timestamp,
) -> Result<(Filter, Vec<(String, String)>), Problem> {
    let query = query.unwrap_or_default();
    if query.len() > QUERY_BYTES_MAX {
        return Err(Problem::malformed(format!(
            "the query is longer than {QUERY_BYTES_MAX} bytes"
        )));
    }
    let (mut filter, mut others) = (Filter::default(), Vec::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if !filter.set(&name, &value, now)? {
            others.push((name.into_owned(), value.into_owned()));
        }
    }
    Ok((filter, others))
}

fn number(name: &str, value: &str) -> Result<usize, Problem> {
    value
        .parse()
        .map_err(|_| Problem::malformed(format!("`{name}` must be a whole number")))
}

/// `GET /sagas`: newest first, or as `sort` says.
pub(super) async fn list(
    State(context): Shared,
    query: RawQuery,
) -> Result<Json<ListView>, Problem> {
    let (filter, others) = parameters(query, context.api.engine.now())?;
    let mut page = SearchPage::newest(ROWS_DEFAULT);
    let (mut after, mut counted) = (None, false);
    for (name, value) in &others {
        match name.as_str() {
            "limit" => page.limit = number(name, value)?.min(PAGE_ROWS_MAX),
            "sort" => page = page.sorted(value).map_err(Problem::malformed)?,
            "before" | "after" => after = Some(value),
            "count" => counted = value == "true",
            _ => return Err(FilterError::unknown(name, value).into()),
        }
    }
    if let Some(after) = after {
        page = page.following(after).map_err(Problem::malformed)?;
    }
    let search = &context.api.search;
    let heads = search.search(&filter, &page).await?;
    let ids: Vec<_> = heads.iter().map(|head| head.id).collect();
    let labels = search.labels(&ids).await?;
    let mut view = ListView::new(&heads, &labels, &page);
    if counted {
        view.count = Some(search.count(&filter, COUNT_MAX).await?.into());
    }
    Ok(Json(view))
}

/// The answer of `GET /sagas/groups`.
#[derive(Debug, Serialize)]
pub(super) struct Groups {
    groups: Vec<CauseGroupView>,
}

/// `GET /sagas/groups`: sagas in trouble by cause, most first; live ones unless `status` says others.
pub(super) async fn groups(
    State(context): Shared,
    query: RawQuery,
) -> Result<Json<Groups>, Problem> {
    let now = context.api.engine.now();
    let (mut filter, others) = parameters(query, now)?;
    let mut limit = ROWS_DEFAULT;
    for (name, value) in &others {
        match name.as_str() {
            "limit" => limit = number(name, value)?.min(CAUSES_MAX),
            _ => return Err(FilterError::unknown(name, value).into()),
        }
    }
    if filter.statuses.is_empty() {
        filter.set("status", "live", now)?;
    }
    let groups = context.api.search.groups(&filter, now, limit).await?;
    Ok(Json(Groups {
        groups: groups.iter().map(CauseGroupView::new).collect(),
    }))
}

/// `GET /tasks`: what waits for a signal or a person, of the oldest sagas first.
pub(super) async fn tasks(
    State(context): Shared,
    query: RawQuery,
) -> Result<Json<TaskListView>, Problem> {
    let (filter, others) = parameters(query, context.api.engine.now())?;
    let (mut limit, mut after) = (ROWS_DEFAULT, None);
    for (name, value) in &others {
        match name.as_str() {
            "limit" => limit = number(name, value)?.min(TASKS_MAX),
            "after" => {
                let wrong = |_| Problem::malformed("`after` is the `next` of the page before");
                after = Some(value.parse().map_err(wrong)?);
            }
            _ => return Err(FilterError::unknown(name, value).into()),
        }
    }
    let store = &**context.api.engine.store();
    let list = read_tasks(store, &*context.api.search, &filter, after, limit).await?;
    Ok(Json(list))
}
