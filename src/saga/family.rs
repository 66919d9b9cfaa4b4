//! A saga and the one that runs it: what the two say to one another.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{Phase, SagaId, StepPath};
use crate::message::Outcome;

/// The saga that runs this one, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// The saga.
    pub saga: SagaId,
    /// Its block.
    pub step: StepPath,
    /// How many sagas there are above this one.
    pub depth: u32,
}

/// What a saga knows of the one that runs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// Which saga.
    pub parent: Parent,
    /// What it asked for, beyond that this saga be there: `confirm` or `compensate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Phase>,
    /// What it was told when this saga was prepared.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::saga::step::present"
    )]
    pub prepared: Option<Arc<Value>>,
}

/// What a saga wants of one that it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum ParentOrder {
    /// Run up to the pivot.
    Reserve {
        /// Who wants it.
        parent: Parent,
        /// The input; already checked, unless it is refused.
        input: Arc<Value>,
        /// Why it can't be run at all: then it is born compensated, and says so.
        refused: Option<String>,
    },
    /// Pass the pivot and complete.
    Confirm,
    /// Roll back, or never begin.
    Compensate {
        /// Who wants it.
        parent: Parent,
    },
}

impl ParentOrder {
    /// Which of the block's commands it is.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Reserve { .. } => Phase::Reserve,
            Self::Confirm => Phase::Confirm,
            Self::Compensate { .. } => Phase::Compensate,
        }
    }
}

/// What a saga tells the one that runs it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildAnswer {
    /// Which of the block's commands it answers.
    pub phase: Phase,
    /// Yes, no, or try again.
    pub outcome: Outcome,
    /// Why not.
    pub reason: Option<String>,
    /// The result.
    pub body: Arc<Value>,
}
