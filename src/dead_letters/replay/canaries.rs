//! Whether what was replayed first comes back.
//!
//! A canary is good only if it was *not seen to come back* and would have been seen: the queue it was
//! sent to must dead-letter to where we look. Where that can't be known, nothing is taken for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use uuid::Uuid;

use super::event::Replayed;
use super::publish::SETTLE_PAUSE;
use crate::broker::Broker;
use crate::dead_letters::desk::{DeadLetterError, Desk};
use crate::dead_letters::drain::{Drain, DrainUntil};
use crate::dead_letters::route::Watch;
use crate::environment::Shutdown;
use crate::message::DEAD_LETTER_QUEUE;

/// Prefetch of the drains that watch for what comes back.
const WATCH_PREFETCH: u16 = 100;

/// What was seen of the canaries.
pub(super) struct Seen {
    came_back: Vec<Uuid>,
    /// Those that would not have been seen.
    unwatched: Vec<Uuid>,
    because: BTreeSet<String>,
}

impl Seen {
    /// Adds it to what came of a replay; whether all canaries are known to be good.
    pub(super) fn add_to(self, total: &mut Replayed) -> bool {
        let good = self.came_back.is_empty() && self.unwatched.is_empty();
        total.came_back = self.came_back;
        total.unwatched = self.unwatched;
        total.unwatched_because = self.because.into_iter().collect();
        good
    }
}

impl Desk {
    /// Waits, and says which letters came back meanwhile.
    pub(super) async fn watch(
        &self,
        broker: &Arc<dyn Broker>,
        sent: &[(Uuid, Watch)],
        wait: Duration,
        stop: &Shutdown,
    ) -> Result<Seen, DeadLetterError> {
        let mut queues = BTreeSet::from([DEAD_LETTER_QUEUE]);
        queues.extend(sent.iter().filter_map(|(_, watch)| match watch {
            Watch::Queue(queue)
            | Watch::Blind {
                taken_from: queue, ..
            } => Some(queue.as_str()),
            Watch::Letters => None,
        }));
        let enough = Shutdown::default();
        let drain = Drain {
            environment: Arc::clone(&self.environment),
            broker: Arc::clone(broker),
            letters: Arc::clone(&self.letters),
            prefetch: WATCH_PREFETCH,
        };
        let drains = queues
            .iter()
            .map(|queue| watch_queue(&drain, queue, &enough));
        let ids: Vec<Uuid> = sent.iter().map(|(letter, _)| *letter).collect();
        let time_is_up = async {
            tokio::select! {
                biased;
                () = self.environment.sleep(wait) => {}
                () = self.all_are_back(&ids) => {}
                () = stop.requested() => {}
            }
            enough.request();
        };
        let (watched, ()) = join(join_all(drains), time_is_up).await;
        let failed = queues.into_iter().zip(watched);
        let failed: BTreeMap<&str, String> = failed
            .filter_map(|(queue, watched)| Some((queue, watched.err()?)))
            .collect();
        let came_back = self.letters.came_back(&ids).await?;
        let mut seen = Seen {
            came_back,
            unwatched: Vec::new(),
            because: BTreeSet::new(),
        };
        for (letter, watch) in sent {
            let why = match watch {
                Watch::Letters => None,
                Watch::Queue(queue) => failed.get(queue.as_str()).cloned(),
                Watch::Blind { why, .. } => Some(why.clone()),
            };
            if let Some(why) = why.filter(|_| !seen.came_back.contains(letter)) {
                seen.unwatched.push(*letter);
                seen.because.insert(why);
            }
        }
        Ok(seen)
    }

    /// Ends when nothing is left to wait for.
    async fn all_are_back(&self, ids: &[Uuid]) {
        loop {
            self.environment.sleep(SETTLE_PAUSE).await;
            if let Ok(back) = self.letters.came_back(ids).await
                && back.len() >= ids.len()
            {
                return;
            }
        }
    }
}

/// Drains a queue; else says why it can't be watched.
async fn watch_queue(drain: &Drain, queue: &str, enough: &Shutdown) -> Result<(), String> {
    let blind = |why: &str| Err(format!("queue `{queue}` can't be watched: {why}"));
    match drain.broker.queue_len(queue).await {
        Ok(Some(_)) => {}
        Ok(None) => return blind("it does not exist"),
        Err(error) => return blind(&error.to_string()),
    }
    match drain.run(queue, DrainUntil::Stopped, enough, |_| {}).await {
        Ok(_) if enough.is_requested() => Ok(()),
        Ok(_) => blind("the broker ended the consumer"),
        Err(error) => {
            tracing::warn!(%error, queue, "can't watch this queue for what comes back");
            blind(&error.to_string())
        }
    }
}
