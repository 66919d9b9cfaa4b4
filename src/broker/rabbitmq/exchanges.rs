//! Which exchanges are there, as far as was seen: so that not every message has to ask.
//!
//! Separate from the publisher, because the keeper of the topology sees exchanges come and go too.
//!
//! Publishing to an exchange that is missing costs the channel. And when one has been deleted and
//! is made anew, nobody is bound to it any more: for a while, a message that no queue takes is one
//! whose receivers are still to come back, not one that nobody wants.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long whoever listened to an exchange that was made anew has to bind to it again, before
/// events that no queue takes are let go.
pub const REBIND_TIME: Duration = Duration::from_mins(1);

/// How long a missing exchange is taken for missing without another look: each look costs a channel.
const MISSING_FOR: Duration = Duration::from_secs(1);

/// Exchanges by name.
#[derive(Default)]
pub(super) struct Exchanges(Mutex<HashMap<String, Seen>>);

#[derive(Default)]
struct Seen {
    /// It is there, unless a publish says otherwise.
    is_there: bool,
    /// It was there once.
    was_there: bool,
    /// When it was last found missing.
    missing: Option<Instant>,
    /// When it was found to be there again.
    anew: Option<Instant>,
}

impl Exchanges {
    /// Whether an exchange is there, if that is known well enough not to ask.
    pub(super) fn known(&self, exchange: &str, now: Instant) -> Option<bool> {
        let all = self.lock();
        let seen = all.get(exchange)?;
        let lately = seen.missing.filter(|at| now - *at < MISSING_FOR);
        match (seen.is_there, lately) {
            (true, _) => Some(true),
            (false, Some(_)) => Some(false),
            (false, None) => None,
        }
    }

    /// An exchange is there.
    pub(super) fn found(&self, exchange: &str, now: Instant) {
        let mut all = self.lock();
        let seen = all.entry(exchange.to_owned()).or_default();
        if seen.missing.take().is_some() {
            seen.anew = Some(now);
        }
        seen.is_there = true;
        seen.was_there = true;
    }

    /// An exchange was not there, and has been made.
    pub(super) fn made(&self, exchange: &str, now: Instant) {
        if self.lock().get(exchange).is_some_and(|seen| seen.was_there) {
            self.missing(exchange, now);
        }
        self.found(exchange, now);
    }

    /// An exchange is missing; whether that is news.
    pub(super) fn missing(&self, exchange: &str, now: Instant) -> bool {
        let mut all = self.lock();
        let seen = all.entry(exchange.to_owned()).or_default();
        seen.is_there = false;
        seen.missing.replace(now).is_none()
    }

    /// Whether those who listened to an exchange may still have to come back to it.
    pub(super) fn is_anew(&self, exchange: &str, now: Instant) -> bool {
        let all = self.lock();
        let anew = all.get(exchange).and_then(|seen| seen.anew);
        anew.is_some_and(|at| now - at < REBIND_TIME)
    }

    /// Nothing is certain any more.
    pub(super) fn forget(&self) {
        for seen in self.lock().values_mut() {
            seen.is_there = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_anew_once_it_was_missed() {
        let (exchanges, now) = (Exchanges::default(), Instant::now());
        assert_eq!(exchanges.known("e", now), None);
        exchanges.made("e", now);
        assert!(!exchanges.is_anew("e", now), "its first time");
        exchanges.forget();
        assert_eq!(exchanges.known("e", now), None);
        exchanges.found("e", now);
        assert!(!exchanges.is_anew("e", now), "it was never away");
        assert!(exchanges.missing("e", now));
        exchanges.found("e", now);
        assert!(exchanges.is_anew("e", now));
        assert!(!exchanges.is_anew("e", now + REBIND_TIME));
        exchanges.made("e", now + REBIND_TIME);
        assert!(exchanges.is_anew("e", now + REBIND_TIME));
    }

    #[test]
    fn what_is_missing_is_asked_for_again_but_not_by_every_message() {
        let (exchanges, now) = (Exchanges::default(), Instant::now());
        assert!(exchanges.missing("e", now));
        assert!(!exchanges.missing("e", now), "no news");
        assert_eq!(exchanges.known("e", now), Some(false));
        assert_eq!(exchanges.known("e", now + MISSING_FOR), None);
        exchanges.found("e", now);
        assert_eq!(exchanges.known("e", now), Some(true));
    }
}
