//! What people search sagas by.

use super::template::Template;
use crate::id::Timestamp;

/// A label that a definition gives its sagas.
#[derive(Debug)]
pub struct LabelRule {
    /// Its name.
    pub name: String,
    /// Computes it from the input.
    pub value: Template,
    /// Whether its text is a point in time.
    pub is_time: bool,
}

/// A label of a saga.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// What it says.
    pub value: LabelValue,
}

/// What a label says.
#[derive(Debug, Clone, PartialEq)]
pub enum LabelValue {
    /// A text; `true` and `false` are texts.
    Text(String),
    /// A number.
    Number(f64),
    /// A point in time.
    Time(Timestamp),
}
