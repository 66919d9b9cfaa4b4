//! A node's drains: dead-letter queues → database, for as long as the node runs.
//!
//! The queues that a team names have connections of their own: a message in them that our AMQP
//! library can't read breaks its connection, and must not break the node's.
//!
//! A queue that is not there yet is looked for again and again: a team may name it before its own
//! services have declared it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::backends::{OpenBroker, OpenStore};
use super::exit::Failure;
use crate::dead_letters::drain::{Drain, DrainUntil};
use crate::environment::{Environment, Shutdown, Task};
use crate::message::DEAD_LETTER_QUEUE;

/// Unacknowledged messages that a dead-letter queue gives at most.
const PREFETCH: u16 = 256;
/// How long after a failure to try again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How often to take note of replays that a relay has published.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// Running drains.
pub(super) struct Drains {
    stop: Shutdown,
    tasks: Vec<Task>,
    /// For the named queues, if there are some.
    own_broker: Option<OpenBroker>,
}

impl Drains {
    /// Drains our own queue and those named.
    pub(super) async fn start(
        named: &[String],
        store: &OpenStore,
        broker: &OpenBroker,
        environment: &Arc<dyn Environment>,
    ) -> Result<Self, Failure> {
        let own_broker = if named.is_empty() {
            None
        } else {
            Some(broker.another("backstitch drains").await?)
        };
        let stop = Shutdown::default();
        let drain = Drain {
            environment: Arc::clone(environment),
            broker: broker.handle(),
            letters: store.letters(),
            prefetch: PREFETCH,
        };
        let mut queues = vec![DEAD_LETTER_QUEUE.to_owned()];
        queues.extend(named.iter().cloned());
        queues.sort_unstable();
        queues.dedup();
        let mut tasks: Vec<Task> = queues
            .into_iter()
            .map(|queue| {
                let mut drain = drain.clone();
                if let Some(own) = own_broker.as_ref().filter(|_| queue != DEAD_LETTER_QUEUE) {
                    drain.broker = own.handle();
                }
                let work = keep_draining(drain, queue, stop.clone());
                Task::start(environment, "drain", work)
            })
            .collect();
        let work = keep_settling(drain, stop.clone());
        tasks.push(Task::start(environment, "settle", work));
        Ok(Self {
            stop,
            tasks,
            own_broker,
        })
    }

    /// Finishes the batches at hand.
    pub(super) async fn stop(self) {
        self.stop.request();
        join_all(self.tasks.into_iter().map(Task::ended)).await;
        if let Some(broker) = self.own_broker {
            broker.close().await;
        }
    }
}

async fn keep_draining(drain: Drain, queue: String, stop: Shutdown) {
    while !stop.is_requested() {
        match drain.run(&queue, DrainUntil::Stopped, &stop, |_| {}).await {
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, queue, "can't drain this queue; trying again"),
        }
        pause(&drain, &stop, TRY_AGAIN_AFTER).await;
        // Taking messages only to give them back would use up their deliveries.
        while !stop.is_requested() && drain.letters.settle_replays().await.is_err() {
            pause(&drain, &stop, TRY_AGAIN_AFTER).await;
        }
    }
}

async fn keep_settling(drain: Drain, stop: Shutdown) {
    while !stop.is_requested() {
        if let Err(error) = drain.letters.settle_replays().await {
            tracing::debug!(%error, "can't take note of replays; trying again");
        }
        pause(&drain, &stop, SETTLE_EVERY).await;
    }
}

async fn pause(drain: &Drain, stop: &Shutdown, time: Duration) {
    tokio::select! {
        biased;
        () = stop.requested() => {}
        () = drain.environment.sleep(time) => {}
    }
}
