//! Collects what speaks against a sentence.

use super::Proof;

/// Offenders that are named; the rest are counted.
const OFFENDERS_NAMED_MAX: usize = 5;

/// A sentence under examination.
pub(super) struct Verdict {
    name: &'static str,
    offenders: u64,
    first: Vec<String>,
}

impl Verdict {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            offenders: 0,
            first: Vec::new(),
        }
    }

    /// Counts an offender unless `held`; the text is only written for those that are named.
    pub(super) fn require(&mut self, held: bool, offender: impl FnOnce() -> String) {
        if !held {
            self.wrong(offender);
        }
    }

    /// Counts an offender.
    pub(super) fn wrong(&mut self, offender: impl FnOnce() -> String) {
        self.offenders += 1;
        if self.first.len() < OFFENDERS_NAMED_MAX {
            self.first.push(offender());
        }
    }

    /// The judgement; `sums` is what to say if nothing was wrong.
    pub(super) fn close(self, sums: String) -> Proof {
        let held = self.offenders == 0;
        let detail = if held {
            sums
        } else {
            let more = if self.offenders > self.first.len() as u64 {
                "; …"
            } else {
                ""
            };
            format!("{} wrong: {}{more}", self.offenders, self.first.join("; "))
        };
        Proof {
            name: self.name,
            held,
            detail,
        }
    }
}
