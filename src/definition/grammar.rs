//! Which fields there are, and where: the one list that the parser, the JSON Schema of the
//! language and its reference are held to.

/// Fields of a definition.
pub(super) const DEFINITION: &[&str] = &[
    "saga",
    "version",
    "description",
    "key",
    "correlate",
    "start",
    "labels",
    "input",
    "timeout",
    "defaults",
    "steps",
    "output",
];
/// Fields of a label that is no plain value.
pub(super) const LABEL: &[&str] = &["time"];
/// Fields of `defaults`.
pub(super) const DEFAULTS: &[&str] = &["timeout", "retry", "suspend_after", "reply"];
/// Fields of `reply`.
pub(super) const REPLY: &[&str] = &["outcome", "schema"];
/// Fields of `reply` of `defaults`.
pub(super) const DEFAULT_REPLY: &[&str] = &["outcome"];
/// Fields of `start`.
pub(super) const START: &[&str] = &["on", "every", "timezone", "catch_up", "with", "conflict"];
/// Fields of a domain event, under `start.on` and `on` of a wait.
pub(super) const EVENT: &[&str] = &["exchange", "routing_key", "key", "with"];
/// Fields of `retry`.
pub(super) const RETRY: &[&str] = &["attempts", "first", "factor", "max"];
/// Fields of `to`, when it is no queue's name.
pub(super) const TO: &[&str] = &["exchange", "routing_key"];

/// Fields that any block may have. `until` of a `sleep` is its own.
const MODIFIERS: &[&str] = &[
    "when",
    "for_each",
    "sequential",
    "until",
    "at_most",
    "pivot",
];

/// A kind of block.
#[derive(Debug)]
pub(super) struct Kind {
    /// The field that a block of this kind has, and no other.
    pub field: &'static str,
    /// What it is called in messages.
    pub what: &'static str,
    /// What else it may have, besides the modifiers.
    own: &'static [&'static str],
}

impl Kind {
    /// All fields a block of this kind may have.
    pub fn fields(&self) -> Vec<&'static str> {
        let modifiers = MODIFIERS.iter().filter(|name| !self.own.contains(name));
        let own = std::iter::once(&self.field).chain(self.own);
        own.chain(modifiers).copied().collect()
    }

    /// Whether `until` is the loop's modifier here.
    pub fn until_ends_loop(&self) -> bool {
        !self.own.contains(&"until")
    }
}

/// The kinds of blocks: a block is a map that has one of these fields.
pub(super) const KINDS: [Kind; 6] = [
    Kind {
        field: "step",
        what: "a step",
        own: &[
            "with",
            "to",
            "reserve",
            "confirm",
            "compensate",
            "action",
            "read_only",
            "on_reject",
            "reply",
            "expires_in",
            "timeout",
            "retry",
            "suspend_after",
        ],
    },
    Kind {
        field: "parallel",
        what: "a parallel block",
        own: &[],
    },
    Kind {
        field: "steps",
        what: "a nested sequence",
        own: &[],
    },
    Kind {
        field: "wait",
        what: "a wait",
        own: &["signal", "match", "since", "on", "timeout", "on_timeout"],
    },
    Kind {
        field: "sleep",
        what: "a sleep",
        own: &["for", "until"],
    },
    Kind {
        field: "saga",
        what: "a saga block",
        own: &["run", "with", "on_reject", "timeout", "suspend_after"],
    },
];
