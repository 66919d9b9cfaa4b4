use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// What passes one door passes all later ones.
const _: () = {
    // A body is passed on as part of a `with`, with levels and bytes to spare.
    assert!(BODY.depth + WRAPPING_DEPTH <= COMPUTED.depth);
    assert!(2 * BODY.bytes <= COMPUTED.bytes && 2 * BODY.values <= COMPUTED.values);
    // A confirm has both the `with` and the reservation.
    let together = r#"{"reservation":,"with":}"#.len();
    assert!(COMPUTED.bytes + BODY.bytes + together <= COMMAND.bytes);
    assert!(COMPUTED.depth < COMMAND.depth && BODY.depth < COMMAND.depth);
    assert!(COMPUTED.values + BODY.values < COMMAND.values);
    // A saga holds what one decision may bring; a portion and a batch have room for the largest.
    assert!(COMPUTED.bytes + BODY.bytes <= SAGA.bytes && COMPUTED.values <= SAGA.values);
    assert!(PORTION_BYTES + COMPUTED.bytes + COMMAND.bytes <= BATCH_BYTES);
    assert!(KEPT_SIGNALS_BYTES_MAX >= BODY.bytes && KEPT_SIGNALS_BYTES_MAX <= PORTION_BYTES);
    // The largest body passes each door alone; the largest saga fits the cache, unless it is all small
    // values.
    let largest = BODY.bytes + BODY.values * (VALUE_MEMORY_BYTES + OBJECT_MEMORY_BYTES / 2);
    assert!(largest <= DECODED_BYTES && BODY.bytes <= DOOR_BYTES);
    assert!(SMALL_BODY_BYTES < BODY.bytes && SAGA.bytes < kept_share(CACHE_BYTES));
    // The broker takes it, and what is stored or shown of it can be read back.
    assert!(COMMAND.bytes <= MESSAGE_BYTES_MAX);
    assert!(COMMAND.depth + WRAPPING_DEPTH <= PARSER_DEPTH);
};

#[test]
fn the_parser_reads_as_deep_as_we_believe() {
    let read = |levels| serde_json::from_str::<Value>(&nested(levels));
    assert!(read(PARSER_DEPTH).is_ok());
    assert!(read(PARSER_DEPTH + 1).is_err());
}

#[test]
fn each_limit_is_met_exactly() {
    let read = |text: &str| read(text.as_bytes(), &BODY).map_err(|error| error.code());
    assert!(read(&nested(BODY.depth)).is_ok());
    assert_eq!(read(&nested(BODY.depth + 1)), Err(code::BODY_TOO_DEEP));
    assert_eq!(read(&nested(10_000_000)), Err(code::BODY_TOO_LARGE));
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert!(read(&text(BODY.bytes)).is_ok());
    assert_eq!(read(&text(BODY.bytes + 1)), Err(code::BODY_TOO_LARGE));
    let list = |values: usize| format!("[{}1]", "1,".repeat(values - 2));
    assert!(read(&list(BODY.values)).is_ok());
    let too_many = list(BODY.values + 1);
    assert_eq!(read(&too_many), Err(code::BODY_TOO_MANY_VALUES));
    assert_eq!(read("[1, 2"), Err(code::BODY_NOT_JSON));
    assert_eq!(read(""), Err(code::BODY_NOT_JSON));
}

#[test]
fn numbers_that_grow_when_they_are_written_again_count_as_written() {
    let shorter = "[1e15,1e15,1e15]";
    let value: Value = serde_json::from_str(shorter).unwrap();
    let tight = Limit {
        bytes: shorter.len(),
        ..BODY
    };
    let fits = value.to_string().len() <= tight.bytes;
    assert_eq!(read(shorter.as_bytes(), &tight).is_ok(), fits);
}

fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\"\\\\\u{0}-\u{20},\\[\\]{}é]{0,8}".prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 60, 6, |inner| {
        let field = (any::<String>(), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            prop::collection::vec(field, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_value_is_measured_as_it_is_written(value in values()) {
        let written = value.to_string();
        prop_assert_eq!(Extent::of(&value).bytes, written.len());
        prop_assert_eq!(Extent::of(&value), Extent::of_text(written.as_bytes()));
        let spread = serde_json::to_string_pretty(&value).unwrap();
        let (spread, close) = (Extent::of_text(spread.as_bytes()), Extent::of(&value));
        prop_assert_eq!((spread.depth, spread.values, spread.objects),
            (close.depth, close.values, close.objects));
    }

    #[test]
    fn a_text_is_measured_as_it_is_written_wherever_in_it_escapes_stand(
        text in "[\"\\\\\u{0}-\u{20}a-zé\u{7f}\u{80}-\u{100}]{0,80}",
    ) {
        let value = Value::from(text);
        let written = value.to_string();
        prop_assert_eq!(Extent::of(&value).bytes, written.len());
        let listed = format!("[{written},1]");
        prop_assert_eq!(Extent::of_text(listed.as_bytes()).values, 3);
    }

    #[test]
    fn whatever_is_measured_comes_to_an_end(bytes in any::<Vec<u8>>(), text in "[\\[\\]{}\",\\\\ ]{0,20}") {
        prop_assert_eq!(Extent::of_text(&bytes).bytes, bytes.len());
        prop_assert_eq!(Extent::of_text(text.as_bytes()).bytes, text.len());
    }
}

#[test]
fn an_extent_adds_up() {
    let mut sum = Extent::default();
    sum.add(Extent::of(&json!([1])));
    sum.add(Extent::of(&json!({ "a": [true] })));
    assert_eq!((sum.bytes, sum.depth, sum.values), (3 + 12, 2, 2 + 3));
}
