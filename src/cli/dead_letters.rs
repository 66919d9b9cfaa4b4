//! `backstitch dead-letters`: messages nobody could handle.

use clap::{Args, Subcommand};
use serde_json::json;

use super::backends::DatabaseArguments;
use super::exit::{Exit, Failure};
use super::list::whole_seconds;
use super::output;
use crate::store::LIST_ROWS_MAX;
use crate::view::LetterView;

/// What to do with them.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// At most this many.
    #[arg(long, default_value_t = 50, global = true)]
    limit: usize,
    /// Print JSON, with properties and body.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the newest ones (the default).
    List,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let (None | Some(Action::List)) = arguments.action;
    let store = arguments.database.database()?.open_existing().await?;
    let limit = arguments.limit.min(LIST_ROWS_MAX);
    let letters = store.sagas().dead_letters(limit).await;
    let letters = letters.map_err(Failure::new)?;
    store.close().await;
    let letters: Vec<LetterView> = letters.iter().map(LetterView::new).collect();
    if arguments.json {
        output::print_json(&json!({ "dead_letters": letters }))?;
    } else if letters.is_empty() {
        eprintln!("no dead letters");
    } else {
        output::print(&table(&letters))?;
    }
    Ok(Exit::Done)
}

fn table(letters: &[LetterView]) -> String {
    let header = ["ID", "AT", "QUEUE", "CODE", "REASON"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(letters.iter().map(|letter| {
        vec![
            letter.id.to_string(),
            whole_seconds(&letter.at),
            output::printable(&letter.queue),
            letter.code.clone(),
            output::printable(&letter.reason),
        ]
    }));
    output::table(&rows)
}
