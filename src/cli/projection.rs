//! `backstitch projection`: how far projections have come, what a document says, and making documents
//! anew. It works on the database itself, so no node need run.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::backends::DatabaseArguments;
use super::exit::{Exit, Failure};
use super::output;
use crate::aggregates::projections;
use crate::environment::{Environment, TokioEnvironment};
use crate::projection::{Freshness, ReadModel, rebuild, rebuild_key};
use crate::store::projections::ReadModels;

/// What to do.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the generations of projections, and how far each has come.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: DatabaseArguments,
    },
    /// Print a document, with all that is committed at this moment.
    Show {
        /// The projection.
        name: String,
        /// The document's key.
        key: String,
        #[command(flatten)]
        database: DatabaseArguments,
    },
    /// Make documents anew from their events; readers keep the old ones until it is done.
    Rebuild {
        /// The projection.
        name: String,
        /// Only this document.
        #[arg(long)]
        key: Option<String>,
        #[command(flatten)]
        database: DatabaseArguments,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.action {
        Action::List { json, database } => list(json, database).await,
        Action::Show {
            name,
            key,
            database,
        } => show(&name, &key, database).await,
        Action::Rebuild {
            name,
            key,
            database,
        } => again(&name, key.as_deref(), database).await,
    }
}

async fn list(as_json: bool, database: DatabaseArguments) -> Result<Exit, Failure> {
    let store = database.database()?.open_to_read().await?;
    let found = store.read_models().generations(None).await;
    let found = found.map_err(Failure::new)?;
    store.close().await;
    let generations = found.iter().map(|it| {
        json!({
            "name": it.name, "generation": it.generation, "version": it.version,
            "position": it.position, "serving": it.serving,
        })
    });
    if as_json {
        output::print_json(&generations.collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    }
    if found.is_empty() {
        output::remark(format_args!("no projection has folded anything yet"));
    }
    for it in found {
        let state = if it.serving {
            "serves"
        } else {
            "is being built"
        };
        output::print(&format!(
            "{}  generation {} (version {}) {state}, at position {}\n",
            it.name, it.generation, it.version, it.position
        ))?;
    }
    Ok(Exit::Done)
}

async fn show(name: &str, key: &str, database: DatabaseArguments) -> Result<Exit, Failure> {
    let store = database.database()?.open_to_write().await?;
    let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
    let model = ReadModel::new(environment, store.read_models(), projections());
    let found = model.read(name, key, Freshness::Now).await;
    let found = found.map_err(Failure::new)?;
    store.close().await;
    let Some(found) = found else {
        return Err(Failure::new(format!("`{name}` has no document `{key}`")));
    };
    output::print_json(&found.document)?;
    Ok(Exit::Done)
}

async fn again(
    name: &str,
    key: Option<&str>,
    database: DatabaseArguments,
) -> Result<Exit, Failure> {
    let projections = projections();
    let names = [name.to_owned()];
    projections
        .clone()
        .named(&names)
        .map_err(Failure::problems)?;
    let open = database.database()?.open_to_write().await?;
    let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
    let store: Arc<dyn ReadModels> = open.read_models();
    match key {
        Some(key) => {
            let done = rebuild_key(&projections, name, key, &environment, &store).await;
            let position = done.map_err(Failure::new)?.unwrap_or_default();
            output::print(&format!(
                "{name} `{key}` is made anew, as of position {position}\n"
            ))?;
        }
        None => {
            let report = |folded, of| {
                tracing::info!("position {folded} of {of}");
            };
            let done = rebuild(&projections, name, &environment, &store, &report).await;
            let done = done.map_err(Failure::new)?.ok_or_else(|| {
                Failure::problems(format!(
                    "documents of `{name}` are only made on demand; name one with --key"
                ))
            })?;
            output::print(&format!(
                "{name} is made anew: generation {} serves, as of position {}\n",
                done.generation, done.position
            ))?;
        }
    }
    open.close().await;
    Ok(Exit::Done)
}
