//! Initial stock and balances for the shipped participants, so that there is something to sell.

use std::str::FromStr;

use clap::Args;

use super::exit::Failure;
use crate::aggregates::{Inventory, Payments, inventory, payments, seed};
use crate::id::Timestamp;
use crate::store::participant::ParticipantStore;

/// The stock that `dev` begins with, so that its example order can be sold.
const EXAMPLE_STOCK: &[(&str, u64)] = &[("bicycle", 100), ("lamp", 1_000)];
/// The money that `dev` begins with, so that it can be paid, and one that can't.
const EXAMPLE_BALANCE: &[(&str, u64)] = &[("alice", 1_000_000), ("bob", 5_000)];

/// What to begin with.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SeedArguments {
    /// Give an article its first stock, as in `lamp=100`; one that ever had stock is left alone.
    #[arg(long, value_name = "SKU=PIECES")]
    stock: Vec<Seed>,
    /// Give an account its first money, as in `alice=5000` (cents); one that ever had money is
    /// left alone.
    #[arg(long, value_name = "ACCOUNT=CENTS")]
    balance: Vec<Seed>,
}

/// An id and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seed {
    pub(super) id: String,
    pub(super) amount: u64,
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The last `=`: an article's number may hold one.
        let (id, amount) = text
            .rsplit_once('=')
            .filter(|(id, _)| !id.is_empty())
            .ok_or("write NAME=NUMBER, as in `lamp=100`")?;
        let amount = amount
            .parse()
            .map_err(|_| format!("`{amount}` is not a whole number from 0"))?;
        Ok(Self {
            id: id.to_owned(),
            amount,
        })
    }
}

impl SeedArguments {
    /// What `dev` begins with if nothing is said.
    pub(super) fn or_examples(self) -> Self {
        if !self.stock.is_empty() || !self.balance.is_empty() {
            return self;
        }
        let seeds = |examples: &[(&str, u64)]| {
            let seed = |(id, amount): &(&str, u64)| Seed {
                id: (*id).to_owned(),
                amount: *amount,
            };
            examples.iter().map(seed).collect()
        };
        Self {
            stock: seeds(EXAMPLE_STOCK),
            balance: seeds(EXAMPLE_BALANCE),
        }
    }

    /// Stores what is new, and logs what that was.
    pub(super) async fn apply(
        self,
        store: &dyn ParticipantStore,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let failed = |error| Failure::new(format!("can't store the initial stock: {error}"));
        let stock = self.stock.into_iter().map(|Seed { id, amount }| {
            let event = inventory::Event::Received { quantity: amount };
            (id, event)
        });
        let articles = seed::<Inventory>(store, now, stock).await.map_err(failed)?;
        let balance = self.balance.into_iter().map(|Seed { id, amount }| {
            let event = payments::Event::Deposited { amount };
            (id, event)
        });
        let accounts = seed::<Payments>(store, now, balance)
            .await
            .map_err(failed)?;
        if articles + accounts > 0 {
            tracing::info!(articles, accounts, "initial stock and balances stored");
        }
        Ok(())
    }
}
