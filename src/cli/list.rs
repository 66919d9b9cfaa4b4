//! `backstitch list`: sagas, newest first, from the database itself.

use clap::Args;

use super::backends::DatabaseArguments;
use super::exit::{Exit, Failure};
use super::output;
use crate::id::SagaId;
use crate::saga::Status;
use crate::store::{LIST_ROWS_MAX, ListFilter};
use crate::view::{HeadView, ListView};

/// Widest key and reason of a line, in characters.
const CELL_CHARS_MAX: usize = 60;

/// Which sagas.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only of this definition.
    #[arg(long)]
    name: Option<String>,
    /// Only with this status: running, confirming, compensating, suspended, completed, compensated.
    #[arg(long)]
    status: Option<Status>,
    /// Only with this key.
    #[arg(long)]
    key: Option<String>,
    /// Only older than this saga: the last one of the page before.
    #[arg(long, value_name = "ID")]
    before: Option<SagaId>,
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
    let limit = arguments.limit;
    let filter = ListFilter {
        name: arguments.name,
        status: arguments.status,
        key: arguments.key,
        before: arguments.before,
        limit,
    };
    let store = arguments.database.database()?.open_to_read().await?;
    let heads = store.sagas().list(&filter).await.map_err(Failure::new)?;
    store.close().await;
    let page = ListView::new(&heads, limit);
    if arguments.json {
        output::print_json(&page)?;
        return Ok(Exit::Done);
    }
    if page.sagas.is_empty() {
        output::remark(format_args!("no sagas"));
        return Ok(Exit::Done);
    }
    output::print(&table(&page.sagas))?;
    if let Some(next) = page.next {
        output::remark(format_args!("there may be more: --before {next}"));
    }
    Ok(Exit::Done)
}

fn table(sagas: &[HeadView]) -> String {
    let header = ["ID", "SAGA", "KEY", "STATUS", "STARTED", "REASON"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(sagas.iter().map(|saga| {
        vec![
            saga.saga_id.to_string(),
            saga.saga.clone(),
            output::shortened(&saga.key, CELL_CHARS_MAX),
            saga.status.to_string(),
            whole_seconds(&saga.started_at),
            output::shortened(saga.reason.as_deref().unwrap_or_default(), CELL_CHARS_MAX),
        ]
    }));
    output::table(&rows)
}

/// A time for people, who sort by it and don't count its microseconds.
pub(super) fn whole_seconds(rfc_3339: &str) -> String {
    match rfc_3339.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => rfc_3339.to_owned(),
    }
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=LIST_ROWS_MAX).contains(&limit) => Ok(limit),
        _ => Err(format!("a number between 1 and {LIST_ROWS_MAX}")),
    }
}
