//! `backstitch dev`: everything in one process, nothing to install.

use std::path::{Path, PathBuf};

use clap::Args;

use super::backends::{Database, FILE_DEFAULT, OpenBroker};
use super::definitions;
use super::exit::{Exit, Failure};
use super::followers::{FollowerArguments, Followers};
use super::node::{self, NodeArguments, NodePlan, RunPlan};
use super::participants::shipped;
use super::seeds::SeedArguments;
use crate::aggregates::projections;
use crate::environment::{Environment, TokioEnvironment};
use crate::participant::ParticipantOptions;

/// Where definitions are looked for.
const SAGAS_DEFAULT: &str = "sagas";

/// What to run.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory with saga definitions (*.yaml); without it and without a directory `sagas`, the
    /// example `place-order` that comes with the program.
    #[arg(long, env = "BACKSTITCH_SAGAS", value_name = "DIR")]
    sagas: Option<PathBuf>,
    /// The database file.
    #[arg(long, default_value = FILE_DEFAULT, value_name = "FILE", conflicts_with = "ephemeral")]
    file: PathBuf,
    /// Use a database that is thrown away at the end.
    #[arg(long)]
    ephemeral: bool,
    #[command(flatten)]
    seeds: SeedArguments,
    #[command(flatten)]
    followers: FollowerArguments,
    #[command(flatten)]
    node: NodeArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let directory = arguments.sagas.or_else(|| {
        let default = Path::new(SAGAS_DEFAULT);
        default.is_dir().then(|| default.to_owned())
    });
    let definitions = match directory {
        Some(directory) => definitions::load(&directory)?,
        None => definitions::shipped()?,
    };
    let ephemeral = arguments.ephemeral.then(Ephemeral::new).transpose()?;
    let file = ephemeral
        .as_ref()
        .map_or(arguments.file, |own| own.file(FILE_DEFAULT));
    let database = Database::Sqlite(file);
    tracing::info!("database: {}", database.shown());
    let store = database.open().await?;
    let seeds = arguments.seeds.or_examples();
    seeds
        .apply(&*store.participants(), TokioEnvironment.now())
        .await?;
    let participants = shipped(&store);
    node::run(RunPlan {
        followers: Followers {
            projections: projections(),
            publishes: arguments.followers.publish_aggregate_events,
        },
        store,
        broker: OpenBroker::open(None, "backstitch dev").await?,
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

/// A directory of its own for database files, removed at the end.
pub(super) struct Ephemeral(PathBuf);

impl Ephemeral {
    pub(super) fn new() -> Result<Self, Failure> {
        let name = format!("backstitch-{}", TokioEnvironment.new_id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)
            .map_err(|error| Failure::new(format!("can't create {}: {error}", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        // Left-overs in the temporary directory harm nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
