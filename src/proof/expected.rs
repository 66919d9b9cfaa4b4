//! What was put into a shop.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::Timestamp;
use crate::saga::format::Formats;

/// What was put in.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The definition's name.
    pub saga: String,
    /// How the ids of this run's orders, articles and accounts begin; empty for all there are.
    pub prefix: String,
    /// No saga of this run began before; spares reading those of earlier ones.
    pub since: Timestamp,
    /// Pieces at the start, by article.
    pub stock: BTreeMap<String, u64>,
    /// Cents at the start, by account.
    pub balances: BTreeMap<String, u64>,
    /// What was ordered, by the saga's key.
    pub orders: BTreeMap<String, Order>,
    /// The formats that journals may have; others' only in the simulator.
    #[doc(hidden)]
    pub formats: Formats,
}

/// An order, as it goes into the saga `place-order`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The saga's key.
    pub order_id: String,
    /// The account that pays.
    pub customer: String,
    /// What is wanted.
    pub items: Vec<Item>,
    /// What it costs, in cents.
    pub total: u64,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The article.
    pub sku: String,
    /// Pieces.
    pub quantity: u64,
}
