//! `backstitch cancel`, `retry`, `skip`, `pause`, `resume`, `force-complete`, `force-compensated`:
//! what a person decides about one saga, over a node's HTTP.

use clap::Args;
use serde_json::json;

use super::client::{NodeUrl, segment};
use super::exit::{Exit, Failure};
use super::output;
use crate::id::SagaId;

/// Which saga, who, why.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The saga's id.
    id: String,
    /// Who decides; goes into the journal.
    #[arg(long)]
    by: String,
    /// Why; goes into the journal.
    #[arg(long)]
    why: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

/// The same, for one step.
#[derive(Debug, Args)]
pub(super) struct SkipArguments {
    /// The step, as `show` names it: `stock[2]`.
    #[arg(long)]
    step: String,
    #[command(flatten)]
    arguments: Arguments,
}

/// The same, for one step or all that wait.
#[derive(Debug, Args)]
pub(super) struct RetryArguments {
    /// The step, as `show` names it; all that wait for a person or a retry, if absent.
    #[arg(long)]
    step: Option<String>,
    #[command(flatten)]
    arguments: Arguments,
}

pub(super) fn skip(arguments: &SkipArguments) -> Result<Exit, Failure> {
    send("skip", &arguments.arguments, Some(&arguments.step))
}

pub(super) fn retry(arguments: &RetryArguments) -> Result<Exit, Failure> {
    send("retry", &arguments.arguments, arguments.step.as_deref())
}

/// An action about the whole saga.
pub(super) fn run(action: &str, arguments: &Arguments) -> Result<Exit, Failure> {
    send(action, arguments, None)
}

fn send(action: &str, arguments: &Arguments, step: Option<&str>) -> Result<Exit, Failure> {
    let id = &arguments.id;
    if id.parse::<SagaId>().is_err() {
        return Err(Failure::problems(format!(
            "`{id}` is not a saga's id (a UUID); to find it: backstitch show NAME KEY"
        )));
    }
    let client = arguments.node.client()?;
    let path = format!("/sagas/{}/{action}", segment(id));
    let mut body = json!({ "by": arguments.by, "why": arguments.why });
    if let Some(step) = step {
        body["step"] = json!(step);
    }
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
