//! The audit log: what was done to dead letters, by whom and why, as one chain of hashes.
//!
//! Each entry's hash covers the one before, as in a saga's journal, so that an entry that was
//! changed, removed or slipped in is found; the head, kept apart, tells when the end was cut off.

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Actor;
use crate::id::Timestamp;
use crate::saga::journal::{GENESIS, Hash};

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// From 1, without gaps.
    pub seq: u64,
    /// When it was done.
    pub at: Timestamp,
    /// What was done: `drain`, `import`, `replay`, `return`, `edit`, `discard`, `reopen`, `purge`.
    pub action: String,
    /// To which letter; none if to many at once.
    pub letter: Option<Uuid>,
    /// SHA-256 over the previous hash and this entry.
    pub hash: Hash,
    /// Who, why and the particulars, as JSON.
    pub body: String,
}

/// The end of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditHead {
    /// `seq` of the newest entry; 0 if there is none.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Default for AuditHead {
    fn default() -> Self {
        Self {
            seq: 0,
            hash: GENESIS,
        }
    }
}

/// The audit log is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// An entry is missing or doubled.
    #[error("audit entry {found} stands where entry {expected} should be")]
    Gap {
        /// The `seq` that should be here.
        expected: u64,
        /// The `seq` that is.
        found: u64,
    },
    /// An entry was changed after it was written.
    #[error("audit entry {0} is not what was written: its hash does not match")]
    Broken(u64),
    /// Entries were cut off at the end.
    #[error("the audit log ends at entry {found}, but {expected} were written")]
    Cut {
        /// The number that were written.
        expected: u64,
        /// The last that is there.
        found: u64,
    },
}

/// An entry that has no place in the chain yet.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::store) struct Unlinked {
    pub(in crate::store) action: &'static str,
    pub(in crate::store) letter: Option<Uuid>,
    pub(in crate::store) detail: Value,
}

/// Puts entries behind the head, which moves on.
pub(in crate::store) fn link(
    head: &mut AuditHead,
    actor: &Actor,
    entries: Vec<Unlinked>,
) -> Vec<AuditEntry> {
    let link = |entry: Unlinked| {
        let Unlinked {
            action,
            letter,
            detail,
        } = entry;
        let body =
            serde_json::json!({ "by": actor.by, "why": actor.why, "detail": detail }).to_string();
        let mut entry = AuditEntry {
            seq: head.seq + 1,
            at: actor.at,
            action: action.to_owned(),
            letter,
            hash: GENESIS,
            body,
        };
        entry.hash = hash(&head.hash, &entry);
        *head = AuditHead {
            seq: entry.seq,
            hash: entry.hash,
        };
        entry
    };
    entries.into_iter().map(link).collect()
}

/// Checks that entries follow `head`, and moves it on.
pub fn verify(head: &mut AuditHead, entries: &[AuditEntry]) -> Result<(), AuditError> {
    for entry in entries {
        let expected = head.seq + 1;
        if entry.seq != expected {
            return Err(AuditError::Gap {
                expected,
                found: entry.seq,
            });
        }
        if hash(&head.hash, entry) != entry.hash {
            return Err(AuditError::Broken(entry.seq));
        }
        *head = AuditHead {
            seq: entry.seq,
            hash: entry.hash,
        };
    }
    Ok(())
}

/// SHA-256(previous ‖ seq ‖ at ‖ length of action ‖ action ‖ letter or zeros ‖ body).
fn hash(previous: &Hash, entry: &AuditEntry) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(entry.seq.to_be_bytes());
    hasher.update(entry.at.as_micros().to_be_bytes());
    hasher.update((entry.action.len() as u64).to_be_bytes());
    hasher.update(entry.action.as_bytes());
    hasher.update(entry.letter.unwrap_or_default().as_bytes());
    hasher.update(entry.body.as_bytes());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Vec<AuditEntry> {
        let actor = Actor {
            by: "ann".to_owned(),
            why: "fixed".to_owned(),
            at: Timestamp::from_micros(5),
        };
        let entry = |action| Unlinked {
            action,
            letter: Some(Uuid::from_u128(1)),
            detail: Value::Null,
        };
        let mut head = AuditHead::default();
        let entries = ["drain", "replay", "discard"].map(entry).to_vec();
        link(&mut head, &actor, entries)
    }

    fn check(entries: &[AuditEntry]) -> Result<(), AuditError> {
        verify(&mut AuditHead::default(), entries)
    }

    #[test]
    fn an_untouched_chain_holds_and_any_change_is_found() {
        assert_eq!(check(&chain()), Ok(()));
        let changed = |change: fn(&mut AuditEntry)| {
            let mut entries = chain();
            change(&mut entries[1]);
            check(&entries)
        };
        let broken = Err(AuditError::Broken(2));
        assert_eq!(changed(|entry| entry.body.push(' ')), broken);
        assert_eq!(changed(|entry| entry.action.push('s')), broken);
        assert_eq!(changed(|entry| entry.letter = None), broken);
        assert_eq!(
            changed(|entry| entry.at = Timestamp::from_micros(6)),
            broken
        );
        let mut removed = chain();
        removed.remove(1);
        let gap = AuditError::Gap {
            expected: 2,
            found: 3,
        };
        assert_eq!(check(&removed), Err(gap));
    }
}
