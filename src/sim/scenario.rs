//! What a simulated run is given, what it may be told to do wrong, and what it answers.

use std::fmt;
use std::time::Duration;

use super::bundles;
use super::network::FaultRates;
use crate::saga::{PlantedBug, Sabotage};

/// What to run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How many orders are placed.
    pub orders: usize,
    /// How they are placed.
    pub workload: Workload,
    /// How bad the network is.
    pub rates: FaultRates,
    /// Longest time, now and then, in which no node runs.
    pub outage_max: Duration,
    /// Whether nodes' clocks are wrong now and then.
    pub wrong_clocks: bool,
    /// Whether nodes of several releases run side by side, each an older or newer one at each start.
    pub releases: bool,
    /// A known bug to switch on.
    pub bug: Option<Bug>,
}

impl Scenario {
    /// Ten orders, the usual faults, no bug.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            orders: 10,
            workload: Workload::Orders,
            rates: FaultRates::default(),
            outage_max: Duration::ZERO,
            wrong_clocks: false,
            releases: false,
            bug: None,
        }
    }

    /// Ten orders whose reservations lapse, with outages that outlast some of them.
    pub fn lapses(seed: u64) -> Self {
        let rates = FaultRates {
            lease: 0.5,
            ..FaultRates::default()
        };
        Self {
            rates,
            outage_max: Duration::from_secs(30),
            ..Self::new(seed)
        }
    }

    /// The same, and now and then a node's clock is wrong.
    pub fn wrong_clocks(seed: u64) -> Self {
        Self {
            wrong_clocks: true,
            ..Self::lapses(seed)
        }
    }

    /// Ten orders during upgrades, node by node, and ways back.
    pub fn upgrades(seed: u64) -> Self {
        Self {
            releases: true,
            ..Self::new(seed)
        }
    }

    /// Nine orders in bundles of three, which are sold together or not at all.
    pub fn bundles(seed: u64) -> Self {
        Self {
            orders: 3 * bundles::ORDERS_EACH,
            workload: Workload::Bundles,
            ..Self::new(seed)
        }
    }

    /// A few orders, some of them misspelt, among much that nobody can handle.
    pub fn letters(seed: u64) -> Self {
        Self {
            orders: 4,
            workload: Workload::Letters,
            ..Self::new(seed)
        }
    }
}

/// How orders are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Each is a saga by itself.
    Orders,
    /// Some at a time, as sub-sagas of one saga.
    Bundles,
    /// Each by itself, while strangers send nonsense and somebody deals with the dead letters.
    Letters,
}

/// Known bugs. Each must be noticed, or the simulator is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The engine acknowledges a message before what follows from it is committed.
    AckBeforeCommit,
    /// Participants handle a duplicate as if it were new.
    NoDedupe,
    /// Roll-back leaves out steps whose outcome nobody knows.
    UnknownNotCompensated,
    /// A saga that another one runs does not wait for that one at its pivot.
    ChildrenRush,
    /// The pivot is passed although a reservation has lapsed, or the deadline has passed.
    LapsedConfirmed,
    /// A node believes its own clock.
    OwnClock,
    /// What a dead letter is called follows from its message, so that a second occurrence of it is
    /// taken for the first.
    LetterIdsReused,
    /// The engine acknowledges what nobody can handle without keeping it.
    LettersLost,
    /// A node reads what a newer release has written as if it were its own.
    FormatsIgnored,
    /// A node waits for a store's answer without a limit.
    WaitsForEver,
}

impl Bug {
    /// What it is to the engine; nothing, if it is the participants'.
    pub(super) fn sabotage(self) -> Sabotage {
        match self {
            Self::AckBeforeCommit => Sabotage::with(PlantedBug::AckBeforeCommit),
            Self::UnknownNotCompensated => Sabotage::with(PlantedBug::ForgetUnknown),
            Self::ChildrenRush => Sabotage::with(PlantedBug::RushChildren),
            Self::LapsedConfirmed => Sabotage::with(PlantedBug::ConfirmLapsed),
            Self::OwnClock => Sabotage::with(PlantedBug::OwnClock),
            Self::LetterIdsReused => Sabotage::with(PlantedBug::ReuseLetterIds),
            Self::LettersLost => Sabotage::with(PlantedBug::LoseLetters),
            Self::FormatsIgnored => Sabotage::with(PlantedBug::IgnoreFormats),
            Self::WaitsForEver => Sabotage::with(PlantedBug::WaitForEver),
            Self::NoDedupe => Sabotage::default(),
        }
    }
}

/// How a good run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    /// Sagas that completed.
    pub completed: u64,
    /// Sagas that were compensated.
    pub compensated: u64,
    /// Crashes that were survived.
    pub crashes: u64,
    /// Dead letters that were made.
    pub letters: u64,
    /// Polls: how much happened.
    pub polls: u64,
}

/// What a bad run did wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRun {
    /// Repeats it.
    pub seed: u64,
    /// What does not hold.
    pub wrong: Vec<String>,
}

impl std::error::Error for FailedRun {}

impl fmt::Display for FailedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} fails:", self.seed)?;
        for wrong in &self.wrong {
            writeln!(f, "  - {wrong}")?;
        }
        write!(
            f,
            "repeat with: BACKSTITCH_SIM_SEED={} ./test sim",
            self.seed
        )
    }
}
