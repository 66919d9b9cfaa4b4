//! `dead-letters export` and `import`: JSON lines on stdout and stdin.

use std::io::{BufRead, Read};

use clap::Args;
use serde_json::json;

use super::select::SelectionArguments;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::dead_letters::Desk;
use crate::dead_letters::transfer::{LINE_BYTES_MAX, Macs};

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    selection: SelectionArguments,
    /// With the macs of correlation ids, by which what is replayed after an import elsewhere can be
    /// answered. Whoever reads them can answer in a participant's place: keep them like the database.
    #[arg(long)]
    with_macs: bool,
}

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// The lines; `-` for stdin.
    #[arg(default_value = "-", value_name = "FILE")]
    file: String,
    /// Who does this; goes into the audit log.
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
    /// Why, and where they come from; goes into the audit log.
    #[arg(long)]
    why: String,
}

pub(super) async fn export(desk: &Desk, arguments: ExportArguments) -> Result<Exit, Failure> {
    let selection = arguments.selection.selection(desk, None)?;
    let macs = if arguments.with_macs {
        Macs::Shown
    } else {
        Macs::Masked
    };
    let done = desk
        .export(selection, macs, |line| {
            output::print_text_of_json(&(line + "\n"))
        })
        .await;
    let count = done.map_err(super::failed)??;
    output::remark(format_args!("{count} letters"));
    Ok(Exit::Done)
}

pub(super) async fn import(
    desk: &Desk,
    arguments: &ImportArguments,
    json: bool,
) -> Result<Exit, Failure> {
    let ImportArguments { by, why, .. } = arguments;
    super::check_words(by, why)?;
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", arguments.file));
    let mut source: Box<dyn BufRead> = if arguments.file == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(&arguments.file).map_err(failed)?;
        Box::new(std::io::BufReader::new(file))
    };
    let (mut new, mut known) = (0_u64, 0_u64);
    for number in 1.. {
        let mut line = Vec::new();
        let mut bounded = source.by_ref().take(LINE_BYTES_MAX as u64);
        if bounded.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        if text.trim().is_empty() {
            continue;
        }
        match desk.import(text.trim(), by, why).await {
            Ok(true) => new += 1,
            Ok(false) => known += 1,
            Err(error) => {
                return Err(Failure::new(format!(
                    "line {number}: {error}; {new} letters were imported before it"
                )));
            }
        }
    }
    if json {
        output::print_json(&json!({ "new": new, "known": known }))?;
    } else {
        output::print(&format!("{new} new letters, {known} known\n"))?;
    }
    Ok(Exit::Done)
}
