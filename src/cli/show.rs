//! `backstitch show`: one saga, from the database itself.

use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::backends::{BrokerArguments, DatabaseArguments, OpenBroker};
use super::exit::{Exit, Failure};
use super::list::whole_seconds;
use super::output::{self, printable, shortened};
use crate::definition::{Definition, parse_stored};
use crate::id::SagaId;
use crate::saga::Status;
use crate::store::{SagaKey, Store};
use crate::view::{History, SagaView, SignalView, StepView, look_around, read_history, spoken};

/// Widest reply on a step's line, in characters.
const REPLY_CHARS_MAX: usize = 60;
/// Longest time for reaching the broker, without which all but its queues is shown.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Most lines of the timeline that are printed; `--json` has all.
const MOMENTS_MAX: usize = 500;

/// Which saga.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The saga's id; or its name, followed by its key.
    #[arg(value_name = "ID|NAME")]
    saga: String,
    /// The business key, after a name.
    key: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    broker: BrokerArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let store = arguments.database.database()?.open_to_read().await?;
    let sagas = store.sagas();
    let history = find(&*sagas, &arguments.saga, arguments.key).await?;
    let definition = definition_of(&*sagas, &history).await?;
    let mut view = SagaView::new(&history, definition.as_ref());
    if let Some(why) = &mut view.why {
        let broker = broker(&arguments.broker).await;
        let handle = broker.as_ref().map(OpenBroker::handle);
        let letters = store.letters();
        let around = look_around(history.head.id, why, handle.as_deref(), &*letters).await;
        why.see(&around);
        if let Some(broker) = broker {
            broker.close().await;
        }
    }
    store.close().await;
    if arguments.json {
        output::print_json(&view)?;
    } else {
        output::print(&as_text(&view))?;
    }
    if view.journal.verified {
        Ok(Exit::Done)
    } else {
        Err(Failure::new(
            "the journal is not what was written; see above, and keep a copy of the database",
        ))
    }
}

/// The broker that `AMQP_URL` names, to look at queues; `None`, with a warning, if it can't be reached.
async fn broker(arguments: &BrokerArguments) -> Option<OpenBroker> {
    let opened = match arguments.url() {
        Ok(None) => return None,
        Ok(Some(url)) => {
            let opening = OpenBroker::open(Some(&url), "backstitch show");
            let opened = tokio::time::timeout(CONNECT_TIME_MAX, opening).await;
            opened.unwrap_or_else(|_| Err(Failure::new("the broker does not answer")))
        }
        Err(failure) => Err(failure),
    };
    opened
        .inspect_err(|failure| {
            let why = &failure.message;
            output::remark(format_args!(
                "warning: queues could not be looked at: {why}"
            ));
        })
        .ok()
}

async fn find(store: &dyn Store, saga: &str, key: Option<String>) -> Result<History, Failure> {
    let id: SagaId = match key {
        None => saga.parse().map_err(|_| {
            Failure::problems(format!(
                "`{saga}` is not a saga's id (a UUID); to name a saga by its key: backstitch show {saga} KEY"
            ))
        })?,
        Some(key) => {
            let name = saga.to_owned();
            let missing = Failure::new(format!("there is no saga `{name}` with key `{key}`"));
            let found = store.find(&[SagaKey { name, key }]).await;
            let found = found.map_err(Failure::new)?.into_iter().flatten().next();
            found.ok_or(missing)?.id
        }
    };
    let history = read_history(store, id).await.map_err(Failure::new)?;
    history.ok_or_else(|| Failure::new(format!("there is no saga {id} in this database")))
}

/// The definition that the saga keeps; `None`, with a warning, if this program can't read it.
async fn definition_of(
    store: &dyn Store,
    history: &History,
) -> Result<Option<Definition>, Failure> {
    let (name, version) = (&history.head.name, history.head.version);
    let stored = store.definitions().await.map_err(Failure::new)?;
    let row = stored
        .into_iter()
        .find(|row| row.name == *name && row.version == version);
    let definition = row.and_then(|row| parse_stored(&row.source, "stored definition").ok());
    if definition.is_none() {
        output::remark(format_args!(
            "warning: the definition `{name}` version {version} is not stored or not readable by this program, so steps still to come are missing"
        ));
    }
    Ok(definition)
}

