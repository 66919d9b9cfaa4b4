//! The tree that blocks and their modifiers become.

use std::time::Duration;

use super::*;
use crate::definition::{CatchUp, ConflictRule, Delay, OnReject, OnTimeout};

/// One line a node: its kind and what it says, indented by depth.
fn tree(definition: &Definition) -> Vec<String> {
    let depth = |id: BlockId| {
        std::iter::successors(definition.block(id).parent, |id| {
            definition.block(*id).parent
        })
        .count()
    };
    let line = |node: &Block| {
        let text = match &node.kind {
            BlockKind::Sequence(_) => "steps".to_owned(),
            BlockKind::Parallel(_) => "parallel".to_owned(),
            BlockKind::ForEach {
                items,
                sequential,
                until,
                at_most,
                ..
            } => {
                let until = until.as_ref().map(|until| until.source.as_str());
                format!("each {} {sequential} {until:?} {at_most}", items.source)
            }
            BlockKind::Step(step) => format!("step {}", step.name),
            BlockKind::Wait(wait) => format!("wait {} for {}", wait.name, wait.signal),
            BlockKind::Sleep(sleep) => format!("sleep {}", sleep.name),
            BlockKind::Saga(saga) => format!("saga {} runs {}", saga.name, saga.saga),
        };
        let pivot = if node.pivot { " PIVOT" } else { "" };
        format!("{}{text}{pivot}", " ".repeat(depth(node.id)))
    };
    definition.blocks.iter().map(line).collect()
}

fn parsed(steps: &str) -> Definition {
    let source = format!("timeout: 60d\n{}", with_steps(steps));
    parse(&source, "x.yaml").unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn every_kind_of_block_becomes_a_node_and_every_loop_one_around_it() {
    let definition = parsed(
        r#"
  - steps:
      - { step: a, action: p.a, read_only: true }
      - { wait: b, timeout: 1d }
    for_each: ${ input.list }
    sequential: true
    until: ${ has(steps.b) }
    at_most: 7
  - { sleep: c, for: 2w, for_each: 3 }
  - parallel:
      - { saga: d, run: other, with: { x: 1 } }
      - { wait: e, signal: go, timeout: none }
    pivot: true
  - { step: f, action: p.a, until: "${ steps.f.done }", at_most: 4 }
  - { step: g, action: p.a, for_each: "${ input.list }" }
"#,
    );
    let expected = [
        "steps",
        " each input.list true Some(\"has(steps.b)\") 7",
        "  steps",
        "   step a",
        "   wait b for b",
        " each 3 false None 3",
        "  sleep c",
        " parallel PIVOT",
        "  saga d runs other",
        "  wait e for go",
        " each 4 true Some(\"steps.f.done\") 4",
        "  step f",
        " each input.list false None 10000",
        "  step g",
    ];
    assert_eq!(tree(&definition), expected);
    let names: Vec<&str> = definition.steps.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "f", "g"]);
    assert!(matches!(
        definition.named("d").map(|node| &node.kind),
        Some(BlockKind::Saga(_))
    ));
    assert!(definition.step("e").is_none());
}

fn scope<'v>(name: &'static str, given: &'v Value) -> EvaluationScope<'v> {
    EvaluationScope {
        input: &Value::Null,
        steps: &(),
        item: None,
        given: Some((name, given)),
        saga: None,
    }
}

#[test]
fn a_wait_says_for_what_how_long_and_what_then() {
    let definition = parsed(
        r#"
  - wait: money
    signal: paid
    match: ${ signal.amount >= input.total }
    on: { exchange: bank, routing_key: "transfer.#", key: "${ event.ref }", with: { amount: "${ event.cents }" } }
    timeout: ${ input.days * 86400 }
    on_timeout: continue
  - { wait: word }
  - { sleep: rest, until: "${ input.at }" }
"#,
    );
    let wait = |name: &str| match &definition.named(name).unwrap().kind {
        BlockKind::Wait(wait) => wait,
        other => panic!("{other:?}"),
    };
    let money = wait("money");
    assert_eq!(money.signal, "paid");
    assert_eq!(money.on_timeout, OnTimeout::Continue);
    assert!(matches!(money.timeout, Some(Delay::Computed(_))));
    let event = json!({ "ref": "o-1", "cents": 5 });
    let on = money.on.as_ref().unwrap();
    let key = on.key.as_ref().unwrap().render(&scope("event", &event));
    assert_eq!(key, Ok(json!("o-1")));
    let payload = on.with.as_ref().unwrap().render(&scope("event", &event));
    assert_eq!(payload, Ok(json!({ "amount": 5 })));
    let input = json!({ "total": 5 });
    let matches = |amount: i64| {
        let signal = json!({ "amount": amount });
        let scope = EvaluationScope {
            input: &input,
            ..scope("signal", &signal)
        };
        money.matching.as_ref().unwrap().evaluate(&scope)
    };
    assert_eq!(matches(5), Ok(json!(true)));
    assert_eq!(matches(4), Ok(json!(false)));

    assert!(wait("word").timeout.is_none());
    assert_eq!(wait("word").on_timeout, OnTimeout::Fail);
}

