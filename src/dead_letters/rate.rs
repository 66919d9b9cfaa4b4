//! Keeping to a rate: small steps, and a wait after each.

use std::sync::Arc;
use std::time::Duration;

use crate::environment::{Environment, Shutdown};
use crate::id::Timestamp;

/// Steps a second at most, when there is a rate: a slow one is kept by small steps, not by bursts.
const STEPS_A_SECOND: u32 = 5;

/// How many messages to send at once, at most `most`.
pub(super) fn step(rate: Option<u32>, most: usize) -> usize {
    let step = rate.map_or(most, |rate| {
        usize::try_from(rate.div_ceil(STEPS_A_SECOND)).unwrap_or(most)
    });
    step.clamp(1, most)
}

/// When the rate allows the next, `sent` having been sent since `started`.
pub(super) fn due(rate: Option<u32>, started: Timestamp, sent: u64) -> Timestamp {
    let Some(rate) = rate else {
        return started;
    };
    let micros = sent.saturating_mul(1_000_000) / u64::from(rate.max(1));
    started.after(Duration::from_micros(micros))
}

/// Waits until `sent` messages since `started` are no more than the rate allows.
pub(super) async fn pace(
    environment: &Arc<dyn Environment>,
    rate: Option<u32>,
    started: Timestamp,
    sent: u64,
    stop: &Shutdown,
) {
    let wait = due(rate, started, sent).since(environment.now());
    if !wait.is_zero() {
        tokio::select! {
            biased;
            () = environment.sleep(wait) => {}
            () = stop.requested() => {}
        }
    }
}
