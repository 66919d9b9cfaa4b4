//! `backstitch groups`: sagas in trouble by cause, from the database itself.

use clap::Args;
use serde_json::json;

use super::backends::DatabaseArguments;
use super::exit::{Exit, Failure};
use super::filter::FilterArguments;
use super::list::{CELL_CHARS_MAX, time_of, whole_seconds};
use super::output;
use crate::store::search::CAUSES_MAX;
use crate::view::CauseGroupView;

/// Which sagas.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// At most this many groups.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let store = arguments.database.database()?.open_to_read().await?;
    let now = time_of(&*store.sagas()).await?;
    let mut filter = arguments.filter.filter(now)?;
    if filter.statuses.is_empty() {
        let live = filter.set("status", "live", now);
        live.map_err(Failure::new)?;
    }
    let limit = arguments.limit.min(CAUSES_MAX);
    let groups = store.search().groups(&filter, now, limit).await;
    let groups = groups.map_err(Failure::new)?;
    store.close().await;
    let views: Vec<CauseGroupView> = groups.iter().map(CauseGroupView::new).collect();
    if arguments.json {
        output::print_json(&json!({ "groups": views }))?;
    } else if views.is_empty() {
        output::remark(format_args!("nothing stands in the way of these sagas"));
    } else {
        output::print(&table(&views))?;
    }
    Ok(Exit::Done)
}

fn table(groups: &[CauseGroupView]) -> String {
    let header = [
        "CAUSE",
        "SAGA",
        "STEP",
        "SAGAS",
        "LAST HOUR",
        "BEFORE",
        "OLDEST",
        "NEWEST",
        "REASON",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(groups.iter().map(|group| {
        let spot = group.spot.as_ref();
        vec![
            group.cause.clone(),
            group.saga.clone(),
            spot.map_or_else(String::new, |spot| format!("{}/{}", spot.step, spot.phase)),
            group.count.to_string(),
            group.last_hour.to_string(),
            group.hour_before.to_string(),
            whole_seconds(&group.oldest),
            whole_seconds(&group.newest),
            output::shortened(&group.reason, 2 * CELL_CHARS_MAX),
        ]
    }));
    output::table(&rows)
}
