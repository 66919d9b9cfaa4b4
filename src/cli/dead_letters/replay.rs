//! `dead-letters replay`: letters → queues.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use uuid::Uuid;

use super::select::SelectionArguments;
use super::{By, open_broker};
use crate::broker::Broker;
use crate::cli::backends::{BrokerArguments, OpenBroker};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::dead_letters::Desk;
use crate::dead_letters::replay::{REPLAYS_MAX, ReplayEvent, ReplayOptions, Replayed};
use crate::dead_letters::route::{Routes, Wish};
use crate::definition::parse_duration;
use crate::message::Destination;
use crate::store::dead_letters::{LetterHead, LetterStatus};

/// Which letters, and how.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the switches of a command, each on its own"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: SelectionArguments,
    /// Show what would go where, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// To this queue, or by this exchange and routing key, instead of to the queue whose consumer
    /// refused them.
    #[arg(
        long,
        value_name = "QUEUE|EXCHANGE/KEY",
        conflicts_with = "as_published"
    )]
    to: Option<String>,
    /// By the exchange and routing key with which they were published, so that the consumer sees the
    /// same; whoever else is bound there gets them again.
    #[arg(long)]
    as_published: bool,
    /// Also where what is refused again would be lost; and on after canaries of which nobody can know.
    #[arg(long)]
    anyway: bool,
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
    let dry = arguments.dry_run;
    // A dry run looks at the broker if there is one.
    let broker = if dry && broker.url()?.is_none() {
        None
    } else {
        Some(open_broker(broker).await?)
    };
    let handle = broker.as_ref().map(OpenBroker::handle);
    let mut told = Told::default();
    let total = replay(desk, arguments, handle, &mut told).await;
    if let Some(broker) = broker {
        broker.close().await;
    }
    let total = total?;
    told.summarize();
    if json {
        let mut answer = json!(total);
        if dry {
            answer["sends"] = told.sends.into();
        }
        let refused = told.refused.iter();
        let refused = refused.map(
            |(reason, (count, first))| json!({ "reason": reason, "count": count, "first": first }),
        );
        answer["refused_because"] = refused.collect();
        output::print_json(&answer)?;
    } else if dry {
        output::print(&told.lines)?;
    }
    report(&total, json, dry)
}

async fn replay(
    desk: &Desk,
    arguments: Arguments,
    broker: Option<Arc<dyn Broker>>,
    told: &mut Told,
) -> Result<Replayed, Failure> {
    let status = (!arguments.again).then_some(LetterStatus::Open);
    let selection = arguments.selection.selection(desk, status)?;
    let wait = arguments.canary_wait;
    let to = match arguments.to {
        Some(text) => {
            let destination = Routes::new(broker.clone()).destination(&text).await;
            Some(destination.map_err(Failure::new)?)
        }
        None => None,
    };
    let options = ReplayOptions {
        wish: Wish {
            to,
            as_published: arguments.as_published,
            anyway: arguments.anyway,
            within: None,
        },
        again: arguments.again,
        force: arguments.force,
        replays_max: arguments.replays_max,
        by: arguments.by.by,
        why: arguments.by.why,
        rate: arguments.rate,
        canary: arguments.canary.map(|count| (count.max(1), wait)),
        limit: arguments.limit,
    };
    let dry = arguments.dry_run;
    let tell = |event: ReplayEvent<'_>| told.hear(&event, dry);
    let total = match broker {
        Some(broker) if !dry => {
            let stop = super::stop_on_signal();
            desk.replay(&broker, selection, &options, &stop, tell).await
        }
        broker => desk.replay_dry(broker, selection, &options, tell).await,
    };
    total.map_err(super::failed)
}

/// What was said of letters.
#[derive(Default)]
struct Told {
    /// Of a dry run, for people.
    lines: String,
    /// Of a dry run, as JSON.
    sends: Vec<Value>,
    /// How many were refused for a reason, and the first of them.
    refused: BTreeMap<String, (u64, Uuid)>,
}

impl Told {
    fn hear(&mut self, event: &ReplayEvent<'_>, dry: bool) {
        match event {
            ReplayEvent::Sent(head, to) if dry => {
                self.sends.push(json!({ "id": head.id, "to": to }));
                self.lines.push_str(&would_go(head, to));
            }
            ReplayEvent::Sent(..) => {}
            ReplayEvent::Refused(head, refusal) => {
                let refused = self.refused.entry(refusal.summary());
                refused.or_insert((0, head.id)).0 += 1;
            }
            ReplayEvent::Caution(text) => {
                output::remark(format_args!("warning: {text}"));
            }
            ReplayEvent::Lost(id) => {
                output::remark(format_args!("{id}: somebody else changed it first"));
            }
            ReplayEvent::Returned(id, why) => {
                output::remark(format_args!("{id}: {why}; it is open again"));
            }
            ReplayEvent::Waiting(count, wait) => {
                output::remark(format_args!(
                    "{count} sent; waiting {wait:?} whether they come back"
                ));
            }
        }
    }

    /// One line a reason, however many letters were refused for it.
    fn summarize(&self) {
        for (reason, (count, first)) in &self.refused {
            match count {
                1 => output::remark(format_args!("{first}: {reason}")),
                _ => output::remark(format_args!(
                    "{count} refused: {reason} (the first is {first})"
                )),
            }
        }
    }
}

/// A line of a dry run.
fn would_go(head: &LetterHead, to: &Destination) -> String {
    let kind = head.kind.as_deref().unwrap_or_default();
    let id = head.message_id.as_deref().unwrap_or_default();
    output::printable(&format!("{} {kind} {id} -> {to}", head.id)) + "\n"
}

fn report(total: &Replayed, json: bool, dry: bool) -> Result<Exit, Failure> {
    if !json {
        let verb = if dry { "would be replayed" } else { "replayed" };
        let mut line = format!("{} {verb}", total.replayed);
        for (count, what) in [
            (total.refused, "refused"),
            (total.returned, "not taken by the broker"),
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
    if !total.unwatched.is_empty() {
        let count = total.unwatched.len();
        let why = total.unwatched_because.join("; ");
        let text = format!(
            "{count} canaries did not come back, but nobody can know whether they were handled: {why}. No more were sent; look at the consumer, then go on without `--canary`, or with `--anyway`"
        );
        if total.stopped {
            return Err(Failure::new(text));
        }
        output::remark(format_args!(
            "warning: {count} canaries can't be watched: {why}"
        ));
    }
    Ok(
        if total.refused + total.returned + total.on_their_way == 0 {
            Exit::Done
        } else {
            Exit::Failed
        },
    )
}
