//! `dead-letters move`: from queue to queue, on the broker alone.

use std::sync::Arc;

use clap::Args;

use super::replay::rate;
use crate::cli::backends::OpenBroker;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::dead_letters::shift::{Shift, shift};
use crate::definition::expression::Expression;
use crate::environment::{Environment, TokioEnvironment};

/// What to move.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The queue to take from.
    #[arg(long, value_name = "QUEUE")]
    from: String,
    /// The queue to put into.
    #[arg(long, value_name = "QUEUE")]
    to: String,
    /// Only messages of which this CEL expression is true; `input` has `type`, `message_id`,
    /// `correlation_id`, `content_type`, `app_id`, `headers`, `body` (parsed if it is JSON), `bytes`.
    #[arg(long = "where", value_name = "EXPRESSION")]
    condition: Option<String>,
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
    let wanted = Shift {
        from: arguments.from,
        to: arguments.to,
        condition,
        rate: arguments.rate,
        most: arguments.max,
    };
    let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
    let stop = super::stop_on_signal();
    let done = shift(&environment, &broker.handle(), &wanted, &stop).await;
    let done = done.map_err(super::failed)?;
    if json {
        output::print_json(&done)?;
    } else {
        output::print(&format!(
            "{} moved, {} left, of {} at the start\n",
            done.moved, done.left, done.seen_at_start
        ))?;
    }
    if done.missing > 0 {
        return Err(Failure::new(format!(
            "{} of the messages did not come: somebody else took them, or they can't be delivered to us (a property that is not UTF-8; see docs/dead-letters.md)",
            done.missing
        )));
    }
    Ok(Exit::Done)
}
