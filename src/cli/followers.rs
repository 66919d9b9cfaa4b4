//! What follows the events of aggregates in a process: projections, and the exchange for those outside.

use std::sync::Arc;

use clap::Args;

use super::backends::{OpenBroker, OpenStore};
use crate::environment::{Environment, Shutdown, Task};
use crate::projection::{Following, Projections, Publisher, run_all};

/// Whether aggregate events are published.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct FollowerArguments {
    /// Publish the events of aggregates to the exchange `backstitch.aggregate-events`.
    #[arg(long, env = "BACKSTITCH_PUBLISH_AGGREGATE_EVENTS")]
    pub(super) publish_aggregate_events: bool,
}

/// What is to follow events.
#[derive(Default)]
pub(super) struct Followers {
    /// Projections that are kept up to date here.
    pub(super) projections: Projections,
    /// Whether events are published.
    pub(super) publishes: bool,
}

/// What follows events.
pub(super) struct Running {
    stop: Shutdown,
    tasks: Vec<Task>,
}

impl Followers {
    /// Starts it.
    pub(super) fn start(
        self,
        store: &OpenStore,
        broker: &OpenBroker,
        environment: &Arc<dyn Environment>,
    ) -> Running {
        let stop = Shutdown::default();
        let mut tasks = Vec::new();
        if self.projections.names().next().is_some() {
            let names: Vec<_> = self.projections.names().collect();
            tracing::info!("projections in this process: {}", names.join(", "));
            let following = Following {
                environment: Arc::clone(environment),
                store: store.read_models(),
            };
            let (projections, stop) = (self.projections, stop.clone());
            let work = async move { run_all(&projections, following, stop).await };
            tasks.push(Task::start(environment, "projections", work));
        }
        if self.publishes {
            let publisher = Publisher {
                environment: Arc::clone(environment),
                store: store.read_models(),
                broker: broker.handle(),
            };
            let work = publisher.run(stop.clone());
            tasks.push(Task::start(environment, "aggregate-events", work));
        }
        Running { stop, tasks }
    }
}

impl Running {
    /// Stops it, and waits until it has.
    pub(super) async fn stop(self) {
        self.stop.request();
        for task in self.tasks {
            task.ended().await;
        }
    }
}
