//! Work items: one thing that people ask about and three that keep it.
//!
//! The item itself, who takes part in it and what was done for it are aggregates of their own, each
//! with its own participant, so that none waits for another. What belongs together bears the work
//! item's id as its correlation; [`WorkItemDetails`] is folded from all three by it.

mod actions;
mod details;
mod items;
mod people;
#[cfg(test)]
mod tests;

pub use actions::WorkActions;
pub use details::{Details, WorkItemDetails};
pub use items::WorkItems;
pub use people::WorkPeople;
