//! What is stored and is not what was stored, so that nothing can be done about the sagas it belongs to:
//! definitions, and journals.
//!
//! What a newer release has written is whole, and left to a newer node; what is damaged no node can read.
//! Messages about such sagas become dead letters. It is said in health as long as there are some.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::id::{SagaId, Timestamp};

/// How long it is said after a saga needed one: longer than its timers pause.
const SAID_FOR: Duration = Duration::from_mins(2);
/// Most that are remembered: enough to say that something is wrong.
const REMEMBERED_MAX: usize = 1_000;
/// Most that are named.
const NAMED_MAX: usize = 10;

/// What was needed lately and is damaged.
#[derive(Default)]
pub(super) struct Damage {
    definitions: Lately<(String, u32)>,
    journals: Lately<SagaId>,
}

/// When each was last met.
struct Lately<T>(Mutex<BTreeMap<T, Timestamp>>);

impl Damage {
    pub(super) fn note_definition(&self, now: Timestamp, name: &str, version: u32) {
        if self.definitions.note(now, (name.to_owned(), version)) {
            tracing::error!(
                saga.name = name,
                version,
                "a stored definition is damaged; its sagas stand still"
            );
        }
    }

    pub(super) fn note_journal(&self, now: Timestamp, saga: SagaId, why: &str) {
        if self.journals.note(now, saga) {
            tracing::error!(saga.id = %saga, why, "a saga's journal can't be read; it stands still");
        }
    }

    /// What there was lately: the part of the whole that it is, and in words.
    pub(super) fn said(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let definitions = self.of_definitions(now).map(|said| ("definitions", said));
        let journals = self.of_journals(now).map(|said| ("sagas", said));
        definitions.into_iter().chain(journals).collect()
    }

    fn of_definitions(&self, now: Timestamp) -> Option<String> {
        let named = self
            .definitions
            .named(now, |(name, version)| format!("`{name}` version {version}"))?;
        Some(format!(
            "stored definitions are damaged, and their sagas stand still (restore the rows from a backup): {named}"
        ))
    }

    fn of_journals(&self, now: Timestamp) -> Option<String> {
        let named = self.journals.named(now, SagaId::to_string)?;
        Some(format!(
            "journals can't be read, and their sagas stand still (`backstitch verify` tells why; restore the rows from a backup): {named}"
        ))
    }
}

impl<T: Ord> Lately<T> {
    /// Notes that it was met. Says whether that is news.
    fn note(&self, now: Timestamp, what: T) -> bool {
        let mut met = self.met(now);
        let is_room = met.len() < REMEMBERED_MAX || met.contains_key(&what);
        is_room && met.insert(what, now).is_none()
    }

    /// Those that were met lately; `None` if none was.
    fn named<S: Display>(&self, now: Timestamp, name: impl Fn(&T) -> S) -> Option<String> {
        let met = self.met(now);
        let named = met.keys().take(NAMED_MAX).map(|it| name(it).to_string());
        let named: Vec<String> = named.collect();
        let more = met.len() - named.len();
        (!named.is_empty()).then(|| match more {
            0 => named.join(", "),
            _ => format!("{} and {more} more", named.join(", ")),
        })
    }

    fn met(&self, now: Timestamp) -> MutexGuard<'_, BTreeMap<T, Timestamp>> {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.retain(|_, at| now.since(*at) < SAID_FOR);
        met
    }
}

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_few_are_named_the_rest_counted_and_all_forgotten_in_time() {
        let (damage, now) = (Damage::default(), Timestamp::from_micros(1));
        assert_eq!(damage.of_journals(now), None);
        let saga = |number| SagaId(Uuid::from_u128(number));
        for number in 0..12 {
            damage.note_journal(now, saga(number), "why");
        }
        let said = damage.of_journals(now).unwrap();
        assert!(said.contains(&saga(9).to_string()), "{said}");
        assert!(said.ends_with(" and 2 more"), "{said}");
        let later = now.after(SAID_FOR);
        damage.note_journal(later, saga(11), "why");
        let said = damage.of_journals(later).unwrap();
        assert!(said.ends_with(&saga(11).to_string()), "{said}");
        assert_eq!(damage.of_journals(later.after(SAID_FOR)), None);
        assert_eq!(damage.of_definitions(now), None);
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let (damage, now) = (Damage::default(), Timestamp::from_micros(1));
        for number in 0..2 * REMEMBERED_MAX as u128 {
            damage.note_journal(now, SagaId(Uuid::from_u128(number)), "why");
        }
        let more = format!("and {} more", REMEMBERED_MAX - NAMED_MAX);
        assert!(damage.of_journals(now).unwrap().ends_with(&more));
    }
}
