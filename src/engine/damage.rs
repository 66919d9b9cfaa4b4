//! Stored definitions that are not what was stored, so that nothing can be done about their sagas.
//!
//! What a newer release has written is whole, and left to a newer node; what is damaged no node can read.
//! Messages about such sagas become dead letters. It is said in health as long as there are some.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::id::Timestamp;

/// How long it is said after a saga needed one: longer than its timers pause.
const SAID_FOR: Duration = Duration::from_mins(2);

/// When a saga last needed each.
#[derive(Default)]
pub(super) struct Damage(Mutex<BTreeMap<(String, u32), Timestamp>>);

impl Damage {
    pub(super) fn note(&self, now: Timestamp, name: &str, version: u32) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.insert((name.to_owned(), version), now);
        if before.is_none_or(|at| now.since(at) >= SAID_FOR) {
            tracing::error!(
                saga.name = name,
                version,
                "a stored definition is damaged; its sagas stand still"
            );
        }
    }

    /// Which there were lately, in words.
    pub(super) fn said(&self, now: Timestamp) -> Option<String> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, at| now.since(*at) < SAID_FOR);
        let which: Vec<String> = seen
            .keys()
            .map(|(name, version)| format!("`{name}` version {version}"))
            .collect();
        (!which.is_empty()).then(|| {
            format!(
                "stored definitions are damaged, and their sagas stand still (restore the rows from a backup): {}",
                which.join(", ")
            )
        })
    }
}
