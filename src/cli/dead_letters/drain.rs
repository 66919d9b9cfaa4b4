//! `dead-letters drain`: queues → database, without a node.

use std::sync::Arc;

use clap::Args;
use futures_util::future::join_all;

use super::open_broker;
use crate::cli::backends::BrokerArguments;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::dead_letters::Desk;
use crate::dead_letters::drain::{Drain, DrainUntil, Drained};

/// Which queues.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A queue to drain; may be given several times.
    #[arg(long, required = true)]
    queue: Vec<String>,
    /// Go on when the queues are empty, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    /// Unacknowledged messages that a queue gives at most.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..))]
    prefetch: u16,
}

pub(super) async fn run(
    desk: &Desk,
    arguments: Arguments,
    broker: &BrokerArguments,
    json: bool,
) -> Result<Exit, Failure> {
    let broker = open_broker(broker).await?;
    let stop = super::stop_on_signal();
    let drain = Drain {
        environment: Arc::clone(&desk.environment),
        broker: broker.handle(),
        letters: Arc::clone(&desk.letters),
        prefetch: arguments.prefetch,
    };
    let until = if arguments.follow {
        DrainUntil::Stopped
    } else {
        DrainUntil::Empty
    };
    let queues = arguments.queue.iter();
    let drains = queues.map(|queue| drain.run(queue, until, &stop, |_| {}));
    let done = join_all(drains).await;
    broker.close().await;
    let mut total = Drained::default();
    for (queue, drained) in arguments.queue.iter().zip(done) {
        let drained = drained.map_err(|error| {
            let Failure { message, exit } = super::failed(error);
            let message = format!(
                "queue `{queue}`: {message}. If the connection breaks again and again, a message in it is not valid AMQP text; see \"Draining\" in docs/dead-letters.md"
            );
            Failure { message, exit }
        })?;
        total.taken += drained.taken;
        total.new += drained.new;
        total.refused += drained.refused;
    }
    if json {
        output::print_json(&total)?;
    } else {
        output::print(&format!(
            "{} messages taken, {} new letters\n",
            total.taken, total.new
        ))?;
    }
    Ok(if total.refused == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}
