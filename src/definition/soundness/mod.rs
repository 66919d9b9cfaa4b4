//! Rules beyond the grammar: what only the whole tree shows.
//!
//! What concerns one block is refused where the block is read; here stand the rules about how
//! blocks go together: which reply an expression may use where ([`references`]), whether times fit
//! into one another ([`deadlines`]), how large a saga may grow ([`size`]), and which sagas run
//! which ([`sub_sagas`], across files).

mod deadlines;
mod references;
mod size;
pub(super) mod sub_sagas;

use super::draft::Draft;

impl Draft<'_> {
    /// Notes all that the finished tree gets wrong.
    pub fn check_soundness(&mut self) {
        let mut found = self.check_references();
        found.extend(self.check_deadlines());
        found.extend(self.check_size());
        for (at, rule, message) in found {
            self.findings.add(at, rule, message);
        }
    }
}
