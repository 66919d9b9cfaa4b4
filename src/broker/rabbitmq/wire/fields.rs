//! Lists of AMQP properties: whether the library can take one, and what one says that it can't.
//!
//! [`flaw`] accepts less than the library's parser does and nothing that it does not, so what it
//! lets through is parsed whole, in bounded depth. [`read`] makes the best of any bytes; it
//! never fails, and its depth is bounded too.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, ShortString};

use crate::broker::rabbitmq::header::HEADER_DEPTH_MAX;

/// The one header of a list that stands for another. No list that came may have it.
pub(super) const MARK: &str = "\u{1}backstitch";

/// Longest short string, in bytes.
const SHORT_BYTES_MAX: usize = 255;

/// Properties as the flags announce them, from the highest bit down.
const PROPERTIES: [(&str, Kind); 14] = [
    ("content type", Kind::Text),
    ("content encoding", Kind::Text),
    ("headers", Kind::Table),
    ("delivery mode", Kind::Byte),
    ("priority", Kind::Byte),
    ("correlation id", Kind::Text),
    ("reply-to", Kind::Text),
    ("expiration", Kind::Text),
    ("message id", Kind::Text),
    ("timestamp", Kind::Time),
    ("type", Kind::Text),
    ("user id", Kind::Text),
    ("app id", Kind::Text),
    ("cluster id", Kind::Text),
];
/// Flags that announce nothing AMQP has.
const FLAGS_UNKNOWN: u16 = 0b11;

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Table,
    Byte,
    Time,
}

