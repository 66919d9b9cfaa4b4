//! Rules beyond the grammar.
