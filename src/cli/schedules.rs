//! `backstitch schedules`: how far schedules have come, and setting one back by hand.

use clap::{Args, Subcommand};
use serde_json::json;

use super::backends::DatabaseArguments;
use super::client::{NodeUrl, segment};
use super::exit::{Exit, Failure};
use super::list::whole_seconds;
use super::output;
use crate::environment::{Environment, TokioEnvironment};
use crate::id::Timestamp;
use crate::view::ScheduleView;

/// What to do with schedules.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List how far each has come; reads the database, so no node need run.
    List(ListArguments),
    /// Set the position of one: ticks after it that have passed are started as `catch_up` says.
    Move(MoveArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

#[derive(Debug, Args)]
struct MoveArguments {
    /// The definition's name.
    name: String,
    /// All ticks up to this time count as settled, and none after it: 2026-01-31T12:00:00Z.
    #[arg(long)]
    to: Timestamp,
    /// Which schedule, as `schedules list` shows it, if the definition has had several.
    #[arg(long)]
    rhythm: Option<String>,
    /// Who decides; kept beside the position. Whoever is signed in, if absent.
    #[arg(long)]
    by: Option<String>,
    /// Why; kept beside the position.
    #[arg(long)]
    why: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.command {
        Command::List(arguments) => list(arguments).await,
        Command::Move(arguments) => set(&arguments),
    }
}

async fn list(arguments: ListArguments) -> Result<Exit, Failure> {
    let store = arguments.database.database()?.open_to_read().await?;
    let sagas = store.sagas();
    let rows = sagas.schedules().await.map_err(Failure::new)?;
    let now = sagas.clock().await.map_err(Failure::new)?;
    store.close().await;
    let now = now.unwrap_or_else(|| TokioEnvironment.now());
    let views: Vec<ScheduleView> = rows.iter().map(|row| ScheduleView::new(row, now)).collect();
    if arguments.json {
        output::print_json(&json!({ "schedules": views }))?;
    } else if views.is_empty() {
        output::remark(format_args!("no schedules"));
    } else {
        output::print(&table(&views))?;
    }
    Ok(Exit::Done)
}

fn table(views: &[ScheduleView]) -> String {
    let header = ["SAGA", "RHYTHM", "POSITION", "REMARK"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(views.iter().map(|view| {
        vec![
            view.saga.clone(),
            view.rhythm.clone(),
            whole_seconds(&view.position),
            remark(view),
        ]
    }));
    output::table(&rows)
}

fn remark(view: &ScheduleView) -> String {
    let mut remarks = Vec::new();
    if view.ahead_of_time {
        remarks.push("AHEAD OF TIME: nothing ticks before it".to_owned());
    }
    if let Some(since) = &view.absent_since {
        remarks.push(format!(
            "nodes run without it since {}",
            whole_seconds(since)
        ));
    }
    if let Some(moved) = &view.moved {
        let at = whole_seconds(&moved.at);
        remarks.push(output::printable(&format!(
            "set by {} at {at}: {}",
            moved.by, moved.why
        )));
    }
    remarks.join("; ")
}

fn set(arguments: &MoveArguments) -> Result<Exit, Failure> {
    let client = arguments.node.client()?;
    let path = format!("/schedules/{}", segment(&arguments.name));
    let mut body = json!({ "to": arguments.to.to_string(), "why": arguments.why });
    if let Some(by) = &arguments.by {
        body["by"] = json!(by);
    }
    if let Some(rhythm) = &arguments.rhythm {
        body["rhythm"] = json!(rhythm);
    }
    let answer = client.post(&path, &body)?;
    if answer.status != 200 {
        return Err(Failure::new(answer.refusal()));
    }
    if arguments.json {
        output::print_json(&answer.body)?;
    } else {
        let position = answer.text("position").unwrap_or("unknown");
        output::print(&format!("{position}\n"))?;
    }
    Ok(Exit::Done)
}
