//! Keeps the metrics true that nobody counts as it happens: what lives, what waits, who takes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::metric;
use crate::saga::Status;
use crate::store::CensusStore;

/// How often they are read.
const GAUGES_EVERY: Duration = Duration::from_secs(15);
/// Longest time for one look at the database or at a queue.
const LOOK_TIME_MAX: Duration = Duration::from_secs(5);
/// Most names of sagas, and queues, that have gauges of their own: each is a series for ever.
const NAMES_MAX: usize = 500;

/// Until it is dropped.
pub(super) async fn keep(engine: &Engine, census: &Arc<dyn CensusStore>) {
    let mut shown = BTreeSet::new();
    loop {
        let looked = tokio::time::timeout(LOOK_TIME_MAX, count(engine, census, &mut shown));
        if looked.await.is_err() {
            tracing::debug!("the database was too slow to be counted in");
        }
        for queue in queues(engine).into_iter().take(NAMES_MAX) {
            let facts = engine.broker().queue_counts(&queue);
            // That a queue can't be asked about is found out by who sends to it.
            if let Ok(Ok(Some(facts))) = tokio::time::timeout(LOOK_TIME_MAX, facts).await {
                metric::queue(&queue, facts.waiting, facts.consumers);
            }
        }
        tokio::time::sleep(GAUGES_EVERY).await;
    }
}

/// Queues that commands are sent to by name.
pub(super) fn queues(engine: &Engine) -> BTreeSet<String> {
    let known = engine.catalogue().known();
    let calls = known
        .all_versions()
        .flat_map(|definition| definition.calls());
    let direct = calls.filter(|call| call.to.exchange.is_empty());
    direct.map(|call| call.to.routing_key.clone()).collect()
}

async fn count(
    engine: &Engine,
    census: &Arc<dyn CensusStore>,
    shown: &mut BTreeSet<(String, Status)>,
) {
    let census = match census.census().await {
        Ok(census) => census,
        Err(error) => return tracing::debug!(%error, "the database can't be counted in"),
    };
    let now = engine.now();
    let overdue = census.outbox_due.map(|due| now.since(due));
    metric::outbox(census.outbox, overdue.unwrap_or_default());
    let mut found = BTreeSet::new();
    for group in census.live.into_iter().take(NAMES_MAX) {
        let idle = now.since(group.oldest);
        metric::live(&group.name, group.status.as_str(), group.count, idle);
        found.insert((group.name, group.status));
    }
    // A series that is not set again would keep its last number.
    for (name, status) in shown.difference(&found) {
        metric::live(name, status.as_str(), 0, Duration::ZERO);
    }
    shown.extend(found);
}
