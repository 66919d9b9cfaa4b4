//! `backstitch signal`: tell a saga that waits for something from outside, over a node's HTTP.

use clap::Args;

use super::client::{NodeUrl, segment};
use super::exit::{Exit, Failure};
use super::output;
use super::start::json_argument;
use crate::id::SagaId;

/// Which saga, which signal, what it says.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The saga's id; or its name and its key. Then the signal's name.
    #[arg(value_names = ["ID|NAME KEY", "SIGNAL"], num_args = 2..=3, required = true)]
    place: Vec<String>,
    /// The payload: JSON, `@FILE`, or `-` for stdin.
    #[arg(long, default_value = "{}", value_name = "JSON|@FILE|-")]
    body: String,
    /// What the signal is deduplicated by; if absent, each call is a signal of its own.
    #[arg(long)]
    id: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let path = path(&arguments.place)?;
    let payload = json_argument("the payload", &arguments.body)?;
    let client = arguments.node.client()?;
    let key = arguments.id.as_deref();
    let headers: Vec<(&str, &str)> = key.map(|id| ("idempotency-key", id)).into_iter().collect();
    let answer = client.post_with(&path, &headers, &payload)?;
    if answer.status != 200 {
        return Err(Failure::new(answer.refusal()));
    }
    if arguments.json {
        output::print_json(&answer.body)?;
    } else {
        let outcome = answer.text("outcome").unwrap_or("accepted");
        output::print(&format!("{outcome}\n"))?;
    }
    Ok(Exit::Done)
}

/// Where the signal is sent to.
pub(super) fn path(place: &[String]) -> Result<String, Failure> {
    match place {
        [saga, signal] if saga.parse::<SagaId>().is_ok() => Ok(format!(
            "/sagas/{}/signals/{}",
            segment(saga),
            segment(signal)
        )),
        [name, key, signal] => Ok(format!(
            "/sagas/{}/keys/{}/signals/{}",
            segment(name),
            segment(key),
            segment(signal)
        )),
        _ => Err(Failure::problems(
            "name the saga by its id (a UUID), or by its name and its key; then the signal: backstitch signal order o-1 paid",
        )),
    }
}
