//! Loops, sleeps, an early pivot, and going on without.

use super::*;

fn begin(steps: &str, input: Value) -> (Story, Vec<String>) {
    let yaml = format!("saga: s\nversion: 1\nkey: ${{ input.id }}\ntimeout: 30d\nsteps:\n{steps}");
    Story::begin(&yaml, input)
}

const REMINDERS: &str = "
  - for_each: 3
    sequential: true
    until: ${ steps.check.paid }
    steps:
      - step: remind
        with: { number: '${ item }' }
        action: mailer.remind
        compensate: mailer.apologise
      - sleep: patience
        for: 3d
      - step: check
        reserve: invoices.look
        read_only: true
  - step: hand-over
    with: { asked: '${ steps.remind }' }
    action: collection.take
    compensate: collection.give-back
";

#[test]
fn a_sequential_loop_goes_on_until_it_is_enough() {
    let (mut story, sent) = begin(REMINDERS, json!({ "id": "i" }));
    assert_eq!(sent, ["remind[0] action#1"]);
    assert!(story.yes("remind[0] action").is_empty(), "it sleeps");
    let before = story.now;
    assert_eq!(story.wake(), ["check[0] reserve#1"]);
    assert_eq!(story.now.since(before), Duration::from_hours(72));
    let open = json!({ "paid": false });
    let sent = story.answer_with("check[0] reserve", Outcome::Succeeded, open);
    assert_eq!(sent.unwrap(), ["remind[1] action#1"]);
    story.yes("remind[1] action");
    story.wake();
    let paid = json!({ "paid": true });
    let sent = story.answer_with("check[1] reserve", Outcome::Succeeded, paid);
    assert_eq!(
        sent.unwrap(),
        ["hand-over action#1"],
        "the third is not begun"
    );
    let with = story.saga.steps[&StepPath::plain("hand-over")].with.clone();
    assert_eq!(
        with.unwrap()["asked"],
        json!([{ "amount": 7 }, { "amount": 7 }])
    );
}

#[test]
fn a_sequential_loop_is_unwound_from_its_last_item() {
    let (mut story, _) = begin(REMINDERS, json!({ "id": "i" }));
    for round in 0..2 {
        story.yes(&format!("remind[{round}] action"));
        story.wake();
        let open = json!({ "paid": false });
        let check = format!("check[{round}] reserve");
        story.answer_with(&check, Outcome::Succeeded, open).unwrap();
    }
    assert_eq!(story.no("remind[2] action"), ["remind[1] compensate#1"]);
    assert_eq!(
        story.yes("remind[1] compensate"),
        ["remind[0] compensate#1"]
    );
    story.yes("remind[0] compensate");
    assert_eq!(story.saga.status(), Status::Compensated);
}

#[test]
fn a_sleep_ends_with_its_saga() {
    let steps = "
  - parallel:
      - sleep: nap
        for: 1d
      - step: a
        reserve: x.a
        compensate: x.b
";
    let (mut story, _) = begin(steps, json!({ "id": "i" }));
    assert_eq!(story.step("nap"), StepStatus::Waiting);
    story.no("a reserve");
    assert_eq!(story.saga.status(), Status::Compensated);
    assert_eq!(story.saga.wake_at(), None);
}

#[test]
fn behind_an_early_pivot_a_saga_is_only_driven_forward() {
    let steps = "
  - step: hold
    reserve: x.hold
    confirm: x.keep
    compensate: x.free
    pivot: true
  - step: tell
    action: y.tell
    suspend_after: 1
  - step: last
    confirm: z.last
";
    let (mut story, _) = begin(steps, json!({ "id": "i" }));
    assert_eq!(story.yes("hold reserve"), ["hold confirm#1"]);
    assert_eq!(story.saga.status(), Status::Confirming);
    let cancel = story.tell(operator("a", OperatorKind::Cancel));
    assert!(matches!(cancel, Err(Refusal::NotPossible(_))));
    assert_eq!(story.yes("hold confirm"), ["tell action#1"]);
    assert!(
        story.no("tell action").is_empty(),
        "nothing may be refused any more"
    );
    assert_eq!(story.saga.status(), Status::Suspended);
    assert_eq!(
        story.tell(operator("b", OperatorKind::Resume)).unwrap(),
        ["tell action#1"]
    );
    assert_eq!(story.yes("tell action"), ["last confirm#1"]);
    story.yes("last confirm");
    assert_eq!(story.saga.status(), Status::Completed);
}

#[test]
fn a_rejection_that_does_not_matter_is_gone_on_without() {
    let steps = "
  - step: gift
    action: gifts.wrap
    compensate: gifts.unwrap
    on_reject: continue
  - step: ship
    when: ${ !has(steps.gift) }
    action: carrier.book
    compensate: carrier.cancel
";
    let (mut story, _) = begin(steps, json!({ "id": "i" }));
    assert_eq!(story.no("gift action"), ["ship action#1"]);
    story.yes("ship action");
    assert_eq!(story.saga.status(), Status::Completed);
}

#[test]
fn nested_loops_speak_of_their_own_item_inside_and_of_all_outside() {
    let steps = "
  - for_each: ${ input.groups }
    at_most: 10
    steps:
      - step: a
        for_each: ${ item.members }
        at_most: 10
        action: x.a
        compensate: x.b
      - step: b
        with: { mine: '${ steps.a }' }
        action: x.c
        compensate: x.d
  - step: c
    with: { all: '${ steps.a }' }
    action: x.e
    compensate: x.f
";
    let input = json!({ "id": "i", "groups": [{ "members": [1, 2] }, { "members": [] }] });
    let (mut story, sent) = begin(steps, input);
    assert_eq!(
        sent,
        ["a[0,0] action#1", "a[0,1] action#1", "b[1] action#1"]
    );
    let with = |story: &Story, path: &str| {
        let path: StepPath = path.parse().unwrap();
        story.saga.steps[&path]
            .with
            .clone()
            .unwrap()
            .as_ref()
            .clone()
    };
    assert_eq!(with(&story, "b[1]"), json!({ "mine": [] }));
    story
        .answer_with("a[0,1] action", Outcome::Succeeded, json!(2))
        .unwrap();
    story
        .answer_with("a[0,0] action", Outcome::Succeeded, json!(1))
        .unwrap();
    assert_eq!(with(&story, "b[0]"), json!({ "mine": [1, 2] }));
    story.yes("b[0] action");
    assert_eq!(story.yes("b[1] action"), ["c action#1"]);
    assert_eq!(with(&story, "c"), json!({ "all": [[1, 2], []] }));
}

#[test]
fn a_loop_that_cannot_be_computed_behind_the_pivot_is_skipped_by_hand() {
    let steps = "
  - step: hold
    reserve: x.hold
    confirm: x.keep
    compensate: x.free
    pivot: true
  - step: tell
    for_each: ${ input.missing }
    at_most: 10
    action: y.tell
  - step: last
    confirm: z.last
";
    let (mut story, _) = begin(steps, json!({ "id": "i" }));
    story.yes("hold reserve");
    assert!(story.yes("hold confirm").is_empty());
    assert_eq!(story.saga.status(), Status::Suspended);
    let step = story.saga.suspended.first().unwrap().clone();
    assert!(step.name.starts_with('@'), "the loop has no name: {step}");
    let skip = operator("a", OperatorKind::Skip { step, reply: None });
    assert_eq!(story.tell(skip).unwrap(), ["last confirm#1"]);
    story.yes("last confirm");
    assert_eq!(story.saga.status(), Status::Completed);
}
