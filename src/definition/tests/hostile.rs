//! Files written to hang or kill the one who reads them.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{PLACE_ORDER, problems, rules, with_steps};
use crate::definition::{
    BLOCKS_MAX, BlockId, BlockKind, CatchUp, Definition, Every, FOR_EACH_ITEMS_MAX, PROBLEMS_MAX,
    SOURCE_BYTES_MAX, parse,
};
use crate::id::Timestamp;

/// Generous for a loaded machine and an unoptimised build; the attacks take minutes if they work.
const QUICK: Duration = Duration::from_secs(20);

fn refused_quickly(name: &str, source: &str) {
    let started = Instant::now();
    let found = rules(source);
    assert!(!found.is_empty(), "{name} was accepted");
    assert!(
        started.elapsed() < QUICK,
        "{name} took {:?}",
        started.elapsed()
    );
}

fn with_expression(expression: &str) -> String {
    with_steps(&format!(
        "  - step: a\n    confirm: p.f\n    with: ${{ {expression} }}"
    ))
}

#[test]
fn hostile_expressions_are_refused_quickly() {
    let nested_maps = "input.l.map(a, input.l.map(b, input.l.map(c, input.l.map(d, 1))))";
    let cases = [
        ("2,000 terms", "1+".repeat(2_000) + "1"),
        ("400 terms", "1+".repeat(400) + "1"),
        ("100,000 parentheses", "(".repeat(100_000)),
        ("1,000 parentheses", "(".repeat(1_000)),
        (
            "balanced parentheses",
            "(".repeat(400) + "1" + &")".repeat(400),
        ),
        ("brackets", "[".repeat(400) + &"]".repeat(400)),
        (
            "300 negations",
            "!(".repeat(300) + "true" + &")".repeat(300),
        ),
        ("400 minus signs", "-(".repeat(400) + "1" + &")".repeat(400)),
        ("200 conditionals", "true?1:".repeat(140) + "1"),
        ("500 selections", "f()".to_owned() + &".a".repeat(500)),
        ("four nested maps", nested_maps.to_owned()),
        ("comparisons", "1<".repeat(400) + "1"),
        ("a huge column", " ".repeat(900) + "?"),
    ];
    for (name, expression) in cases {
        refused_quickly(name, &with_expression(&expression));
    }
}

#[test]
fn yaml_bombs_are_refused_quickly() {
    let laughs: Vec<String> = (1..12)
        .map(|n| format!("a{n}: &a{n} [{}]\n", format!("*a{}, ", n - 1).repeat(9)))
        .collect();
    let laughs = format!("a0: &a0 [x, x, x, x, x, x, x, x, x]\n{}", laughs.concat());
    let long = "x".repeat(16_000);
    let wide = format!("a: &a \"{long}\"\nb: [{}]", "*a, ".repeat(100_000));
    let cases = [
        ("billion laughs", laughs),
        ("a long text repeated", wide),
        ("deep lists", "[".repeat(50_000)),
        ("deep maps", "{a: ".repeat(50_000)),
        (
            "deep blocks",
            (0..2_000).map(|n| " ".repeat(n) + "a:\n").collect(),
        ),
        ("deep dashes", "- ".repeat(50_000)),
        ("many values", "- 1\n".repeat(200_000)),
        ("too large", "#".repeat(SOURCE_BYTES_MAX + 1)),
        ("an endless key", "a".repeat(900_000)),
        ("a recursive alias", "a: &a [*a]".to_owned()),
        ("control characters", "\u{1b}[31m: \u{7}".to_owned()),
    ];
    for (name, source) in cases {
        refused_quickly(name, &source);
    }
}

#[test]
fn blocks_are_bounded_in_depth_and_number() {
    let mut deep = "  - { step: a, confirm: p.f }".to_owned();
    for _ in 0..17 {
        deep = format!(
            "  - {{ parallel: [ {} ] }}",
            deep.trim_start_matches("  - ")
        );
    }
    let found = problems(&with_steps(&deep));
    assert!(found[0].1.contains("nested deeper than 16"), "{found:?}");

    let many = |count: usize| -> String {
        let steps = (0..count).map(|n| format!("  - {{ step: s{n}, confirm: p.f }}\n"));
        steps.collect::<Vec<_>>().concat()
    };
    // The root is a node too.
    assert_eq!(rules(&with_steps(&many(BLOCKS_MAX - 1))), [""; 0]);
    let found = problems(&with_steps(&many(BLOCKS_MAX + 50)));
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("more than 1000 blocks"), "{found:?}");

    let found = problems(&with_steps(&"  - nonsense\n".repeat(500)));
    assert_eq!(found.len(), PROBLEMS_MAX);
    assert!(found[PROBLEMS_MAX - 1].1.contains("and 400 more"));
}

