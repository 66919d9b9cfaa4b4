//! Initial stock, balances, credit and quotas for the shipped participants, so that there is something
//! to sell, to owe and to use up.

use std::str::FromStr;

use clap::Args;

use super::exit::Failure;
use crate::aggregates::quotas::Amounts;
use crate::aggregates::{
    Credit, Inventory, Payments, Quotas, credit, inventory, payments, quotas, seed,
};
use crate::id::Timestamp;
use crate::store::participant::ParticipantStore;

/// The stock that `dev` begins with, so that its example order can be sold.
const EXAMPLE_STOCK: &[(&str, u64)] = &[("bicycle", 100), ("lamp", 1_000)];
/// The money that `dev` begins with, so that it can be paid, and one that can't.
const EXAMPLE_BALANCE: &[(&str, u64)] = &[("alice", 1_000_000), ("bob", 5_000)];
/// What may be owed this year in `dev`.
const EXAMPLE_CREDIT: &[(&str, u64)] = &[("alice", 100_000)];
/// What a tenant may have in `dev`.
const EXAMPLE_QUOTA: (&str, Amounts) = (
    "acme",
    Amounts {
        users: 10,
        projects: 3,
        storage_mb: 1_000,
    },
);

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
    /// Let a customer owe so much this year, as in `alice=100000` (cents); one that ever had a
    /// limit this year keeps it.
    #[arg(long, value_name = "CUSTOMER=CENTS")]
    credit: Vec<Seed>,
    /// Let a tenant have so many users, projects and megabytes, as in `acme=10/3/1000`; one that
    /// ever had limits keeps them.
    #[arg(long, value_name = "TENANT=USERS/PROJECTS/MB")]
    quota: Vec<QuotaSeed>,
}

/// An id and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seed {
    pub(super) id: String,
    pub(super) amount: u64,
}

/// A tenant and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QuotaSeed {
    tenant: String,
    limits: Amounts,
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, amount) = named(text).ok_or("write NAME=NUMBER, as in `lamp=100`")?;
        Ok(Self {
            id: id.to_owned(),
            amount: whole(amount)?,
        })
    }
}

impl FromStr for QuotaSeed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let how = "write TENANT=USERS/PROJECTS/MB, as in `acme=10/3/1000`";
        let (tenant, limits) = named(text).ok_or(how)?;
        let limits: Vec<u64> = limits.split('/').map(whole).collect::<Result<_, _>>()?;
        let [users, projects, storage_mb] = limits[..] else {
            return Err(how.to_owned());
        };
        Ok(Self {
            tenant: tenant.to_owned(),
            limits: Amounts {
                users,
                projects,
                storage_mb,
            },
        })
    }
}

/// A name and what follows it. At the last `=`: an article's number may hold one.
fn named(text: &str) -> Option<(&str, &str)> {
    text.rsplit_once('=').filter(|(name, _)| !name.is_empty())
}

fn whole(number: &str) -> Result<u64, String> {
    number
        .parse()
        .map_err(|_| format!("`{number}` is not a whole number from 0"))
}

impl SeedArguments {
    /// What `dev` begins with if nothing is said.
    pub(super) fn or_examples(self) -> Self {
        let is_said = !self.stock.is_empty()
            || !self.balance.is_empty()
            || !self.credit.is_empty()
            || !self.quota.is_empty();
        if is_said {
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
            credit: seeds(EXAMPLE_CREDIT),
            quota: vec![QuotaSeed {
                tenant: EXAMPLE_QUOTA.0.to_owned(),
                limits: EXAMPLE_QUOTA.1,
            }],
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
        let credit = self.credit.into_iter().map(|Seed { id, amount }| {
            let event = credit::Event::Granted { limit: amount };
            (Credit::id_at(now, &id), event)
        });
        let customers = seed::<Credit>(store, now, credit).await.map_err(failed)?;
        let quota = self.quota.into_iter().map(|QuotaSeed { tenant, limits }| {
            let event = quotas::Event::LimitsSet { limits };
            (tenant, event)
        });
        let tenants = seed::<Quotas>(store, now, quota).await.map_err(failed)?;
        if articles + accounts + customers + tenants > 0 {
            tracing::info!(
                articles,
                accounts,
                customers,
                tenants,
                "initial stock, balances, credit and quotas stored"
            );
        }
        Ok(())
    }
}
