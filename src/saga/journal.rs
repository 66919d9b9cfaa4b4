//! The journal: a saga's history as a hash chain of entries, and how it becomes a saga again.
//!
//! One decision is one entry. Each entry's hash covers the hash before it, so that an entry that
//! was changed, removed or slipped in later is found (the construction of Haber and Stornetta,
//! "How to Time-Stamp a Digital Document", 1991).

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::apply::apply;
use super::event::Event;
use super::format::{self, Formats, Newer, WRITES};
use super::state::Saga;
use super::transition::IllegalEvent;
use crate::id::{SagaId, Timestamp};

/// SHA-256.
pub type Hash = [u8; 32];

/// The hash before a saga's first entry.
pub const GENESIS: Hash = [0; 32];

/// One link of the chain, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// From 1, without gaps.
    pub seq: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// SHA-256 over the previous hash and this entry.
    pub hash: Hash,
    /// A [`Record`] as JSON, with the mark of its [`format`](mod@super::format).
    pub body: Bytes,
}

/// What an entry says: what came in, and what followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What came in.
    pub cause: Cause,
    /// What followed, in order.
    pub events: Vec<Event>,
}

/// What called for a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A start.
    Start,
    /// Another start with its key.
    Restart,
    /// A participant's answer.
    Reply,
    /// A command that found no queue.
    Returned,
    /// The clock.
    Timer,
    /// A signal.
    Signal,
    /// A person; the events say who and why.
    Operator,
    /// The saga that runs this one.
    Parent,
}

/// A journal can't be read, or is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// An entry is missing or doubled.
    #[error("entry {found} stands where entry {expected} should be")]
    Gap {
        /// The `seq` that should be here.
        expected: u64,
        /// The `seq` that is.
        found: u64,
    },
    /// An entry was changed after it was written.
    #[error("entry {0} is not what was written: its hash does not match")]
    Broken(u64),
    /// An entry is not in a form that this version reads.
    #[error("entry {seq} can't be read: {why}")]
    Unreadable {
        /// Which.
        seq: u64,
        /// Why.
        why: String,
    },
    /// An entry is in a form that only a newer version reads.
    #[error("entry {seq}: {why}")]
    Newer {
        /// Which.
        seq: u64,
        /// What is newer about it.
        why: Newer,
    },
    /// An entry says what can't have happened.
    #[error("entry {seq}, event {event}: {why}")]
    Illegal {
        /// Which entry.
        seq: u64,
        /// Which of its events, from 1.
        event: usize,
        /// Why.
        why: IllegalEvent,
    },
}

impl JournalEntry {
    /// Writes the entry that follows `previous`.
    ///
    /// # Errors
    /// If the record can't be written as JSON, which no record that serde can hold does.
    pub fn link(
        saga: SagaId,
        previous: &Hash,
        seq: u64,
        at: Timestamp,
        record: &Record,
    ) -> Result<Self, serde_json::Error> {
        Self::link_in(WRITES, saga, previous, seq, at, record)
    }

    /// The same, in a format.
    ///
    /// # Errors
    /// The same.
    pub fn link_in(
        format: u32,
        saga: SagaId,
        previous: &Hash,
        seq: u64,
        at: Timestamp,
        record: &Record,
    ) -> Result<Self, serde_json::Error> {
        let body = Bytes::from(format::mark(serde_json::to_vec(record)?, format));
        Ok(Self {
            seq,
            at,
            hash: chain(saga, previous, seq, at, &body),
            body,
        })
    }

    /// The entry without the mark of its format, as whoever reads these formats has it. Its hash is
    /// that of the marked one.
    pub fn plain(&self, formats: Formats) -> Result<Self, JournalError> {
        let seq = self.seq;
        let read = formats.read(&self.body);
        let (body, _) = read.map_err(|why| JournalError::Newer { seq, why })?;
        let body = match body {
            Cow::Borrowed(_) => self.body.clone(),
            Cow::Owned(body) => body.into(),
        };
        Ok(Self { body, ..*self })
    }

    /// What the entry says.
    pub fn record(&self) -> Result<Record, JournalError> {
        let seq = self.seq;
        let Self { body, .. } = self.plain(Formats::OURS)?;
        serde_json::from_slice(&body).map_err(|error| {
            let why = error.to_string();
            let newer = |why| JournalError::Newer { seq, why };
            format::unknown(&error).map_or(JournalError::Unreadable { seq, why }, newer)
        })
    }
}

/// SHA-256(previous ‖ saga ‖ seq ‖ at ‖ body), numbers big-endian.
fn chain(saga: SagaId, previous: &Hash, seq: u64, at: Timestamp, body: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(saga.0.as_bytes());
    hasher.update(seq.to_be_bytes());
    hasher.update(at.as_micros().to_be_bytes());
    hasher.update(body);
    hasher.finalize().into()
}

