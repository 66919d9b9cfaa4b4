//! `backstitch participants`: the shipped participants in a process of their own, as any service
//! of yours would run.

use clap::Args;

use super::backends::{BrokerArguments, DatabaseArguments, OpenBroker};
use super::exit::{Exit, Failure};
use super::node::{self, RunPlan};
use super::seeds::SeedArguments;
use crate::aggregates::participants;
use crate::environment::{Environment, TokioEnvironment};
use crate::participant::{Participant, ParticipantOptions};

/// Which to run.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Which of `inventory`, `orders`, `payments`, `mailer`, `credit`, `quotas`, `invoices` to run; all if none is named.
    names: Vec<String>,
    /// Answer by the exchange `backstitch.replies`: the right to write to that alone is enough then
    /// (`backstitch grants`).
    #[arg(long, env = "BACKSTITCH_REPLY_EXCHANGE")]
    reply_exchange: bool,
    #[command(flatten)]
    seeds: SeedArguments,
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    broker: BrokerArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let participants = chosen(&arguments.names)?;
    let database = arguments.database.database()?;
    let Some(url) = arguments.broker.url()? else {
        return Err(Failure::problems(
            "AMQP_URL is not set: participants in a process of their own need a RabbitMQ server to hear from the nodes. To run everything in one process, use `backstitch dev` or `backstitch serve --with-participants`",
        ));
    };
    tracing::info!("database: {}", database.shown());
    let store = database.open().await?;
    let now = TokioEnvironment.now();
    arguments.seeds.apply(&*store.participants(), now).await?;
    node::run(RunPlan {
        store,
        broker: OpenBroker::open(Some(&url), "backstitch participants").await?,
        node: None,
        participants,
        participant_options: ParticipantOptions {
            reply_exchange: arguments.reply_exchange,
            ..ParticipantOptions::default()
        },
    })
    .await?;
    Ok(Exit::Done)
}

/// The participants of these names.
pub(super) fn chosen(names: &[String]) -> Result<Vec<Participant>, Failure> {
    let all = participants();
    let known: Vec<String> = all.iter().map(|one| one.name().to_owned()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(Failure::problems(format!(
            "there is no participant `{unknown}`; there are {}",
            known.join(", ")
        )));
    }
    let wanted =
        |one: &Participant| names.is_empty() || names.iter().any(|name| name == one.name());
    Ok(all.into_iter().filter(wanted).collect())
}
