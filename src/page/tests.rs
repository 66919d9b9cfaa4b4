//! The page over an API whose answers are fixed.
