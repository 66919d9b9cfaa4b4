//! Which replies an expression may use where.

use super::{problems, rules, with_steps};

/// `a`, then `b` beside `c` (for each item), then `d`, then the confirm-only `late` and `later`;
/// `maybe` has a condition. Capitals stand for what a case puts there.
const STEPS: &str = r#"
  - { step: a, reserve: p.r, compensate: p.c, with: "${ A }" }
  - parallel:
      - { step: b, reserve: p.r, compensate: p.c, with: "${ B }" }
      - { step: c-c, reserve: p.r, compensate: p.c, for_each: "${ L }", with: "${ C }", when: "${ CW }" }
  - { step: maybe, reserve: p.r, compensate: p.c, when: "${ input.x }" }
  - { step: d, reserve: p.r, compensate: p.c, with: "${ D }", when: "${ DW }" }
  - { step: late, confirm: p.f, with: "${ LATE }", when: "${ LATEW }" }
  - { step: later, confirm: p.f, with: "${ LATER }" }
"#;

fn at(place: &str, expression: &str) -> Vec<(String, String)> {
    let mut steps = STEPS.to_owned();
    for other in [
        "A", "B", "L", "C", "CW", "D", "DW", "LATE", "LATEW", "LATER",
    ] {
        // A text of its own for each place: equal conditions guard one another.
        let own = format!("input.{other}");
        let text = if other == place { expression } else { &own };
        let text = text.replace('"', "'");
        steps = steps.replace(&format!("${{ {other} }}"), &format!("${{ {text} }}"));
    }
    problems(&with_steps(&steps))
}

#[test]
fn a_reply_is_only_used_where_the_step_has_surely_had_its_turn() {
    let cases = [
        ("B", "steps.a.id", ""),
        ("D", "steps.b.id", ""),
        ("D", r#"steps["c-c"][0].id"#, ""),
        ("D", r#"size(steps["c-c"])"#, ""),
        ("L", "steps.a.items", ""),
        ("CW", "item.id == steps.a.id", ""),
        ("DW", "steps.a.id > 1", ""),
        ("LATE", "has(steps.d) ? steps.d.id : steps.a.id", ""),
        ("LATER", "has(steps.late) ? steps.late.id : 0", ""),
        ("C", "item.id", ""),
        ("A", "steps.a.id", "its own reply"),
        ("CW", r#"steps["c-c"]"#, "its own reply"),
        ("L", r#"steps["c-c"]"#, "its own reply"),
        ("A", "steps.b.id", "runs after this"),
        ("A", "1 + steps.b.id", "runs after this"),
        ("B", r#"steps["c-c"]"#, "at the same time"),
        ("C", "steps.b.id", "at the same time"),
        ("D", "steps.late.id", "at the end"),
        ("LATEW", "steps.later.id", "after this"),
        ("LATE", "steps.later.id", "runs after this"),
        ("D", "steps.x.id", "there is no step `x`"),
        ("D", "steps.c.id", "a name with dashes is written"),
        ("B", "item.id", "no `item` here"),
        ("L", "item.id", "its list must come from elsewhere"),
        ("D", "[1].map(i, item.id)", "no `item` here"),
        ("D", "steps", "name the step"),
        ("D", "steps[input.x]", "name the step"),
        ("D", "size(steps)", "name the step"),
        ("D", "saga.ID", "did you mean `id`"),
        ("D", "saga.id + saga.key + saga.started_at", ""),
    ];
    for (place, expression, expected) in cases {
        let found = at(place, expression);
        match expected {
            "" => assert_eq!(found, [], "{place}: {expression}"),
            text => {
                assert_eq!(found.len(), 1, "{place}: {expression}: {found:?}");
                assert!(
                    found[0].1.contains(text),
                    "{place}: {expression}: {found:?}"
                );
            }
        }
    }
}

#[test]
fn a_step_that_may_be_skipped_is_asked_about_first() {
    let cases = [
        ("D", "steps.maybe.id", false),
        ("DW", "steps.maybe.id == 1", false),
        ("LATE", "1 + steps.maybe.id", false),
        ("D", "has(steps.maybe) ? steps.maybe.id : 0", true),
        ("D", "'maybe' in steps ? steps.maybe.id : 0", true),
        ("DW", "has(steps.maybe) && steps.maybe.id == 1", true),
        ("DW", "steps.maybe.id == 1 && has(steps.maybe)", true),
        ("DW", "!has(steps.maybe) || steps.maybe.id == 1", true),
        ("D", "!has(steps.maybe) ? 0 : steps.maybe.id", true),
        ("D", "has(steps.maybe) == false ? 0 : steps.maybe.id", true),
        (
            "D",
            "has(steps.maybe) && input.x ? steps.maybe.id : 0",
            true,
        ),
        (
            "D",
            "input.x ? (has(steps.maybe) ? steps.maybe.id : 1) : 2",
            true,
        ),
        (
            "D",
            "(has(steps.maybe) ? input.x : false) ? steps.maybe.id : 0",
            true,
        ),
        // Asked, but not where it counts.
        ("D", "[has(steps.maybe), steps.maybe.id]", false),
        (
            "D",
            "has(steps.maybe) || input.x ? steps.maybe.id : 0",
            false,
        ),
        ("D", "has(steps.maybe) ? 0 : steps.maybe.id", false),
        ("D", "!has(steps.maybe) ? steps.maybe.id : 0", false),
        ("DW", "!has(steps.maybe) && steps.maybe.id == 1", false),
        // Each item of a for_each has its own `when`; the list is always there.
        ("D", r#"steps["c-c"]"#, true),
    ];
    for (place, expression, accepted) in cases {
        let found = at(place, expression);
        assert_eq!(
            found.is_empty(),
            accepted,
            "{place}: {expression}: {found:?}"
        );
    }
    // Under the same condition, or one that asks, it is there.
    let guarded = |when: &str| {
        rules(&with_steps(&format!(
            r#"
  - {{ step: maybe, reserve: p.r, compensate: p.c, when: "${{ input.x }}" }}
  - {{ step: user, confirm: p.f, when: "${{ {when} }}", with: "${{ steps.maybe.id }}" }}
"#
        )))
    };
    assert_eq!(guarded("input.x"), [""; 0]);
    assert_eq!(guarded("has(steps.maybe)"), [""; 0]);
    assert_eq!(guarded("has(steps.maybe) && input.y"), [""; 0]);
    assert_eq!(guarded("has(steps.maybe) || input.y").len(), 1);
    for never in ["!has(steps.maybe)", "!('maybe' in steps) && input.y"] {
        let found = guarded(never);
        assert_eq!(found.len(), 1, "{never}: {found:?}");
        assert!(found[0].ends_with("not-yet-run"), "{never}: {found:?}");
    }
    assert_eq!(guarded("input.y").len(), 1);
}

#[test]
fn a_condition_on_a_group_covers_what_is_in_it() {
    let source = with_steps(
        r#"
  - when: ${ input.x }
    parallel:
      - { step: a, reserve: p.r, compensate: p.c }
  - { step: b, confirm: p.f, with: "${ steps.a.id }" }
"#,
    );
    assert_eq!(rules(&source), ["9:40 may-be-skipped"]);
}
