//! `backstitch aggregate`: what an aggregate is, was, and how it came to be; from the database itself.

use clap::Args;
use serde_json::json;

use super::backends::DatabaseArguments;
use super::exit::{Exit, Failure};
use super::output;
use crate::aggregates::kinds;
use crate::participant::history::{At, state_at};
use crate::projection::told;
use crate::store::participant::AggregateKey;
use crate::store::projections::ReadModels;
use crate::store::{LIST_ROWS_MAX, is_key};

/// Which aggregate, and what of it.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The kind, such as `inventory`.
    kind: String,
    /// Which of that kind; without it, those there are are listed.
    id: Option<String>,
    /// As it was: a revision (`17`), or the time up to which what was recorded counts.
    #[arg(long, value_name = "REVISION|TIME", requires = "id")]
    at: Option<String>,
    /// As it is valid at a time: each event counts from its `valid_from`.
    #[arg(long, value_name = "TIME", requires = "id")]
    valid_at: Option<String>,
    /// Print what happened to it, one event a line, as JSON.
    #[arg(long, requires = "id", conflicts_with_all = ["at", "valid_at"])]
    events: bool,
    /// With a list: only ids after this one. With events: only those after this number.
    #[arg(long)]
    after: Option<String>,
    /// At most so many lines.
    #[arg(long, default_value_t = 100, value_parser = limit)]
    limit: usize,
    #[command(flatten)]
    database: DatabaseArguments,
}

fn limit(text: &str) -> Result<usize, String> {
    let number = text.parse().ok();
    let number = number.filter(|number| (1..=LIST_ROWS_MAX).contains(number));
    number.ok_or_else(|| format!("must be from 1 to {LIST_ROWS_MAX}"))
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let at = At::parse(arguments.at.as_deref(), arguments.valid_at.as_deref())
        .map_err(Failure::problems)?;
    let store = arguments.database.database()?.open_to_read().await?;
    let models = store.read_models();
    let done = match &arguments.id {
        None => list(&arguments, &*models).await,
        Some(id) => {
            let key = AggregateKey {
                kind: arguments.kind.clone(),
                id: id.clone(),
            };
            if arguments.events {
                history(&arguments, &*models, &key).await
            } else {
                show(&*models, &key, at).await
            }
        }
    };
    store.close().await;
    done
}

async fn list(arguments: &Arguments, models: &dyn ReadModels) -> Result<Exit, Failure> {
    let (kind, after) = (arguments.kind.as_str(), arguments.after.as_deref());
    let found = if is_key(kind) {
        let found = models.aggregates(kind, after, arguments.limit).await;
        found.map_err(Failure::new)?
    } else {
        Vec::new()
    };
    if found.is_empty() {
        output::remark(format_args!("there is no {kind}"));
    }
    for row in found {
        output::print(&format!("{}  revision {}\n", row.key.id, row.revision))?;
    }
    Ok(Exit::Done)
}

async fn show(models: &dyn ReadModels, key: &AggregateKey, at: At) -> Result<Exit, Failure> {
    let found = state_at(&kinds(), models, key, at).await;
    let Some(found) = found.map_err(Failure::new)? else {
        return Err(no_such(key));
    };
    output::print_json(&json!({
        "kind": key.kind, "id": key.id, "revision": found.revision, "state": found.state,
    }))?;
    Ok(Exit::Done)
}

async fn history(
    arguments: &Arguments,
    models: &dyn ReadModels,
    key: &AggregateKey,
) -> Result<Exit, Failure> {
    let mut after = match arguments.after.as_deref().map(str::parse) {
        None => 0,
        Some(Ok(after)) => after,
        Some(Err(_)) => return Err(Failure::problems("--after must be an event's number")),
    };
    let mut left = arguments.limit;
    loop {
        let found = models.history(key, after, left).await;
        let found = found.map_err(Failure::new)?;
        let is_first = left == arguments.limit;
        if is_first && found.events.is_empty() {
            let aggregate = models.aggregate(key).await.map_err(Failure::new)?;
            return aggregate.map(|_| Exit::Done).ok_or_else(|| no_such(key));
        }
        for placed in &found.events {
            output::print_text_of_json(&format!("{}\n", told(placed)))?;
        }
        left = left.saturating_sub(found.events.len());
        match found.last_of_more() {
            Some(last) if left > 0 => after = last.event.seq,
            _ => return Ok(Exit::Done),
        }
    }
}

fn no_such(key: &AggregateKey) -> Failure {
    Failure::new(format!("there is no {} `{}`", key.kind, key.id))
}
