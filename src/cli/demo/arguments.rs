//! What a demonstration is told.

use clap::Args;

use crate::cli::backends::{BrokerArguments, DatabaseArguments};

/// What to show.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // flags, as clap has them
pub(in crate::cli) struct Arguments {
    /// Orders to place, each of them one saga.
    #[arg(long, default_value_t = 2_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) orders: u32,
    /// Customers with an account; one in ten is poor.
    #[arg(long, default_value_t = 200, value_name = "N",
          value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub(super) customers: u32,
    /// Articles; one in ten is scarce.
    #[arg(long, default_value_t = 50, value_name = "N",
          value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub(super) articles: u32,
    /// Decides orders and faults.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) seed: u64,
    /// Most sagas that are open at a time.
    #[arg(long, default_value_t = 256, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) in_flight: u32,
    /// Inject no faults.
    #[arg(long)]
    pub(super) no_faults: bool,
    /// Run neither a node nor participants here: `backstitch serve` and `backstitch participants`
    /// run elsewhere on the same database and broker.
    #[arg(long)]
    pub(super) attach: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseArguments,
    #[command(flatten)]
    pub(super) broker: BrokerArguments,
}
