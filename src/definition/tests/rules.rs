//! Which rule a file breaks, and where.

use std::time::Duration;

use serde_json::json;

use super::{problems, rules, with_steps};
use crate::definition::{parse, parse_all};

/// Wrong in two dozen ways; each is found, at its place, in one go. Where the texts have changed
/// on purpose, put what the test prints into `wrong.txt`.
#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let found = parse(include_str!("wrong.yaml"), "wrong.yaml").unwrap_err();
    let expected = include_str!("wrong.txt");
    assert!(found.to_string() == expected, "{found}");
    for problem in &found.0 {
        assert!(!problem.fix.is_empty(), "{problem}");
    }
}

#[test]
fn a_problem_as_json_says_where_it_begins_and_ends_and_what_to_do() {
    let found = parse(include_str!("wrong.yaml"), "wrong.yaml").unwrap_err();
    let json = serde_json::to_value(&found).unwrap();
    let expected = json!({
        "file": "wrong.yaml",
        "line": 1,
        "column": 7,
        "end": { "line": 1, "column": 18 },
        "code": "bad-name",
        "message": "`Place Order` is not a name",
        "fix": "use at most 80 lower-case letters, digits, `-` and `_`, a letter first",
        "excerpt": "saga: Place Order",
    });
    assert_eq!(json[0], expected);
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
            &["3:9 unknown-reference", "3:9 unknown-reference"],
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
        refused[1].starts_with(
            "3.yaml:1:7: [duplicate-definition] `test` version 1 is already defined in 1.yaml"
        ),
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
