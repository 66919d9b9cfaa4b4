//! What is wrong with a definition, and where.
/// All that is wrong with one file.
#[derive(Debug, thiserror::Error)]
#[error("{} problem(s)", .0.len())]
pub struct Problems(pub Vec<Problem>);
/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
}
