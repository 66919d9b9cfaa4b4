//! What only the whole tree shows: the pivot, loops, sizes, and who may use what.

use super::{problems, rules, with_steps};

/// Each case is a few blocks after a head (fields separated by `|`), and the rules they break, by
/// line (counted from the first block) and code.
#[track_caller]
pub(super) fn check(cases: &[(&str, &str, &[&str])]) {
    for (head, blocks, expected) in cases {
        let head = head.replace('|', "\n");
        let head_lines = 4 + head.lines().count();
        let head = if head.is_empty() { head } else { head + "\n" };
        let source = format!("{head}{}", with_steps(blocks));
        let found: Vec<String> = rules(&source)
            .iter()
            .filter_map(|found| {
                let (place, rule) = found.split_once(' ')?;
                let line: usize = place.split_once(':')?.0.parse().ok()?;
                Some(format!("{} {rule}", line.saturating_sub(head_lines)))
            })
            .collect();
        assert_eq!(&found, expected, "{source}\n{:#?}", problems(&source));
    }
}

const PIVOT: &str = "- { step: z, reserve: p.r, compensate: p.c, pivot: true }\n";

pub(super) fn behind_pivot(block: &str) -> String {
    format!("{PIVOT}{block}")
}

#[test]
fn behind_the_pivot_nothing_may_fail() {
    let cases: Vec<(&str, &[&str])> = vec![
        ("- { step: a, action: p.a }", &[]),
        ("- { step: a, confirm: p.a }", &[]),
        ("- { sleep: a, for: 3d }", &[]),
        ("- { wait: a, timeout: 3d, on_timeout: continue }", &[]),
        ("- { wait: a, timeout: none }", &[]),
        (
            "- { parallel: [ { step: a, action: p.a }, { step: b, confirm: p.a } ] }",
            &[],
        ),
        (
            "- { step: a, action: p.a, for_each: \"${ input.l }\" }",
            &[],
        ),
        (
            "- { step: a, reserve: p.r, compensate: p.c }",
            &["2 after-pivot", "2 after-pivot"],
        ),
        (
            "- { step: a, action: p.a, compensate: p.c }",
            &["2 after-pivot"],
        ),
        (
            "- { step: a, action: p.a, on_reject: continue }",
            &["2 after-pivot"],
        ),
        (
            "- { steps: [ { parallel: [ { step: a, reserve: p.r } ] } ] }",
            &["2 after-pivot"],
        ),
        ("- { wait: a, timeout: 3d }", &["2 after-pivot"]),
        (
            "- { wait: a, timeout: 3d, on_timeout: fail }",
            &["2 after-pivot"],
        ),
        ("- { wait: a }", &["2 unbounded-wait"]),
        ("- { saga: a, run: other }", &["2 after-pivot"]),
        ("- { step: a }", &["2 missing-field"]),
    ];
    for (block, expected) in cases {
        check(&[("timeout: 10d", &behind_pivot(block), expected)]);
    }
}

#[test]
fn there_is_one_pivot_and_it_stands_in_the_root_sequence() {
    check(&[
        (
            "",
            "- { step: a, action: p.a, compensate: p.c, pivot: true }",
            &[],
        ),
        (
            "",
            "- { step: a, action: p.a, compensate: p.c, pivot: false }",
            &[],
        ),
        (
            "",
            "- { step: a, action: p.a, compensate: p.c, pivot: true, for_each: 3 }",
            &[],
        ),
        (
            "",
            "- { parallel: [ { step: a, action: p.a, compensate: p.c } ], pivot: true }",
            &[],
        ),
        // The pivot block itself can still fail.
        (
            "",
            "- { step: a, action: p.a, pivot: true }",
            &["1 not-undoable"],
        ),
        (
            "",
            "- { parallel: [ { step: a, action: p.a, compensate: p.c, pivot: true } ] }",
            &["1 bad-pivot"],
        ),
        (
            "",
            "- { steps: [ { step: a, action: p.a, compensate: p.c, pivot: true } ] }",
            &["1 bad-pivot"],
        ),
        (
            "",
            "- { steps: [ { sleep: a, for: 1d, pivot: true } ], for_each: 2 }",
            &["1 bad-pivot"],
        ),
        (
            "",
            &behind_pivot("- { sleep: a, for: 1d, pivot: true }"),
            &["2 bad-pivot"],
        ),
        (
            "",
            "- { step: a, confirm: p.a, pivot: true }",
            &["1 bad-pivot"],
        ),
        (
            "",
            "- { step: a, confirm: p.a, pivot: yes }",
            &["1 wrong-type"],
        ),
    ]);
}

