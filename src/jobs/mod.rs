//! One action on many sagas, as a job that outlives the node that works on it.
//!
//! Separate from the engine, which decides about one saga at a time: a job searches sagas, in order of
//! their ids, and has the engine do to each what a person would. The action's id is made of the
//! job's, so that what is done twice, because a node died before it could write down that it had been
//! done, changes nothing the second time.
//!
//! Invariants: a job never touches a saga that started after it; what became of each saga is kept; a job
//! that was paused or aborted stops at the saga that is being worked on.
//! Deliberately absent: what an action means (the core's), and SQL.

mod action;
mod run;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::environment::{Environment, Shutdown, Task};
use crate::store::{JobStore, SagaSearch};

pub use action::{JobAction, Rate, Skip};
pub use view::{JobResultView, JobView};

/// How often to look whether there is a job to take.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What jobs need.
#[derive(Clone)]
pub struct Jobs {
    /// Clock and tasks.
    pub environment: Arc<dyn Environment>,
    /// Does it to each saga.
    pub engine: Arc<Engine>,
    /// Finds the sagas.
    pub search: Arc<dyn SagaSearch>,
    /// Keeps the jobs.
    pub jobs: Arc<dyn JobStore>,
}

impl Jobs {
    /// Works on jobs until the stop.
    pub fn start(self, stop: Shutdown) -> Task {
        let environment = Arc::clone(&self.environment);
        Task::start(&environment, "jobs", async move {
            self.work(&stop).await;
        })
    }

    async fn pause(&self, duration: Duration, stop: &Shutdown) {
        tokio::select! {
            biased;
            () = stop.requested() => {}
            () = self.environment.sleep(duration) => {}
        }
    }
}
