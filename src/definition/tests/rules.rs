//! Which rule a file breaks, and where.

use std::time::Duration;

use super::{problems, rules, with_steps};
use crate::definition::{parse, parse_all};

/// Wrong in a dozen ways; each is found, at its place, in one go.
#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let source = r#"saga: Place Order
version: 0
key: ${ input.order_id
timeout: 1 minute
inptu: {}
input: { type: objekt }
steps:
  - step: order
    with: { id: "${ inputs.id }", again: "${ steps.payment.id }" }
    reserve: orders.open
  - step: order
    action: orders
    compensate: orders.cancel
    timeuot: 5s
    retry: { attempts: 0, factor: fast }
  - step: payment
    reserve: payments.reserve
    compensate: payments.release
    when: ${ item.ok }
output: ${ steps.paymnet.id }
"#;
    let found = parse(source, "sagas/bad.yaml").unwrap_err();
    let expected = "\
sagas/bad.yaml:1:7: `Place Order` is not a name: use at most 80 lower-case letters, digits, `-` and `_`, a letter first
  |
1 | saga: Place Order
  |       ^

sagas/bad.yaml:2:10: `version` is a whole number from 1 to 2147483647, not 0
  |
2 | version: 0
  |          ^

sagas/bad.yaml:3:6: a `${` has no `}`; write `$${` for a literal `${`
  |
3 | key: ${ input.order_id
  |      ^

sagas/bad.yaml:4:10: `timeout`: `1 minute` is not a duration: write a whole number and a unit (ms, s, m, h or d), as in `200ms` or `5s`
  |
4 | timeout: 1 minute
  |          ^

sagas/bad.yaml:5:1: a definition has no field `inptu`; did you mean `input`?
  |
5 | inptu: {}
  | ^

sagas/bad.yaml:6:16: not a JSON Schema: \"objekt\" is not valid under any of the schemas listed in the 'anyOf' keyword
  |
6 | input: { type: objekt }
  |                ^

sagas/bad.yaml:9:21: bad expression `inputs.id`: there is no `inputs`; expressions know input, steps, item and saga; did you mean `input`?
  |
9 |     with: { id: \"${ inputs.id }\", again: \"${ steps.payment.id }\" }
  |                     ^

sagas/bad.yaml:9:46: step `payment` runs after this
  |
9 |     with: { id: \"${ inputs.id }\", again: \"${ steps.payment.id }\" }
  |                                              ^

sagas/bad.yaml:10:5: `reserve` has no `compensate`, so it could not be undone; add the command that undoes it, or `read_only: true` if there is nothing to undo
   |
10 |     reserve: orders.open
   |     ^

sagas/bad.yaml:11:11: step `order` already exists in line 8; choose another name
   |
11 |   - step: order
   |           ^

sagas/bad.yaml:12:13: `orders` is not a command: write the participant, a dot, and what it shall do, as in `inventory.reserve`
   |
12 |     action: orders
   |             ^

sagas/bad.yaml:14:5: a step has no field `timeuot`; did you mean `timeout`?
   |
14 |     timeuot: 5s
   |     ^

sagas/bad.yaml:15:24: `attempts` is a whole number from 1 to 1000, not 0
   |
15 |     retry: { attempts: 0, factor: fast }
   |                        ^

sagas/bad.yaml:15:35: `factor` must be a number, not text
   |
15 |     retry: { attempts: 0, factor: fast }
   |                                   ^

sagas/bad.yaml:19:14: there is no `item` here: only a block with `for_each` has one
   |
19 |     when: ${ item.ok }
   |              ^

sagas/bad.yaml:20:12: there is no step `paymnet`; did you mean `payment`?
   |
20 | output: ${ steps.paymnet.id }
   |            ^
";
    assert_eq!(found.to_string(), expected);
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json[1]["code"], "out-of-range");
    assert_eq!(json[1]["line"], 2);
}

#[test]
fn each_rule_finds_its_problem_where_it_is() {
    let cases = [
        ("", &["1:1 wrong-type"][..]),
        ("a: [", &["1:4 syntax"]),
        ("just text", &["1:1 wrong-type"]),
        ("saga: a\n---\nsaga: b", &["2:1 syntax"]),
        (
            "saga: a",
            &[
                "1:1 missing-field",
                "1:1 missing-field",
                "1:1 missing-field",
            ],
        ),
        (
            "saga: a\nsaga: b\nversion: 1\nkey: '${input}'\nsteps: [{step: s, confirm: a.b}]",
            &["2:1 duplicate-field"],
        ),
        (
            "saga: a\nversion: '1'\nkey: fixed\nsteps: []",
            &["2:10 wrong-type", "3:6 contradiction", "4:8 missing-field"],
        ),
        (
            "saga: a\nversion: 1\nkey: ${ steps.s.id + saga.id }\nsteps: [{step: s, confirm: a.b}]",
            &["3:9 unknown-reference", "3:9 not-yet-run"],
        ),
        (
            "saga: a\nversion: 1\nkey:\nsteps: {}",
            &["3:1 wrong-type", "4:8 wrong-type"],
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(rules(source), expected, "{source}\n{:?}", problems(source));
    }
}

#[test]
fn steps_must_say_what_they_do_and_how_it_is_undone() {
    let cases = [
        ("{ step: a, confirm: a.b }", &[][..]),
        ("{ step: a, reserve: a.b, read_only: true }", &[]),
        ("{ step: a, action: a.b, compensate: a.c }", &[]),
        ("{ step: a }", &["5:3 missing-field"]),
        ("{ step: a, reserve: a.b }", &["5:14 not-undoable"]),
        (
            "{ step: a, action: a.b, confirm: a.c }",
            &["5:14 not-undoable", "5:27 contradiction"],
        ),
        (
            "{ step: a, reserve: a.b, action: a.c, compensate: a.d }",
            &["5:28 contradiction"],
        ),
        (
            "{ step: a, compensate: a.b }",
            &["5:14 contradiction", "5:3 missing-field"],
        ),
        (
            "{ step: a, reserve: a.b, compensate: a.c, read_only: true }",
            &["5:45 contradiction"],
        ),
        (
            "{ step: a, confirm: a.b, read_only: true }",
            &["5:28 contradiction"],
        ),
        (
            "{ step: a, reserve: a.b, read_only: yes }",
            &["5:14 not-undoable", "5:39 wrong-type"],
        ),
        ("{ step: A, confirm: a.b }", &["5:11 bad-name"]),
        ("{ step: 1, confirm: a.b }", &["5:11 wrong-type"]),
        ("{ step: a, confirm: .b }", &["5:23 bad-name"]),
        ("{ step: a, confirm: a. }", &["5:23 bad-name"]),
        ("{ step: a, confirm: 'a.b c' }", &["5:23 bad-name"]),
        ("{ step: a, confirm: backstitch.start }", &["5:23 bad-name"]),
        (
            "{ step: a, confirm: a.b, to: backstitch.replies }",
            &["5:32 bad-name"],
        ),
        (
            "{ step: a, confirm: a.b, to: { exchange: x } }",
            &["5:32 missing-field"],
        ),
        ("{ step: a, confirm: a.b, to: 5 }", &["5:32 wrong-type"]),
        (
            "{ step: a, confirm: a.b, timeout: 5 }",
            &["5:37 wrong-type"],
        ),
        (
            "{ step: a, confirm: a.b, timeout: 1ms }",
            &["5:37 out-of-range"],
        ),
        (
            "{ step: a, confirm: a.b, timeout: 31d }",
            &["5:37 out-of-range"],
        ),
        ("{ step: a, confirm: a.b, retry: 5 }", &["5:35 wrong-type"]),
        (
            "{ step: a, confirm: a.b, retry: { factor: 0.5 } }",
            &["5:45 out-of-range"],
        ),
        (
            "{ step: a, confirm: a.b, retry: { first: 5s, max: 1s } }",
            &["5:53 contradiction"],
        ),
        (
            "{ step: a, confirm: a.b, suspend_after: 0 }",
            &["5:43 out-of-range"],
        ),
        (
            "{ step: a, confirm: a.b, when: true }",
            &["5:34 bad-expression"],
        ),
        (
            "{ step: a, confirm: a.b, for_each: input.items }",
            &["5:38 bad-expression"],
        ),
        ("{ stp: a, confirm: a.b }", &["5:3 missing-field"]),
        ("{ step: a, parallel: [] }", &["5:3 contradiction"]),
        ("{ parallel: [] }", &["5:15 missing-field"]),
        (
            "{ parallel: 5, whn: x }",
            &["5:15 wrong-type", "5:18 unknown-field"],
        ),
        ("text", &["5:3 wrong-type"]),
    ];
    for (step, expected) in cases {
        let mut found = rules(&with_steps(&format!("- {step}")));
        let mut expected: Vec<_> = expected.iter().map(|&s| s.to_owned()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{step}");
    }
}

#[test]
fn a_wait_longer_than_the_saga_is_refused() {
    let source = |timeout: &str, step: &str| format!("timeout: {timeout}\n{}", with_steps(step));
    let step = "  - { step: a, confirm: a.b, timeout: 5s, retry: { first: 2s } }";
    assert_eq!(rules(&source("10s", step)), [""; 0]);
    assert_eq!(rules(&source("3s", step)), ["6:39 out-of-range"]);
    assert_eq!(
        rules(&source("1s", step)),
        ["6:39 out-of-range", "6:59 out-of-range"]
    );
    let default = "  - { step: a, confirm: a.b }";
    assert_eq!(rules(&source("1s", default)), [""; 0]);
}

#[test]
fn one_part_of_a_retry_makes_room_for_the_other() {
    let source = with_steps("  - { step: a, confirm: a.b, retry: { first: 1m } }");
    let retry = parse(&source, "x").unwrap().step("a").unwrap().retry;
    assert_eq!(retry.first, Duration::from_mins(1));
    assert_eq!(retry.max, Duration::from_mins(1));
}

#[test]
fn schemas_are_compiled_and_fetch_nothing() {
    let cases = [
        (
            "{ type: object, properties: { a: { minimum: x } } }",
            "bad-schema",
        ),
        ("{ $ref: 'http://127.0.0.1:1/schema' }", "bad-schema"),
        ("{ $ref: 'file:///etc/hostname' }", "bad-schema"),
        ("{ $ref: '#/$defs/missing' }", "bad-schema"),
        ("{ pattern: '(' }", "bad-schema"),
        (
            "{ $schema: 'http://json-schema.org/draft-04/schema#' }",
            "bad-schema",
        ),
        ("true", "wrong-type"),
    ];
    for (schema, rule) in cases {
        let source = format!(
            "{}\ninput: {schema}",
            with_steps("  - { step: a, confirm: a.b }")
        );
        let found = rules(&source);
        assert_eq!(found.len(), 1, "{schema}: {found:?}");
        assert!(found[0].ends_with(rule), "{schema}: {found:?}");
    }
}

#[test]
fn two_files_with_one_name_and_version_are_refused() {
    let one = with_steps("  - { step: a, confirm: a.b }");
    let two = one.replace("version: 1", "version: 2");
    assert_eq!(
        parse_all(&[("1.yaml", &one), ("2.yaml", &two)])
            .unwrap()
            .len(),
        2
    );
    let broken = one.replace("confirm", "cnfirm");
    let refused = parse_all(&[("1.yaml", &one), ("2.yaml", &broken), ("3.yaml", &one)]);
    let refused: Vec<String> = refused
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(refused.len(), 2);
    assert!(refused[0].starts_with("2.yaml:5:"), "{}", refused[0]);
    assert!(
        refused[1].starts_with("3.yaml:1:7: `test` version 1 is already defined in 1.yaml"),
        "{}",
        refused[1]
    );
}

#[test]
fn aliases_point_to_where_the_text_stands() {
    let source = with_steps(
        "  - { step: a, confirm: a.b, retry: &r { attempts: 0 } }\n  - { step: b, confirm: a.b, retry: *r }",
    );
    assert_eq!(
        rules(&source),
        ["5:52 out-of-range", "5:52 out-of-range"],
        "{:?}",
        problems(&source)
    );
}
