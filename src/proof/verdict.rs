//! Collects what speaks against a sentence.

use serde::Serialize;

/// Offenders that are named; the rest are counted.
const OFFENDERS_NAMED_MAX: usize = 5;

/// A sentence that must hold, and whether it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// The sentence.
    pub name: &'static str,
    /// Whether it holds.
    pub held: bool,
    /// The sums if it does; how many offend, and the first of them, if it does not.
    pub detail: String,
}

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
