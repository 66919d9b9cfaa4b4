//! `backstitch tasks`: what waits for a signal or a person, from the database itself.

use clap::Args;

use super::backends::DatabaseArguments;
use super::exit::{Exit, Failure};
use super::filter::FilterArguments;
use super::list::{CELL_CHARS_MAX, time_of, whole_seconds};
use super::output;
use crate::id::SagaId;
use crate::view::{TaskView, read_tasks};

/// Which sagas.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// Only of sagas that started after this one: what the page before named.
    #[arg(long, value_name = "ID")]
    after: Option<SagaId>,
    /// At most this many.
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
    let sagas = store.sagas();
    let filter = arguments.filter.filter(time_of(&*sagas).await?)?;
    let (after, limit) = (arguments.after, arguments.limit);
    let list = read_tasks(&*sagas, &*store.search(), &filter, after, limit).await;
    let list = list.map_err(Failure::new)?;
    store.close().await;
    if arguments.json {
        output::print_json(&list)?;
        return Ok(Exit::Done);
    }
    if list.tasks.is_empty() {
        output::remark(format_args!("nothing waits for a signal or a person"));
    } else {
        output::print(&table(&list.tasks))?;
    }
    if let Some(next) = list.next {
        output::remark(format_args!("there may be more: --after {next}"));
    }
    Ok(Exit::Done)
}

fn table(tasks: &[TaskView]) -> String {
    let header = [
        "ID", "SAGA", "KEY", "STEP", "TO DO", "SINCE", "UNTIL", "WHY",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(tasks.iter().map(|task| {
        let why = &task.why;
        let time = |at: &Option<String>| at.as_deref().map(whole_seconds).unwrap_or_default();
        let spot = why.spot.as_ref().map(|spot| spot.step.clone());
        vec![
            task.saga_id.to_string(),
            task.saga.clone(),
            output::shortened(&task.key, CELL_CHARS_MAX),
            spot.unwrap_or_default(),
            task.to_do(),
            time(&why.since),
            time(&why.until),
            output::shortened(why.trouble.as_deref().unwrap_or_default(), CELL_CHARS_MAX),
        ]
    }));
    output::table(&rows)
}
