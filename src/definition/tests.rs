//! What a file may say, and what is said about one that may not.

mod blocks;
mod hostile;
mod labels;
mod language;
mod references;
mod rules;
mod soundness;
mod starts;
mod times;

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::message::Destination;

const PLACE_ORDER: &str = include_str!("../../sagas/place-order.yaml");

/// A sound definition around these lines of `steps`.
pub(super) fn with_steps(steps: &str) -> String {
    format!("saga: test\nversion: 1\nkey: ${{ input.id }}\nsteps:\n{steps}")
}

/// The problems of a file as `line:column rule`, and their text.
pub(super) fn problems(source: &str) -> Vec<(String, String)> {
    match parse(source, "x.yaml") {
        Ok(_) => Vec::new(),
        Err(Problems(problems)) => problems
            .into_iter()
            .map(|p| {
                let place = format!("{}:{} {}", p.line, p.column, p.code);
                (place, format!("{}; {}", p.message, p.fix))
            })
            .collect(),
    }
}

/// Only where and which.
pub(super) fn rules(source: &str) -> Vec<String> {
    problems(source).into_iter().map(|(rule, _)| rule).collect()
}

#[test]
fn the_shipped_example_becomes_the_tree_it_describes() {
    let definition = parse(PLACE_ORDER, "sagas/place-order.yaml").unwrap();
    assert_eq!(definition.name, "place-order");
    assert_eq!(definition.version, 1);
    assert_eq!(definition.timeout, Some(Duration::from_mins(10)));
    let shape: Vec<String> = definition
        .blocks
        .iter()
        .map(|node| match &node.kind {
            BlockKind::Sequence(children) => format!("sequence {children:?}"),
            BlockKind::Parallel(children) => format!("parallel {children:?}"),
            BlockKind::Wait(_) | BlockKind::Sleep(_) | BlockKind::Saga(_) => "other".to_owned(),
            BlockKind::ForEach { items, body, .. } => format!("for_each {} {body:?}", items.source),
            BlockKind::Step(step) => format!("step {}", step.name),
        })
        .collect();
    assert_eq!(
        shape,
        [
            "sequence [BlockId(1), BlockId(2), BlockId(6)]",
            "step order",
            "parallel [BlockId(3), BlockId(5)]",
            "for_each input.items BlockId(4)",
            "step stock",
            "step payment",
            "step receipt",
        ]
    );
    let places: Vec<_> = definition
        .blocks
        .iter()
        .map(|node| (node.parent.map(|id| id.0), node.position))
        .collect();
    let expected = [
        (None, 0),
        (Some(0), 0),
        (Some(0), 1),
        (Some(2), 0),
        (Some(3), 0),
        (Some(2), 1),
        (Some(0), 2),
    ];
    assert_eq!(places, expected);

    let payment = definition.step("payment").unwrap();
    assert_eq!(payment.timeout, Duration::from_secs(2));
    let retry = Retry {
        attempts: 3,
        first: Duration::from_millis(100),
        factor: 2.0,
        max: Duration::from_secs(5),
    };
    assert_eq!(payment.retry, retry);
    let reserve = payment.forward.as_ref().unwrap();
    assert_eq!(reserve.call().command, "payments.reserve");
    assert_eq!(reserve.call().to, Destination::queue("payments"));
    assert!(definition.step("receipt").unwrap().forward.is_none());
}

#[test]
fn a_key_is_text_or_a_whole_number_and_short() {
    let definition = parse(&with_steps("  - { step: a, confirm: a.b }"), "x").unwrap();
    let key = |id| definition.key_of(&json!({ "id": id })).ok();
    assert_eq!(key(json!("o-1")), Some("o-1".to_owned()));
    assert_eq!(key(json!(17)), Some("17".to_owned()));
    assert_eq!(key(json!(u64::MAX)), Some(u64::MAX.to_string()));
    let refused = [
        json!(""),
        json!(1.5),
        json!(true),
        json!(null),
        json!(["a"]),
        json!("a\u{0}b"),
        json!("x".repeat(BUSINESS_KEY_BYTES_MAX + 1)),
    ];
    for id in refused {
        assert_eq!(key(id.clone()), None, "{id}");
    }
    let missing = definition.key_of(&json!({})).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "${ input.id }: `input` has no field `id`"
    );
}

