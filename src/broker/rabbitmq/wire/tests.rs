//! The sieve against the library's own parser: what it lets through is parsed, whatever came, and
//! nothing that was good is changed.

use std::sync::Arc;

use lapin::BasicProperties;
use lapin::protocol::basic::parse_properties;
use lapin::types::{AMQPValue, FieldTable};
use proptest::prelude::*;

use super::fields::{Flaw, MARK, stand_in};
use super::sieve::Sieve;
use super::{Kept, Taken, flaw, read};
use crate::broker::rabbitmq::header::HEADER_DEPTH_MAX;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 1];
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(0xce);
    frame
}

fn header(list: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    payload.extend(list);
    frame(2, &payload)
}

fn short(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).unwrap()];
    bytes.extend(text);
    bytes
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let mut long = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    long.extend(bytes);
    long
}

fn deliver(consumer: &[u8], exchange: &[u8], routing_key: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 60];
    payload.extend(short(consumer));
    payload.extend([0, 0, 0, 0, 0, 0, 0, 1, 0]);
    payload.extend(short(exchange));
    payload.extend(short(routing_key));
    frame(1, &payload)
}

/// A list with headers alone.
fn headers(table: &[u8]) -> Vec<u8> {
    let mut list = vec![0b0010_0000, 0];
    list.extend(long(table));
    list
}

/// A list with one header, nested in `levels` arrays.
fn nested(levels: usize) -> Vec<u8> {
    let mut value = vec![b'V'];
    for _ in 0..levels {
        let inner = long(&value);
        value = vec![b'A'];
        value.extend(inner);
    }
    let mut table = short(b"deep");
    table.extend(value);
    headers(&table)
}

/// What comes out of a sieve that is given the bytes in pieces.
fn sieved<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, kept: &Arc<Kept>) -> Vec<u8> {
    let mut sieve = Sieve::new(Arc::clone(kept));
    let mut out = Vec::new();
    let mut room = [0; 37];
    for piece in pieces {
        sieve.put(piece);
        while !sieve.is_empty() {
            let count = sieve.take(&mut room);
            out.extend_from_slice(&room[..count]);
        }
    }
    out
}

fn sieved_whole(bytes: &[u8]) -> (Vec<u8>, Arc<Kept>) {
    let kept = Arc::default();
    (sieved([bytes], &kept), kept)
}

/// The list of properties of a header frame.
fn list_of(frame: &[u8]) -> &[u8] {
    &frame[7 + 12..frame.len() - 1]
}

/// A list as the library reads it: `read` is checked against its parser below, on good lists.
fn stood_in_for(frame: &[u8], kept: &Kept) -> Taken {
    kept.take(&read(list_of(frame)))
}

#[test]
fn what_the_library_can_not_take_is_replaced_and_kept() {
    let mut not_utf8 = vec![0, 0b1000_0000];
    not_utf8.extend(short(b"id \xff"));
    let mut zero = vec![0, 0b0010_0000];
    zero.extend(short(b"ty\0pe"));
    let mut key = short(b"k\xff");
    key.push(b'V');
    let mut unknown = short(b"k");
    unknown.extend(b"?1234");
    let mut marked = short(MARK.as_bytes());
    marked.extend(b"l\0\0\0\0\0\0\0\x01");
    let mut cut = headers(b"");
    cut[5] = 9; // claims nine bytes
    for (list, wrong) in [
        (not_utf8, Flaw::NotUtf8("message id")),
        (zero, Flaw::Malformed("type")),
        (headers(&key), Flaw::NotUtf8("header name")),
        (headers(&unknown), Flaw::Malformed("list of headers")),
        (cut, Flaw::Malformed("headers")),
        (headers(&marked), Flaw::Marked),
        (nested(HEADER_DEPTH_MAX), Flaw::TooDeep),
        (nested(5_000), Flaw::TooDeep),
        (vec![0, 1], Flaw::Malformed("list of properties")),
        (vec![0, 0, 7], Flaw::Malformed("list of properties")),
        (vec![0], Flaw::Malformed("list of properties")),
    ] {
        assert_eq!(flaw(&list), Some(wrong));
        let (out, kept) = sieved_whole(&header(&list));
        assert_eq!(out[..3], [2, 0, 1]);
        assert_eq!(out[7..19], header(&[])[7..19], "class and body size stay");
        assert_eq!(flaw(list_of(&out)), Some(Flaw::Marked));
        assert_eq!(stood_in_for(&out, &kept), Taken::List(list));
    }
}

#[test]
fn what_it_can_take_stays_byte_for_byte() {
    for list in [vec![0, 0], nested(0), nested(HEADER_DEPTH_MAX - 1)] {
        assert_eq!(flaw(&list), None);
        let (out, kept) = sieved_whole(&header(&list));
        assert_eq!(out, header(&list));
        assert_eq!(stood_in_for(&out, &kept), Taken::Untouched);
    }
    // A server that speaks another protocol, and a broken frame, are for the library to see.
    for other in [
        &b"AMQP\0\x01\0\0 and more"[..],
        &[2, 0, 1, 0, 0, 0, 0, 0xcd],
    ] {
        assert_eq!(sieved_whole(other).0, other);
    }
}

#[test]
fn texts_of_methods_become_utf8_and_fit() {
    let good = deliver(b"c", b"shop", "ü".as_bytes());
    assert_eq!(sieved_whole(&good).0, good);
    let bad = deliver(b"c", b"shop", b"order.\xff");
    let wanted = deliver(b"c", b"shop", "order.\u{fffd}".as_bytes());
    assert_eq!(sieved_whole(&bad).0, wanted);
    let long = deliver(b"c", &[0xff; 255], b"k");
    let wanted = deliver(b"c", "\u{fffd}".repeat(85).as_bytes(), b"k");
    assert_eq!(sieved_whole(&long).0, wanted);
}

