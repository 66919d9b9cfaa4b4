//! `backstitch migrate`: bring the database's tables up to date, apart from starting a node.

use clap::Args;
use serde_json::json;

use super::backends::DatabaseArguments;
use super::exit::{Exit, Failure};
use super::output;

/// Which database.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let database = arguments.database.database()?;
    let applied = database.migrate().await?;
    if arguments.json {
        output::print_json(&json!({ "database": database.shown(), "applied": applied }))?;
    } else if applied.is_empty() {
        output::print("nothing to do: the tables are up to date\n")?;
    } else {
        let lines = applied.iter().map(|name| format!("applied {name}\n"));
        output::print(&lines.collect::<String>())?;
    }
    Ok(Exit::Done)
}