/// Why the library can't take a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::broker::rabbitmq) enum Flaw {
    /// A text is none.
    #[error("its {0} is not UTF-8")]
    NotUtf8(&'static str),
    /// Headers in headers in headers.
    #[error("its headers are nested deeper than {HEADER_DEPTH_MAX} levels")]
    TooDeep,
    /// It does not follow the rules of AMQP, from this property on.
    #[error("its {0} does not follow the rules of AMQP")]
    Malformed(&'static str),
    /// It has our mark.
    #[error("it has a header that only Backstitch's own reading may have")]
    Marked,
    /// The frame that it makes is larger than was agreed; nothing else is wrong.
    #[error("its properties are larger than a frame")]
    TooLarge,
}

/// What is wrong with a list, if something is.
pub(in crate::broker::rabbitmq) fn flaw(list: &[u8]) -> Option<Flaw> {
    let mut rest = Bytes(list);
    let Some(flags) = rest.number::<2>().map(u16::from_be_bytes) else {
        return Some(Flaw::Malformed("list of properties"));
    };
    if flags & FLAGS_UNKNOWN != 0 {
        return Some(Flaw::Malformed("list of properties"));
    }
    for (bit, (name, kind)) in PROPERTIES.iter().enumerate() {
        if flags & (1 << (15 - bit)) == 0 {
            continue;
        }
        let checked = match kind {
            Kind::Text => rest.text(name).map(drop),
            Kind::Byte => rest.skip(1, name),
            Kind::Time => rest.skip(8, name),
            Kind::Table => rest
                .long(name)
                .and_then(|table| check_table(Bytes(table), HEADER_DEPTH_MAX)),
        };
        if let Err(flaw) = checked {
            return Some(flaw);
        }
    }
    (!rest.0.is_empty()).then_some(Flaw::Malformed("list of properties"))
}

fn check_table(mut table: Bytes<'_>, depth: usize) -> Result<(), Flaw> {
    while !table.0.is_empty() {
        if table.text("header name")? == MARK {
            return Err(Flaw::Marked);
        }
        check_value(&mut table, depth)?;
    }
    Ok(())
}

fn check_array(mut array: Bytes<'_>, depth: usize) -> Result<(), Flaw> {
    while !array.0.is_empty() {
        check_value(&mut array, depth)?;
    }
    Ok(())
}

fn check_value(rest: &mut Bytes<'_>, depth: usize) -> Result<(), Flaw> {
    const WHAT: &str = "list of headers";
    if depth == 0 {
        return Err(Flaw::TooDeep);
    }
    let [tag] = rest.number::<1>().ok_or(Flaw::Malformed(WHAT))?;
    match tag {
        b'F' => check_table(Bytes(rest.long(WHAT)?), depth - 1),
        b'A' => check_array(Bytes(rest.long(WHAT)?), depth - 1),
        b'S' | b'x' => rest.long(WHAT).map(drop),
        b'V' => Ok(()),
        b't' | b'b' | b'B' => rest.skip(1, WHAT),
        b's' | b'U' | b'u' => rest.skip(2, WHAT),
        b'I' | b'i' | b'f' => rest.skip(4, WHAT),
        b'D' => rest.skip(5, WHAT),
        b'L' | b'l' | b'd' | b'T' => rest.skip(8, WHAT),
        _ => Err(Flaw::Malformed(WHAT)),
    }
}

/// What a list says, as far as it can be read. Bytes that are no text become replacement
/// characters, what is nested too deep becomes nothing.
pub(in crate::broker::rabbitmq) fn read(list: &[u8]) -> BasicProperties {
    let mut properties = BasicProperties::default();
    let mut rest = Bytes(list);
    let flags = rest.number::<2>().map_or(0, u16::from_be_bytes);
    for (bit, (name, kind)) in PROPERTIES.iter().enumerate() {
        if flags & (1 << (15 - bit)) == 0 {
            continue;
        }
        let read = match kind {
            Kind::Text => rest
                .short()
                .map(|text| with_text(&mut properties, name, text)),
            Kind::Byte => rest.number::<1>().map(|[byte]| {
                let known = std::mem::take(&mut properties);
                properties = if *name == "priority" {
                    known.with_priority(byte)
                } else {
                    known.with_delivery_mode(byte)
                };
            }),
            Kind::Time => rest.number::<8>().map(|bytes| {
                let known = std::mem::take(&mut properties);
                properties = known.with_timestamp(u64::from_be_bytes(bytes));
            }),
            Kind::Table => rest.long(name).ok().map(|table| {
                let known = std::mem::take(&mut properties);
                properties = known.with_headers(read_table(Bytes(table), HEADER_DEPTH_MAX));
            }),
        };
        if read.is_none() {
            break;
        }
    }
    properties
}

fn with_text(properties: &mut BasicProperties, name: &str, bytes: &[u8]) {
    let text = short_text(bytes);
    let known = std::mem::take(properties);
    *properties = match name {
        "content type" => known.with_content_type(text),
        "content encoding" => known.with_content_encoding(text),
        "correlation id" => known.with_correlation_id(text),
        "reply-to" => known.with_reply_to(text),
        "expiration" => known.with_expiration(text),
        "message id" => known.with_message_id(text),
        "type" => known.with_type(text),
        "user id" => known.with_user_id(text),
        "app id" => known.with_app_id(text),
        _ => known.with_cluster_id(text),
    };
}

fn read_table(mut rest: Bytes<'_>, depth: usize) -> FieldTable {
    let mut table = FieldTable::default();
    while let Some(name) = rest.short()
        && let Some(value) = read_value(&mut rest, depth)
    {
        table.insert(short_text(name), value);
    }
    table
}

fn read_array(mut rest: Bytes<'_>, depth: usize) -> FieldArray {
    let mut array = FieldArray::default();
    while let Some(value) = read_value(&mut rest, depth) {
        array.push(value);
    }
    array
}

fn read_value(rest: &mut Bytes<'_>, depth: usize) -> Option<AMQPValue> {
    let [tag] = rest.number::<1>()?;
    Some(match tag {
        b'F' | b'A' => {
            let inner = Bytes(rest.long("").ok()?);
            match depth.checked_sub(1) {
                None | Some(0) => AMQPValue::Void,
                Some(depth) if tag == b'F' => AMQPValue::FieldTable(read_table(inner, depth)),
                Some(depth) => AMQPValue::FieldArray(read_array(inner, depth)),
            }
        }
        b'S' => AMQPValue::LongString(rest.long("").ok()?.to_vec().into()),
        b'x' => AMQPValue::ByteArray(ByteArray::from(rest.long("").ok()?.to_vec())),
        b'V' => AMQPValue::Void,
        b't' => AMQPValue::Boolean(rest.number::<1>()? != [0]),
        b'b' => AMQPValue::ShortShortInt(i8::from_be_bytes(rest.number()?)),
        b'B' => AMQPValue::ShortShortUInt(u8::from_be_bytes(rest.number()?)),
        b's' | b'U' => AMQPValue::ShortInt(i16::from_be_bytes(rest.number()?)),
        b'u' => AMQPValue::ShortUInt(u16::from_be_bytes(rest.number()?)),
        b'I' => AMQPValue::LongInt(i32::from_be_bytes(rest.number()?)),
        b'i' => AMQPValue::LongUInt(u32::from_be_bytes(rest.number()?)),
        b'L' | b'l' => AMQPValue::LongLongInt(i64::from_be_bytes(rest.number()?)),
        b'f' => AMQPValue::Float(f32::from_be_bytes(rest.number()?)),
        b'd' => AMQPValue::Double(f64::from_be_bytes(rest.number()?)),
        b'T' => AMQPValue::Timestamp(u64::from_be_bytes(rest.number()?)),
        b'D' => {
            let [scale] = rest.number::<1>()?;
            let value = u32::from_be_bytes(rest.number()?);
            AMQPValue::DecimalValue(DecimalValue { scale, value })
        }
        _ => return None,
    })
}

fn short_text(bytes: &[u8]) -> ShortString {
    lossy(bytes).into()
}

/// Whether bytes are such text as AMQP allows in short strings: without a zero, which databases don't
/// take either.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

/// Text of at most 255 bytes, with a replacement character for each thing that is none.
pub(super) fn lossy(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}");
    if text.len() > SHORT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(SHORT_BYTES_MAX));
    }
    text
}

