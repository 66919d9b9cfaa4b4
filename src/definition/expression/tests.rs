//! What expressions compute, and what they refuse to.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::id::Timestamp;

struct Replies(BTreeMap<&'static str, Value>);

impl StepReplies for Replies {
    fn reply(&self, step: &str) -> Option<Value> {
        self.0.get(step).cloned()
    }
}

/// Compiled the way a definition's are: with room on the stack.
fn compile(source: &str) -> Result<Expression, String> {
    let source = source.to_owned();
    std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(move || Expression::compile(&source))
        .unwrap()
        .join()
        .unwrap()
}

fn evaluate(source: &str) -> Result<Value, String> {
    let input = json!({
        "id": "o-1", "total": 500, "ratio": 0.5, "big": u64::MAX, "none": null, "yes": true,
        "items": [{"sku": "a", "quantity": 1}, {"sku": "b", "quantity": 2}],
        "with space": 1,
    });
    let replies = Replies(BTreeMap::from([
        ("payment", json!({"amount": 500})),
        ("send-receipt", json!({"id": 7})),
        ("stock", json!([{"at": "x"}, null])),
    ]));
    let facts = SagaFacts {
        id: "s-1".to_owned(),
        key: "o-1".to_owned(),
        started_at: Timestamp::from_micros(1_700_000_000_000_000),
    };
    let scope = EvaluationScope {
        input: &input,
        steps: &replies,
        item: Some(&input["items"][1]),
        given: None,
        saga: Some(&facts),
    };
    let expression = compile(source)?;
    expression.evaluate(&scope).map_err(|error| error.why)
}

#[test]
fn paths_and_cel_read_the_same_values() {
    let cases = [
        ("input.id", json!("o-1")),
        ("input.total", json!(500)),
        ("input.ratio", json!(0.5)),
        ("input.big", json!(u64::MAX)),
        ("input.none", json!(null)),
        ("input.items[1].sku", json!("b")),
        ("input['items'][0]", json!({"sku": "a", "quantity": 1})),
        (r#"input["with space"]"#, json!(1)),
        ("item", json!({"sku": "b", "quantity": 2})),
        ("item.sku", json!("b")),
        ("steps.payment", json!({"amount": 500})),
        ("steps.payment.amount", json!(500)),
        (r#"steps["send-receipt"].id"#, json!(7)),
        ("steps.stock", json!([{"at": "x"}, null])),
        ("saga.id", json!("s-1")),
        ("saga.started_at", json!("2023-11-14T22:13:20Z")),
    ];
    for (source, expected) in cases {
        assert!(Path::parse(source).is_some(), "{source} is a path");
        assert_eq!(evaluate(source), Ok(expected.clone()), "{source}");
        let cel = format!("({source})");
        assert!(Path::parse(&cel).is_none());
        assert_eq!(evaluate(&cel), Ok(expected), "{cel}");
    }
}

#[test]
fn what_is_not_there_is_an_error_on_both_ways() {
    let cases = [
        ("input.nothing", "has no field `nothing`"),
        ("input.id.x", "`input.id` is text, so it has no field `x`"),
        ("input.none.x", "is null"),
        ("input.items.x", "is a list"),
        ("input.items[2]", "`input.items` has 2 items"),
        ("input[0]", "`input` is an object"),
        ("steps.shipment.id", "step `shipment` has no reply"),
    ];
    for (source, expected) in cases {
        let why = evaluate(source).unwrap_err();
        assert!(why.contains(expected), "{source}: {why}");
        assert!(evaluate(&format!("({source})")).is_err(), "({source})");
    }
    let why = evaluate("(steps.shipment.id) + 1").unwrap_err();
    assert!(why.contains("step `shipment` has no reply"), "{why}");
}

#[test]
fn cel_computes_and_keeps_types() {
    let cases = [
        ("input.total + 1", json!(501)),
        ("input.total / 2 * 2", json!(500)),
        ("double(input.total) * 1.5", json!(750)),
        ("input.ratio * 2.0", json!(1)),
        ("input.big", json!(u64::MAX)),
        ("input.big - 1u", json!(u64::MAX - 1)),
        ("input.total > 100 && input.yes", json!(true)),
        ("input.id + '/' + string(input.total)", json!("o-1/500")),
        ("input.items.map(i, i.quantity)", json!([1, 2])),
        (
            "input.items.filter(i, i.quantity > 1).map(i, i.sku)",
            json!(["b"]),
        ),
        ("input.items.exists(i, i.sku == 'a')", json!(true)),
        ("size(input.items)", json!(2)),
        ("input.items.size()", json!(2)),
        (
            "{'a': [1, null], 'b': {'c': 1.0}}",
            json!({"a": [1, null], "b": {"c": 1}}),
        ),
        ("has(input.coupon) ? input.coupon : 'none'", json!("none")),
        ("has(steps.payment)", json!(true)),
        ("has(steps.shipment)", json!(false)),
        ("has(steps.payment.amount)", json!(true)),
        ("'send-receipt' in steps", json!(true)),
        ("'shipment' in steps ? steps.shipment.id : 0", json!(0)),
        ("input.id.matches('^o-[0-9]+$')", json!(true)),
        ("saga.key == input.id", json!(true)),
        ("type(input.total) == int", json!(true)),
        (
            "steps.stock.filter(s, s != null).map(s, s.at)",
            json!(["x"]),
        ),
        ("item.quantity * 10", json!(20)),
        ("-9223372036854775807 - 1", json!(i64::MIN)),
    ];
    for (source, expected) in cases {
        assert_eq!(evaluate(source), Ok(expected), "{source}");
    }
}

#[test]
fn evaluation_fails_with_a_reason_and_never_panics() {
    let cases = [
        "input.total / 0",
        "input.total % 0",
        "input.ratio / 0.0",
        "input.total + input.id",
        "input.id + input.total",
        "input.total < input.id",
        "input.total + null",
        "-input.id",
        "input.items[0.5]",
        "input.items[input.total]",
        "b'bytes'",
        "{1: 'a'}",
        "int('x')",
        "uint(-1)",
        "input.id < 1",
        "input.items[-1]",
        "input.items[input.big]",
        "!input.id",
        "input.id ? 1 : 2",
        "input.id.map(x, x)",
    ];
    for source in cases {
        let result = evaluate(source);
        assert!(result.is_err(), "{source}: {result:?}");
    }
}

/// What expressions make of `a` and `b`, in every way that the two can be spelled.
fn reckoned(source: &str, a: &[&str], b: &[&str]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let expression = compile(source).unwrap();
    for a in a {
        for b in b {
            let input: Value = serde_json::from_str(&format!(r#"{{"a": {a}, "b": {b}}}"#)).unwrap();
            let scope = EvaluationScope {
                input: &input,
                steps: &(),
                item: None,
                given: None,
                saga: None,
            };
            let result = match expression.evaluate(&scope) {
                Ok(value) => value.to_string(),
                Err(error) => error.why,
            };
            found.entry(result).or_default().push(format!("{a}, {b}"));
        }
    }
    found
}

#[test]
fn whole_numbers_and_fractions_mix_however_they_are_spelled() {
    let ten = ["10", "10.0", "1e1", "100E-1"];
    let cases: &[(&str, &[&str], &[&str], &str)] = &[
        ("input.a + input.b", &ten, &["2.1", "2.10", "21e-1"], "12.1"),
        ("input.b + input.a", &ten, &["2.1"], "12.1"),
        ("input.a - input.b", &ten, &["2.1"], "7.9"),
        ("input.a * input.b", &ten, &["0.1", "1e-1"], "1"),
        ("input.a / input.b", &ten, &["4", "4.0"], "2.5"),
        ("input.a % input.b", &ten, &["3", "3.0"], "1"),
        ("-input.a + input.b", &ten, &["0.5"], "-9.5"),
        ("input.a == input.b", &ten, &ten, "true"),
        ("input.a != input.b", &ten, &ten, "false"),
        ("input.a < input.b", &ten, &["10.5"], "true"),
        (
            "input.a >= input.b && input.b <= input.a",
            &ten,
            &ten,
            "true",
        ),
        (
            "input.a >= 10 && input.a < 10.5 && 9.5 < input.a",
            &ten,
            &["0"],
            "true",
        ),
        ("input.a in [1, input.b, 2]", &ten, &ten, "true"),
        ("[input.a, 1] == [input.b, 1.0]", &ten, &ten, "true"),
        ("{'x': input.a} == {'x': input.b}", &ten, &ten, "true"),
        ("input.a * 1.5 + input.b", &ten, &["1", "1.0"], "16"),
        (
            "[input.a, input.b].exists_one(n, n > 5)",
            &ten,
            &["5.0"],
            "true",
        ),
        ("[input.a, input.b].map(n, n * 2)", &ten, &["0.5"], "[20,1]"),
        ("[1, 2, 3][input.a - 9]", &ten, &["0"], "2"),
        ("size([1, 2]) * input.b + 0.5", &["0"], &["1", "1.0"], "2.5"),
        (
            "string(input.a) + '/' + string(input.b)",
            &ten,
            &["0.50"],
            "\"10/0.5\"",
        ),
        ("int(input.a) + int(input.b)", &ten, &["2.9"], "12"),
        (
            "type(input.a) == int && type(input.b) == double",
            &ten,
            &["0.5"],
            "true",
        ),
        ("hash(input.a) == hash(input.b)", &ten, &ten, "true"),
    ];
    for (source, a, b, expected) in cases {
        let found = reckoned(source, a, b);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            [expected],
            "{source}: {found:?}"
        );
    }
}

#[test]
fn no_digit_is_lost_and_what_is_too_long_is_said() {
    let cases = [
        ("input.a + input.b", "0.1", "0.2", "0.3"),
        (
            "input.a + input.b",
            "9223372036854775807",
            "1",
            "9223372036854775808",
        ),
        (
            "input.a * input.b",
            "9007199254740993",
            "9007199254740993",
            "81129638414606699710187514626049",
        ),
        (
            "input.a - input.b",
            "-9223372036854775808",
            "1",
            "-9223372036854775809",
        ),
        (
            "input.a / input.b",
            "-9223372036854775808",
            "-1",
            "9223372036854775808",
        ),
        ("input.a % input.b", "-9223372036854775808", "-1", "0"),
        (
            "input.a + input.b",
            "12345678901234567.89",
            "0.01",
            "12345678901234567.9",
        ),
        (
            "input.a / input.b",
            "9007199254740993",
            "2",
            "4503599627370496.5",
        ),
        (
            "input.a / input.b",
            "1",
            "3",
            "0.3333333333333333333333333333333333",
        ),
        (
            "input.a < input.b",
            "20000000000000000000",
            "20000000000000000001",
            "true",
        ),
        (
            "input.a == input.b",
            "20000000000000000000",
            "20000000000000000001",
            "false",
        ),
        ("input.b > 0 ? input.a : 0", "1e400", "1", "1e+400"),
        (
            "[input.a, input.b]",
            "12345678901234567.890",
            "1E5",
            "[12345678901234567.890,1e+5]",
        ),
        ("input.a > input.b", "1e400", "9e399", "true"),
    ];
    for (source, a, b, expected) in cases {
        let found = reckoned(source, &[a], &[b]);
        let keys: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(keys, [expected], "{source}");
    }
    let digits = "7".repeat(1_000_000);
    for (source, a, b) in [
        ("input.a * input.b", "1e600", "1e600"),
        ("input.a + input.b", "1e2000", "1"),
        ("input.a < input.b", "1e999999999", "1"),
        ("input.a - input.b", "1e-2000", "1"),
        ("input.a > input.b", digits.as_str(), "1"),
    ] {
        let found = format!("{:?}", reckoned(source, &[a], &[b]));
        assert!(found.contains("more than 1000 digits"), "{source}: {found}");
    }
}

#[test]
fn sources_that_cannot_work_are_refused_at_load() {
    let cases = [
        ("", "empty"),
        ("input.", "character"),
        ("input.in", "character"),
        ("a.b", "there is no `a`"),
        ("saga.attempt", "`saga` has no field"),
        ("siez(input.id)", "did you mean `size`"),
        ("now()", "there is no function `now`"),
        ("has(input.id, 1)", "not called like that"),
        ("input.l.map(x, input.l.map(y, y))", "can't be nested"),
        ("input.l.map(input, 1)", "choose another name"),
        ("input.id.matches(input.pattern)", "must be written out"),
        ("input.l.all(x, x.matches('a'))", "inside a loop"),
        ("Thing{a: 1}", "not an expression"),
        ("input.?id", "character"),
        ("duration('1s')", "there is no function"),
    ];
    for (source, expected) in cases {
        let why = compile(source).unwrap_err();
        assert!(why.contains(expected), "{source}: {why}");
    }
    let long = format!("input.{}", "a".repeat(EXPRESSION_BYTES_MAX));
    assert!(compile(&long).unwrap_err().contains("longer than"));
}

#[test]
fn loops_over_large_data_are_refused_when_they_are_run() {
    let run = |source: &str, input: &Value| {
        let scope = EvaluationScope {
            input,
            steps: &(),
            item: None,
            given: None,
            saga: None,
        };
        compile(source).unwrap().evaluate(&scope)
    };
    let many = json!({"l": vec![0; 1_001], "other": 1});
    assert!(run("input.l.map(x, x)", &many).is_err());
    // Without a loop, or without that list, there is nothing to refuse.
    assert!(run("input.l", &many).is_ok());
    assert!(run("size(input.l)", &many).is_ok());
    assert!(run("[1].map(x, x + input.other)", &many).is_ok());
    let long = json!({"l": vec![0; 1_000], "s": "x".repeat(100_000)});
    assert!(run("input.l.map(x, input.s + input.s)", &long).is_err());
}

#[test]
fn the_largest_expression_that_is_let_in_needs_little_stack() {
    let source = "1+".repeat(60) + "1";
    let expression = compile(&source).unwrap();
    let input = json!({});
    let evaluate = move || {
        expression.evaluate(&EvaluationScope {
            input: &input,
            steps: &(),
            item: None,
            given: None,
            saga: None,
        })
    };
    // Unoptimised, the interpreter's frames are several times as large.
    let bytes = if cfg!(debug_assertions) {
        4 << 20
    } else {
        1 << 20
    };
    let small = std::thread::Builder::new().stack_size(bytes);
    let value = small.spawn(evaluate).unwrap().join().unwrap();
    assert_eq!(value, Ok(json!(61)));
}

#[test]
fn expressions_may_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Expression>();
    shared::<crate::definition::Template>();
    shared::<crate::definition::Definition>();
}

#[test]
fn a_hash_is_that_of_the_value_however_it_came_about() {
    let hash = |value: Value| json!(crate::canonical::fingerprint_text(&value));
    for (source, value) in [
        (
            "hash(input.items)",
            json!([{"quantity": 1, "sku": "a"}, {"sku": "b", "quantity": 2}]),
        ),
        (
            "hash({'b': 0.5, 'a': [input.big, null]})",
            json!({"a": [u64::MAX, null], "b": 0.5}),
        ),
        ("hash(input.id)", json!("o-1")),
        ("hash(input.total + 1)", json!(501)),
    ] {
        assert_eq!(evaluate(source), Ok(hash(value)), "{source}");
    }
    for (source, why) in [
        ("hash()", "one value"),
        ("input.hash()", "one value"),
        ("hash(input, item)", "one value"),
        ("input.items.map(i, hash(i))", "inside a loop"),
        ("hash(b'x')", "which JSON can't say"),
    ] {
        let said = evaluate(source).unwrap_err();
        assert!(said.contains(why), "{source}: {said}");
    }
}