/// Folds entries into the saga, which stands at `revision` before them.
pub fn fold(saga: &mut Saga, revision: u64, entries: &[JournalEntry]) -> Result<(), JournalError> {
    for (expected, entry) in (revision + 1..).zip(entries) {
        if entry.seq != expected {
            return Err(JournalError::Gap {
                expected,
                found: entry.seq,
            });
        }
        replay(saga, entry)?;
    }
    Ok(())
}

/// Folds one entry into the saga, which stands before it.
pub fn replay(saga: &mut Saga, entry: &JournalEntry) -> Result<(), JournalError> {
    for (event, happened) in (1..).zip(entry.record()?.events) {
        let seq = entry.seq;
        apply(saga, &happened).map_err(|why| JournalError::Illegal { seq, event, why })?;
    }
    Ok(())
}

/// A chain that is checked link by link, from its first entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    saga: SagaId,
    seq: u64,
    head: Hash,
}

impl Chain {
    /// The chain of a saga that has no entry yet.
    pub fn new(saga: SagaId) -> Self {
        Self {
            saga,
            seq: 0,
            head: GENESIS,
        }
    }

    /// Checks that `entry` is the next link.
    pub fn add(&mut self, entry: &JournalEntry) -> Result<(), JournalError> {
        let expected = self.seq + 1;
        if entry.seq != expected {
            return Err(JournalError::Gap {
                expected,
                found: entry.seq,
            });
        }
        let hash = chain(self.saga, &self.head, entry.seq, entry.at, &entry.body);
        if hash != entry.hash {
            return Err(JournalError::Broken(entry.seq));
        }
        (self.seq, self.head) = (expected, hash);
        Ok(())
    }

    /// The newest entry that holds.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Its hash.
    pub fn head(&self) -> Hash {
        self.head
    }
}

/// Checks that the entries are the whole chain from the first one.
pub fn verify(saga: SagaId, entries: &[JournalEntry]) -> Result<Chain, JournalError> {
    let mut chain = Chain::new(saga);
    entries.iter().try_for_each(|entry| chain.add(entry))?;
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn entries(count: u64) -> Vec<JournalEntry> {
        let mut head = GENESIS;
        (1..=count)
            .map(|seq| {
                let record = Record {
                    cause: Cause::Reply,
                    events: vec![Event::PivotPassed],
                };
                let at = Timestamp::from_micros(seq.cast_signed());
                let entry = JournalEntry::link(saga(), &head, seq, at, &record).unwrap();
                head = entry.hash;
                entry
            })
            .collect()
    }

    fn saga() -> SagaId {
        SagaId(Uuid::from_u128(1))
    }

    #[test]
    fn an_untouched_chain_verifies_to_its_head() {
        let entries = entries(3);
        assert_eq!(verify(saga(), &entries).unwrap().head(), entries[2].hash);
    }

    #[test]
    fn what_a_newer_version_wrote_is_not_taken_for_damage_nor_read_in_part() {
        let entry = |body: &str| JournalEntry {
            seq: 7,
            at: Timestamp::default(),
            hash: GENESIS,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        let newer = [
            r#"{"v":9,"cause":"timer","events":[{"event":"pivot_passed"}]}"#,
            r#"{"cause":"eclipse","events":[{"event":"pivot_passed"}]}"#,
            r#"{"cause":"timer","events":[{"event":"teleported"}]}"#,
            r#"{"cause":"timer","events":[],"mood":"good"}"#,
            r#"{"cause":"timer","events":[{"event":"skipped","step":"1","mood":"good"}]}"#,
            r#"{"cause":"timer","events":[{"event":"in_line","mood":"good"}]}"#,
            r#"{"cause":"timer","events":[{"event":"operated","id":"1","by":"ann","why":"so","kind":{"action":"retry","mood":"good"}}]}"#,
        ];
        for body in newer {
            let read = entry(body).record();
            assert!(
                matches!(read, Err(JournalError::Newer { seq: 7, .. })),
                "{body}: {read:?}"
            );
        }
        for body in [
            "{}",
            "",
            r#"{"cause":"timer","events":[{"event":"skipped"}]}"#,
        ] {
            let read = entry(body).record();
            assert!(
                matches!(read, Err(JournalError::Unreadable { .. })),
                "{body}: {read:?}"
            );
        }
    }

    #[test]
    fn a_changed_removed_or_moved_entry_is_found() {
        let mut changed = entries(3);
        changed[1].body = Bytes::from_static(b"{}");
        assert_eq!(verify(saga(), &changed), Err(JournalError::Broken(2)));
        let mut removed = entries(3);
        removed.remove(1);
        let gap = JournalError::Gap {
            expected: 2,
            found: 3,
        };
        assert_eq!(verify(saga(), &removed), Err(gap));
        let other = SagaId(Uuid::from_u128(2));
        assert_eq!(verify(other, &entries(3)), Err(JournalError::Broken(1)));
        let mut later = entries(3);
        later[2].at = Timestamp::from_micros(99);
        assert_eq!(verify(saga(), &later), Err(JournalError::Broken(3)));
    }
}