#[test]
fn every_loop_and_every_wait_ends() {
    let block = |more: &str| format!("- {{ step: s, action: p.a, read_only: true, {more} }}");
    let until = "until: \"${ steps.s.done }\"";
    check(&[
        ("", &block(&format!("{until}, at_most: 5")), &[]),
        (
            "",
            &block(&format!("{until}, at_most: 5, sequential: true")),
            &[],
        ),
        (
            "",
            &block(&format!("{until}, for_each: 5, sequential: true")),
            &[],
        ),
        (
            "",
            &block(&format!(
                "{until}, for_each: \"${{ input.n }}\", sequential: true"
            )),
            &[],
        ),
        ("", &block(until), &["1 unbounded-loop"]),
        (
            "",
            &block(&format!("{until}, sequential: true")),
            &["1 unbounded-loop"],
        ),
        (
            "",
            &block(&format!("{until}, for_each: 5")),
            &["1 contradiction"],
        ),
        (
            "",
            &block(&format!("{until}, at_most: 5, sequential: false")),
            &["1 contradiction"],
        ),
        ("", &block("sequential: true"), &["1 contradiction"]),
        ("", &block("at_most: 5"), &["1 contradiction"]),
        ("", &block("for_each: 5, at_most: 4"), &["1 contradiction"]),
        ("", &block("for_each: 0"), &["1 out-of-range"]),
        ("", &block("for_each: 10001"), &["1 out-of-range"]),
        ("", &block("for_each: [1, 2]"), &["1 wrong-type"]),
        ("", &block("for_each: 5, at_most: 0"), &["1 out-of-range"]),
        ("", "- { wait: w }", &["1 unbounded-wait"]),
        ("timeout: 1h", "- { wait: w }", &[]),
        ("", "- { wait: w, timeout: none }", &[]),
        (
            "",
            "- { wait: w, timeout: none, on_timeout: continue }",
            &["1 contradiction"],
        ),
        (
            "",
            "- { wait: w, timeout: 1d, on_timeout: retry }",
            &["1 out-of-range"],
        ),
        (
            "",
            "- { wait: w, timeout: 1d, on: { exchange: x, routing_key: y } }",
            &["1 missing-field"],
        ),
        (
            "",
            "- { wait: w, timeout: 1d, on: { exchange: backstitch.replies, routing_key: y, key: \"${ event.k }\" } }",
            &["1 bad-name"],
        ),
        ("", "- { sleep: w }", &["1 missing-field"]),
        (
            "",
            "- { sleep: w, for: 1d, until: \"${ input.t }\" }",
            &["1 contradiction"],
        ),
        ("", "- { sleep: w, until: tomorrow }", &["1 bad-expression"]),
    ]);
}

#[test]
fn a_saga_has_a_bounded_number_of_steps() {
    let nested = |outer: &str, inner: &str| {
        format!(
            "- for_each: ${{ input.l }}\n  {outer}\n  parallel:\n  - {{ step: s, confirm: p.f, for_each: \"${{ item.l }}\", {inner} }}"
        )
    };
    check(&[
        ("", &nested("at_most: 1000", "at_most: 100"), &[]),
        (
            "",
            &nested("at_most: 1000", "at_most: 101"),
            &["4 too-large"],
        ),
        (
            "",
            &nested("when: \"${ true }\"", "timeout: 1s"),
            &["4 too-large"],
        ),
    ]);
    let mut deep = "{ step: s, confirm: p.f, for_each: 2 }".to_owned();
    for _ in 0..4 {
        deep = format!("{{ steps: [ {deep} ], for_each: 2 }}");
    }
    check(&[("", &format!("- {deep}"), &["1 too-large"])]);
}

