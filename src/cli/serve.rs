//! `backstitch serve`: one node. Nodes are stateless; run as many as you like on the same
//! database and queues.

use std::path::PathBuf;

use clap::Args;

use super::backends::{BrokerArguments, DatabaseArguments, OpenBroker};
use super::definitions;
use super::exit::{Exit, Failure};
use super::followers::{FollowerArguments, Followers};
use super::node::{self, NodeArguments, NodePlan, RunPlan};
use super::participants::shipped;
use crate::aggregates::projections;
use crate::participant::ParticipantOptions;
use crate::projection::Projections;

/// How to run a node.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory with saga definitions (*.yaml).
    #[arg(
        long,
        env = "BACKSTITCH_SAGAS",
        default_value = "sagas",
        value_name = "DIR"
    )]
    sagas: PathBuf,
    /// Run the shipped participants and projections in this process too.
    #[arg(long)]
    with_participants: bool,
    #[command(flatten)]
    followers: FollowerArguments,
    #[command(flatten)]
    node: NodeArguments,
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    broker: BrokerArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let definitions = definitions::load(&arguments.sagas)?;
    let database = arguments.database.database()?;
    let url = arguments.broker.url()?;
    if url.is_none() && !arguments.with_participants {
        tracing::warn!(
            "AMQP_URL is not set, so messages stay inside this process, and no participant runs in it: nobody can answer a command, and every saga will be rolled back. Set AMQP_URL, or add --with-participants"
        );
    }
    tracing::info!("database: {}", database.shown());
    let store = database.open().await?;
    let broker = OpenBroker::open(url.as_deref(), "backstitch serve").await?;
    let with_participants = arguments.with_participants;
    let participants = if with_participants {
        shipped(&store)
    } else {
        Vec::new()
    };
    node::run(RunPlan {
        followers: Followers {
            projections: if with_participants {
                projections()
            } else {
                Projections::new()
            },
            publishes: arguments.followers.publish_aggregate_events,
        },
        store,
        broker,
        node: Some(NodePlan {
            definitions,
            arguments: arguments.node,
        }),
        participants,
        participant_options: ParticipantOptions::default(),
    })
    .await?;
    Ok(Exit::Done)
}