#[test]
fn files_full_of_loops_and_waits_are_judged_quickly() {
    let loops = "- { step: s, action: p.a, read_only: true, for_each: 10000 }\n".repeat(900);
    let nested = {
        let mut block = "{ sleep: s, for: 3660d, for_each: 10000, sequential: true }".to_owned();
        for _ in 0..3 {
            block = format!("{{ steps: [ {block} ], for_each: 10000, sequential: true }}");
        }
        format!("- {block}\n")
    };
    let leases: Vec<String> = (0..900)
        .map(|n| format!("- {{ step: s{n}, reserve: p.r, compensate: p.c, expires_in: 1s, retry: {{ attempts: 1000 }} }}\n"))
        .collect();
    let references: Vec<String> = (0..900)
        .map(|n| {
            let used: Vec<String> = (1..20).map(|back| format!("steps.s{}", n + back)).collect();
            format!(
                "- {{ step: s{n}, confirm: p.f, with: \"${{ {} }}\" }}\n",
                used.join("+")
            )
        })
        .collect();
    let schedules = "0-59 ".repeat(10_000);
    let schedule = format!("start: {{ every: \"{schedules}\" }}\n");
    refused_quickly("loops", &with_steps(&loops));
    refused_quickly("nested loops", &with_steps(&nested));
    refused_quickly("leases", &with_steps(&leases.concat()));
    refused_quickly("references", &with_steps(&references.concat()));
    refused_quickly(
        "schedule",
        &(schedule + &with_steps("- { step: a, confirm: p.f }")),
    );
}

