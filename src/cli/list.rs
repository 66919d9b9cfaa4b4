//! `backstitch list`: sagas, newest first, from the database itself.

use clap::Args;

use super::backends::DatabaseArguments;
use super::exit::{Exit, Failure};
use super::filter::FilterArguments;
use super::output;
use crate::environment::{Environment, TokioEnvironment};
use crate::id::{SagaId, Timestamp};
use crate::store::Store;
use crate::store::search::{COUNT_MAX, PAGE_ROWS_MAX, SearchPage};
use crate::view::{FoundView, ListView};

/// Widest key and reason of a line, in characters.
pub(super) const CELL_CHARS_MAX: usize = 60;

/// Which sagas.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// In this order: started, ended or key; with `-` before it, the largest first.
    #[arg(long, default_value = "-started", allow_hyphen_values = true, value_parser = order)]
    sort: String,
    /// Only older than this saga: the last one of the page before.
    #[arg(long, value_name = "ID", conflicts_with_all = ["after", "sort"])]
    before: Option<SagaId>,
    /// Only what follows this: what the page before named.
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
    /// Say also how many there are, up to 10,000.
    #[arg(long)]
    count: bool,
    /// At most this many.
    #[arg(long, default_value_t = 50, value_parser = limit)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let page = SearchPage::newest(arguments.limit).sorted(&arguments.sort);
    let mut page = page.map_err(Failure::problems)?;
    let before = arguments.before.map(|id| id.to_string());
    if let Some(place) = before.or(arguments.after) {
        page = page.following(&place).map_err(Failure::problems)?;
    }
    let store = arguments.database.database()?.open_to_read().await?;
    let now = time_of(&*store.sagas()).await?;
    let filter = arguments.filter.filter(now)?;
    let search = store.search();
    let heads = search.search(&filter, &page).await.map_err(Failure::new)?;
    let ids: Vec<SagaId> = heads.iter().map(|head| head.id).collect();
    let labels = search.labels(&ids).await.map_err(Failure::new)?;
    let mut list = ListView::new(&heads, &labels, &page);
    if arguments.count {
        let count = search.count(&filter, COUNT_MAX).await;
        list.count = Some(count.map_err(Failure::new)?.into());
    }
    store.close().await;
    if arguments.json {
        output::print_json(&list)?;
        return Ok(Exit::Done);
    }
    if list.sagas.is_empty() {
        output::remark(format_args!("no sagas"));
        return Ok(Exit::Done);
    }
    output::print(&table(&list.sagas))?;
    if let Some(count) = list.count {
        output::remark(format_args!("{count} in all"));
    }
    if let Some(next) = list.next {
        output::remark(format_args!("there may be more: --after {next}"));
    }
    Ok(Exit::Done)
}

fn table(sagas: &[FoundView]) -> String {
    let header = [
        "ID",
        "SAGA",
        "KEY",
        "STATUS",
        "STARTED",
        "WAITS FOR",
        "REASON",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(sagas.iter().map(|FoundView { head, .. }| {
        let awaits = head.awaits.as_ref();
        let reason = head.cause.as_ref().map(|cause| cause.reason.as_str());
        let reason = head.reason.as_deref().or(reason).unwrap_or_default();
        vec![
            head.saga_id.to_string(),
            head.saga.clone(),
            output::shortened(&head.key, CELL_CHARS_MAX),
            head.status.to_string(),
            whole_seconds(&head.started_at),
            awaits.map_or_else(String::new, |spot| format!("{}/{}", spot.step, spot.phase)),
            output::shortened(reason, CELL_CHARS_MAX),
        ]
    }));
    output::table(&rows)
}

/// The database's time, or ours if it has none.
pub(super) async fn time_of(store: &dyn Store) -> Result<Timestamp, Failure> {
    let now = store.clock().await.map_err(Failure::new)?;
    Ok(now.unwrap_or_else(|| TokioEnvironment.now()))
}

/// A time for people, who sort by it and don't count its microseconds.
pub(super) fn whole_seconds(rfc_3339: &str) -> String {
    match rfc_3339.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => rfc_3339.to_owned(),
    }
}

fn order(text: &str) -> Result<String, String> {
    SearchPage::default().sorted(text).map(|_| text.to_owned())
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=PAGE_ROWS_MAX).contains(&limit) => Ok(limit),
        _ => Err(format!("a number between 1 and {PAGE_ROWS_MAX}")),
    }
}
