//! Jobs in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::MemoryStore;
use crate::id::{SagaId, Timestamp};
use crate::store::StoreError;
use crate::store::dead_letters::Actor;
use crate::store::jobs::{
    self, JOB_ROWS_MAX, JobCommand, JobResult, JobRow, JobState, JobStore, Progress,
};

/// Jobs, and what became of their sagas.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    rows: BTreeMap<Uuid, JobRow>,
    results: BTreeMap<(Uuid, SagaId), JobResult>,
}

#[async_trait]
impl JobStore for MemoryStore {
    async fn put_job(&self, job: &JobRow) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.jobs.rows.contains_key(&job.id) {
            return Err(StoreError::Conflict);
        }
        state.audit.append(&job.maker(), vec![jobs::made(job)]);
        state.jobs.rows.insert(job.id, job.clone());
        Ok(())
    }

    async fn job(&self, id: Uuid) -> Result<Option<JobRow>, StoreError> {
        Ok(self.state().jobs.rows.get(&id).cloned())
    }

    async fn jobs(&self, before: Option<Uuid>, limit: usize) -> Result<Vec<JobRow>, StoreError> {
        let state = self.state();
        let rows = state.jobs.rows.values().rev();
        let older = rows.filter(|job| before.is_none_or(|before| job.id < before));
        Ok(older.take(limit.min(JOB_ROWS_MAX)).cloned().collect())
    }

    async fn hold_job(
        &self,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<JobRow>, StoreError> {
        let mut state = self.state();
        let rows = state.jobs.rows.values_mut();
        let free = rows.filter(|job| job.state == JobState::Running && job.held_until <= now);
        Ok(free.min_by_key(|job| (job.held_until, job.id)).map(|job| {
            job.version += 1;
            job.held_until = until;
            job.clone()
        }))
    }

    async fn advance_job(
        &self,
        id: Uuid,
        version: u64,
        at: Timestamp,
        progress: &Progress,
    ) -> Result<Option<JobRow>, StoreError> {
        let mut state = self.state();
        let Some(known) = state.jobs.rows.get_mut(&id) else {
            return Ok(None);
        };
        let Some(job) = known.advanced(version, at, progress) else {
            return Ok(None);
        };
        known.clone_from(&job);
        for result in &progress.results {
            let place = (id, result.saga);
            let results = &mut state.jobs.results;
            results.entry(place).or_insert_with(|| result.clone());
        }
        Ok(Some(job))
    }

    async fn command_job(
        &self,
        id: Uuid,
        command: JobCommand,
        actor: &Actor,
    ) -> Result<Option<JobRow>, StoreError> {
        let mut state = self.state();
        let Some(known) = state.jobs.rows.get_mut(&id) else {
            return Ok(None);
        };
        let Some(job) = known.commanded(command, actor) else {
            return Ok(Some(known.clone()));
        };
        known.clone_from(&job);
        let entry = jobs::commanded(&job, command);
        state.audit.append(actor, vec![entry]);
        Ok(Some(job))
    }

    async fn job_results(
        &self,
        id: Uuid,
        only_refused: bool,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<JobResult>, StoreError> {
        let state = self.state();
        let results = state.jobs.results.iter();
        let of_job = results.filter(|((job, saga), _)| *job == id && Some(*saga) > after);
        let wanted = of_job.filter(|(_, result)| !only_refused || result.refusal.is_some());
        let wanted = wanted.map(|(_, result)| result.clone());
        Ok(wanted.take(limit.min(JOB_ROWS_MAX)).collect())
    }
}
