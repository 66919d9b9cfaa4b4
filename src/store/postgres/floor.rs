//! Where a poll begins: behind what the polls before it have cleared away.
//!
//! A poll for what is due reads an index from its oldest end. Rows that were claimed or deleted leave
//! dead entries there, and while somebody holds an old snapshot (a long report, a forgotten
//! session) nobody may remove those: each poll would read through all of them, ten times a second.
//! So each remembers up to where it found nothing more, and the next one begins there. What may turn
//! up below all the same (a row that was locked, a transaction that took long) is found by a poll
//! from the very beginning, once in a while.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::id::Timestamp;

/// How far below the last poll the next one begins: what was being committed meanwhile.
const OVERLAP: Duration = Duration::from_secs(2);
/// How often to begin at the very beginning.
pub(super) const WHOLE_EVERY: Duration = Duration::from_secs(20);

/// The lower end of one kind of poll.
#[derive(Debug, Default)]
pub(super) struct Floor {
    floor: AtomicI64,
    whole_at: AtomicI64,
}

impl Floor {
    /// Where to begin now, in microseconds; everything is above it if that is time again.
    pub(super) fn begin(&self, now: Timestamp) -> i64 {
        let whole_at = Timestamp::from_micros(self.whole_at.load(Ordering::Relaxed));
        let set_back = now < whole_at;
        if set_back || now.since(whole_at) >= WHOLE_EVERY {
            self.whole_at.store(now.as_micros(), Ordering::Relaxed);
            return i64::MIN;
        }
        self.floor.load(Ordering::Relaxed)
    }

    /// Everything due at `now` was found, or there was more than was asked for.
    pub(super) fn found(&self, now: Timestamp, all: bool) {
        if all {
            let overlap = i64::try_from(OVERLAP.as_micros()).unwrap_or(0);
            let floor = now.as_micros().saturating_sub(overlap);
            self.floor.store(floor, Ordering::Relaxed);
        } else {
            self.floor.store(i64::MIN, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000_000 + seconds * 1_000_000)
    }

    #[test]
    fn polls_begin_behind_the_last_and_now_and_then_at_the_beginning() {
        let floor = Floor::default();
        assert_eq!(floor.begin(at(0)), i64::MIN);
        floor.found(at(0), true);
        assert_eq!(floor.begin(at(1)), at(-2).as_micros());
        floor.found(at(1), false);
        assert_eq!(floor.begin(at(1)), i64::MIN, "there is more");
        floor.found(at(2), true);
        assert_eq!(floor.begin(at(3)), at(0).as_micros());
        assert_eq!(floor.begin(at(20)), i64::MIN, "it is time");
        assert_eq!(floor.begin(at(21)), at(0).as_micros());
        assert_eq!(floor.begin(at(-100)), i64::MIN, "the clock was set back");
    }
}
