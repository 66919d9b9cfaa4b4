//! `backstitch resume`: have a suspended saga's steps tried again.

use clap::Args;
use serde_json::json;

use super::client::{NodeUrl, segment};
use super::exit::{Exit, Failure};
use super::output;

/// Which saga, who, why.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The saga's id.
    id: String,
    /// Who wants it; goes into the journal.
    #[arg(long)]
    by: String,
    /// Why it will work now; goes into the journal.
    #[arg(long)]
    why: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let client = arguments.node.client()?;
    let path = format!("/sagas/{}/resume", segment(&arguments.id));
    let body = json!({ "by": arguments.by, "why": arguments.why });
    let answer = client.post(&path, &body)?;
    if answer.status != 200 {
        return Err(Failure::new(answer.refusal()));
    }
    if arguments.json {
        output::print_json(&answer.body)?;
    } else {
        let status = answer.text("status").unwrap_or("unknown");
        output::print(&format!("{status}\n"))?;
    }
    Ok(Exit::Done)
}
