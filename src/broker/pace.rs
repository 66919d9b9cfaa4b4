//! How long to wait before the next attempt to reconnect: growing, jittered, bounded.
//!
//! Separate because it is the only user of the `backoff` crate, so that replacing the crate
//! touches this file alone. Deliberately absent: sleeping, and giving up.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Shortest wait between two attempts.
pub const DELAY_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two attempts.
pub const DELAY_MAX: Duration = Duration::from_secs(5);

/// How far the jitter reaches to both sides, as a part of the interval.
const JITTER: f64 = 0.5;
/// Growth of the interval from one attempt to the next.
const FACTOR: f64 = 1.7;

/// The waits between attempts at one thing.
pub struct Pace(ExponentialBackoff);

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

impl Pace {
    /// Starts short.
    pub fn new() -> Self {
        let initial_interval = DELAY_MIN.mul_f64(1.0 / (1.0 - JITTER));
        Self(ExponentialBackoff {
            initial_interval,
            current_interval: initial_interval,
            randomization_factor: JITTER,
            multiplier: FACTOR,
            max_interval: DELAY_MAX.mul_f64(1.0 / (1.0 + JITTER)),
            max_elapsed_time: None, // never gives up
            ..ExponentialBackoff::default()
        })
    }

    /// The wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.0.next_backoff().unwrap_or(DELAY_MAX);
        delay.clamp(DELAY_MIN, DELAY_MAX)
    }

    /// The thing works: the next wait is a short one again.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_within_bounds_and_start_again_after_a_success() {
        let mut pace = Pace::new();
        let waits: Vec<Duration> = (0..200).map(|_| pace.next_delay()).collect();
        assert!(
            waits
                .iter()
                .all(|wait| (DELAY_MIN..=DELAY_MAX).contains(wait))
        );
        assert!(waits[0] <= DELAY_MIN * 3 + Duration::from_millis(1));
        assert!(
            waits[50..]
                .iter()
                .all(|wait| *wait > Duration::from_secs(1))
        );
        assert!(
            waits[50..].iter().any(|wait| *wait != waits[50]),
            "no jitter"
        );
        pace.reset();
        assert!(pace.next_delay() <= DELAY_MIN * 3 + Duration::from_millis(1));
    }
}
