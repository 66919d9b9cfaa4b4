//! A job as people and programs read it.

use serde::Serialize;
use uuid::Uuid;

use super::{JobAction, Rate};
use crate::id::SagaId;
use crate::store::{JobResult, JobRow, JobState};
use crate::view::CountView;

/// A job.
#[derive(Debug, Clone, Serialize)]
pub struct JobView {
    id: Uuid,
    state: JobState,
    /// Why it stands there.
    note: Option<String>,
    /// What is done to each saga.
    action: String,
    /// Which sagas.
    filter: String,
    by: String,
    why: String,
    rate: Option<String>,
    canary: u32,
    /// How many there were when it was made.
    total: CountView,
    done: u64,
    refused: u64,
    made_at: String,
    updated_at: String,
}

impl JobView {
    /// What people see of a row.
    pub fn new(job: &JobRow) -> Self {
        let action = serde_json::from_str::<JobAction>(&job.action);
        Self {
            id: job.id,
            state: job.state,
            note: job.note.clone(),
            // Made by a newer release, perhaps.
            action: action.map_or_else(|_| job.action.clone(), |action| action.to_string()),
            filter: job.filter.clone(),
            by: job.by.clone(),
            why: job.why.clone(),
            rate: job
                .per_minute
                .map(|per_minute| Rate { per_minute }.to_string()),
            canary: job.canary,
            total: job.total.into(),
            done: job.done,
            refused: job.refused,
            made_at: job.made_at.to_string(),
            updated_at: job.updated_at.to_string(),
        }
    }
}

/// What became of one saga.
#[derive(Debug, Clone, Serialize)]
pub struct JobResultView {
    saga_id: SagaId,
    /// Why it was not done to it.
    refused: Option<String>,
    at: String,
}

impl JobResultView {
    /// What people see of a result.
    pub fn new(result: &JobResult) -> Self {
        Self {
            saga_id: result.saga,
            refused: result.refusal.clone(),
            at: result.at.to_string(),
        }
    }
}
