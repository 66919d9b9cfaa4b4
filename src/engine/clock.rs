//! The time that a node goes by: the database's, which all nodes share.
//!
//! Each second a node asks the database for the time and notes how far its own steady clock (which
//! nobody sets) is from it; in between it counts on. So everything that is decided, written or
//! claimed bears the database's time, however wrong the machine's clock is, and one that jumps while
//! the node runs changes nothing. A note that is too old, after an outage or because the steady
//! clock has jumped too, is renewed before anything is decided by it.
//!
//! A node whose own clock differs from the database's by more than [`CLOCK_OFF_MAX`] says so and
//! leaves it to the others to act on time: it wakes no sagas and starts no ticks. Which of the two
//! is wrong it can't know. With a store that has no clock (a file, memory) the node's own counts.
//!
//! An [`Environment`] around another one, so nobody has to think of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::environment::Environment;
use crate::id::Timestamp;
use crate::metric;
use crate::store::{Store, StoreError};

/// How far a node's own clock may be from the database's before the node leaves time to others.
pub const CLOCK_OFF_MAX: Duration = Duration::from_secs(5);
/// How often the database is asked.
const READ_EVERY: Duration = Duration::from_secs(1);
/// From what age on the last answer is not good enough to decide by.
const READING_AGE_MAX: Duration = Duration::from_secs(5);
/// How much more than the way's length two answers may differ before the newer one counts; so time
/// does not jitter with the network.
const JITTER: Duration = Duration::from_millis(20);

/// See the module's documentation.
pub(super) struct SharedClock {
    own: Arc<dyn Environment>,
    /// None before the first answer.
    reading: Mutex<Option<Reading>>,
    /// A known bug, for the simulator: the own clock is believed.
    believes_itself: bool,
}

#[derive(Clone, Copy)]
enum Reading {
    /// The store has no clock: ours is right by definition.
    None,
    /// What it said.
    Of {
        /// The time when our steady clock was at zero.
        zero: Timestamp,
        /// When it was asked, by our steady clock.
        at: Duration,
        /// How far our clock was ahead of it, in microseconds.
        ahead: i64,
    },
}

impl SharedClock {
    /// A clock that has not been read yet.
    pub(super) fn new(own: Arc<dyn Environment>, believes_itself: bool) -> Self {
        Self {
            own,
            reading: Mutex::default(),
            believes_itself,
        }
    }

    /// Asks the database, if the last answer is too old to decide by.
    pub(super) async fn refresh(&self, store: &dyn Store) -> Result<(), StoreError> {
        self.renew(store, READING_AGE_MAX).await
    }

    /// Asks the database if it is time to; says whether our own clock is right.
    pub(super) async fn is_right(&self, store: &dyn Store) -> Result<bool, StoreError> {
        self.renew(store, READ_EVERY).await?;
        Ok(self.off().is_none())
    }

    /// How far our own clock is from the database's, in words, if that is too far.
    pub(super) fn off(&self) -> Option<String> {
        let Some(Reading::Of { ahead, .. }) = *self.reading() else {
            return None;
        };
        is_too_far(ahead).then(|| {
            let by = Duration::from_micros(ahead.unsigned_abs());
            let way = if ahead > 0 { "ahead of" } else { "behind" };
            format!(
                "this machine's clock is {:.1} s {way} the database's; until they agree this node wakes no sagas and starts no ticks: set the clock (NTP), of the machine that is wrong",
                by.as_secs_f64()
            )
        })
    }

    async fn renew(&self, store: &dyn Store, age_max: Duration) -> Result<(), StoreError> {
        if self.believes_itself || self.age().is_some_and(|age| age <= age_max) {
            return Ok(());
        }
        let before = self.own.elapsed();
        let Some(time) = store.clock().await? else {
            *self.reading() = Some(Reading::None);
            return Ok(());
        };
        let after = self.own.elapsed();
        let way = after.saturating_sub(before) / 2;
        let mut zero = time.before(before + way);
        let known = *self.reading();
        if let Some(Reading::Of { zero: known, .. }) = known
            && known.since(zero).max(zero.since(known)) <= way + JITTER
        {
            zero = known;
        }
        let ahead = self.own.now().as_micros() - zero.after(after).as_micros();
        let was_off = matches!(known, Some(Reading::Of { ahead, .. }) if is_too_far(ahead));
        *self.reading() = Some(Reading::Of {
            zero,
            at: after,
            ahead,
        });
        #[allow(clippy::cast_precision_loss)] // microseconds of any time are below 2^53
        metric::clock_ahead(ahead as f64 / 1e6);
        match self.off() {
            Some(why) if !was_off => tracing::error!("{why}"),
            None if was_off => tracing::info!("this machine's clock is right again"),
            _ => {}
        }
        Ok(())
    }

    /// How old the last answer is; zero if none is needed.
    fn age(&self) -> Option<Duration> {
        match *self.reading() {
            None => None,
            Some(Reading::None) => Some(Duration::ZERO),
            Some(Reading::Of { at, .. }) => {
                let now = self.own.elapsed();
                // A steady clock that goes back is none: ask.
                now.checked_sub(at)
            }
        }
    }

    fn reading(&self) -> MutexGuard<'_, Option<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A UUIDv7 as if it had been drawn at another time.
fn with_time(id: Uuid, at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.as_micros() / 1_000).unwrap_or(0);
    let mut bytes = *id.as_bytes();
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    Uuid::from_bytes(bytes)
}

fn is_too_far(ahead: i64) -> bool {
    u128::from(ahead.unsigned_abs()) > CLOCK_OFF_MAX.as_micros()
}

impl Environment for SharedClock {
    fn now(&self) -> Timestamp {
        match *self.reading() {
            Some(Reading::Of { zero, .. }) => zero.after(self.own.elapsed()),
            None | Some(Reading::None) => self.own.now(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.own.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.own.sleep(duration)
    }

    fn pause(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.own.pause(duration)
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        self.own.spawn(name, task);
    }

    /// Ids sort by time, so those of a machine whose clock is wrong get the shared one's.
    fn new_id(&self) -> Uuid {
        let id = self.own.new_id();
        let is_wrong =
            matches!(*self.reading(), Some(Reading::Of { ahead, .. }) if is_too_far(ahead));
        if is_wrong {
            with_time(id, self.now())
        } else {
            id
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_wrong_clock_gets_the_shared_time_and_stays_a_version_7() {
        let id: Uuid = "019b1234-5678-7abc-8def-0123456789ab".parse().unwrap();
        let at: Timestamp = "2026-01-31T12:00:00.125Z".parse().unwrap();
        let other = with_time(id, at);
        assert_eq!(other.get_version_num(), 7);
        assert_eq!(other.get_variant(), id.get_variant());
        assert_eq!(other.as_bytes()[6..], id.as_bytes()[6..]);
        let (seconds, nanos) = other.get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos), (1_769_860_800, 125_000_000));
    }
}
