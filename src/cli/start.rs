//! `backstitch start`: start a saga on a running node, and wait for its end if asked to.

use std::io::Read;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::client::{Answer, Client, NodeUrl, segment};
use super::exit::{Exit, Failure};
use super::output;
use crate::file;
use crate::limits::BODY;
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
        output::remark(format_args!(
            "this saga was started before with the same key and input; nothing new happens"
        ));
    }
    // One that restarts has no saga of its own before the one it replaces has ended.
    let before = match answer.status {
        202 => answer.text("replaces"),
        _ => None,
    };
    if let Some(before) = before {
        let waiting = answer.text("waiting").unwrap_or_default();
        output::remark(format_args!(
            "restarting: it replaces saga {before}; {waiting}"
        ));
    }
    if !arguments.json {
        output::print(&format!("{id}\n"))?;
    } else if !arguments.wait {
        output::print_json(&answer.body)?;
    }
    if !arguments.wait {
        return Ok(Exit::Done);
    }
    let waited = crate::view::spoken(arguments.timeout);
    match wait(&client, id, before, arguments.timeout)? {
        Waited::Ended(exit, saga) => show(arguments, &saga, exit),
        Waited::TimedOut(saga) => {
            output::remark(format_args!(
                "not ended within {waited}; it goes on: backstitch show {id}"
            ));
            show(arguments, &saga, Exit::TimedOut)
        }
        Waited::Pending { before, waiting } => {
            output::remark(format_args!(
                "not started within {waited}: it waits for saga {before}; {waiting}: backstitch show {before}"
            ));
            show(arguments, &answer, Exit::TimedOut)
        }
    }
}

fn show(arguments: &Arguments, answer: &Answer, exit: Exit) -> Result<Exit, Failure> {
    if arguments.json {
        output::print_json(&answer.body)?;
    } else {
        output::print(&outcome(answer))?;
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

/// What waiting came to.
enum Waited {
    /// The saga has ended, or waits for a person.
    Ended(Exit, Answer),
    /// It goes on.
    TimedOut(Answer),
    /// It has not begun: the saga before it still holds the key.
    Pending { before: String, waiting: String },
}

/// Looks until the saga has ended or waits for a person; then reads all of it. One that restarts
/// is not there until the saga `before` it has ended, and never if another start takes its place.
fn wait(
    client: &Client,
    id: &str,
    before: Option<&str>,
    timeout: Duration,
) -> Result<Waited, Failure> {
    let until = Instant::now() + timeout;
    let mut pause = LOOK_EVERY.0;
    loop {
        let head = client.get(&format!("/sagas/{id}?only=head"))?;
        let mut pending = None;
        match (head.status, before) {
            (200, _) => {
                let status = head.text("status").and_then(|status| status.parse().ok());
                if let Some(exit) = status.and_then(ended) {
                    return Ok(Waited::Ended(exit, client.get(&format!("/sagas/{id}"))?));
                }
            }
            (404, Some(before)) => {
                let waiting = pending_for(&client.get(&format!("/sagas/{before}"))?, id)?;
                pending = Some((before.to_owned(), waiting));
            }
            (503, _) => {}
            _ => return Err(Failure::new(head.refusal())),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(match pending {
                Some((before, waiting)) => Waited::Pending { before, waiting },
                None => Waited::TimedOut(head),
            });
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(LOOK_EVERY.1);
    }
}

/// What the saga `id` waits for, as the one before it tells; an error if it will never come.
pub(super) fn pending_for(before: &Answer, id: &str) -> Result<String, Failure> {
    if before.status == 503 {
        return Ok(before.refusal());
    }
    let next = before.body.get("replaced_by");
    let text = |field: &str| next?.get(field)?.as_str();
    match (before.status, text("saga_id")) {
        (200, Some(next)) if next == id => Ok(text("waiting").unwrap_or_default().to_owned()),
        (200, Some(next)) => Err(Failure::new(format!(
            "saga {id} will not come: before it could begin, another start with its key took its place, as saga {next}: backstitch show {next}"
        ))),
        (200, None) => Err(Failure::new(format!(
            "saga {id} will not come: the saga before it is not waited for any more"
        ))),
        _ => Err(Failure::new(before.refusal())),
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
                .take(BODY.bytes as u64 + 1)
                .read_to_string(&mut text)
                .map_err(|error| Failure::problems(format!("can't read {what}: {error}")))?;
            text
        }
        (_, Some(name)) => file::read_text(name.as_ref(), BODY.bytes)
            .map_err(|why| Failure::problems(format!("can't read {name}: {why}")))?,
        _ => text.to_owned(),
    };
    if read.len() > BODY.bytes {
        return Err(Failure::problems(format!(
            "{what} is larger than {} bytes; keep large things elsewhere and send a reference",
            BODY.bytes
        )));
    }
    serde_json::from_str(&read)
        .map_err(|error| Failure::problems(format!("{what} is not JSON: {error}")))
}

/// A duration such as `30s`, `1m 30s`, `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write it as in `30s`, `500ms`, `5m`");
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(span).map_err(|_| wrong())
}
