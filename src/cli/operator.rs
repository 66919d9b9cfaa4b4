//! `backstitch cancel`, `retry`, `skip`, `pause`, `resume`, `force-complete`, `force-compensated`:
//! what a person decides about one saga, over a node's HTTP.

use clap::Args;
use serde_json::{Value, json};

use super::client::{NodeUrl, segment};
use super::exit::{Exit, Failure};
use super::output;
use super::start::json_argument;
use crate::id::SagaId;

/// Which saga, who, why.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The saga's id.
    id: String,
    /// Who decides; goes into the journal. Whoever is signed in, if absent.
    #[arg(long)]
    by: Option<String>,
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
    /// What came of it, for the steps that use its reply: JSON, `@FILE`, or `-` for stdin.
    #[arg(long, alias = "result", value_name = "JSON")]
    reply: Option<String>,
    #[command(flatten)]
    arguments: Arguments,
}

/// The same, for one step or all that wait.
#[derive(Debug, Args)]
pub(super) struct RetryArguments {
    /// The step, as `show` names it; all that wait for a person or a retry, if absent.
    #[arg(long)]
    step: Option<String>,
    /// What the step's command carries from now on, instead of what it carried: JSON, `@FILE`, or `-` for
    /// stdin.
    #[arg(long, value_name = "JSON", requires = "step")]
    with: Option<String>,
    #[command(flatten)]
    arguments: Arguments,
}

pub(super) fn skip(arguments: &SkipArguments) -> Result<Exit, Failure> {
    let mut details = json!({ "step": arguments.step });
    if let Some(reply) = &arguments.reply {
        details["reply"] = json_argument("the reply", reply)?;
    }
    send("skip", &arguments.arguments, details)
}

pub(super) fn retry(arguments: &RetryArguments) -> Result<Exit, Failure> {
    let mut details = json!({});
    if let Some(step) = &arguments.step {
        details["step"] = json!(step);
    }
    if let Some(with) = &arguments.with {
        details["with"] = json_argument("the input", with)?;
    }
    send("retry", &arguments.arguments, details)
}

/// An action about the whole saga.
pub(super) fn run(action: &str, arguments: &Arguments) -> Result<Exit, Failure> {
    send(action, arguments, json!({}))
}

/// `body` is what the action needs to know besides who and why.
fn send(action: &str, arguments: &Arguments, mut body: Value) -> Result<Exit, Failure> {
    let id = &arguments.id;
    if id.parse::<SagaId>().is_err() {
        return Err(Failure::problems(format!(
            "`{id}` is not a saga's id (a UUID); to find it: backstitch show NAME KEY"
        )));
    }
    let client = arguments.node.client()?;
    let path = format!("/sagas/{}/{action}", segment(id));
    if let Some(by) = &arguments.by {
        body["by"] = json!(by);
    }
    body["why"] = json!(arguments.why);
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
