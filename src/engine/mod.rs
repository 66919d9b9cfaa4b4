//! One message end to end.

pub mod relay;
