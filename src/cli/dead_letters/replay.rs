//! `dead-letters replay`: letters → queues.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::select::SelectionArguments;
use super::{By, open_broker};
use crate::cli::backends::BrokerArguments;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::dead_letters::Desk;
use crate::dead_letters::replay::{REPLAYS_MAX, ReplayEvent, ReplayOptions, Replayed};
use crate::definition::parse_duration;
use crate::message::Destination;
use crate::store::dead_letters::{LetterHead, LetterStatus};

/// Which letters, and how.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: SelectionArguments,
    /// Show what would go where, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// To this queue instead of the one where they died.
    #[arg(long, value_name = "QUEUE")]
    to: Option<String>,
    /// Also what was replayed or discarded before.
    #[arg(long)]
    again: bool,
    /// Also letters of sagas that have ended.
    #[arg(long)]
    force: bool,
    /// How often a message may be replayed.
    #[arg(long, value_name = "N", default_value_t = REPLAYS_MAX)]
    replays_max: u32,
    /// Most letters a second, as 50 or 50/s.
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<u32>,
    /// Replay this many first, and go on only if none of them comes back.
    #[arg(long, value_name = "N")]
    canary: Option<usize>,
    /// How long to wait for canaries to come back.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    canary_wait: Duration,
    /// Most letters in all.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    by: By,
}

impl Arguments {
    /// Whether nothing is done.
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run
    }
}

/// A number a second.
pub(super) fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse();
    number
        .ok()
        .filter(|rate| *rate > 0)
        .ok_or_else(|| format!("`{text}` is not a rate, such as 50/s"))
}

pub(super) async fn run(
    desk: &Desk,
    arguments: Arguments,
    broker: &BrokerArguments,
    json: bool,
) -> Result<Exit, Failure> {
    let status = (!arguments.again).then_some(LetterStatus::Open);
    let selection = arguments.selection.selection(desk, status)?;
    let wait = arguments.canary_wait;
    let options = ReplayOptions {
        to: arguments.to.map(Destination::queue),
        again: arguments.again,
        force: arguments.force,
        replays_max: arguments.replays_max,
        by: arguments.by.by,
        why: arguments.by.why,
        rate: arguments.rate,
        canary: arguments.canary.map(|count| (count.max(1), wait)),
        limit: arguments.limit,
    };
    if arguments.dry_run {
        let mut lines = String::new();
        let mut sends = Vec::new();
        let total = desk
            .replay_dry(selection, &options, |event| match event {
                ReplayEvent::Sent(head, to) if json => {
                    sends.push(json!({ "id": head.id, "to": to }));
                }
                ReplayEvent::Sent(head, to) => lines.push_str(&would_go(head, to)),
                event => tell(&event),
            })
            .await;
        let total = total.map_err(super::failed)?;
        if json {
            let mut answer = json!(total);
            answer["sends"] = sends.into();
            output::print_json(&answer)?;
            return Ok(Exit::Done);
        }
        output::print(&lines)?;
        return report(&total, json, true);
    }
    let broker = open_broker(broker).await?;
    let stop = super::stop_on_signal();
    let total = desk
        .replay(&broker.handle(), selection, &options, &stop, |event| {
            tell(&event);
        })
        .await;
    broker.close().await;
    report(&total.map_err(super::failed)?, json, false)
}

/// A line of a dry run.
fn would_go(head: &LetterHead, to: &Destination) -> String {
    let kind = head.kind.as_deref().unwrap_or_default();
    let id = head.message_id.as_deref().unwrap_or_default();
    output::printable(&format!("{} {kind} {id} -> {to}", head.id)) + "\n"
}

fn tell(event: &ReplayEvent<'_>) {
    match event {
        ReplayEvent::Sent(..) => {}
        ReplayEvent::Refused(head, refusal) => {
            output::remark(format_args!("{}: {refusal}", head.id));
        }
        ReplayEvent::Lost(id) => {
            output::remark(format_args!("{id}: somebody else changed it first"));
        }
        ReplayEvent::Returned(id, why) => {
            output::remark(format_args!(
                "{}",
                output::printable(&format!("{id}: {why}; it is open again"))
            ));
        }
        ReplayEvent::Waiting(count, wait) => {
            output::remark(format_args!(
                "{count} sent; waiting {wait:?} whether they come back"
            ));
        }
    }
}

fn report(total: &Replayed, json: bool, dry: bool) -> Result<Exit, Failure> {
    if json {
        output::print_json(total)?;
    } else {
        let verb = if dry { "would be replayed" } else { "replayed" };
        let mut line = format!("{} {verb}", total.replayed);
        for (count, what) in [
            (total.refused, "refused"),
            (total.returned, "taken by no queue"),
            (total.lost, "changed by somebody else"),
            (
                total.on_their_way,
                "on their way: a node or the next replay sends them",
            ),
        ] {
            if count > 0 {
                // Writing to a string can't fail.
                let _ = write!(line, ", {count} {what}");
            }
        }
        output::print(&(line + "\n"))?;
    }
    if !total.came_back.is_empty() {
        let ids: Vec<String> = total.came_back.iter().map(ToString::to_string).collect();
        return Err(Failure::new(format!(
            "{} canaries came back, so no more were sent: {}",
            ids.len(),
            ids.join(", ")
        )));
    }
    Ok(if total.returned + total.on_their_way == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}