/// All of it, for people.
pub(super) fn as_text(view: &SagaView) -> String {
    let mut text = String::new();
    head(&mut text, view);
    let _ = writeln!(text, "\nSteps");
    let rows: Vec<Vec<String>> = view.steps.iter().map(step_row).collect();
    indented(&mut text, &output::table(&rows));
    if !view.signals.is_empty() {
        let _ = writeln!(text, "\nSignals kept for a wait to come");
        let rows: Vec<Vec<String>> = view.signals.iter().map(signal_row).collect();
        indented(&mut text, &output::table(&rows));
    }
    let _ = writeln!(text, "\nTimeline");
    timeline(&mut text, view);
    text.push('\n');
    match &view.journal.problem {
        None => {
            let _ = writeln!(
                text,
                "Journal: {} entr{}, hash chain verified, head {}",
                view.journal.entries,
                if view.journal.entries == 1 {
                    "y"
                } else {
                    "ies"
                },
                &view.journal.head[..16]
            );
        }
        Some(problem) => {
            let _ = writeln!(
                text,
                "Journal: NOT WHAT WAS WRITTEN: {}",
                printable(problem)
            );
        }
    }
    text
}

// Writing to a `String` can't fail, so results are dropped here.
fn head(text: &mut String, view: &SagaView) {
    let head = &view.head;
    let _ = writeln!(
        text,
        "{} {}  {}{}",
        head.saga,
        printable(&head.key),
        head.status.as_str().to_uppercase(),
        awaited(view)
    );
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<9}{}", printable(value));
    };
    line("id", &head.saga_id.to_string());
    line("version", &head.version.to_string());
    if let Some(parent) = &view.parent {
        line(
            "run by",
            &format!("{} as its {}", parent.saga_id, parent.step),
        );
    }
    line("started", &head.started_at);
    if let Some(ended_at) = &head.ended_at {
        line("ended", &ended(head.started_at.as_str(), ended_at));
    } else if let (Status::Running, Some(deadline)) = (head.status, &view.deadline) {
        line("deadline", &whole_seconds(deadline));
    }
    if let Some(reason) = &head.reason {
        line("why", reason);
    }
    if let Some(why) = &view.why {
        line("now", &why.text);
    }
    if let Some(before) = &view.replaces {
        line("replaces", &before.to_string());
    }
    if let Some(next) = &view.replaced_by {
        line("next", &format!("{}: {}", next.saga_id, next.waiting));
    }
    line("input", &view.input.to_string());
    if let Some(output) = &view.output {
        line("output", &output.to_string());
    }
}

/// What a prepared sub-saga waits for.
fn awaited(view: &SagaView) -> String {
    let parent = view.parent.as_ref().filter(|parent| parent.awaited);
    parent.map_or_else(String::new, |parent| {
        format!(": prepared, waits for saga {}", parent.saga_id)
    })
}

fn ended(started_at: &str, ended_at: &str) -> String {
    let parsed = |text: &str| text.parse::<crate::id::Timestamp>().ok();
    match (parsed(started_at), parsed(ended_at)) {
        (Some(from), Some(to)) => format!("{ended_at}, after {}", spoken(to.since(from))),
        _ => ended_at.to_owned(),
    }
}

fn step_row(step: &StepView) -> Vec<String> {
    let indent = "  ".repeat(step.depth);
    let beside = if step.parallel { "∥ " } else { "" };
    let mut status = step.status.as_str().to_owned();
    if !step.next.is_empty() && step.phase.is_some() {
        let next: Vec<&str> = step.next.iter().map(|phase| phase.as_str()).collect();
        status = format!("{status}, to come: {}", next.join(", "));
    }
    vec![
        format!("{indent}{beside}{}", step.step),
        status,
        attempts(step),
        detail(step),
    ]
}

