//! `dead-letters move`: from queue to queue, on the broker alone.

use std::fmt::Write as _;
use std::sync::Arc;

use clap::Args;

use super::replay::rate;
use crate::cli::backends::OpenBroker;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::dead_letters::route::Routes;
use crate::dead_letters::shift::{Shift, Shifted, shift};
use crate::definition::expression::Expression;
use crate::environment::{Environment, TokioEnvironment};

/// What to move.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The queue to take from.
    #[arg(long, value_name = "QUEUE")]
    from: String,
    /// The queue to put into, or the exchange and routing key to publish by.
    #[arg(long, value_name = "QUEUE|EXCHANGE/KEY")]
    to: String,
    /// Only messages of which this CEL expression is true; `input` has `type`, `message_id`,
    /// `correlation_id`, `content_type`, `app_id`, `headers`, `body` (parsed if it is JSON), `bytes`.
    #[arg(long = "where", value_name = "EXPRESSION")]
    condition: Option<String>,
    /// Only look, and say how many would be moved; that counts as one delivery of each message.
    #[arg(long)]
    dry_run: bool,
    /// Also look where messages could be worn out, and move where they could be lost.
    #[arg(long)]
    anyway: bool,
    /// Most messages a second, as 50 or 50/s.
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<u32>,
    /// Most messages.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
}

pub(super) async fn run(
    arguments: Arguments,
    broker: &OpenBroker,
    json: bool,
) -> Result<Exit, Failure> {
    let condition = arguments.condition.as_deref().map(Expression::of_command);
    let condition = condition
        .transpose()
        .map_err(|why| Failure::problems(format!("--where: {why}")))?;
    if arguments.from == arguments.to {
        return Err(Failure::problems(format!(
            "`{}` is where the messages are already; --to another queue",
            arguments.to
        )));
    }
    let handle = broker.handle();
    let to = Routes::new(Some(Arc::clone(&handle)))
        .destination(&arguments.to)
        .await;
    let wanted = Shift {
        from: arguments.from,
        to: to.map_err(Failure::new)?,
        condition,
        dry_run: arguments.dry_run,
        anyway: arguments.anyway,
        rate: arguments.rate,
        most: arguments.max,
    };
    let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
    let stop = super::stop_on_signal();
    let warn = |text: &str| output::remark(format_args!("warning: {text}"));
    let done = shift(&environment, &handle, &wanted, &stop, warn).await;
    let done = done.map_err(super::failed)?;
    report(&done, &wanted, json)
}

fn report(done: &Shifted, wanted: &Shift, json: bool) -> Result<Exit, Failure> {
    if json {
        output::print_json(done)?;
    } else {
        let verb = if wanted.dry_run {
            "would be moved"
        } else {
            "moved"
        };
        let mut line = format!("{} {verb}, {} left", done.moved, done.left);
        if done.renewed > 0 {
            // Writing to a string can't fail.
            let _ = write!(
                line,
                " ({} of them at the end of the queue, as new: it would have given them up)",
                done.renewed
            );
        }
        output::print(&format!("{line}, of {} at the start\n", done.seen_at_start))?;
    }
    for (why, count) in &done.refused {
        output::remark(format_args!(
            "{count} are left although they are wanted: {why}"
        ));
    }
    let mut wrong = Vec::new();
    if done.lost > 0 {
        wrong.push(format!(
            "{} messages are no longer in queue `{}` although they were given back: it has given them up for being delivered too often (a policy may set such a limit), and they are lost unless it has a dead-letter exchange",
            done.lost, wanted.from
        ));
    }
    if done.missing > 0 {
        wrong.push(format!(
            "{} of the messages did not come: somebody else took them, or they can't be delivered to us (a property that is not UTF-8; see docs/dead-letters.md)",
            done.missing
        ));
    }
    if done.unseen > 0 {
        wrong.push(format!(
            "{} of the messages were not looked at: no more can be held at once",
            done.unseen
        ));
    }
    if !wrong.is_empty() {
        return Err(Failure::new(wrong.join("; ")));
    }
    Ok(if done.refused.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}
