//! What sagas are searched by.

use serde_json::{Value, json};

use super::{rules, with_steps};
use crate::definition::{Label, LabelValue, parse};

fn source(labels: &str) -> String {
    let steps = with_steps("  - { step: a, confirm: p.f }");
    format!("labels: {labels}\n{steps}")
}

fn labels(labels: &str, input: &Value) -> Vec<Label> {
    let definition = parse(&source(labels), "a.yaml").unwrap();
    definition.labels_of(input)
}

#[test]
fn labels_have_the_type_of_what_they_are_computed_from() {
    let rules = "{ who: '${ input.who }', n: '${ input.n * 2 }', vip: '${ input.vip }', both: 'x-${ input.who }', due: { time: '${ input.due }' } }";
    let input = json!({ "who": "alice", "n": 21, "vip": true, "due": "2026-01-01T00:00:00Z" });
    let text = |text: &str| LabelValue::Text(text.to_owned());
    let due = "2026-01-01T00:00:00Z".parse().unwrap();
    let found: Vec<_> = labels(rules, &input)
        .into_iter()
        .map(|it| (it.name, it.value))
        .collect();
    let expected = [
        ("who", text("alice")),
        ("n", LabelValue::Number(42.0)),
        ("vip", text("true")),
        ("both", text("x-alice")),
        ("due", LabelValue::Time(due)),
    ];
    assert_eq!(
        found,
        expected.map(|(name, value)| (name.to_owned(), value))
    );
}

#[test]
fn what_has_no_value_is_left_out_and_keeps_nothing_from_starting() {
    let rules = "{ a: '${ input.a }', b: '${ input.b }', due: { time: '${ input.due }' } }";
    for input in [
        json!({ "a": null, "b": ["x"], "due": "soon" }),
        json!({ "a": {}, "due": 5 }),
        json!(7),
    ] {
        assert_eq!(labels(rules, &input), [], "{input}");
    }
}

#[test]
fn labels_that_find_nothing_are_refused() {
    let many: Vec<String> = (0..17).map(|n| format!("l{n}: '${{ input.x }}'")).collect();
    for (labels, expected) in [
        ("{ a: '${ input.x }' }", &[][..]),
        ("{ a: '${ steps.a.x }' }", &["1:18 unknown-reference"]),
        ("{ a: same }", &["1:14 contradiction"]),
        ("{ A: '${ input.x }' }", &["1:11 bad-name"]),
        ("{ a: 5 }", &["1:14 wrong-type"]),
        ("[ a ]", &["1:9 wrong-type"]),
        (
            "{ a: { tame: '${ input.x }' } }",
            &["1:14 missing-field", "1:16 unknown-field"],
        ),
        (&format!("{{ {} }}", many.join(", ")), &["1:9 too-large"]),
    ] {
        assert_eq!(rules(&source(labels)), expected, "{labels}");
    }
}
