//! Domain events that no definition names and no binding of ours explains: counted, and told now
//! and then.
//!
//! Such an event came by a binding that somebody else has made, or by an exchange that looks at no
//! keys. It may well be meant for a saga, so it does not go without a word; but there may be a
//! thousand a second, so not each of them has one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::Timestamp;
use crate::message::Destination;
use crate::metric;

/// Exchanges that are told apart; names come from outside, and others are counted together.
const EXCHANGES_MAX: usize = 20;
/// How they are named together.
const OTHERS: &str = "(others)";
/// Shortest time between two warnings about one exchange.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Stray events by exchange.
#[derive(Debug, Default)]
pub(in crate::engine) struct Strays(BTreeMap<String, Stray>);

#[derive(Debug, Default)]
struct Stray {
    warned_at: Option<Timestamp>,
    /// Since the last warning.
    unsaid: u64,
}

impl Strays {
    /// Takes note of one; whether it was told.
    pub(super) fn note(&mut self, route: &Destination, now: Timestamp) -> bool {
        let is_known = self.0.contains_key(&route.exchange);
        let name = if is_known || self.0.len() < EXCHANGES_MAX {
            &route.exchange
        } else {
            OTHERS
        };
        metric::event_stray(name);
        let stray = self.0.entry(name.to_owned()).or_default();
        let lately = |at: Timestamp| now.since(at) < WARN_EVERY;
        if stray.warned_at.is_some_and(lately) {
            stray.unsaid += 1;
            return false;
        }
        tracing::warn!(
            exchange = route.exchange,
            routing_key = route.routing_key,
            before = stray.unsaid,
            "a domain event reached our queue that no definition names; it is let go. It came by somebody else's binding, or by an exchange that looks at no keys (then name it with routing_key `#`)"
        );
        *stray = Stray {
            warned_at: Some(now),
            unsaid: 0,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(exchange: &str) -> Destination {
        Destination {
            exchange: exchange.to_owned(),
            routing_key: "k".to_owned(),
        }
    }

    #[test]
    fn each_exchange_is_told_once_a_minute_and_there_are_not_too_many() {
        let (mut strays, begin) = (Strays::default(), Timestamp::default());
        assert!(strays.note(&route("a"), begin));
        assert!(!strays.note(&route("a"), begin));
        assert!(strays.note(&route("b"), begin));
        assert!(strays.note(&route("a"), begin.after(WARN_EVERY)));
        for n in 0..100 {
            strays.note(&route(&format!("x-{n}")), begin);
        }
        assert_eq!(strays.0.len(), EXCHANGES_MAX + 1);
    }
}
