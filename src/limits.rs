//! How much of anything there may be: every limit on data, and what follows from each.
//!
//! Whatever passes one door passes all later ones: accepted ⇒ stored ⇒ read back ⇒ evaluated ⇒
//! sent ⇒ answered ⇒ confirmed. So the first door (a start, a reply, a signal, a domain event)
//! leaves room for what is made of a body later: a journal entry wraps it, a `with` puts several
//! together, a confirm carries `with` and `reservation`. The inequalities between the limits stand
//! below as tests; a limit that is changed here is changed everywhere.
//!
//! A body is judged twice: [`read`] looks at its bytes before anything is allocated for it, and a
//! value that was computed is measured by its [`Extent`]. Both count alike.
//!
//! Deliberately absent: limits on definitions (`definition`), on connections and on time.

mod extent;

use serde_json::Value;

use crate::error::{Code, code};

pub use extent::{Extent, OBJECT_MEMORY_BYTES, VALUE_MEMORY_BYTES};

/// Levels of arrays and objects that our JSON parser reads; one more is an error.
pub const PARSER_DEPTH: usize = 127;

/// Levels that are put around a value on its way through us, at most: a snapshot has it in a map of
/// steps, a view in a reply in an event in a list of events in a moment in the timeline.
pub const WRAPPING_DEPTH: usize = 16;

/// What may come in: the body of a start, a reply, a signal or a domain event, a saga's input
/// however it was computed, and what a sub-saga answers.
pub const BODY: Limit = Limit {
    bytes: 1024 * 1024,
    depth: 64,
    values: 100_000,
};

/// What a saga may compute as one value: a `with`, an output. More than a body, so that several
/// bodies can be passed on together.
pub const COMPUTED: Limit = Limit {
    bytes: 4 * 1024 * 1024,
    depth: 100,
    values: 400_000,
};

/// The body of a command: a confirm or compensate carries `with` and the `reservation`, each as
/// large as it may be, and a few bytes that hold them together.
pub const COMMAND: Limit = Limit {
    bytes: COMPUTED.bytes + BODY.bytes + 64,
    depth: COMPUTED.depth + 1,
    values: COMPUTED.values + BODY.values + 2,
};

/// All that a saga holds together: its input, payloads, replies and signals. (How deep each may be
/// is said above.)
pub const SAGA: Limit = Limit {
    bytes: 64 * 1024 * 1024,
    depth: PARSER_DEPTH,
    values: 1_000_000,
};

/// Signals that one saga keeps for the one that replaces it, together: they are handed down in one
/// decision.
pub const KEPT_SIGNALS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What one decision writes and sends, in bytes, before it leaves the rest for the next one. It
/// writes at most one payload and one command more.
pub const PORTION_BYTES: usize = 4 * 1024 * 1024;

/// Commands of one decision, before it leaves the rest for the next one.
pub const PORTION_COMMANDS: usize = 1_000;

/// Events of one decision, before it leaves the rest for the next one.
pub const PORTION_EVENTS: usize = 10_000;

/// Bytes that the decisions of one batch write and send together, before the rest of the batch waits
/// for the next one.
pub const BATCH_BYTES: usize = 32 * 1024 * 1024;

/// What one step costs in memory beside what it holds.
pub const STEP_MEMORY_BYTES: usize = 500;

/// Memory for open sagas, unless a node is told otherwise: those that it keeps, and those that are read
/// and decided.
pub const CACHE_BYTES: usize = 256 * 1024 * 1024;

/// What of that is for sagas that are kept from one message to the next: the rest is taken by those at
/// work, which have no bound of their own.
pub const fn kept_share(cache_bytes: usize) -> usize {
    cache_bytes / 8 * 3
}

/// Memory for the bodies of HTTP requests that are under way. Who comes when it is used up waits.
pub const DOOR_BYTES: usize = 8 * 1024 * 1024;

