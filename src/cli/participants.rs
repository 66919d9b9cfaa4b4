//! `backstitch participants`: the shipped participants in a process of their own, as any service
//! of yours would run.

use std::sync::Arc;

use clap::Args;

use super::backends::{BrokerArguments, DatabaseArguments, OpenBroker, OpenStore};
use super::exit::{Exit, Failure};
use super::followers::Followers;
use super::node::{self, RunPlan};
use super::seeds::SeedArguments;
use crate::aggregates::{participants_reading, projections};
use crate::environment::{Environment, TokioEnvironment};
use crate::participant::{Participant, ParticipantOptions};
use crate::projection::ReadModel;

/// Which to run.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Which of `inventory`, `orders`, `payments`, `mailer`, `credit`, `quotas`, `invoices`, `work-items`,
    /// `work-people`, `work-actions`, `chat`, `push`, `offers`, `badges` to run; all if none is named.
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
    let participants = chosen(&arguments.names, shipped(&store))?;
    node::run(RunPlan {
        followers: Followers::default(),
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

/// All shipped participants, over this store.
pub(super) fn shipped(store: &OpenStore) -> Vec<Participant> {
    let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
    participants_reading(ReadModel::new(
        environment,
        store.read_models(),
        projections(),
    ))
}

/// Those of these names; all if none is named.
pub(super) fn chosen(names: &[String], all: Vec<Participant>) -> Result<Vec<Participant>, Failure> {
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
