//! When expressions are computed, and what it means that one fails.

use super::*;

fn run(yaml: &str, input: Value) -> (Story, Vec<String>) {
    let yaml = format!("saga: s\nversion: 1\nkey: ${{ input.id }}\ntimeout: 30d\n{yaml}");
    Story::begin(&yaml, input)
}

#[test]
fn of_a_block_that_does_not_run_nothing_is_computed() {
    let cases = [
        (
            "a step before the pivot",
            "{ step: a, when: '${ has(input.gift) }', with: { t: '${ input.gift.text }' }, action: p.a, compensate: p.b }",
        ),
        (
            "a step behind the pivot",
            "{ step: a, when: '${ has(input.gift) }', with: { t: '${ input.gift.text }' }, confirm: p.a }",
        ),
        (
            "each item of a loop",
            "{ step: a, for_each: '${ input.lines }', when: '${ item != null }', with: { t: '${ item.text }' }, confirm: p.a }",
        ),
        (
            "another saga",
            "{ saga: a, run: other, when: '${ has(input.gift) }', with: { t: '${ input.gift.text }' } }",
        ),
        (
            "a wait's timeout",
            "{ wait: a, when: '${ has(input.gift) }', timeout: '${ input.gift.days }' }",
        ),
        (
            "a sleep",
            "{ sleep: a, when: '${ has(input.gift) }', for: '${ input.gift.days }' }",
        ),
        (
            "a loop in a group",
            "{ steps: [ { step: a, for_each: '${ input.gift.parts }', confirm: p.a } ], when: '${ has(input.gift) }' }",
        ),
        (
            "a step in a group in a parallel",
            "{ parallel: [ { steps: [ { step: a, with: { t: '${ input.gift.text }' }, action: p.a, compensate: p.b } ] } ], when: '${ has(input.gift) }' }",
        ),
    ];
    for (name, block) in cases {
        let (story, sent) = run(
            &format!("steps:\n  - {block}"),
            json!({ "id": "i", "lines": [null, null] }),
        );
        assert!(sent.is_empty(), "{name}: {sent:?}");
        let ended = (story.saga.status(), story.reason());
        assert_eq!(ended, (Status::Completed, String::new()), "{name}");
    }
}

#[test]
fn a_wait_that_went_on_without_leaves_what_asks_for_it_alone() {
    let steps = "
steps:
  - { step: hold, reserve: p.hold, confirm: p.keep, compensate: p.free }
  - { wait: money, timeout: 14d, on_timeout: continue }
  - { step: thank, when: '${ has(steps.money) }', with: { amount: '${ steps.money.amount }' }, confirm: p.thank }
";
    let (mut story, _) = run(steps, json!({ "id": "i" }));
    story.yes("hold reserve");
    assert_eq!(story.wake(), ["hold confirm#1"]);
    assert!(story.yes("hold confirm").is_empty());
    assert_eq!(story.saga.status(), Status::Completed);
    assert_eq!(story.step("thank"), StepStatus::Skipped);
}

#[test]
fn the_answer_of_a_when_stands_in_later_passes() {
    // `late` has a reply only in the confirm pass: asked again there, the group would be left out.
    let steps = "
steps:
  - { wait: go, timeout: 1h, on_timeout: continue }
  - steps:
      - { step: hold, reserve: p.hold, confirm: p.keep, compensate: p.free }
      - { step: late, confirm: p.late }
    when: ${ !has(steps.go) && input.n > 0 }
  - { sleep: rest, when: '${ input.n > 0 }', for: '${ input.n }' }
  - { step: card, action: p.card, compensate: p.void, pivot: true }
  - { step: last, action: p.last }
";
    let (mut story, _) = run(steps, json!({ "id": "i", "n": 1 }));
    assert_eq!(story.wake(), ["hold reserve#1"]);
    story.yes("hold reserve");
    assert_eq!(story.wake(), ["card action#1"]);
    assert_eq!(story.yes("card action"), ["hold confirm#1"]);
    assert_eq!(story.yes("hold confirm"), ["late confirm#1"]);
    assert_eq!(story.yes("late confirm"), ["last action#1"]);
    let asked = |event: &&Event| matches!(event, Event::Waiting { .. } | Event::Skipped { .. });
    assert_eq!(story.journal.iter().filter(asked).count(), 2);
    story.yes("last action");
    assert_eq!(story.saga.status(), Status::Completed);
}