#[test]
fn problems_show_no_control_characters() {
    let source = with_steps("  - { step: \"a\\u001b[31m\", confirm: p.f }\n  - \"\u{9b}31m\"");
    let shown = parse(&source, "bad\u{1b}.yaml").unwrap_err().to_string();
    assert!(
        shown.chars().all(|c| c == '\n' || !c.is_control()),
        "{shown:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn mutated_definitions_never_panic(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), "[ -~\u{e4}\n]{0,6}|\\$\\{|\\}|\\[|&a|\\*a|<<: |- |\"|'"), 1..6),
    ) {
        let mut text: Vec<char> = PLACE_ORDER.chars().collect();
        for (from, length, replacement) in cuts {
            let from = from.index(text.len().max(1)).min(text.len());
            let until = (from + length.index(12)).min(text.len());
            text.splice(from..until, replacement.chars());
        }
        let source: String = text.into_iter().collect();
        check_problems(&source);
    }

    #[test]
    fn arbitrary_blocks_never_panic_and_become_a_tree_in_preorder(blocks in blocks()) {
        let source = with_steps(&blocks);
        check_problems(&source);
        if let Ok(definition) = parse(&source, "x.yaml") {
            check_tree(&definition);
        }
    }

    #[test]
    fn arbitrary_schedules_never_panic(
        fields in prop::collection::vec("[0-9*/,L#W-]{1,5}|\\*|[A-Z]{3}", 4..7),
        after in -400_000_000_000_000_000_i64..400_000_000_000_000_000,
    ) {
        let every = Every {
            schedule: fields.join(" "),
            timezone: "Europe/Berlin".to_owned(),
            catch_up: CatchUp::Last,
            with: None,
        };
        let after = Timestamp::from_micros(after);
        if let Some(next) = every.next_after(after) {
            prop_assert!(next > after);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(source in "(?s).{0,200}") {
        check_problems(&source);
    }

    #[test]
    fn arbitrary_expressions_never_panic(
        tokens in prop::collection::vec(prop::sample::select(TOKENS), 0..24),
    ) {
        check_problems(&with_expression(&tokens.concat()));
    }
}

/// A list of blocks, two levels deep, of any kind and with any modifiers; names may clash and
/// references be wrong.
fn blocks() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "step: NAME, reserve: p.r, compensate: p.c",
        "step: NAME, reserve: p.r, compensate: p.c, expires_in: 15m",
        "step: NAME, action: p.a, read_only: true, on_reject: continue",
        "step: NAME, confirm: p.f, with: \"${ steps.a }\"",
        "wait: NAME, timeout: 1d, on_timeout: continue",
        "wait: NAME, signal: go, match: \"${ signal.x == 1 }\", timeout: none",
        "sleep: NAME, for: 3d",
        "sleep: NAME, until: \"${ input.at }\"",
        "saga: NAME, run: other",
    ]);
    let modifiers = prop::collection::vec(
        prop::sample::select(vec![
            "when: \"${ has(steps.b) }\"",
            "for_each: \"${ input.list }\"",
            "for_each: 3",
            "sequential: true",
            "until: \"${ has(steps.c) }\"",
            "at_most: 5",
            "pivot: true",
        ]),
        0..4,
    );
    let name = prop::sample::select(vec!["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]);
    let block = (leaf, name, modifiers).prop_map(|(leaf, name, modifiers)| {
        let leaf = leaf.replace("NAME", name);
        let fields = std::iter::once(leaf.as_str()).chain(modifiers);
        format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
    });
    let tree = block.prop_recursive(2, 8, 3, |inner| {
        let group = prop::sample::select(vec!["steps", "parallel"]);
        let more = prop::sample::select(vec![
            "",
            ", for_each: 2",
            ", until: \"${ has(steps.c) }\", at_most: 2",
            ", pivot: true",
        ]);
        (group, prop::collection::vec(inner, 1..4), more).prop_map(|(group, blocks, more)| {
            format!("{{ {group}: [ {} ]{more} }}", blocks.join(", "))
        })
    });
    prop::collection::vec(tree, 1..5).prop_map(|blocks| {
        let lines: Vec<String> = blocks
            .iter()
            .map(|block| format!("  - {block}\n"))
            .collect();
        lines.concat()
    })
}

/// Parents and children name one another, and numbers are given out in the order of the file.
fn check_tree(definition: &Definition) {
    for node in &definition.blocks {
        let children: Vec<BlockId> = match &node.kind {
            BlockKind::Sequence(children) | BlockKind::Parallel(children) => children.clone(),
            BlockKind::ForEach { body, at_most, .. } => {
                assert!((1..=FOR_EACH_ITEMS_MAX).contains(at_most));
                vec![*body]
            }
            _ => Vec::new(),
        };
        for (position, child) in children.iter().enumerate() {
            let child = definition.block(*child);
            assert_eq!((child.parent, child.position), (Some(node.id), position));
            assert!(child.id > node.id);
        }
        assert_eq!(node.parent.is_none(), node.id == Definition::ROOT);
        assert!(!node.pivot || node.parent == Some(Definition::ROOT));
    }
    assert!(definition.blocks.iter().filter(|node| node.pivot).count() <= 1);
}

const TOKENS: &[&str] = &[
    "signal",
    "event",
    "tick",
    "input",
    "steps",
    ".a",
    "[0]",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "1",
    "-1u",
    "1.5",
    "'x'",
    "\"",
    "+",
    " in ",
    "?",
    ":",
    ",",
    "&&",
    "!",
    "==",
    ".map(x, ",
    ".all(",
    "has(",
    "size(",
    ".matches(",
    "b'\\x'",
    "\\",
    "item",
    "//",
    "r'",
    "9223372036854775808",
    "`",
    "@",
    "optional.of(",
    "\u{e4}",
];

/// Whatever the text: no panic (which would be reported as our failure), and places that exist.
fn check_problems(source: &str) {
    let Err(problems) = parse(source, "x.yaml") else {
        return;
    };
    assert!(!problems.0.is_empty());
    for problem in &problems.0 {
        assert_ne!(problem.code.as_str(), "internal", "{problem}\n{source}");
        assert!(problem.line >= 1 && problem.column >= 1, "{problem}");
    }
    drop(problems.to_string());
}
