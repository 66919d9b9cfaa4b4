//! What can come from outside, and when it does.

use std::time::Duration;

use serde_json::Value;

use crate::saga::OperatorKind;

/// Something from outside, and when.
pub(super) struct Entrance {
    pub(super) at: Duration,
    pub(super) cue: Cue,
}

/// Something from outside.
pub(super) enum Cue {
    Start {
        saga: String,
        input: Value,
    },
    Signal {
        saga: String,
        key: String,
        signal: String,
        body: Value,
    },
    Event {
        exchange: String,
        routing_key: String,
        body: Value,
    },
    Operate {
        saga: String,
        key: String,
        action: OperatorKind,
    },
}
