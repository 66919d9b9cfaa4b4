//! Whether this node can use its database, and whether it gets on.
//!
//! Everything that talks to the database says here how it went. A node that has lost its database
//! must not sit on messages that others could handle: so once nothing has succeeded for a moment,
//! the database counts as *lost*. Those who receive then give back what they hold and stop taking
//! ([`intake`](super::intake)), workers give up what they have in work ([`settle`](super::settle)),
//! and the clock tries whether the database can be written again.
//!
//! Giving back counts as a delivery of each message, and a message has only so many: so a
//! database that is lost again and again is trusted again later each time.
//! Deliberately absent: any look at the database; this only keeps what others have seen.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::id::Timestamp;

/// How long nothing may succeed before the database counts as lost.
pub const LOST_AFTER: Duration = Duration::from_secs(2);
/// How long one batch may fail, while other things succeed, before it does.
pub const BATCH_PATIENCE: Duration = Duration::from_secs(15);
/// How long the clock's last success may be ago in a node that is ready.
pub const CLOCK_AGE_MAX: Duration = Duration::from_secs(3);
/// The same for the sweep of the outbox, which may wait for the broker.
pub const SWEEP_AGE_MAX: Duration = Duration::from_mins(1);
/// How long a batch may be in work in a node that is ready.
pub const BATCH_AGE_MAX: Duration = Duration::from_secs(5);
/// Shortest and longest time for which a lost database is not tried.
const HOLD_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_mins(1));
/// A database that was there for so long is trusted again at once when it is lost.
const STABLE_AFTER: Duration = Duration::from_mins(2);

/// What a node knows of its database and of its own progress.
pub(super) struct Presence {
    database: watch::Sender<Database>,
    losing: Mutex<Losing>,
    /// When the clock last saw to it that what was due is in work.
    clock: AtomicI64,
    /// When each worker took up the oldest work that it has not ended; 0 if there is none.
    working: Vec<AtomicI64>,
    successes: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Database {
    /// How often it was lost.
    losses: u64,
    usable: bool,
}

#[derive(Debug, Default)]
struct Losing {
    /// The first failure since the last success.
    failing_since: Option<Timestamp>,
    /// Why it could not be used last.
    why: String,
    /// Losses in short succession.
    in_a_row: u32,
    regained_at: Timestamp,
}

impl Presence {
    pub(super) fn new(workers: usize, now: Timestamp) -> Self {
        let database = Database {
            losses: 0,
            usable: true,
        };
        Self {
            database: watch::channel(database).0,
            losing: Mutex::default(),
            clock: AtomicI64::new(now.as_micros()),
            working: (0..workers).map(|_| AtomicI64::new(0)).collect(),
            successes: AtomicU64::new(0),
        }
    }

    /// Something was written.
    pub(super) fn succeeded(&self) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        self.losing().failing_since = None;
    }