/// A list that stands for another: one header with a number.
pub(super) fn stand_in(number: i64) -> Vec<u8> {
    const HEADERS_ONLY: u16 = 1 << 13;
    let mut table = vec![u8::try_from(MARK.len()).unwrap_or_default()];
    table.extend(MARK.as_bytes());
    table.push(b'l');
    table.extend(number.to_be_bytes());
    let mut list = HEADERS_ONLY.to_be_bytes().to_vec();
    list.extend(u32::try_from(table.len()).unwrap_or_default().to_be_bytes());
    list.extend(table);
    list
}

/// Bytes still to be read.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'b>(pub(super) &'b [u8]);

impl<'b> Bytes<'b> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A short string's bytes.
    pub(super) fn short(&mut self) -> Option<&'b [u8]> {
        let [length] = self.number::<1>()?;
        self.take(usize::from(length))
    }

    fn text(&mut self, what: &'static str) -> Result<&'b str, Flaw> {
        let bytes = self.short().ok_or(Flaw::Malformed(what))?;
        if bytes.contains(&0) {
            return Err(Flaw::Malformed(what));
        }
        std::str::from_utf8(bytes).map_err(|_| Flaw::NotUtf8(what))
    }

    fn long(&mut self, what: &'static str) -> Result<&'b [u8], Flaw> {
        let length = self.number::<4>().map(u32::from_be_bytes);
        let length = length.and_then(|length| usize::try_from(length).ok());
        let bytes = length.and_then(|length| self.take(length));
        bytes.ok_or(Flaw::Malformed(what))
    }

    fn skip(&mut self, length: usize, what: &'static str) -> Result<(), Flaw> {
        self.take(length).map(drop).ok_or(Flaw::Malformed(what))
    }
}
