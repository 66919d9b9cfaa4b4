//! `dead-letters discard`, `purge`, `audit`.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::By;
use super::select::SelectionArguments;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::dead_letters::Desk;
use crate::definition::parse_duration;
use crate::store::dead_letters::LetterStatus;
use crate::view::AuditView;

#[derive(Debug, Args)]
pub(super) struct DiscardArguments {
    #[command(flatten)]
    selection: SelectionArguments,
    /// Who does this; goes into the audit log.
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
    /// Why nobody needs them; goes into the audit log.
    #[arg(long)]
    why: String,
}

#[derive(Debug, Args)]
pub(super) struct PurgeArguments {
    /// Handled longer ago than this, such as 30d.
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    older_than: Duration,
    #[command(flatten)]
    by: By,
}

#[derive(Debug, Args)]
pub(super) struct AuditArguments {
    /// Print the entries too.
    #[arg(long)]
    list: bool,
    /// Print the entries of this letter.
    #[arg(long, value_name = "ID")]
    letter: Option<Uuid>,
}

pub(super) async fn discard(
    desk: &Desk,
    arguments: DiscardArguments,
    json: bool,
) -> Result<Exit, Failure> {
    let selection = arguments
        .selection
        .selection(desk, Some(LetterStatus::Open))?;
    let done = desk.discard(selection, &arguments.by, &arguments.why).await;
    let done = done.map_err(super::failed)?;
    if json {
        output::print_json(&done)?;
    } else {
        output::print(&format!(
            "{} discarded, {} left alone\n",
            done.discarded, done.skipped
        ))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn purge(
    desk: &Desk,
    arguments: PurgeArguments,
    json: bool,
) -> Result<Exit, Failure> {
    let By { by, why } = arguments.by;
    let purged = desk
        .purge(arguments.older_than, &by, &why)
        .await
        .map_err(super::failed)?;
    if json {
        output::print_json(&json!({ "purged": purged }))?;
    } else {
        output::print(&format!("{purged} deleted\n"))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn audit(
    desk: &Desk,
    arguments: &AuditArguments,
    json: bool,
) -> Result<Exit, Failure> {
    let wanted = |letter| {
        arguments
            .letter
            .map_or(arguments.list, |one| letter == Some(one))
    };
    let mut shown = Vec::new();
    let check = desk
        .check_audit(|entry| {
            if wanted(entry.letter) {
                shown.push(AuditView::new(entry));
            }
        })
        .await
        .map_err(super::failed)?;
    if json {
        let broken = check.broken.as_ref().map(ToString::to_string);
        let whole = json!({ "entries": check.entries, "broken": broken, "shown": shown });
        output::print_json(&whole)?;
    } else {
        let rows: Vec<_> = shown.iter().map(super::look::row).collect();
        output::print(&output::table(&rows))?;
        output::print(&format!("{} entries hold\n", check.entries))?;
    }
    match check.broken {
        None => Ok(Exit::Done),
        Some(broken) => Err(Failure::new(broken)),
    }
}