fn signal_row(signal: &SignalView) -> Vec<String> {
    let body = shortened(&signal.body.to_string(), REPLY_CHARS_MAX);
    let at = signal.at.as_deref().map(whole_seconds);
    let came = at.map(|at| format!("came {at}")).unwrap_or_default();
    vec![signal.name.clone(), body, printable(&signal.id), came]
}

fn attempts(step: &StepView) -> String {
    match (step.attempt, step.attempts_max) {
        (0 | 1, _) => String::new(),
        (attempt, Some(most)) => format!("attempt {attempt} of {most}"),
        (attempt, None) => format!("attempt {attempt}"),
    }
}

/// The most telling thing: what it waits for, what went wrong, what was answered.
fn detail(step: &StepView) -> String {
    let mut parts = Vec::new();
    if let Some(child) = &step.child {
        parts.push(format!("runs {} {}", child.saga, child.saga_id));
    }
    if let Some(waiting) = &step.waiting {
        let what = match (&waiting.signal, waiting.r#for) {
            (Some(signal), _) => format!("waits for signal `{signal}`"),
            (None, "time") => "sleeps".to_owned(),
            (None, what) => format!("waits for a {what}"),
        };
        parts.push(match (&waiting.until, waiting.r#for) {
            (Some(until), "retry") => format!("tried again at {}", whole_seconds(until)),
            (Some(until), _) => format!("{what} until {}", whole_seconds(until)),
            (None, _) => what,
        });
    }
    if let Some(reason) = &step.reason {
        parts.push(printable(reason));
    }
    if let Some(reply) = step.reply.as_deref().filter(|reply| **reply != Value::Null) {
        parts.push(shortened(&reply.to_string(), REPLY_CHARS_MAX));
    }
    if let Some(at) = &step.signal_at {
        parts.push(format!("signal came {}", whole_seconds(at)));
    }
    if step.phase.is_none() && step.reason.is_none() {
        let commands = step
            .next
            .iter()
            .filter_map(|phase| step.commands.get(phase.as_str()));
        parts.extend(commands.cloned());
    }
    parts.join("; ")
}

fn timeline(text: &mut String, view: &SagaView) {
    let lines = view.timeline.iter().flat_map(|moment| {
        let cause = moment.cause.as_ref().map_or("unreadable", cause);
        let events = moment.events.iter();
        let words = events.filter_map(|event| event.text.as_deref());
        words.enumerate().map(move |(position, words)| {
            // The time and what came in stand once an entry.
            let (at, cause) = match position {
                0 => (offset(moment.after_us), cause.to_owned()),
                _ => (String::new(), String::new()),
            };
            vec![at, cause, printable(words)]
        })
    });
    let mut rows: Vec<Vec<String>> = lines.collect();
    let hidden = rows.len().saturating_sub(MOMENTS_MAX);
    if hidden > 0 {
        let dropped = rows.drain(MOMENTS_MAX / 2..MOMENTS_MAX / 2 + hidden);
        drop(dropped);
        let note = format!("… {hidden} more; --json has them all");
        rows.insert(MOMENTS_MAX / 2, vec![String::new(), String::new(), note]);
    }
    indented(text, &output::table(&rows));
}

fn cause(cause: &crate::saga::journal::Cause) -> &'static str {
    use crate::saga::journal::Cause;
    match cause {
        Cause::Start => "start",
        Cause::Restart => "restart",
        Cause::Reply => "reply",
        Cause::Returned => "broker",
        Cause::Signal => "signal",
        Cause::Timer => "timer",
        Cause::Operator => "operator",
        Cause::Parent => "parent",
    }
}

/// Time since the start: to the millisecond while that tells something.
pub(super) fn offset(micros: u64) -> String {
    let duration = Duration::from_micros(micros);
    if duration < Duration::from_mins(1) {
        format!("+{}.{:03}s", duration.as_secs(), duration.subsec_millis())
    } else {
        format!("+{}", spoken(duration))
    }
}

fn indented(text: &mut String, block: &str) {
    for line in block.lines() {
        let _ = writeln!(text, "  {line}");
    }
}
