//! What waits for somebody outside: the signals and the people that live sagas wait for.
//!
//! Read from the sagas themselves, for a row names but one of the steps that wait. Only sagas that can
//! have something to do are read: suspended ones, and those of definitions with a `wait`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::history::{History, fold, read_history};
use super::wait::Known;
use super::why::{WaitKind, WhyView};
use super::{steps, timeline};
use crate::definition::{BlockKind, Definition, parse_stored};
use crate::id::SagaId;
use crate::store::search::{Cursor, SagaSearch, SearchPage};
use crate::store::{Filter, SagaHead, Status, Store, StoreError};

/// Most tasks of a page; those of one saga are never parted.
pub const TASKS_MAX: usize = 200;
/// Most sagas that are read for one page.
const SAGAS_READ_MAX: usize = 500;
/// Sagas that are searched at once.
const SAGAS_AT_ONCE: usize = 50;

/// Something that a saga waits for somebody to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskView {
    /// The saga.
    pub saga_id: SagaId,
    /// Its definition's name.
    pub saga: String,
    /// Its business key.
    pub key: String,
    /// Its status.
    pub status: Status,
    /// What is waited for, with `step`, `signal`, `since` and `until`.
    #[serde(flatten)]
    pub why: WhyView,
}

/// A page of tasks, of the sagas that started first.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TaskListView {
    /// The tasks.
    pub tasks: Vec<TaskView>,
    /// What to pass as `after` for the next page, if there may be one, also if this one is empty.
    pub next: Option<SagaId>,
}

/// The tasks of one saga.
pub fn tasks_of(history: &History, definition: Option<&Definition>) -> Vec<TaskView> {
    let History { head, entries } = history;
    let (saga, _) = fold(history);
    let steps = match definition {
        Some(definition) => steps::all(definition, &saga),
        None => steps::reached(&saga),
    };
    let timeline = timeline::moments(definition, head.started_at, entries);
    let known = Known {
        saga: &saga,
        awaits: head.awaits.as_ref(),
        definition,
        steps: &steps,
        timeline: &timeline,
    };
    let task = |why| TaskView {
        saga_id: head.id,
        saga: head.name.clone(),
        key: head.key.clone(),
        status: head.status,
        why,
    };
    known.for_people().into_iter().map(task).collect()
}

/// Reads a page of the tasks of those sagas that fit.
pub async fn read_tasks(
    store: &dyn Store,
    search: &dyn SagaSearch,
    filter: &Filter,
    mut after: Option<SagaId>,
    limit: usize,
) -> Result<TaskListView, StoreError> {
    let definitions = Definitions::read(store).await?;
    let mut list = TaskListView::default();
    let mut read = 0;
    while read < SAGAS_READ_MAX {
        let heads = candidates(search, filter, &definitions, after).await?;
        let is_last = heads.len() < SAGAS_AT_ONCE;
        for head in heads {
            if list.tasks.len() >= limit.min(TASKS_MAX) {
                list.next = after;
                return Ok(list);
            }
            after = Some(head.id);
            read += 1;
            if let Some(history) = read_history(store, head.id).await? {
                let definition = definitions.0.get(&(head.name, head.version));
                list.tasks.extend(tasks_of(&history, definition));
            }
        }
        if is_last {
            return Ok(list);
        }
    }
    list.next = after;
    Ok(list)
}

/// Those that are stored and can be read, by name and version.
struct Definitions(BTreeMap<(String, u32), Definition>);

impl Definitions {
    async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let rows = store.definitions().await?.into_iter();
        let read = rows.filter_map(|row| {
            let definition = parse_stored(&row.source, "stored definition").ok()?;
            Some(((row.name, row.version), definition))
        });
        Ok(Self(read.collect()))
    }

    /// Names of those whose sagas may wait for a signal.
    fn that_wait(&self) -> BTreeSet<&str> {
        let waits = |definition: &Definition| {
            let mut blocks = definition.blocks.iter();
            blocks.any(|block| matches!(block.kind, BlockKind::Wait(_)))
        };
        let all = self.0.iter().filter(|(_, definition)| waits(definition));
        all.map(|((name, _), _)| name.as_str()).collect()
    }
}

/// Sagas that fit and may have tasks, in the order of their start.
async fn candidates(
    search: &dyn SagaSearch,
    filter: &Filter,
    definitions: &Definitions,
    after: Option<SagaId>,
) -> Result<Vec<SagaHead>, StoreError> {
    let page = SearchPage {
        ascending: true,
        after: after.map(Cursor::Started),
        ..SearchPage::newest(SAGAS_AT_ONCE)
    };
    let wanted = |status: &Status| filter.statuses.is_empty() || filter.statuses.contains(status);
    let mut found = Vec::new();
    let suspended = [Status::Suspended].into_iter().filter(wanted).collect();
    let going = [Status::Running, Status::Confirming, Status::Compensating];
    let going: Vec<Status> = going.into_iter().filter(wanted).collect();
    let names = definitions.that_wait().into_iter();
    let names = names.filter(|name| filter.name.as_deref().is_none_or(|wanted| wanted == *name));
    let waiting = names.map(|name| (Some(name.to_owned()), going.clone()));
    for (name, statuses) in [(filter.name.clone(), suspended)]
        .into_iter()
        .chain(waiting)
    {
        if statuses.is_empty() {
            continue;
        }
        let part = Filter {
            name,
            statuses,
            ..filter.clone()
        };
        found.extend(search.search(&part, &page).await?);
    }
    found.sort_by_key(|head| head.id);
    found.truncate(SAGAS_AT_ONCE);
    Ok(found)
}

impl TaskView {
    /// What is to be done, in a few words.
    pub fn to_do(&self) -> String {
        match (self.why.r#for, &self.why.signal) {
            (WaitKind::Signal, Some(signal)) => format!("signal {signal}"),
            (WaitKind::Signal, None) => "signal".to_owned(),
            (WaitKind::Resume, _) => "resume".to_owned(),
            _ => "retry or skip".to_owned(),
        }
    }
}
