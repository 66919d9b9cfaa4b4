//! Modifiers, actions, expressions, and lists of any length.

use super::*;

const BRANCHES: &str = "
saga: branches
version: 1
key: ${ input.id }
steps:
  - step: look
    reserve: books.look
    read_only: true
  - step: gift
    when: ${ input.gift }
    action: gifts.wrap
    compensate: gifts.unwrap
  - step: ship
    for_each: ${ input.parcels }
    when: ${ item.heavy }
    with: { weight: '${ item.weight }' }
    action: carrier.book
    compensate: carrier.cancel
  - step: tell
    with: { weights: '${ steps.ship }', missing: '${ input.missing }' }
    confirm: mailer.tell
";

#[test]
fn what_is_not_wanted_is_skipped_and_not_undone() {
    let parcels = json!([{ "heavy": false, "weight": 1 }, { "heavy": true, "weight": 9 }]);
    let input = json!({ "id": "b", "gift": false, "parcels": parcels, "missing": 0 });
    let (mut story, sent) = Story::begin(BRANCHES, input);
    assert_eq!(sent, ["look reserve#1"]);
    assert_eq!(story.yes("look reserve"), ["ship[1] action#1"]);
    assert_eq!(story.step("gift"), StepStatus::Skipped);
    assert_eq!(story.step("ship[0]"), StepStatus::Skipped);
    assert!(
        story.no("ship[1] action").is_empty(),
        "look is read-only: nothing to undo"
    );
    assert_eq!(story.saga.status(), Status::Compensated);
}

#[test]
fn actions_are_undone_in_reverse_and_need_no_confirm() {
    let parcels = json!([{ "heavy": true, "weight": 1 }, { "heavy": true, "weight": 2 }]);
    let input = json!({ "id": "b", "gift": true, "parcels": parcels, "missing": 0 });
    let (mut story, _) = Story::begin(BRANCHES, input.clone());
    assert_eq!(story.yes("look reserve"), ["gift action#1"]);
    assert_eq!(
        story.yes("gift action"),
        ["ship[0] action#1", "ship[1] action#1"]
    );
    story.yes("ship[0] action");
    assert_eq!(story.no("ship[1] action"), ["ship[0] compensate#1"]);
    assert_eq!(story.yes("ship[0] compensate"), ["gift compensate#1"]);
    story.yes("gift compensate");
    assert_eq!(story.saga.status(), Status::Compensated);

    let (mut story, _) = Story::begin(BRANCHES, input);
    story.yes("look reserve");
    story.yes("gift action");
    story.yes("ship[0] action");
    assert_eq!(story.yes("ship[1] action"), ["tell confirm#1"]);
    let with = story.saga.steps[&StepPath::plain("tell")]
        .with
        .clone()
        .unwrap();
    assert_eq!(with["weights"], json!([{ "amount": 7 }, { "amount": 7 }]));
}

#[test]
fn an_expression_that_fails_before_the_pivot_rolls_back_and_after_it_suspends() {
    let input = json!({ "id": "b", "gift": true, "parcels": [{ "heavy": true }], "missing": 0 });
    let (mut story, _) = Story::begin(BRANCHES, input);
    story.yes("look reserve");
    assert_eq!(story.yes("gift action"), ["gift compensate#1"]);
    assert!(story.reason().contains("item.weight"), "{}", story.reason());

    let input = json!({ "id": "b", "gift": true, "parcels": [] });
    let (mut story, _) = Story::begin(BRANCHES, input);
    story.yes("look reserve");
    story.yes("gift action");
    assert_eq!(story.saga.status(), Status::Suspended);
    assert!(
        story.reason().contains("tell confirm"),
        "{}",
        story.reason()
    );
    let resume = operator("a-1", OperatorKind::Resume);
    assert!(story.tell(resume).unwrap().is_empty());
    assert_eq!(
        story.saga.status(),
        Status::Suspended,
        "still can't be computed"
    );
}

#[test]
fn a_for_each_over_nothing_or_over_no_list() {
    let mut story = Story::order(&[]);
    assert_eq!(story.yes("order reserve"), ["payment reserve#1"]);
    let (mut story, _) = Story::begin(ORDER, json!({ "id": "o1", "items": "five" }));
    assert_eq!(story.yes("order reserve"), ["order compensate#1"]);
    assert!(
        story.reason().contains("needs a list"),
        "{}",
        story.reason()
    );
}

#[test]
fn ten_thousand_items_end_with_one_event_or_two_a_reply() {
    const ITEMS: usize = 10_000;
    let items: Vec<Value> = (0..ITEMS).map(|item| json!(item)).collect();
    let definition = parse(ORDER, "test.yaml").unwrap();
    let now = Timestamp::from_micros(1);
    let mut saga = Saga::new(SagaId(Uuid::from_u128(1)), "order", "k", now);
    let input = Arc::new(json!({ "id": "o1", "items": items }));
    decide(
        &definition,
        &mut saga,
        Input::Start {
            input,
            starter: None,
        },
        now,
    )
    .unwrap();
    let reply = |step: StepPath| {
        Input::Reply(Reply {
            step,
            phase: crate::id::Phase::Reserve,
            outcome: Outcome::Succeeded,
            stated: true,
            body: Arc::new(json!({ "amount": 1 })),
            reason: None,
        })
    };
    decide(&definition, &mut saga, reply(StepPath::plain("order")), now).unwrap();
    while saga.is_left_off() {
        decide(&definition, &mut saga, Input::Wake, now).unwrap();
    }
    for index in 0..u32::try_from(ITEMS - 1).unwrap() {
        let input = reply(StepPath::at("stock", &[index]));
        let decision = decide(&definition, &mut saga, input, now).unwrap();
        assert!(decision.events.len() <= 2, "{:?}", decision.events);
    }
}
