//! Publishing again soon what the broker did not take: a queue that is being declared at this moment, or
//! that changes its leader, refuses messages for some tenths of a second, and no saga shall wait for
//! the sweep because of it.
//!
//! Only as long as the row can't be swept yet: from then on it may be somebody else's. And only so many
//! bytes at a time: the others wait for the sweep, which reads them anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::{Before, Handed, WAITING_BATCHES_MAX};
use crate::environment::{Environment, Shutdown};
use crate::id::Timestamp;
use crate::store::OutboxMessage;

/// Pause before the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Most bytes of messages that wait for another attempt, so that a queue that stays full fills no memory.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Where rows are put that are to be tried again.
pub(super) struct Again {
    failed: mpsc::Sender<Handed>,
    bytes: Arc<AtomicUsize>,
}

/// The other end, for [`run`].
pub(super) struct Failed {
    failed: mpsc::Receiver<Handed>,
    bytes: Arc<AtomicUsize>,
}

/// Both ends.
pub(super) fn channel() -> (Again, Failed) {
    let (again, failed) = mpsc::channel(WAITING_BATCHES_MAX);
    let bytes = Arc::<AtomicUsize>::default();
    let again = Again {
        failed: again,
        bytes: Arc::clone(&bytes),
    };
    (again, Failed { failed, bytes })
}

impl Again {
    /// Takes rows, as many as there is room for; whether all of them.
    pub(super) fn put(&self, mut handed: Handed) -> bool {
        let before = self.bytes.load(Ordering::Relaxed);
        let mut bytes = before;
        let rows = handed.rows.len();
        handed.rows.retain(|row| {
            let fits = bytes + row.message.size() <= BYTES_MAX;
            bytes += if fits { row.message.size() } else { 0 };
            fits
        });
        let all = handed.rows.len() == rows;
        if handed.rows.is_empty() {
            return all;
        }
        self.bytes.fetch_add(bytes - before, Ordering::Relaxed);
        let put = self.failed.try_send(handed).is_ok();
        if !put {
            self.bytes.fetch_sub(bytes - before, Ordering::Relaxed);
        }
        put && all
    }
}

/// Those rows whose next attempt comes before a sweep could take them.
pub(super) fn soon(failed: Vec<(OutboxMessage, Before)>, now: Timestamp) -> Vec<Handed> {
    let mut by_attempts: BTreeMap<u32, Vec<OutboxMessage>> = BTreeMap::new();
    for (row, before) in failed {
        let attempts = match before {
            Before::Nothing => 1,
            Before::Tried(attempts) => attempts + 1,
            Before::LeftBehind => continue,
        };
        if now.after(pause(attempts)) < row.due_at {
            by_attempts.entry(attempts).or_default().push(row);
        }
    }
    by_attempts
        .into_iter()
        .map(|(attempts, rows)| Handed {
            rows,
            before: Before::Tried(attempts),
        })
        .collect()
}

/// Hands each over again after its pause, until it is told to stop.
pub(super) async fn run(
    environment: Arc<dyn Environment>,
    Failed { mut failed, bytes }: Failed,
    intake: mpsc::Sender<Handed>,
    stop: Shutdown,
) {
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => return,
            Some(handed) = waiting.next() => {
                let handed: Handed = handed;
                let sizes = handed.rows.iter().map(|row| row.message.size());
                bytes.fetch_sub(sizes.sum(), Ordering::Relaxed);
                tokio::select! {
                    biased;
                    () = stop.requested() => return,
                    _ = intake.send(handed) => {}
                }
            }
            Some(handed) = failed.recv(), if waiting.len() < WAITING_BATCHES_MAX => {
                let environment = Arc::clone(&environment);
                waiting.push(async move {
                    if let Before::Tried(attempts) = handed.before {
                        environment.sleep(pause(attempts)).await;
                    }
                    handed
                });
            }
        }
    }
}

fn pause(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(PAUSE_MAX)
}
