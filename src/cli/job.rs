//! `backstitch job`: one action on many sagas, over a node's HTTP. Nodes do it; this makes it, watches
//! it, stops it.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Answer, Client, NodeUrl};
use super::exit::{Exit, Failure};
use super::filter::FilterArguments;
use super::list::{CELL_CHARS_MAX, whole_seconds};
use super::output;
use super::start::json_argument;
use crate::environment::{Environment, TokioEnvironment};

/// How often a job that is watched is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What to do about jobs.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Do something to all sagas that a filter finds; live ones, unless it says others.
    Start(Box<StartArguments>),
    /// List jobs, newest first.
    List(ListArguments),
    /// Show a job; with --watch until it comes to a stop.
    Show(ShowArguments),
    /// List what became of each saga.
    Results(ResultsArguments),
    /// Have a job stand still.
    Pause(SayArguments),
    /// Let a job go on, also when its canaries did not come home.
    Resume(SayArguments),
    /// End a job where it is.
    Abort(SayArguments),
}

#[derive(Debug, Args)]
struct StartArguments {
    /// retry, skip (the step each is suspended at), cancel, pause, resume, force-complete, force-compensated
    /// or signal.
    action: String,
    #[command(flatten)]
    filter: FilterArguments,
    /// How many in what time: 20/s, 100/m. As fast as nodes can, if absent.
    #[arg(long)]
    rate: Option<String>,
    /// How many come first: if they do not come home within 30 s, the job pauses.
    #[arg(long, default_value_t = 0, value_name = "N")]
    canary: u32,
    /// Only say how many sagas it would be, with a sample.
    #[arg(long)]
    dry_run: bool,
    /// For skip: what counts as each step's result: JSON, `@FILE`, or `-` for stdin.
    #[arg(long, alias = "result", value_name = "JSON")]
    reply: Option<String>,
    /// For signal: which.
    #[arg(long, value_name = "NAME")]
    signal: Option<String>,
    /// For signal: its payload: JSON, `@FILE`, or `-` for stdin.
    #[arg(long, value_name = "JSON", requires = "signal")]
    payload: Option<String>,
    /// Stay and show its progress until it comes to a stop.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    deed: Deed,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

/// Who, and why.
#[derive(Debug, Args)]
struct Deed {
    /// Who decides; goes into each journal and the audit log. Whoever is signed in, if absent.
    #[arg(long)]
    by: Option<String>,
    /// Why; goes there too.
    #[arg(long)]
    why: String,
}

#[derive(Debug, Args)]
struct ListArguments {
    /// At most this many.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

#[derive(Debug, Args)]
struct ShowArguments {
    /// The job's id.
    id: Uuid,
    /// Stay and show its progress until it comes to a stop.
    #[arg(long)]
    watch: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

#[derive(Debug, Args)]
struct ResultsArguments {
    /// The job's id.
    id: Uuid,
    /// Only those that refused.
    #[arg(long)]
    refused: bool,
    /// At most this many.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

#[derive(Debug, Args)]
struct SayArguments {
    /// The job's id.
    id: Uuid,
    #[command(flatten)]
    deed: Deed,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Start(arguments) => start(arguments),
        Command::List(arguments) => list(arguments),
        Command::Show(arguments) => {
            let client = arguments.node.client()?;
            follow(&client, arguments.id, arguments.watch, arguments.json)
        }
        Command::Results(arguments) => results(arguments),
        Command::Pause(arguments) => say("pause", arguments),
        Command::Resume(arguments) => say("resume", arguments),
        Command::Abort(arguments) => say("abort", arguments),
    }
}

fn start(arguments: &StartArguments) -> Result<Exit, Failure> {
    let filter = arguments.filter.filter(TokioEnvironment.now())?;
    let mut body = json!({
        "action": arguments.action,
        "filter": filter.text(),
        "why": arguments.deed.why,
        "canary": arguments.canary,
        "dry_run": arguments.dry_run,
    });
    let texts = [
        ("by", &arguments.deed.by),
        ("rate", &arguments.rate),
        ("signal", &arguments.signal),
    ];
    for (field, value) in texts {
        if let Some(value) = value {
            body[field] = json!(value);
        }
    }
    for (field, what, value) in [
        ("reply", "the reply", &arguments.reply),
        ("payload", "the payload", &arguments.payload),
    ] {
        if let Some(value) = value {
            body[field] = json_argument(what, value)?;
        }
    }
    let client = arguments.node.client()?;
    let answer = expect(client.post("/v1/jobs", &body)?)?;
    if arguments.dry_run {
        return dry(&answer, arguments.json);
    }
    let id = answer.text("id").and_then(|id| id.parse().ok());
    let id = id.ok_or_else(|| Failure::new("the node has not said which job it is"))?;
    if !arguments.json {
        let total = count(&answer.body["total"]);
        output::remark(format_args!(
            "job {id} is about {total} sagas; to look at it: backstitch job show {id} --watch"
        ));
    }
    follow(&client, id, arguments.watch, arguments.json)
}

fn dry(answer: &Answer, is_json: bool) -> Result<Exit, Failure> {
    if is_json {
        output::print_json(&answer.body)?;
        return Ok(Exit::Done);
    }
    let total = count(&answer.body["total"]);
    let mut rows = vec![
        ["ID", "SAGA", "KEY", "STATUS", "REASON"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for saga in answer.body["sample"].as_array().into_iter().flatten() {
        let cell = |field: &str| {
            let text = saga[field].as_str().unwrap_or_default();
            output::shortened(text, CELL_CHARS_MAX)
        };
        rows.push(["id", "saga", "key", "status", "reason"].map(cell).to_vec());
    }
    output::print(&format!(
        "{total} sagas; nothing is done to them (--dry-run)\n"
    ))?;
    if rows.len() > 1 {
        output::print(&output::table(&rows))?;
    }
    Ok(Exit::Done)
}

/// Shows a job, until it comes to a stop if that is asked.
fn follow(client: &Client, id: Uuid, watch: bool, is_json: bool) -> Result<Exit, Failure> {
    let mut said = String::new();
    loop {
        let job = expect(client.get(&format!("/v1/jobs/{id}"))?)?;
        let is_running = job.text("state") == Some("running");
        if watch && is_running {
            let line = progress(&job);
            if line != said {
                output::remark(&line);
                said = line;
            }
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        if is_json {
            output::print_json(&job.body)?;
        } else {
            output::print(&shown(&job))?;
        }
        // Whoever waited for its end wants to know whether it is one.
        let stopped_short = watch && matches!(job.text("state"), Some("paused" | "aborted"));
        return Ok(if stopped_short {
            Exit::Failed
        } else {
            Exit::Done
        });
    }
}

fn progress(job: &Answer) -> String {
    format!(
        "{} of {} done, {} refused",
        job.body["done"],
        count(&job.body["total"]),
        job.body["refused"]
    )
}

fn shown(job: &Answer) -> String {
    let text = |field: &str| output::printable(job.text(field).unwrap_or("-"));
    let mut lines = format!(
        "job      {}\nstate    {}\nprogress {}\naction   {}\nfilter   {}\nby       {}\nwhy      {}\nrate     {}\ncanary   {}\nmade     {}\n",
        text("id"),
        text("state"),
        progress(job),
        text("action"),
        text("filter"),
        text("by"),
        text("why"),
        text("rate"),
        job.body["canary"],
        text("made_at"),
    );
    if let Some(note) = job.text("note") {
        lines += "note     ";
        lines += &output::printable(note);
        lines.push('\n');
    }
    lines
}

fn list(arguments: &ListArguments) -> Result<Exit, Failure> {
    let client = arguments.node.client()?;
    let answer = expect(client.get(&format!("/v1/jobs?limit={}", arguments.limit))?)?;
    if arguments.json {
        output::print_json(&answer.body)?;
        return Ok(Exit::Done);
    }
    let header = [
        "ID", "STATE", "DONE", "REFUSED", "OF", "ACTION", "BY", "MADE", "FILTER",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for job in answer.body["jobs"].as_array().into_iter().flatten() {
        let cell = |field: &str| {
            let text = job[field].as_str().unwrap_or_default();
            output::shortened(text, CELL_CHARS_MAX)
        };
        rows.push(vec![
            cell("id"),
            cell("state"),
            job["done"].to_string(),
            job["refused"].to_string(),
            count(&job["total"]),
            cell("action"),
            cell("by"),
            whole_seconds(&cell("made_at")),
            cell("filter"),
        ]);
    }
    if rows.len() == 1 {
        output::remark(format_args!("no jobs"));
    } else {
        output::print(&output::table(&rows))?;
    }
    Ok(Exit::Done)
}

fn results(arguments: &ResultsArguments) -> Result<Exit, Failure> {
    let client = arguments.node.client()?;
    let path = format!(
        "/v1/jobs/{}/results?refused={}&limit={}",
        arguments.id, arguments.refused, arguments.limit
    );
    let answer = expect(client.get(&path)?)?;
    if arguments.json {
        output::print_json(&answer.body)?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![["SAGA", "AT", "REFUSED"].map(str::to_owned).to_vec()];
    for result in answer.body["results"].as_array().into_iter().flatten() {
        let cell = |field: &str| result[field].as_str().unwrap_or_default().to_owned();
        rows.push(vec![
            cell("saga_id"),
            whole_seconds(&cell("at")),
            output::shortened(&cell("refused"), 2 * CELL_CHARS_MAX),
        ]);
    }
    output::print(&output::table(&rows))?;
    Ok(Exit::Done)
}

fn say(command: &str, arguments: &SayArguments) -> Result<Exit, Failure> {
    let client = arguments.node.client()?;
    let mut body = json!({ "why": arguments.deed.why });
    if let Some(by) = &arguments.deed.by {
        body["by"] = json!(by);
    }
    let path = format!("/v1/jobs/{}/{command}", arguments.id);
    let job = expect(client.post(&path, &body)?)?;
    if arguments.json {
        output::print_json(&job.body)?;
    } else {
        output::print(&shown(&job))?;
    }
    Ok(Exit::Done)
}

fn count(total: &Value) -> String {
    let more = if total["or_more"] == true { "+" } else { "" };
    format!("{}{more}", total["sagas"])
}

fn expect(answer: Answer) -> Result<Answer, Failure> {
    match answer.status {
        200 | 201 => Ok(answer),
        _ => Err(Failure::new(answer.refusal())),
    }
}