#[test]
fn what_a_saga_belongs_to_is_computed_from_its_input_alone() {
    let with = |correlate: &str| {
        let source = with_steps("  - { step: a, confirm: a.b }");
        source.replace("steps:", &format!("correlate: {correlate}\nsteps:"))
    };
    let of = |correlate: &str, input| {
        let definition = parse(&with(correlate), "x").unwrap();
        definition
            .correlation_of(&input)
            .map_err(|error| error.to_string())
    };
    let item = json!({ "id": "a", "item": 17 });
    assert_eq!(
        of("${ input.item }", item.clone()),
        Ok(Some("17".to_owned()))
    );
    assert_eq!(
        of("item-${ input.item }", item.clone()),
        Ok(Some("item-17".to_owned()))
    );
    assert_eq!(of("all", item), Ok(Some("all".to_owned())));
    let none = parse(&with_steps("  - { step: a, confirm: a.b }"), "x").unwrap();
    assert_eq!(none.correlation_of(&json!({})).unwrap(), None);
    let missing = of("${ input.item }", json!({ "id": "a" })).unwrap_err();
    assert!(missing.contains("no field `item`"), "{missing}");
    let empty = of("${ input.item }", json!({ "id": "a", "item": "" })).unwrap_err();
    assert!(empty.contains("the correlation is empty"), "{empty}");
    for (correlate, rule) in [
        ("${ steps.a.id }", "unknown-reference"),
        ("${ saga.id }", "unknown-reference"),
        ("[a]", "wrong-type"),
    ] {
        let found = problems(&with(correlate));
        assert!(found[0].0.contains(rule), "{correlate}: {found:?}");
    }
}

#[test]
fn an_input_that_breaks_the_schema_is_told_where_and_how() {
    let definition = parse(PLACE_ORDER, "x").unwrap();
    let good = json!({
        "order_id": "o-1", "customer": "c", "total": 5, "items": [{"sku": "s", "quantity": 1}],
    });
    assert_eq!(definition.check_input(&good), Ok(()));
    let bad = json!({
        "order_id": "o-1", "customer": 7, "items": [{"sku": "s", "quantity": 0}],
    });
    let wrong = definition.check_input(&bad).unwrap_err();
    for place in ["/customer: ", "/items/0/quantity: ", "the input: "] {
        assert!(wrong.iter().any(|w| w.starts_with(place)), "{wrong:?}");
    }
    let many = json!({
        "order_id": "o-1", "customer": "c", "total": 5, "items": vec![json!({}); 50],
    });
    assert_eq!(
        definition.check_input(&many).unwrap_err().len(),
        INPUT_PROBLEMS_MAX
    );
}

#[test]
fn templates_keep_types_and_put_values_into_text() {
    let source = with_steps(
        r#"
  - step: a
    confirm: a.b
    with:
      whole: ${ input.total }
      text: "order ${ input.id } of ${ input.total } cents"
      escaped: "$${ input.id } costs $5"
      nested: [1, { deep: "${ input.list }" }]
      constant: { a: [1, 2.5, ~, true] }
"#,
    );
    let definition = parse(&source, "x").unwrap();
    let with = definition.step("a").unwrap().with.as_ref().unwrap();
    let render = |input: &Value| {
        with.render(&EvaluationScope {
            input,
            steps: &(),
            item: None,
            given: None,
            saga: None,
        })
    };
    assert_eq!(
        render(&json!({"id": "o-1", "total": 5, "list": [1]})).unwrap(),
        json!({
            "whole": 5,
            "text": "order o-1 of 5 cents",
            "escaped": "${ input.id } costs $5",
            "nested": [1, {"deep": [1]}],
            "constant": {"a": [1, 2.5, null, true]},
        })
    );
    let error = render(&json!({"id": [], "total": 5, "list": [1]})).unwrap_err();
    assert_eq!(error.expression, "input.id");
    assert!(error.why.contains("a list"), "{error}");
}

#[test]
fn commands_go_to_the_part_before_the_first_dot_unless_the_step_says_to() {
    let source = with_steps(
        r"
  - { step: a, confirm: ledger.accounts.close }
  - { step: b, confirm: ledger.close, to: elsewhere }
  - { step: c, confirm: ledger.close, to: { exchange: x, routing_key: y.z } }
",
    );
    let definition = parse(&source, "x").unwrap();
    let to = |step| {
        definition
            .step(step)
            .and_then(|step| step.confirm.clone())
            .map(|call| call.to)
    };
    assert_eq!(to("a"), Some(Destination::queue("ledger")));
    assert_eq!(to("b"), Some(Destination::queue("elsewhere")));
    let routed = Destination {
        exchange: "x".to_owned(),
        routing_key: "y.z".to_owned(),
    };
    assert_eq!(to("c"), Some(routed));
}