#[test]
fn an_output_that_fails_is_said_and_the_saga_is_completed() {
    let steps = "
steps:
  - { step: a, reserve: p.a, confirm: p.b, compensate: p.c }
output: { n: '${ steps.a.number }' }
";
    let mut story = Story::unstarted(&format!(
        "saga: s\nversion: 1\nkey: ${{ input.id }}\ntimeout: 30d\n{steps}"
    ));
    let starter = Some(Starter {
        reply_to: "q".into(),
        correlation_id: None,
    });
    let input = Arc::new(json!({ "id": "i" }));
    story.tell(Input::Start { input, starter }).unwrap();
    story.yes("a reserve");
    let reply = Reply {
        step: StepPath::plain("a"),
        phase: crate::id::Phase::Confirm,
        outcome: Outcome::Succeeded,
        stated: true,
        body: Arc::default(),
        reason: None,
    };
    let decision = decide(
        &story.definition,
        &mut story.saga,
        Input::Reply(reply),
        story.now,
    )
    .unwrap();
    assert_eq!(story.saga.status(), Status::Completed);
    assert_eq!(story.saga.output.as_deref(), Some(&Value::Null));
    let why = "its output can't be computed: ${ steps.a.number }: `steps.a` has no field `number`";
    assert_eq!(story.reason(), why);
    let told: Vec<(&str, &Value, Option<&str>)> = decision
        .emissions
        .iter()
        .filter_map(|send| match send {
            Emission::Answer {
                kind, body, reason, ..
            } => Some((*kind, body, reason.as_deref())),
            Emission::Notice { change, body } => Some((*change, body, Some(why))),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 2);
    for (change, body, reason) in told {
        assert_eq!((change, reason), ("completed", Some(why)));
        assert_eq!(body["output"], Value::Null);
        let error = body["output_error"].as_str().unwrap();
        assert!(error.contains("has no field `number`"), "{error}");
    }
}

#[test]
fn a_match_that_fails_is_said_where_the_wait_stands() {
    let steps = "
steps:
  - { wait: paid, match: '${ signal.amount >= input.total }', timeout: 3d }
";
    let signal = |id: &str, body: Value| {
        Input::Signal(Signal {
            name: "paid".into(),
            id: id.into(),
            body: Arc::new(body),
            at: None,
        })
    };
    let input = json!({ "id": "i", "total": 10 });
    let (mut story, _) = run(steps, input.clone());
    story.tell(signal("s1", json!({ "sum": 12 }))).unwrap();
    let path = StepPath::plain("paid");
    let reason = story.saga.steps[&path].reason.clone().unwrap();
    assert!(reason.contains("`amount`"), "{reason}");
    assert_eq!(story.saga.status(), Status::Running, "it waits on");
    story.tell(signal("s2", json!({ "sum": 13 }))).unwrap();
    let unjudged = |event: &&Event| matches!(event, Event::Unjudged { .. });
    assert_eq!(
        story.journal.iter().filter(unjudged).count(),
        1,
        "once a reason"
    );
    story.wake();
    assert_eq!(story.saga.status(), Status::Compensated);
    let expected =
        "paid: no signal `paid` came in time that `match` could judge; of one that came: ";
    assert!(story.reason().starts_with(expected), "{}", story.reason());

    let (mut story, _) = run(steps, input);
    story.tell(signal("s1", json!({ "sum": 12 }))).unwrap();
    story.tell(signal("s2", json!({ "amount": 10.5 }))).unwrap();
    assert_eq!(story.saga.status(), Status::Completed);
    assert_eq!(story.saga.steps[&path].reason, None);
}
