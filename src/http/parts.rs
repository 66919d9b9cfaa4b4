//! A long saga in parts: a summary, pages of its steps, pages of its journal.
//!
//! A saga of ten thousand items has as many steps and twice as many entries, which nobody wants to read whole for
//! each look. So parts are made of its newest snapshot and what came after it, kept for a moment between
//! one page and the next, and say that nothing was verified.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use super::problem::Problem;
use super::sagas::{self, path, saga_id};
use super::{Context, Shared};
use crate::definition::Definition;
use crate::error::code;
use crate::id::SagaId;
use crate::saga::journal::JournalEntry;
use crate::store::{LoadRequest, SagaHead};
use crate::view::{Standing, SummaryView, json_of, moments_of, read_head};

/// Sagas that are kept from one page to the next.
const KEPT_MAX: usize = 4;
/// Of how many bytes one may be made to be kept.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Sagas that are read and folded at once: a large one is as much as a node has memory for.
const AT_ONCE: usize = 2;
/// Rows of a page when the request does not say, and at most.
const ROWS_DEFAULT: usize = 100;
const ROWS_MAX: usize = 1_000;
/// A page is full when it has so many bytes.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Entries that are read at once: each may be of more than a megabyte.
const ENTRIES_AT_ONCE: usize = 50;
/// Newest entries in which it is looked for when a wait began.
const RECENT: u64 = 500;

/// Sagas that were asked for last.
pub(super) struct Kept {
    standings: Mutex<VecDeque<Arc<Standing>>>,
    permits: Semaphore,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            standings: Mutex::default(),
            permits: Semaphore::new(AT_ONCE),
        }
    }
}

impl Kept {
    fn get(&self, id: SagaId) -> Option<Arc<Standing>> {
        let standings = self
            .standings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        standings.iter().find(|it| it.head.id == id).cloned()
    }

    fn put(&self, standing: &Arc<Standing>) {
        let mut standings = self
            .standings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        standings.retain(|it| it.head.id != standing.head.id);
        if standing.bytes <= KEPT_BYTES_MAX {
            standings.push_front(Arc::clone(standing));
            standings.truncate(KEPT_MAX);
        }
    }
}

/// Where a saga stands.
async fn standing(context: &Context, id: SagaId) -> Result<Arc<Standing>, Problem> {
    let kept = &context.parts;
    // Nothing closes the semaphore.
    let _permit = kept.permits.acquire().await;
    let before = kept.get(id);
    let after = before.as_ref().map_or(0, |before| before.head.revision);
    let store = context.api.engine.store();
    let mut loaded = store.load(&[LoadRequest { id, after }]).await?;
    let loaded = loaded.pop().flatten().ok_or_else(|| Problem::no_saga(id))?;
    if let Some(before) = before.as_ref().filter(|before| before.head == loaded.head) {
        return Ok(Arc::clone(before));
    }
    let folding = move || Standing::fold(loaded, before.as_deref());
    let folded = tokio::task::spawn_blocking(folding).await;
    let folded = folded.unwrap_or_else(|panicked| Err(panicked.to_string()));
    let standing = Arc::new(folded.map_err(|why| unreadable(id, &why))?);
    kept.put(&standing);
    Ok(standing)
}

fn unreadable(id: SagaId, why: &str) -> Problem {
    let reason = format!("saga {id} can't be read: {why}; `GET /sagas/{id}` shows what can");
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Problem::new(status, code::JOURNAL_UNREADABLE, reason)
}

pub(super) async fn definition_of(
    context: &Context,
    head: &SagaHead,
) -> Result<Option<Arc<Definition>>, Problem> {
    let (engine, version) = (&context.api.engine, head.version);
    let found = engine.catalogue();
    let found = found
        .version(&**engine.store(), &head.name, version)
        .await?;
    Ok(found.and_then(Result::ok))
}

