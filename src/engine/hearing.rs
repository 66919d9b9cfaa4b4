//! Whether this node has heard what was answered, so that it may act on time.
//!
//! A time-out says that no answer was given; a node that has been unable to take answers can't say
//! that. After its start, and after its database or its broker was away, answers wait in the queue
//! that were given in time, and by the clock their time has passed. So a node wakes no sagas while it
//! can't take answers, nor until the queue of answers has been seen empty; at the latest after
//! [`CATCH_UP_MAX`], since under load it may never be. Other nodes that hear go on meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::broker::{Broker, Health};
use crate::environment::Environment;
use crate::message::REPLY_QUEUE;

/// How long a node that can take answers again lets those that wait come first.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(30);
/// From when the queue was first seen empty until it counts as heard: what was on its way is with a
/// worker then, before anything that the clock gives it.
const SETTLED_AFTER: Duration = Duration::from_millis(200);
/// How long the broker may take to say how many answers wait.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub(super) struct Hearing {
    broker: Arc<dyn Broker>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// How often the database had been lost when answers could last be taken.
    losses: u64,
    behind: Option<Behind>,
}

/// Answers may wait. Times are of the steady clock.
#[derive(Debug, Clone, Copy)]
struct Behind {
    since: Duration,
    /// When the queue was first seen empty.
    empty_since: Option<Duration>,
}

impl Behind {
    fn from(since: Duration) -> Self {
        let empty_since = None;
        Self { since, empty_since }
    }
}

impl Hearing {
    /// Of a node that starts now.
    pub(super) fn new(broker: Arc<dyn Broker>, environment: &dyn Environment) -> Self {
        let behind = Some(Behind::from(environment.elapsed()));
        let state = Mutex::new(State { losses: 0, behind });
        Self { broker, state }
    }

    /// Whether all answers that were given while this node could take none have been taken; `losses`
    /// is how often the database has been lost.
    pub(super) async fn has_caught_up(&self, environment: &dyn Environment, losses: u64) -> bool {
        let now = environment.elapsed();
        let mut state = self.state();
        if matches!(self.broker.health(), Health::Down(_)) {
            state.behind = Some(Behind::from(now));
            self.put(state);
            return false;
        }
        if state.losses != losses {
            state = State {
                losses,
                behind: Some(Behind::from(now)),
            };
        }
        let Some(mut behind) = state.behind else {
            return true;
        };
        if now.saturating_sub(behind.since) >= CATCH_UP_MAX {
            tracing::warn!("answers still wait in the queue; acting on time all the same");
            state.behind = None;
        } else if self.answers_wait(environment).await {
            behind.empty_since = None;
            state.behind = Some(behind);
        } else {
            let since = *behind.empty_since.get_or_insert(now);
            let is_settled = now.saturating_sub(since) >= SETTLED_AFTER;
            state.behind = (!is_settled).then_some(behind);
        }
        self.put(state);
        state.behind.is_none()
    }

    /// Whether answers wait, as far as is known.
    async fn answers_wait(&self, environment: &dyn Environment) -> bool {
        tokio::select! {
            biased;
            waiting = self.broker.queue_len(REPLY_QUEUE) => !matches!(waiting, Ok(Some(0) | None)),
            () = environment.sleep(ASK_TIME_MAX) => true,
        }
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

#[cfg(test)]
mod tests;
