//! `backstitch check`: everything that is wrong with definitions.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::definitions::{report, sources};
use super::exit::{Exit, Failure};
use super::output;
use crate::definition::{Definition, Problem, Problems};

/// What to check.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files, or directories whose *.yaml are checked.
    #[arg(default_value = "sagas")]
    paths: Vec<PathBuf>,
    /// How problems are printed: for people, or as a JSON array for editors.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print the whole result as JSON.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let sources = sources(&arguments.paths)?;
    if sources.is_empty() {
        return Err(Failure::problems(
            "there is no definition (*.yaml) to check",
        ));
    }
    let result = sources.check();
    if arguments.json {
        output::print_json(&as_json(sources.len(), &result))?;
    } else if arguments.format == Format::Json {
        output::print_json(&problems(&result))?;
    } else {
        output::print(&as_text(sources.len(), &result))?;
    }
    Ok(if result.is_ok() {
        Exit::Done
    } else {
        Exit::Problems
    })
}

type Checked = Result<Vec<Definition>, Vec<Problems>>;

fn as_json(files: usize, result: &Checked) -> serde_json::Value {
    let sagas: Vec<_> = result
        .as_ref()
        .ok()
        .into_iter()
        .flatten()
        .map(|definition| {
            json!({
                "saga": definition.name,
                "version": definition.version,
                "steps": definition.steps.len(),
            })
        })
        .collect();
    json!({ "ok": result.is_ok(), "files": files, "sagas": sagas, "problems": problems(result) })
}

/// All problems of all files.
fn problems(result: &Checked) -> Vec<&Problem> {
    let refused = result.as_ref().err().into_iter().flatten();
    refused.flat_map(|problems| &problems.0).collect()
}

pub(super) fn as_text(files: usize, result: &Checked) -> String {
    match result {
        Ok(definitions) => {
            let lines = definitions.iter().map(|definition| {
                let (name, version) = (&definition.name, definition.version);
                let steps = definition.steps.len();
                let plural = if steps == 1 { "" } else { "s" };
                format!("ok: {name} version {version}, {steps} step{plural}\n")
            });
            lines.collect()
        }
        Err(refused) => {
            let count: usize = refused.iter().map(|problems| problems.0.len()).sum();
            let plural = if count == 1 { "" } else { "s" };
            format!(
                "{}\n{count} problem{plural} in {} of {files} files\n",
                report(refused),
                refused.len()
            )
        }
    }
}
