//! The form in which journal entries and snapshots are written, by number.
//!
//! An upgrade goes node by node, and may be rolled back: programs of two releases work on the same
//! sagas. So what is written says its format, and a program that does not know that one says so and
//! leaves the saga to others, instead of reading what it happens to understand and writing the rest
//! away. Whoever changes what is written (a new event, a new field, another meaning) raises [`READS`]
//! in one release and [`WRITES`] in a later one: then whoever may run beside a writer can read it.
//!
//! Format 1 bears no mark; later ones begin with `{"v":2,`. Nothing may be unknown in a format that
//! is known: that somebody forgot to raise the number is found out too, by names that are not known.
//! Deliberately absent: anything about tables. Those are [`crate::store::schema`]'s business.

use std::borrow::Cow;

use crate::error::code;

/// The format that this program writes.
pub const WRITES: u32 = 1;
/// The highest that it reads.
pub const READS: u32 = 1;

const _: () = assert!(READS >= WRITES, "what is written must be read");

const MARK: &[u8] = b"{\"v\":";

/// What a program writes and reads. All but [`Formats::OURS`] are for tests, which play programs of
/// other releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    /// The format that it writes.
    pub writes: u32,
    /// The highest that it reads.
    pub reads: u32,
}

/// Something was written by a newer release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: written by a newer release: {0}; upgrade this node", code = code::FORMAT_TOO_NEW)]
pub struct Newer(pub(crate) String);

impl Default for Formats {
    fn default() -> Self {
        Self::OURS
    }
}

impl Formats {
    /// This program's.
    pub const OURS: Self = Self {
        writes: WRITES,
        reads: READS,
    };

    /// What was written, without its mark, and its format.
    ///
    /// # Errors
    /// If this program does not read that format.
    pub fn read(self, written: &[u8]) -> Result<(Cow<'_, [u8]>, u32), Newer> {
        let Some((format, rest)) = marked(written) else {
            return Ok((written.into(), 1));
        };
        let most = self.reads;
        if format > most {
            let why = format!("format {format}, and this program reads up to {most}");
            return Err(Newer(why));
        }
        Ok(([b"{", rest].concat().into(), format))
    }
}

/// Puts the format's mark on a JSON object.
pub fn mark(json: Vec<u8>, format: u32) -> Vec<u8> {
    if format <= 1 {
        return json;
    }
    let mut marked = [MARK, format.to_string().as_bytes(), b","].concat();
    marked.extend_from_slice(json.get(1..).unwrap_or_default());
    marked
}

/// The format that is marked, and what follows the mark.
fn marked(written: &[u8]) -> Option<(u32, &[u8])> {
    let rest = written.strip_prefix(MARK)?;
    let end = rest.iter().position(|byte| *byte == b',')?;
    let format = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((format, &rest[end + 1..]))
}

/// Why something in a known format can't be read, if it is that it names what this program does not
/// know.
pub fn unknown(error: &serde_json::Error) -> Option<Newer> {
    let why = error.to_string();
    // serde has no other word for it than these.
    let is_unknown = why.starts_with("unknown field") || why.starts_with("unknown variant");
    is_unknown.then_some(Newer(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_read_by_those_who_know_the_format_and_by_nobody_else() {
        let both = Formats {
            writes: 1,
            reads: 2,
        };
        let written = mark(br#"{"a":1}"#.to_vec(), 2);
        assert_eq!(written, br#"{"v":2,"a":1}"#);
        let (plain, format) = both.read(&written).unwrap();
        assert_eq!((&*plain, format), (&br#"{"a":1}"#[..], 2));
        let later = mark(b"{}".to_vec(), READS + 1);
        let newer = Formats::OURS.read(&later);
        assert_eq!(
            newer.unwrap_err().to_string(),
            format!(
                "BST-0086: written by a newer release: format {}, and this program reads up to {READS}; upgrade this node",
                READS + 1
            )
        );
    }

    #[test]
    fn the_first_format_has_no_mark() {
        let written = mark(br#"{"a":1}"#.to_vec(), 1);
        assert_eq!(written, br#"{"a":1}"#);
        let (plain, format) = Formats::OURS.read(&written).unwrap();
        assert_eq!((&*plain, format), (&written[..], 1));
    }
}
