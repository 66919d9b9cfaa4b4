//! Is what the database says still what was written?
//!
//! Each saga's journal is a hash chain, which shows an entry that was changed, removed or slipped
//! in. It can't show that a whole saga is gone, or was written anew from its first entry: for that
//! there is the [`checkpoint`], a list of all chains' heads under one Merkle root, kept where the
//! database's administrator can't reach it. [`scan()`] reads all sagas once, newest first, and
//! checks both. [`strays()`] finds rows without a saga and snapshots that are not what the journal
//! says, [`letters()`] dead letters that are not as their audit log says.
//!
//! Invariants: nothing is written; memory is bounded by a page of sagas and a page of journal,
//! however long either is; a saga that goes on while it is looked at is judged by what its row
//! said when it was read.
//! Deliberately absent: repair. What is broken was broken by somebody, and a person must know.

pub mod checkpoint;
mod flaw;
mod letters;
pub mod merkle;
mod scan;
mod strays;
#[cfg(test)]
mod tests;

pub use checkpoint::ChainEnd;
pub use flaw::{Finding, Flaw, row_agrees};
pub use letters::{LetterFinding, LetterFlaw, Letters, letters};
pub use scan::{Scan, Summary, VerifyError, scan};
pub use strays::strays;