    /// Counts what was written.
    pub(super) fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }

    /// The database could not be used.
    pub(super) fn failed(&self, now: Timestamp, why: &dyn std::fmt::Display) {
        let since = {
            let mut losing = self.losing();
            losing.why = why.to_string();
            *losing.failing_since.get_or_insert(now)
        };
        if now.since(since) >= LOST_AFTER {
            self.lose(now);
        }
    }

    /// The database is not to be used until it is regained.
    pub(super) fn lose(&self, now: Timestamp) {
        let was_usable = self.database.send_if_modified(|database| {
            let was_usable = std::mem::replace(&mut database.usable, false);
            database.losses += u64::from(was_usable);
            was_usable
        });
        if !was_usable {
            return;
        }
        let mut losing = self.losing();
        losing.in_a_row = if now.since(losing.regained_at) >= STABLE_AFTER {
            0
        } else {
            losing.in_a_row.saturating_add(1)
        };
        let why = &losing.why;
        tracing::error!(
            why,
            "the database is lost: messages are given back until it can be written again"
        );
    }

    /// It was written again.
    pub(super) fn regain(&self, now: Timestamp) {
        {
            let mut losing = self.losing();
            losing.failing_since = None;
            losing.regained_at = now;
        }
        let regained = self
            .database
            .send_if_modified(|database| !std::mem::replace(&mut database.usable, true));
        if regained {
            tracing::info!("the database can be written again; taking messages");
        }
    }

    /// Whether the database is lost.
    pub(super) fn is_lost(&self) -> bool {
        !self.database.borrow().usable
    }

    /// How often it was lost.
    pub(super) fn losses(&self) -> u64 {
        self.database.borrow().losses
    }

    /// How long to wait before the next try to regain it.
    pub(super) fn hold_off(&self) -> Duration {
        let in_a_row = self.losing().in_a_row.min(16);
        HOLD_OFF.0.saturating_mul(1 << in_a_row).min(HOLD_OFF.1)
    }

    /// Completes once it was lost more often than that.
    pub(super) async fn lost_again(&self, losses: u64) {
        let mut seen = self.database.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = seen.wait_for(|database| database.losses > losses).await;
    }

    /// Completes once it can be used.
    pub(super) async fn usable(&self) {
        let mut seen = self.database.subscribe();
        // As above.
        let _ = seen.wait_for(|database| database.usable).await;
    }

    /// The clock has put what was due into work.
    pub(super) fn looked_at_the_clock(&self, now: Timestamp) {
        self.clock.store(now.as_micros(), Ordering::Relaxed);
    }

    /// A worker's oldest unfinished work is from then; `None`: it has none.
    pub(super) fn works_since(&self, worker: usize, since: Option<Timestamp>) {
        if let Some(working) = self.working.get(worker) {
            let micros = since.map_or(0, Timestamp::as_micros);
            working.store(micros, Ordering::Relaxed);
        }
    }

    /// What keeps this node from getting on, in words; `swept` is the sweep's last success.
    pub(super) fn hindrances(&self, now: Timestamp, swept: Timestamp) -> Vec<String> {
        let mut hindrances = Vec::new();
        if self.is_lost() {
            let why = self.losing().why.clone();
            hindrances.push(format!("the database is lost: {why}"));
        }
        let too_old = |micros: i64, most: Duration| {
            let age = now.since(Timestamp::from_micros(micros));
            (age > most).then_some(age.as_secs())
        };
        if let Some(age) = too_old(self.clock.load(Ordering::Relaxed), CLOCK_AGE_MAX) {
            hindrances.push(format!("what is due was last asked for {age} s ago"));
        }
        if let Some(age) = too_old(swept.as_micros(), SWEEP_AGE_MAX) {
            hindrances.push(format!("the outbox was last swept {age} s ago"));
        }
        let working = self.working.iter().map(|it| it.load(Ordering::Relaxed));
        if let Some(oldest) = working.filter(|since| *since != 0).min()
            && let Some(age) = too_old(oldest, BATCH_AGE_MAX)
        {
            hindrances.push(format!("work is unfinished for {age} s"));
        }
        hindrances
    }

    fn losing(&self) -> std::sync::MutexGuard<'_, Losing> {
        self.losing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000_000 + millis * 1_000)
    }

    #[test]
    fn a_database_is_lost_when_nothing_succeeds_for_a_while_and_not_before() {
        let presence = Presence::new(1, at(0));
        presence.failed(at(0), &"away");
        presence.failed(at(1_900), &"away");
        presence.succeeded();
        presence.failed(at(2_100), &"away");
        assert!(!presence.is_lost());
        presence.failed(at(4_100), &"away");
        assert!(presence.is_lost());
        assert_eq!(presence.losses(), 1);
        presence.failed(at(5_000), &"away");
        assert_eq!(presence.losses(), 1, "it is lost once");
        presence.regain(at(6_000));
        assert!(!presence.is_lost());
    }

    #[test]
    fn one_that_is_lost_again_and_again_is_tried_later_each_time() {
        let presence = Presence::new(1, at(0));
        let mut waits = Vec::new();
        for round in 0..20 {
            presence.lose(at(200_000 + round * 1_000));
            waits.push(presence.hold_off());
            presence.regain(at(200_500 + round * 1_000));
        }
        assert_eq!(waits[0], HOLD_OFF.0);
        assert!(waits.is_sorted());
        assert_eq!(waits[19], HOLD_OFF.1);
        presence.lose(at(900_000));
        assert_eq!(presence.hold_off(), HOLD_OFF.0, "it was stable");
    }

    #[test]
    fn what_is_late_is_told() {
        let presence = Presence::new(2, at(0));
        assert!(presence.hindrances(at(1_000), at(0)).is_empty());
        presence.works_since(1, Some(at(0)));
        presence.looked_at_the_clock(at(7_000));
        assert_eq!(
            presence.hindrances(at(7_000), at(0)),
            ["work is unfinished for 7 s"]
        );
        presence.works_since(1, None);
        assert_eq!(
            presence.hindrances(at(12_000), at(12_000)),
            ["what is due was last asked for 5 s ago"]
        );
    }
}