/// Memory for what is read from bodies, of messages and requests alike, and not decided yet; and for
/// what one batch reads of sagas that are not in the cache, before the rest of it waits.
pub const DECODED_BYTES: usize = 48 * 1024 * 1024;

/// Bytes of stored sagas that are read at once, before the rest waits; one saga always is, whatever
/// its size.
pub const LOADED_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of messages that have come over one connection and wait to be taken, before no more are read
/// from it.
pub const WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Bodies up to this size are let in without asking: other limits are met first.
pub const SMALL_BODY_BYTES: usize = 1024;

/// Largest body that the broker is given, in bytes: RabbitMQ's own limit from 4.0 on. Dead letters
/// may have it, too.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How large one JSON value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Most bytes, written without spaces.
    pub bytes: usize,
    /// Most levels of arrays and objects.
    pub depth: usize,
    /// Most values: scalars, arrays and objects, the outermost included.
    pub values: usize,
}

/// What is too large about a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Its bytes.
    #[error(
        "it has {found} bytes, more than the {most} allowed; keep large things elsewhere and send a reference"
    )]
    Bytes {
        /// How many.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// Its levels.
    #[error(
        "its arrays and objects are nested deeper than the {most} levels allowed; send it flatter, or as text"
    )]
    Depth {
        /// How many levels there may be.
        most: usize,
    },
    /// The number of values in it.
    #[error(
        "it has more than the {most} values allowed (numbers, texts, arrays, objects); keep large things elsewhere and send a reference"
    )]
    Values {
        /// How many there may be.
        most: usize,
    },
}

impl Excess {
    /// The error that an operator looks up.
    pub fn code(&self) -> Code {
        match self {
            Self::Bytes { .. } => code::BODY_TOO_LARGE,
            Self::Depth { .. } => code::BODY_TOO_DEEP,
            Self::Values { .. } => code::BODY_TOO_MANY_VALUES,
        }
    }
}

/// Why bytes are not a JSON value that we take.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableJson {
    /// They would be, but for their size.
    #[error(transparent)]
    TooLarge(#[from] Excess),
    /// They are something else.
    #[error("{0}")]
    NotJson(#[from] serde_json::Error),
}

impl UnreadableJson {
    /// The error that an operator looks up.
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge(excess) => excess.code(),
            Self::NotJson(_) => code::BODY_NOT_JSON,
        }
    }

    /// The error in words; `what` the bytes are, such as "the body".
    pub fn about(&self, what: &str) -> String {
        match self {
            Self::TooLarge(excess) => format!("{what} is too large: {excess}"),
            Self::NotJson(error) => format!("{what} is not JSON: {error}"),
        }
    }
}

impl Limit {
    /// Whether something of this extent is within the limit.
    ///
    /// # Errors
    /// Says what is too large about it.
    pub fn check(&self, extent: Extent) -> Result<(), Excess> {
        if extent.bytes > self.bytes {
            return Err(Excess::Bytes {
                found: extent.bytes,
                most: self.bytes,
            });
        }
        if extent.depth > self.depth {
            return Err(Excess::Depth { most: self.depth });
        }
        if extent.values > self.values {
            return Err(Excess::Values { most: self.values });
        }
        Ok(())
    }

    /// Whether a value that was computed, or read by somebody else, is within the limit.
    ///
    /// # Errors
    /// Says what is too large about it.
    pub fn check_value(&self, value: &Value) -> Result<(), Excess> {
        self.check(Extent::of(value))
    }
}

/// In the unit that memory is shared out in, begun ones counted.
pub fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Reads JSON that is within a limit. Nothing is allocated for what is not.
///
/// # Errors
/// Says what is wrong or too large.
pub fn read(json: &[u8], limit: &Limit) -> Result<Value, UnreadableJson> {
    // A number can become longer when it is written again, so the value is measured, too.
    limit.check(Extent::of_text(json))?;
    let value = serde_json::from_slice(json)?;
    limit.check_value(&value)?;
    Ok(value)
}

#[cfg(test)]
mod tests;