#[test]
fn replies_are_used_only_where_they_are() {
    let use_of = |text: &str| format!("- {{ step: u, confirm: p.f, with: \"${{ {text} }}\" }}");
    let wait = "- { wait: w, timeout: 1d, on_timeout: continue }\n";
    let surely = "- { wait: w, timeout: 1d }\n";
    let rejected = "- { step: r, action: p.a, read_only: true, on_reject: continue }\n";
    let in_loop = |text: &str| {
        format!(
            "- for_each: ${{ input.l }}\n  sequential: true\n  steps:\n  - {{ step: a, action: p.a, read_only: true, when: \"${{ item.x }}\" }}\n  - {{ step: b, action: p.a, read_only: true, with: \"${{ {text} }}\" }}\n  - {{ step: c, confirm: p.f }}\n"
        )
    };
    let until = |text: &str| format!("{}  until: ${{ {text} }}", in_loop("1"));
    check(&[
        (
            "",
            &format!("{wait}{}", use_of("steps.w")),
            &["2 may-be-skipped"],
        ),
        (
            "",
            &format!("{wait}{}", use_of("has(steps.w) ? steps.w : 0")),
            &[],
        ),
        ("", &format!("{surely}{}", use_of("steps.w")), &[]),
        (
            "",
            &format!("{rejected}{}", use_of("steps.r")),
            &["2 may-be-skipped"],
        ),
        (
            "",
            &format!("{rejected}{}", use_of("has(steps.r) ? steps.r : 0")),
            &[],
        ),
        (
            "",
            &format!("- {{ sleep: w, for: 1d }}\n{}", use_of("steps.w")),
            &["2 unknown-reference"],
        ),
        // In one item it may be missing; the list of all items is always there.
        ("", &in_loop("steps.a"), &["5 may-be-skipped"]),
        ("", &in_loop("has(steps.a) ? steps.a : 0"), &[]),
        ("", &in_loop("steps.c"), &["5 not-yet-run"]),
        ("", &format!("{}{}", in_loop("1"), use_of("steps.a")), &[]),
        ("", &until("has(steps.a)"), &[]),
        ("", &until("steps.b.done && item.last"), &[]),
        ("", &until("steps.a"), &["7 may-be-skipped"]),
        ("", &until("steps.c.done"), &["7 not-yet-run"]),
        // The same words about another item are another condition.
        (
            "",
            "- for_each: ${ input.l }\n  steps:\n  - { step: a, action: p.a, read_only: true, when: \"${ item.x }\" }\n  - { step: b, action: p.a, read_only: true, for_each: \"${ item.m }\", when: \"${ item.x }\", with: \"${ steps.a }\", at_most: 9 }",
            &["4 may-be-skipped"],
        ),
        (
            "",
            "- for_each: ${ input.l }\n  steps:\n  - { step: a, action: p.a, read_only: true, when: \"${ item.x }\" }\n  - { step: b, action: p.a, read_only: true, when: \"${ item.x }\", with: \"${ steps.a }\" }",
            &[],
        ),
        // A group can't ask about what is in it.
        (
            "",
            "- { steps: [ { step: a, confirm: p.f } ], when: \"${ has(steps.a) }\" }",
            &["1 not-yet-run"],
        ),
        // Behind the pivot is after the confirm-only steps before it, and not before it.
        (
            "",
            &behind_pivot("- { step: a, action: p.a, with: \"${ steps.z }\" }"),
            &[],
        ),
        (
            "",
            &format!(
                "- {{ step: l, confirm: p.f }}\n{}",
                behind_pivot("- { step: a, action: p.a, with: \"${ steps.l }\" }")
            ),
            &[],
        ),
        (
            "",
            &format!(
                "- {{ sleep: e, for: \"${{ steps.a.t }}\" }}\n{}",
                behind_pivot("- { step: a, action: p.a }")
            ),
            &["1 not-yet-run"],
        ),
        ("", &use_of("signal.x"), &["1 unknown-reference"]),
        ("", &use_of("event.x"), &["1 unknown-reference"]),
        ("", &use_of("1 + tick"), &["1 unknown-reference"]),
        (
            "",
            "- { wait: w, timeout: 1d, match: \"${ signal.x == input.x && has(steps.w) }\" }",
            &["1 not-yet-run"],
        ),
        (
            "",
            "- { wait: w, timeout: 1d, on: { exchange: x, routing_key: y, key: \"${ input.k }\" } }",
            &["1 unknown-reference"],
        ),
        (
            "",
            "- { wait: w, timeout: 1d, on: { exchange: x, routing_key: y, key: same } }",
            &["1 contradiction"],
        ),
    ]);
}
