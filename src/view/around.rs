//! What there is around a saga that waits: who takes from the queue, which dead letters are open.

use std::time::Duration;

use super::why::{QueueSeen, Surroundings, WhyView};
use crate::broker::Broker;
use crate::id::SagaId;
use crate::store::dead_letters::{
    DeadLetterStore, LETTER_ROWS_MAX, LetterFilter, LetterPage, LetterStatus,
};

/// Longest look at a queue: who asks about a saga wants an answer also while the broker is away.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);

/// Looks around a saga. What can't be seen is left out.
pub async fn look_around(
    saga: SagaId,
    why: &WhyView,
    broker: Option<&dyn Broker>,
    letters: &dyn DeadLetterStore,
) -> Surroundings {
    let queue = match (&why.queue, broker) {
        (Some(queue), Some(broker)) => seen(broker, &queue.name).await,
        _ => None,
    };
    Surroundings {
        queue,
        open_letters: open_letters(saga, letters).await,
    }
}

async fn seen(broker: &dyn Broker, queue: &str) -> Option<QueueSeen> {
    let look = tokio::time::timeout(LOOK_TIME_MAX, broker.queue_counts(queue));
    let facts = look.await.ok()?.ok()?;
    Some(QueueSeen {
        exists: facts.is_some(),
        waiting: facts.as_ref().map_or(0, |facts| facts.waiting),
        consumers: facts.and_then(|facts| facts.consumers),
    })
}

async fn open_letters(saga: SagaId, letters: &dyn DeadLetterStore) -> Option<u64> {
    let filter = LetterFilter {
        saga: Some(saga),
        status: Some(LetterStatus::Open),
        ..LetterFilter::default()
    };
    let page = LetterPage {
        after: None,
        oldest_first: false,
        limit: LETTER_ROWS_MAX,
    };
    let found = letters.letters(&filter, &page).await.ok()?;
    Some(found.len() as u64)
}
