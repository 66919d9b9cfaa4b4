//! JSON at the edge of a limit, as bytes: some of it can't be had from a value that was written.

use backstitch::limits::{BODY, Extent};

/// What of a body is about as much as may be, and how much more (or less) than that it is.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Nothing.
    Small,
    /// Levels of lists.
    Lists(i32),
    /// Levels of objects.
    Objects(i32),
    /// Numbers in a list.
    Numbers(i32),
    /// Objects of one field in a list.
    Fields(i32),
    /// Bytes of a text.
    Text(i32),
    /// Bytes of a text that is written with two bytes for each of its characters.
    Escapes(i32),
    /// Bytes of a text that is shorter once it is read and written again.
    Shrinking(i32),
    /// Bytes of the name of a field.
    Name(i32),
    /// Digits of a number.
    Digits(i32),
    /// Bytes of a body that is this much longer once it is read and written again.
    Swelling(i32),
}

impl Shape {
    /// All but the small one, by how much more than a limit they are.
    pub const EDGES: [fn(i32) -> Self; 10] = [
        Self::Lists,
        Self::Objects,
        Self::Numbers,
        Self::Fields,
        Self::Text,
        Self::Escapes,
        Self::Shrinking,
        Self::Name,
        Self::Digits,
        Self::Swelling,
    ];

    /// An object with `fields` (written, such as `"id":"7"`) and one more that makes the whole what
    /// this says.
    pub fn body(self, fields: &str) -> String {
        let empty = Extent::of_text(format!("{{{fields},\"x\":0}}").as_bytes());
        let bytes = |off| room(BODY.bytes, empty.bytes - 1, off);
        let values = |off| room(BODY.values, empty.values - 1, off);
        let levels = |off| room(BODY.depth, 1, off);
        let odd = match self {
            Self::Small => "true".to_owned(),
            Self::Lists(off) => {
                let levels = levels(off);
                format!("{}{}", "[".repeat(levels), "]".repeat(levels))
            }
            Self::Objects(off) => {
                let levels = levels(off) - 1;
                format!("{}{{}}{}", "{\"a\":".repeat(levels), "}".repeat(levels))
            }
            Self::Numbers(off) => format!("[{}1]", "1,".repeat(values(off) - 2)),
            Self::Fields(off) => {
                let (pairs, rest) = ((values(off) - 2) / 2, values(off) % 2);
                let rest = if rest == 1 { "1," } else { "" };
                format!("[{}{rest}1]", "{\"a\":1},".repeat(pairs))
            }
            Self::Text(off) => format!("\"{}\"", "x".repeat(bytes(off) - 2)),
            Self::Escapes(off) => {
                let (pairs, rest) = ((bytes(off) - 2) / 2, bytes(off) % 2);
                format!("\"{}{}\"", "\\n".repeat(pairs), "x".repeat(rest))
            }
            Self::Shrinking(off) => {
                let (escapes, rest) = ((bytes(off) - 2) / 6, (bytes(off) - 2) % 6);
                format!("\"{}{}\"", "\\u00e9".repeat(escapes), "x".repeat(rest))
            }
            Self::Name(off) => format!("{{\"{}\":0}}", "n".repeat(bytes(off) - 6)),
            Self::Digits(off) => "7".repeat(bytes(off)),
            Self::Swelling(off) => {
                // `1E5` is written `1e+5`.
                let numbers = 1_000;
                let text = bytes(off) - 2 - 5 * numbers;
                format!("[{}\"{}\"]", "1E5,".repeat(numbers), "x".repeat(text - 2))
            }
        };
        format!("{{{fields},\"x\":{odd}}}")
    }
}

/// What is left of a limit, and a little more or less.
fn room(most: usize, used: usize, off: i32) -> usize {
    (most - used).saturating_add_signed(off as isize)
}
