//! Publishing again soon what the broker did not take: a queue that is being declared at this moment, or
//! that changes its leader, refuses messages for some tenths of a second, and no saga shall wait for
//! the sweep because of it.
//!
//! Only as long as the row can't be swept yet: from then on it may be somebody else's.

use std::collections::BTreeMap;
use std::sync::Arc;
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
    mut failed: mpsc::Receiver<Handed>,
    intake: mpsc::Sender<Handed>,
    stop: Shutdown,
) {
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => return,
            Some(handed) = waiting.next() => {
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