#[test]
fn a_list_larger_than_a_frame_may_be_is_kept_whole_and_read_as_it_is() {
    let mut table = short(b"huge");
    table.push(b'S');
    table.extend(long(&vec![b'x'; 140_000]));
    let list = headers(&table);
    let tune = [
        &[0, 10, 0, 30, 0, 0][..],
        &131_072_u32.to_be_bytes(),
        &[0, 60],
    ]
    .concat();
    let all = [frame(1, &tune), header(&list)].concat();
    let (out, kept) = sieved_whole(&all);
    let out = &out[frame(1, &tune).len()..];
    assert!(out.len() < 100);
    assert_eq!(stood_in_for(out, &kept), Taken::List(list.clone()));
    assert_eq!(read(&list).headers().as_ref().unwrap().inner().len(), 1);
}

#[test]
fn reading_makes_the_best_of_what_is_broken() {
    let mut list = vec![0b1010_0100, 0b1000_0000];
    list.extend(short(b"text/\xff\0"));
    let mut table = short(b"good");
    table.extend(b"I\0\0\0\x07");
    table.extend(short(b"deep"));
    table.extend(&nested(40)[11..]);
    list.extend(long(&table));
    list.extend(short(b"correlation"));
    list.extend(b"\x09cut"); // the message id
    let properties = read(&list);
    let text = properties.content_type().as_ref().unwrap();
    assert_eq!(text.as_str(), "text/\u{fffd}\u{fffd}");
    let table = properties.headers().as_ref().unwrap().inner();
    assert_eq!(table.get("good"), Some(&AMQPValue::LongInt(7)));
    assert!(table.contains_key("deep"));
    assert_eq!(
        properties.correlation_id().as_ref().unwrap().as_str(),
        "correlation"
    );
    assert_eq!(*properties.message_id(), None);
}

#[test]
fn the_stand_in_is_a_list_that_the_library_reads() {
    let mut table = FieldTable::default();
    table.insert(MARK.into(), AMQPValue::LongLongInt(7));
    let wanted = BasicProperties::default().with_headers(table);
    let list = stand_in(7);
    let (rest, parsed) = parse_properties(&list[..]).unwrap();
    assert!(rest.is_empty());
    assert_eq!(parsed, wanted);
}

/// Any bytes, and lists that are nearly right.
fn lists() -> impl Strategy<Value = Vec<u8>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..80);
    let entry = (
        proptest::collection::vec(any::<u8>(), 0..6),
        prop::sample::select(b"tbBsUuIiLlfdDSATFxV?".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..12),
    );
    let table = proptest::collection::vec(entry, 0..4).prop_map(|entries| {
        let mut table = Vec::new();
        for (name, tag, value) in entries {
            table.extend(short(&name));
            table.push(tag);
            if b"SAFx".contains(&tag) {
                table.extend(long(&value));
            } else {
                table.extend(value);
            }
        }
        headers(&table)
    });
    let texts = (any::<u16>(), proptest::collection::vec(any::<String>(), 14)).prop_map(
        |(flags, texts)| {
            // Texts alone: no headers, mode, priority or time.
            let flags = flags & 0b1100_0111_1011_1100;
            let mut list = flags.to_be_bytes().to_vec();
            for (bit, text) in texts.iter().enumerate() {
                if flags & (1 << (15 - bit)) != 0 {
                    let end = text.floor_char_boundary(text.len().min(255));
                    list.extend(short(&text.as_bytes()[..end]));
                }
            }
            list
        },
    );
    prop_oneof![bytes, table, texts, (0..60_usize).prop_map(nested)]
}

fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let one = prop_oneof![
        lists().prop_map(|list| header(&list)),
        bytes().prop_map(|payload| frame(3, &payload)),
        bytes().prop_map(|payload| frame(1, &payload)),
        (bytes(), bytes(), bytes()).prop_map(|(a, b, c)| deliver(&a, &b, &c)),
        Just(frame(8, &[])),
    ];
    proptest::collection::vec(one, 1..6)
}

proptest! {
    #[test]
    fn it_makes_no_difference_where_the_bytes_are_cut(frames in frames(), cut in any::<prop::sample::Index>()) {
        let all = frames.concat();
        let whole = sieved([&all[..]], &Arc::default());
        let (one, two) = all.split_at(cut.index(all.len() + 1));
        prop_assert_eq!(&sieved([one, two], &Arc::default()), &whole);
        prop_assert_eq!(&sieved(all.chunks(1), &Arc::default()), &whole);
    }

    #[test]
    fn frames_stay_frames_and_their_lists_become_readable(frames in frames()) {
        for frame in frames {
            let (out, kept) = sieved_whole(&frame);
            let size = u32::from_be_bytes(out[3..7].try_into().unwrap());
            prop_assert_eq!(usize::try_from(size).unwrap() + 8, out.len());
            prop_assert_eq!(out.last(), Some(&0xce));
            if frame[0] == 2 {
                let list = list_of(&frame).to_vec();
                match flaw(&list) {
                    None => prop_assert_eq!(out, frame),
                    Some(_) => prop_assert_eq!(stood_in_for(&out, &kept), Taken::List(list)),
                }
            }
        }
    }

    #[test]
    fn what_has_no_flaw_the_library_parses_whole_and_reads_as_we_do(list in lists()) {
        // It may not panic, whatever comes.
        let properties = read(&list);
        if flaw(&list).is_none() {
            let (rest, parsed) = parse_properties(&list[..]).unwrap();
            prop_assert!(rest.is_empty());
            // As text, for there are numbers that equal nothing.
            prop_assert_eq!(format!("{parsed:?}"), format!("{properties:?}"));
        }
    }
}
