//! How long to wait before trying again: capped exponential backoff with hashed jitter.

use std::time::Duration;

use uuid::Uuid;

use crate::definition::Retry;
use crate::id::{Phase, SagaId, StepPath};

/// The wait is spread over this share of itself to either side, so that sagas that failed
/// together do not come back together.
const JITTER: f64 = 0.2;

/// The wait after attempt `attempt` (from 1). The same for the same arguments: jitter is hashed,
/// not drawn.
pub(super) fn backoff(
    retry: &Retry,
    saga: SagaId,
    step: &StepPath,
    phase: Phase,
    attempt: u32,
) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let cap = retry.max.as_secs_f64();
    let wait = (retry.first.as_secs_f64() * retry.factor.powi(exponent)).min(cap);
    let hash = Uuid::new_v5(
        &saga.0,
        format!("jitter/{step}/{phase}/{attempt}").as_bytes(),
    );
    let unit = f64::from((hash.as_u64_pair().0 >> 32) as u32) / f64::from(u32::MAX);
    // `min` has bounded it, so this can't overflow.
    Duration::try_from_secs_f64(wait * (1.0 - JITTER + 2.0 * JITTER * unit)).unwrap_or(retry.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(attempt: u32, saga: u128) -> Duration {
        let retry = Retry {
            attempts: 9,
            first: Duration::from_millis(100),
            factor: 2.0,
            max: Duration::from_secs(1),
        };
        let saga = SagaId(Uuid::from_u128(saga));
        backoff(
            &retry,
            saga,
            &StepPath::plain("stock"),
            Phase::Reserve,
            attempt,
        )
    }

    #[test]
    fn waits_grow_to_the_cap_within_the_jitter() {
        for (attempt, expected_ms) in [
            (1, 100.0),
            (2, 200.0),
            (4, 800.0),
            (5, 1000.0),
            (999, 1000.0),
        ] {
            let ms = wait(attempt, 7).as_secs_f64() * 1e3;
            assert!(
                (expected_ms * 0.79..expected_ms * 1.21).contains(&ms),
                "{attempt}: {ms} ms"
            );
        }
    }

    #[test]
    fn jitter_is_repeatable_and_differs_between_sagas() {
        assert_eq!(wait(1, 7), wait(1, 7));
        assert_ne!(wait(1, 7), wait(1, 8));
    }
}
