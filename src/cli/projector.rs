//! `backstitch projector`: the shipped projections in a process of their own.

use clap::Args;

use super::backends::{BrokerArguments, DatabaseArguments, OpenBroker};
use super::exit::{Exit, Failure};
use super::followers::{FollowerArguments, Followers};
use super::node::{self, RunPlan};
use crate::aggregates::projections;
use crate::participant::ParticipantOptions;

/// Which to keep up to date.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Which of `work-item-details`, `unread-badge` to keep up to date; all if none is named.
    names: Vec<String>,
    #[command(flatten)]
    followers: FollowerArguments,
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    broker: BrokerArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let projections = projections()
        .named(&arguments.names)
        .map_err(Failure::problems)?;
    let publishes = arguments.followers.publish_aggregate_events;
    let database = arguments.database.database()?;
    let url = arguments.broker.url()?.filter(|_| publishes);
    if publishes && url.is_none() {
        return Err(Failure::problems(
            "AMQP_URL is not set: there is nowhere to publish aggregate events to",
        ));
    }
    tracing::info!("database: {}", database.shown());
    let store = database.open().await?;
    node::run(RunPlan {
        store,
        broker: OpenBroker::open(url.as_deref(), "backstitch projector").await?,
        node: None,
        participants: Vec::new(),
        participant_options: ParticipantOptions::default(),
        followers: Followers {
            projections,
            publishes,
        },
    })
    .await?;
    Ok(Exit::Done)
}
