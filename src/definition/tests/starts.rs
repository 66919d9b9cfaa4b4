//! How sagas come to be started: by events, by the clock, by one another.

use super::{problems, rules, with_steps};
use crate::definition::parse_all;

#[test]
fn start_rules_that_cannot_work_are_refused() {
    let source = |start: &str, key: &str| {
        let steps = with_steps("  - { step: a, confirm: p.f }");
        format!("start: {start}\n{}", steps.replace("input.id", key))
    };
    let event = "exchange: x, routing_key: y";
    let cases: Vec<(String, &str, &[&str])> = vec![
        (format!("{{ on: {{ {event} }} }}"), "input.id", &[]),
        (
            format!("{{ on: [ {{ {event}, key: \"${{ event.id }}\" }} ] }}"),
            "input.id",
            &[],
        ),
        (
            "{ on: { exchange: x } }".to_owned(),
            "input.id",
            &["1:14 missing-field"],
        ),
        (
            format!("{{ on: {{ {event}, with: \"${{ input.id }}\" }} }}"),
            "input.id",
            &["1:55 unknown-reference"],
        ),
        ("{ on: 5 }".to_owned(), "input.id", &["1:14 wrong-type"]),
        ("{ every: \"0 9 * * *\" }".to_owned(), "input.tick", &[]),
        (
            "{ every: \"0 9 * * *\" }".to_owned(),
            "input.id",
            &["1:17 contradiction"],
        ),
        (
            "{ every: \"0 9 * * *\", conflict: restart }".to_owned(),
            "input.id",
            &[],
        ),
        (
            "{ every: \"0 9 * * *\", with: { id: \"${ tick }\" } }".to_owned(),
            "input.id",
            &[],
        ),
        (
            "{ every: \"0 9 * * *\", with: { id: 5 } }".to_owned(),
            "input.id",
            &["1:17 contradiction"],
        ),
        (
            "{ every: \"0 9 * *\" }".to_owned(),
            "input.tick",
            &["1:17 bad-schedule"],
        ),
        (
            "{ timezone: UTC, catch_up: all }".to_owned(),
            "input.id",
            &["1:10 contradiction", "1:25 contradiction"],
        ),
        (
            "{ conflict: maybe }".to_owned(),
            "input.id",
            &["1:20 out-of-range"],
        ),
        ("daily".to_owned(), "input.id", &["1:8 wrong-type"]),
    ];
    for (start, key, expected) in cases {
        let source = source(&start, key);
        assert_eq!(
            rules(&source),
            expected,
            "{source}\n{:?}",
            problems(&source)
        );
    }
}

#[test]
fn sagas_that_run_sagas_are_there_and_go_in_no_circle() {
    let saga = |name: &str, blocks: &str| {
        let source = with_steps(blocks).replace("saga: test", &format!("saga: {name}"));
        (format!("{name}.yaml"), source)
    };
    let runs = |name: &str, other: &str| saga(name, &format!("  - {{ saga: s, run: {other} }}"));
    let leaf = saga("leaf", "  - { step: a, confirm: p.f }");
    let told = |files: &[(String, String)]| -> Vec<String> {
        let refused = parse_all(files).err().unwrap_or_default();
        let problems = refused.into_iter().flat_map(|problems| problems.0);
        problems
            .map(|p| {
                format!(
                    "{}:{}:{} {}: {}",
                    p.file, p.line, p.column, p.code, p.message
                )
            })
            .collect()
    };
    assert_eq!(
        told(&[runs("a", "leaf"), runs("b", "leaf"), leaf.clone()]),
        [""; 0]
    );
    assert_eq!(
        told(&[runs("a", "leav"), leaf.clone()]),
        ["a.yaml:5:21 unknown-saga: no file defines a saga `leav`"]
    );
    let behind =
        "  - { step: a, action: p.f, read_only: true, pivot: true }\n  - { saga: s, run: leav }";
    assert_eq!(
        told(&[saga("a", behind), leaf.clone()]),
        [
            "a.yaml:6:5 after-pivot: another saga may fail, and behind the pivot (line 5) there is no way back",
            "a.yaml:6:21 unknown-saga: no file defines a saga `leav`"
        ]
    );
    assert_eq!(
        told(&[runs("a", "a")]),
        ["a.yaml:5:21 recursive-saga: `a` would run itself, for ever"]
    );
    assert_eq!(
        told(&[runs("a", "b"), runs("b", "c"), runs("c", "a")])[0],
        "a.yaml:5:21 recursive-saga: `a` runs `b` runs `c` runs `a`, and so on for ever"
    );
    // Into a circle, without being in it.
    assert_eq!(
        told(&[runs("a", "b"), runs("b", "c"), runs("c", "b")]).len(),
        3
    );
    // An older version does not count: blocks run the newest one.
    let newer = (
        "b2.yaml".to_owned(),
        leaf.1
            .replace("saga: leaf", "saga: b")
            .replace("version: 1", "version: 2"),
    );
    assert_eq!(told(&[runs("a", "b"), runs("b", "a"), newer]), [""; 0]);
    let chain: Vec<_> = (0..12)
        .map(|n| runs(&format!("n{n}"), &format!("n{}", n + 1)))
        .chain([saga("n12", "  - { step: a, confirm: p.f }")])
        .collect();
    assert_eq!(told(&chain[4..]), [""; 0]);
    assert!(
        told(&chain[3..])[0].contains("deeper than 8"),
        "{:?}",
        told(&chain[3..])
    );
    // A sub-saga that can't be in time.
    let slow = saga(
        "slow",
        "  - { sleep: s, for: 2h }\n  - { step: a, confirm: p.f }",
    );
    let found = told(&[runs("a", "slow"), slow]);
    assert!(
        found[0].starts_with("a.yaml:5:21 deadline: `slow` sleeps for 2h"),
        "{found:?}"
    );
    // Only what can be read is judged: the missing one may be in the broken file.
    let broken = ("leaf.yaml".to_owned(), "saga: [".to_owned());
    assert_eq!(told(&[runs("a", "leaf"), broken]).len(), 1);
}

#[test]
fn a_web_of_sagas_is_judged_quickly() {
    let files: Vec<(String, String)> = (0..30)
        .map(|level| {
            let deeper = (level + 1..30).take(6);
            let mut blocks = "  - { step: a, confirm: p.f }\n".to_owned();
            for other in deeper {
                let block = format!("  - {{ saga: s{other}, run: level{other} }}\n");
                blocks.push_str(&block);
            }
            let source = with_steps(&blocks).replace("saga: test", &format!("saga: level{level}"));
            (format!("level{level}.yaml"), source)
        })
        .collect();
    let started = std::time::Instant::now();
    assert!(parse_all(&files).is_err());
    assert!(
        started.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}
