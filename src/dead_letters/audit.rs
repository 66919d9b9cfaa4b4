//! Checking the audit log: is it, entry by entry, what was written?

use super::desk::{DeadLetterError, Desk};
use crate::store::dead_letters::audit::{AuditError, verify};
use crate::store::dead_letters::{AuditEntry, AuditHead};

/// Entries read at once.
const PAGE: usize = 1_000;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCheck {
    /// Entries that hold.
    pub entries: u64,
    /// What is wrong after them, if anything.
    pub broken: Option<AuditError>,
}

impl Desk {
    /// Reads the whole log, hands each entry to `see` and checks the chain.
    pub async fn check_audit(
        &self,
        mut see: impl FnMut(&AuditEntry),
    ) -> Result<AuditCheck, DeadLetterError> {
        // Before the entries: those written meanwhile come after it.
        let written = self.letters.audit_head().await?;
        let mut end = AuditHead::default();
        loop {
            let page = self.letters.letter_audit(None, end.seq, PAGE).await?;
            let (full, entries) = (page.len() == PAGE, end.seq);
            if let Err(broken) = verify(&mut end, &page) {
                return Ok(AuditCheck {
                    entries: end.seq.max(entries),
                    broken: Some(broken),
                });
            }
            page.iter().for_each(&mut see);
            if !full {
                break;
            }
        }
        let cut = AuditError::Cut {
            expected: written.seq,
            found: end.seq,
        };
        Ok(AuditCheck {
            entries: end.seq,
            broken: (end.seq < written.seq).then_some(cut),
        })
    }
}