/// `GET /sagas/{id}?only=summary`: a saga without its steps and its journal.
pub(super) async fn summary(context: &Context, id: SagaId) -> Result<SummaryView, Problem> {
    let standing = standing(context, id).await?;
    let definition = definition_of(context, &standing.head).await?;
    let after = standing.head.revision.saturating_sub(RECENT);
    let recent = entries_after(context, id, after, standing.head.revision).await?;
    let mut view = SummaryView::new(&standing, &recent, definition.as_deref());
    if let Some(why) = &mut view.why {
        sagas::look(context, id, why).await;
    }
    Ok(view)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepsQuery {
    path: Option<String>,
    stage: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /sagas/{id}/steps`: in the definition's order.
pub(super) async fn steps(
    State(context): Shared,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<StepsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let id = saga_id(&path(id)?)?;
    let Query(query) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let standing = standing(&context, id).await?;
    let definition = definition_of(&context, &standing.head).await?;
    let mut steps = standing.steps(definition.as_deref()).into_iter();
    if let Some(after) = &query.after
        && !steps.any(|step| step.step == *after)
    {
        return Err(Problem::malformed(
            "`after` is the `next` of the page before; this saga has no such step",
        ));
    }
    let stages: Option<Vec<&str>> = query.stage.as_deref().map(|it| it.split(',').collect());
    let is_wanted = |step: &crate::view::StepView| {
        let path = query.path.as_deref();
        path.is_none_or(|path| step.is_at(path))
            && (stages.as_ref()).is_none_or(|stages| stages.contains(&step.status.key()))
    };
    let mut page = Page::new(query.limit);
    for step in steps.filter(|step| is_wanted(step)) {
        if page.is_full() {
            page.more = true;
            break;
        }
        page.last = Some(step.step.clone());
        page.add(&step)?;
    }
    Ok(page.answer("steps", &standing.head))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimelineQuery {
    after: Option<u64>,
    before: Option<u64>,
    limit: Option<usize>,
}

/// `GET /sagas/{id}/timeline`: newest first; with `after`, in order.
pub(super) async fn timeline(
    State(context): Shared,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<TimelineQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let id = saga_id(&path(id)?)?;
    let Query(query) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let store = &**context.api.engine.store();
    let head = read_head(store, id).await?;
    let head = head.ok_or_else(|| Problem::no_saga(id))?;
    let definition = definition_of(&context, &head).await?;
    let newest = head.revision;
    let mut page = Page::new(query.limit);
    let (mut first, mut last) = match (query.after, query.before) {
        (Some(_), Some(_)) => {
            return Err(Problem::malformed("one of `after` and `before`, not both"));
        }
        (Some(after), None) => (after.min(newest), newest),
        (None, before) => (0, before.map_or(newest, |before| before.saturating_sub(1))),
    };
    last = last.min(newest);
    let is_backwards = query.after.is_none();
    // Entries after `first` up to and with `last` are still to come.
    while first < last && !page.is_full() {
        let count = (last - first).min(page.room().min(ENTRIES_AT_ONCE) as u64);
        let after = if is_backwards { last - count } else { first };
        let entries = entries_after(&context, id, after, after + count).await?;
        if entries.is_empty() {
            break;
        }
        let mut moments = moments_of(definition.as_deref(), &head, &entries);
        if is_backwards {
            moments.reverse();
        }
        for moment in moments {
            if page.is_full() {
                break;
            }
            page.add(&moment)?;
            if is_backwards {
                last = moment.seq - 1;
            } else {
                first = moment.seq;
            }
        }
    }
    page.more = first < last;
    page.last = Some(if is_backwards { last + 1 } else { first }.to_string());
    page.last_is_number = true;
    Ok(page.answer("timeline", &head))
}

/// Entries after one up to and with another, in pages.
async fn entries_after(
    context: &Context,
    id: SagaId,
    mut after: u64,
    last: u64,
) -> Result<Vec<JournalEntry>, Problem> {
    let store = context.api.engine.store();
    let mut entries = Vec::new();
    while after < last {
        let wanted = usize::try_from(last - after).unwrap_or(usize::MAX);
        let page = store.journal(id, after, wanted.min(ROWS_MAX)).await?;
        let Some(newest) = page.last() else {
            break;
        };
        after = newest.seq;
        entries.extend(page);
    }
    Ok(entries)
}

/// A page that is being filled.
struct Page {
    rows: Vec<String>,
    bytes: usize,
    limit: usize,
    /// Whether there are more.
    more: bool,
    /// The last one of the page.
    last: Option<String>,
    last_is_number: bool,
}

impl Page {
    fn new(limit: Option<usize>) -> Self {
        Self {
            rows: Vec::new(),
            bytes: 0,
            limit: limit.unwrap_or(ROWS_DEFAULT).clamp(1, ROWS_MAX),
            more: false,
            last: None,
            last_is_number: false,
        }
    }

    fn is_full(&self) -> bool {
        self.room() == 0 || self.bytes >= PAGE_BYTES
    }

    fn room(&self) -> usize {
        self.limit - self.rows.len()
    }

    fn add(&mut self, row: &impl Serialize) -> Result<(), Problem> {
        let text = json_of(row).map_err(|error| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, code::JOURNAL_UNREADABLE, error.to_string())
        })?;
        self.bytes += text.len();
        self.rows.push(text);
        Ok(())
    }

    fn answer(self, what: &str, head: &SagaHead) -> Response {
        let next = self.last.filter(|_| self.more);
        let next = match next {
            Some(next) if self.last_is_number => next,
            next => json!(next).to_string(),
        };
        let json = format!(
            "{{\"saga_id\":\"{}\",\"revision\":{},\"verified\":null,\"{what}\":[{}],\"next\":{next}}}",
            head.id,
            head.revision,
            self.rows.join(",")
        );
        ([(header::CONTENT_TYPE, "application/json")], json).into_response()
    }
}

#[cfg(test)]
mod tests;
