//! `backstitch start`: start a saga on a running node, and wait for its end if asked to.

use std::io::Read;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::client::{Answer, Client, NodeUrl, segment};
use super::exit::{Exit, Failure};
use super::output;
use crate::message::BODY_BYTES_MAX;
use crate::saga::Status;

/// First and longest pause between two looks at a saga.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What to start.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The saga's name.
    name: String,
    /// The input: JSON, `@FILE`, or `-` for stdin.
    #[arg(long, default_value = "{}", value_name = "JSON")]
    input: String,
    /// Wait until the saga has ended; the exit code says how.
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as `30s`, `5m`.
    #[arg(long, default_value = "30s", value_parser = duration, requires = "wait")]
    timeout: Duration,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let input = json_argument("the input", &arguments.input)?;
    let client = arguments.node.client()?;
    let path = format!("/sagas/{}", segment(&arguments.name));
    let answer = client.post(&path, &input)?;
    if !matches!(answer.status, 200..=202) {
        return Err(refused(&answer));
    }
    let id = answer
        .text("saga_id")
        .ok_or_else(|| Failure::new("the node's answer names no saga"))?;
    if answer.status == 200 {
        eprintln!("this saga was started before with the same key and input; nothing new happens");
    }
    let restarts = answer.status == 202;
    if restarts {
        let before = answer.text("replaces").unwrap_or_default();
        let waiting = answer.text("waiting").unwrap_or_default();
        eprintln!("restarting: it replaces saga {before}; {waiting}");
    }
    if !arguments.json {
        output::print(&format!("{id}\n"))?;
    } else if !arguments.wait {
        output::print_json(&answer.body)?;
    }
    if !arguments.wait {
        return Ok(Exit::Done);
    }
    let (exit, answer) = wait(&client, id, arguments.timeout, restarts)?;
    if arguments.json {
        output::print_json(&answer.body)?;
    } else {
        output::print(&outcome(&answer))?;
    }
    if exit == Exit::TimedOut {
        let waited = crate::view::spoken(arguments.timeout);
        eprintln!("not ended within {waited}; it goes on: backstitch show {id}");
    }
    Ok(exit)
}

/// The refusal; several problems of an input on lines of their own.
pub(super) fn refused(answer: &Answer) -> Failure {
    let problems = answer.body.get("problems").and_then(Value::as_array);
    let Some(problems) = problems.filter(|problems| problems.len() > 1) else {
        return Failure::new(answer.refusal());
    };
    let code = answer.text("code").unwrap_or_default();
    let mut message = format!("the input does not fit the saga's schema ({code})");
    for problem in problems.iter().filter_map(Value::as_str) {
        message.push_str("\n  ");
        message.push_str(&output::printable(problem));
    }
    Failure::new(message)
}

/// Looks until the saga has ended or waits for a person; then reads all of it. One that restarts
/// is not there until the saga before it has ended.
fn wait(
    client: &Client,
    id: &str,
    timeout: Duration,
    restarts: bool,
) -> Result<(Exit, Answer), Failure> {
    let until = Instant::now() + timeout;
    let mut pause = LOOK_EVERY.0;
    loop {
        let head = client.get(&format!("/sagas/{id}?only=head"))?;
        if head.status == 200 {
            let status = head.text("status").and_then(|status| status.parse().ok());
            if let Some(exit) = status.and_then(ended) {
                return Ok((exit, client.get(&format!("/sagas/{id}"))?));
            }
        } else if head.status != 503 && !(restarts && head.status == 404) {
            return Err(Failure::new(head.refusal()));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok((Exit::TimedOut, head));
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(LOOK_EVERY.1);
    }
}

/// How to exit for this status; `None` to wait on.
pub(super) fn ended(status: Status) -> Option<Exit> {
    match status {
        Status::Running | Status::Confirming | Status::Compensating => None,
        Status::Completed => Some(Exit::Done),
        Status::Compensated => Some(Exit::Compensated),
        Status::Suspended => Some(Exit::Suspended),
    }
}

fn outcome(answer: &Answer) -> String {
    let status = answer.text("status").unwrap_or("unknown");
    let detail = match answer.text("reason") {
        Some(reason) => format!(": {}", output::printable(reason)),
        None => match answer.body.get("output") {
            Some(output) if !output.is_null() => format!(" {output}"),
            _ => String::new(),
        },
    };
    format!("{status}{detail}\n")
}

/// An argument that is JSON, `@FILE` or `-` for stdin; `what` it is, for messages.
pub(super) fn json_argument(what: &str, text: &str) -> Result<Value, Failure> {
    let read = match (text, text.strip_prefix('@')) {
        ("-", _) => {
            let mut text = String::new();
            // One byte more than is allowed, so that too much is noticed and not cut.
            std::io::stdin()
                .take(BODY_BYTES_MAX as u64 + 1)
                .read_to_string(&mut text)
                .map_err(|error| Failure::new(format!("can't read {what}: {error}")))?;
            text
        }
        (_, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| Failure::new(format!("can't read {file}: {error}")))?,
        _ => text.to_owned(),
    };
    if read.len() > BODY_BYTES_MAX {
        return Err(Failure::new(format!(
            "{what} is larger than {BODY_BYTES_MAX} bytes; keep large things elsewhere and send a reference"
        )));
    }
    serde_json::from_str(&read)
        .map_err(|error| Failure::new(format!("{what} is not JSON: {error}")))
}

/// A duration such as `30s`, `1m 30s`, `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write it as in `30s`, `500ms`, `5m`");
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(span).map_err(|_| wrong())
}
