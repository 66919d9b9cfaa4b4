//! Places for connections: a bounded number, and who gives way when all are taken.
//!
//! A connection costs memory and a file descriptor as soon as it is open, whether it ever sends a
//! request or not. So when all places are taken, the one that has done nothing for the longest gives
//! way to the newcomer: whoever opens a thousand connections and sends nothing, or half a request, only
//! loses them again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// For how long after an answer a connection does not have to give way: the answer is still being sent.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The places.
pub(super) struct Seats {
    max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    taken: BTreeMap<u64, Arc<Seat>>,
}

/// One of them.
pub(super) struct Seat {
    state: Mutex<Doing>,
    leave: Notify,
}

struct Doing {
    requests: usize,
    since: Instant,
}

/// A place that is taken until this is dropped.
pub(super) struct Seated {
    seats: Arc<Seats>,
    number: u64,
    seat: Arc<Seat>,
}

impl Seats {
    pub(super) fn new(max: usize) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { max, state })
    }

    /// A place, somebody else's if need be; `None` if everybody is at work.
    pub(super) fn take(self: &Arc<Self>, now: Instant) -> Option<Seated> {
        let mut state = locked(&self.state);
        if state.taken.len() >= self.max {
            let idle = state.taken.iter().filter_map(|(number, seat)| {
                let doing = locked(&seat.state);
                let done = doing.requests == 0 && now.duration_since(doing.since) >= LAST_WORDS;
                done.then_some((doing.since, *number))
            });
            let (_, longest) = idle.min()?;
            if let Some(seat) = state.taken.remove(&longest) {
                seat.leave.notify_one();
            }
        }
        let number = state.next;
        state.next += 1;
        let seat = Arc::new(Seat {
            state: Mutex::new(Doing {
                requests: 0,
                // Before its first request a connection has no last words.
                since: now.checked_sub(LAST_WORDS).unwrap_or(now),
            }),
            leave: Notify::new(),
        });
        state.taken.insert(number, Arc::clone(&seat));
        Some(Seated {
            seats: Arc::clone(self),
            number,
            seat,
        })
    }
}

impl Seated {
    /// To tell it from within the connection's requests.
    pub(super) fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.seat)
    }

    /// Completes when the connection must give way.
    pub(super) async fn must_leave(&self) {
        self.seat.leave.notified().await;
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        locked(&self.seats.state).taken.remove(&self.number);
    }
}

impl Seat {
    /// A request has begun; it ends when what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> AtWork {
        locked(&self.state).requests += 1;
        AtWork(Arc::clone(self))
    }
}

/// A request that is being answered.
pub(super) struct AtWork(Arc<Seat>);

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut doing = locked(&self.0.state);
        doing.requests -= 1;
        doing.since = Instant::now();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks leaves half a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_does_nothing_for_longest_gives_way() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let seats = Seats::new(2);
        let at_work = seats.take(now).unwrap();
        let request = at_work.seat().begin();
        let idle = seats.take(later(1)).unwrap();
        let third = seats.take(later(2)).unwrap();
        assert!(idle.must_leave().now_or_never().is_some());
        assert!(at_work.must_leave().now_or_never().is_none());
        let other = third.seat().begin();
        assert!(seats.take(later(3)).is_none(), "both are at work");
        drop(other);
        assert!(seats.take(now).is_none(), "it may still be sending");
        assert!(seats.take(later(3)).is_some());
        assert!(third.must_leave().now_or_never().is_some());
        drop(request);
    }

    #[test]
    fn a_place_that_is_left_can_be_taken() {
        let seats = Seats::new(1);
        let now = Instant::now();
        let first = seats.take(now).unwrap();
        let busy = first.seat().begin();
        assert!(seats.take(now).is_none());
        drop((busy, first));
        assert!(seats.take(now).is_some());
    }
}
