//! How large a JSON value is, measured without writing it, and without reading it.

use serde_json::{Number, Value};

/// What one JSON value costs in memory beside its bytes: its place, its own allocation, and its
/// name's if it has one.
pub const VALUE_MEMORY_BYTES: usize = 100;

/// What an object costs beside that: the node of a tree, which has places for eleven fields.
pub const OBJECT_MEMORY_BYTES: usize = 560;

/// How large a JSON value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, written without spaces.
    pub bytes: usize,
    /// Levels of arrays and objects.
    pub depth: usize,
    /// Values in it, itself included.
    pub values: usize,
    /// Objects among them that have a field.
    pub objects: usize,
}

impl Extent {
    /// Of a value.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null | Value::Bool(true) => Self::scalar(4),
            Value::Bool(false) => Self::scalar(5),
            Value::Number(number) => Self::scalar(digits(number)),
            Value::String(text) => Self::scalar(text_bytes(text)),
            Value::Array(items) => {
                let mut whole = Self::of_brackets(items.len());
                for item in items {
                    whole.hold(Self::of(item));
                }
                whole
            }
            Value::Object(fields) => {
                let mut whole = Self::of_brackets(fields.len());
                whole.objects += usize::from(!fields.is_empty());
                for (name, value) in fields {
                    whole.bytes += Self::bytes_of_name(name);
                    whole.hold(Self::of(value));
                }
                whole
            }
        }
    }

    /// Of JSON that was not read yet, its spaces counted. What is not JSON has some extent, too.
    pub fn of_text(json: &[u8]) -> Self {
        let mut open = 0_usize;
        let mut extent = Self {
            bytes: json.len(),
            depth: 0,
            values: 1,
            objects: 0,
        };
        // The last byte outside texts that is no space: tells `[]` from `[1]`.
        let mut last = 0_u8;
        let mut at = 0;
        while let Some(byte) = json.get(at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => {
                    at += 1;
                    continue;
                }
                b'"' => at = end_of_text(json, at),
                b'[' | b'{' => {
                    open += 1;
                    extent.depth = extent.depth.max(open);
                    extent.values += 1;
                    extent.objects += usize::from(*byte == b'{');
                }
                b']' | b'}' => {
                    open = open.saturating_sub(1);
                    extent.values -= usize::from(matches!(last, b'[' | b'{'));
                    extent.objects -= usize::from(last == b'{');
                }
                b',' => extent.values += 1,
                _ => {}
            }
            last = *byte;
            at += 1;
        }
        extent
    }

    /// Of an array or object with so many items, without them and their names.
    pub fn of_brackets(items: usize) -> Self {
        Self {
            bytes: 2 + items.saturating_sub(1),
            depth: 1,
            values: 1,
            objects: 0,
        }
    }

    /// Bytes of a field's name and the colon behind it.
    pub fn bytes_of_name(name: &str) -> usize {
        text_bytes(name) + 1
    }

    /// Bytes of memory that it takes once it is read, roughly.
    pub fn memory(&self) -> usize {
        let values = self.values.saturating_mul(VALUE_MEMORY_BYTES);
        self.bytes + values + self.objects.saturating_mul(OBJECT_MEMORY_BYTES)
    }

    /// Takes something else into account: both, in one list.
    pub fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.depth = self.depth.max(other.depth);
        self.values += other.values;
        self.objects += other.objects;
    }

    fn scalar(bytes: usize) -> Self {
        Self {
            bytes,
            depth: 0,
            values: 1,
            objects: 0,
        }
    }

    fn hold(&mut self, inner: Self) {
        self.bytes += inner.bytes;
        self.depth = self.depth.max(inner.depth + 1);
        self.values += inner.values;
        self.objects += inner.objects;
    }
}

/// The place of the quote that ends the text which begins at `start`, or the end.
fn end_of_text(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        while let Some(word) = json.get(at..).and_then(<[u8]>::first_chunk)
            && !has_special(u128::from_ne_bytes(*word))
        {
            at += WORD_BYTES;
        }
        match json.get(at) {
            None => return json.len(),
            Some(b'"') => return at,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// Bytes of a text between quotes, escaped as our JSON writer does.
fn text_bytes(text: &str) -> usize {
    let (words, rest) = text.as_bytes().as_chunks::<WORD_BYTES>();
    let special = words
        .iter()
        .filter(|word| has_special(u128::from_ne_bytes(**word)));
    let escapes: usize = special.map(|word| escapes_in(word)).sum();
    text.len() + escapes + escapes_in(rest) + 2
}

fn escapes_in(bytes: &[u8]) -> usize {
    bytes.iter().copied().map(added_by_escape).sum()
}

fn added_by_escape(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..0x20 => 5,
        _ => 0,
    }
}

/// Bytes that are looked at together: most of a text is neither quoted nor ends it.
const WORD_BYTES: usize = size_of::<u128>();
/// A one in each byte, and the highest bit of each.
const ONES: u128 = u128::from_ne_bytes([1; WORD_BYTES]);
const HIGHS: u128 = ONES << 7;

/// Whether one of these bytes is a control character, a quote or a backslash.
fn has_special(word: u128) -> bool {
    const CONTROLS: u128 = 0x20 * ONES;
    const QUOTES: u128 = b'"' as u128 * ONES;
    const BACKSLASHES: u128 = b'\\' as u128 * ONES;
    // The subtraction borrows through a byte's highest bit if, and only if, one is smaller.
    let (quotes, backslashes) = (word ^ QUOTES, word ^ BACKSLASHES);
    let below = word.wrapping_sub(CONTROLS) & !word;
    let quote = quotes.wrapping_sub(ONES) & !quotes;
    let backslash = backslashes.wrapping_sub(ONES) & !backslashes;
    (below | quote | backslash) & HIGHS != 0
}

fn digits(number: &Number) -> usize {
    if let Some(whole) = number.as_u64() {
        return whole.checked_ilog10().unwrap_or(0) as usize + 1;
    }
    number.to_string().len()
}