#[test]
fn what_is_given_elsewhere_is_not_known_here() {
    let definition = parsed("  - { wait: a, match: \"${ (signal.x) == 1 }\" }");
    let BlockKind::Wait(wait) = &definition.named("a").unwrap().kind else {
        panic!("not a wait");
    };
    let value = json!({ "x": 1 });
    let matching = wait.matching.as_ref().unwrap();
    let error = matching.evaluate(&scope("event", &value)).unwrap_err();
    assert_eq!(error.why, "there is no `signal` here");
}

#[test]
fn defaults_hold_for_steps_that_do_not_say_it_themselves() {
    let source = with_steps(
        "
  - { step: a, confirm: p.f }
  - { step: b, confirm: p.f, timeout: 1s, retry: { attempts: 9 }, suspend_after: 2 }
  - { saga: c, run: other }",
    );
    let source = format!(
        "defaults: {{ timeout: 7s, retry: {{ attempts: 3, first: 1m }}, suspend_after: 40 }}\n{source}"
    );
    let definition = parse(&source, "x").unwrap();
    let a = definition.step("a").unwrap();
    assert_eq!((a.timeout, a.suspend_after), (Duration::from_secs(7), 40));
    assert_eq!(a.retry.attempts, 3);
    assert_eq!(
        (a.retry.first, a.retry.max),
        (Duration::from_mins(1), Duration::from_mins(1))
    );
    let b = definition.step("b").unwrap();
    assert_eq!((b.timeout, b.suspend_after), (Duration::from_secs(1), 2));
    assert_eq!(
        (b.retry.attempts, b.retry.first),
        (9, Duration::from_mins(1))
    );
    let BlockKind::Saga(c) = &definition.named("c").unwrap().kind else {
        panic!("not a saga");
    };
    assert_eq!(
        (c.timeout, c.step.suspend_after),
        (SUB_SAGA_TIMEOUT_DEFAULT, 40)
    );
    assert_eq!(c.step.timeout * SUB_SAGA_ASKS, c.timeout);
}

#[test]
fn a_step_says_what_a_rejection_means_and_how_long_it_holds() {
    let definition = parsed(
        "
  - { step: a, reserve: p.r, compensate: p.c, on_reject: continue, expires_in: 90d }
  - { step: b, reserve: p.r, compensate: p.c }",
    );
    let step = |name| {
        definition
            .step(name)
            .map(|step| (step.on_reject, step.expires_in))
    };
    let held = Some(Duration::from_hours(90 * 24));
    assert_eq!(step("a"), Some((OnReject::Continue, held)));
    assert_eq!(step("b"), Some((OnReject::RollBack, None)));
}

#[test]
fn start_rules_say_by_what_and_when_and_what_a_second_start_does() {
    let source = with_steps("  - { step: a, confirm: p.f }").replace(
        "key: ${ input.id }",
        r##"key: ${ input.tick }
start:
  on:
    - { exchange: shop, routing_key: "order.*" }
    - { exchange: backstitch.events, routing_key: "#", key: "k-${ event.id }", with: { tick: 1 } }
  every: "0 9 1 * *"
  timezone: Europe/Berlin
  catch_up: all
  conflict: restart"##,
    );
    let start = parse(&source, "x")
        .unwrap_or_else(|problems| panic!("{problems}"))
        .start;
    assert_eq!(start.conflict, ConflictRule::Restart);
    let exchanges: Vec<&str> = start.on.iter().map(|on| on.exchange.as_str()).collect();
    assert_eq!(exchanges, ["shop", "backstitch.events"]);
    assert!(start.on[0].key.is_none() && start.on[1].key.is_some());
    let every = start.every.unwrap();
    assert_eq!(
        (every.catch_up, every.timezone.as_str()),
        (CatchUp::All, "Europe/Berlin")
    );
    let tick = every.next_after("2026-05-05T00:00:00Z".parse().unwrap());
    assert_eq!(tick.unwrap().to_string(), "2026-06-01T07:00:00Z");

    let one = source.replace("    - { exchange: shop, routing_key: \"order.*\" }\n", "");
    assert_eq!(parse(&one, "x").unwrap().start.on.len(), 1);
    let none = parse(&with_steps("  - { step: a, confirm: p.f }"), "x").unwrap();
    assert!(none.start.on.is_empty() && none.start.every.is_none());
    assert_eq!(none.start.conflict, ConflictRule::Existing);
}
