//! Answers that must say what they are, and answers that a person gives.

use super::*;
use crate::id::Phase;

const SHIP: &str = "
saga: ship
version: 1
key: ${ input.id }
timeout: 1h
steps:
  - step: hold
    reserve: bank.hold
    confirm: bank.take
    compensate: bank.free
    reply: { outcome: required, schema: { type: object, required: [ref], properties: { ref: { type: string } } } }
    retry: { attempts: 2 }
  - step: pay
    action: bank.charge
    compensate: bank.refund
    pivot: true
  - step: print
    with: { id: '${ input.parcel.id }' }
    suspend_after: 1
    reply: { schema: { required: [url] } }
    action: printer.print
  - step: mail
    with: { url: '${ steps.print.url }' }
    action: mail.send
";

fn begin() -> Story {
    Story::begin(SHIP, json!({ "id": "1" })).0
}

fn answer(story: &mut Story, command: &str, stated: bool, body: Value) -> Vec<String> {
    let (step, phase) = command.split_once(' ').unwrap();
    let reply = Reply {
        step: step.parse().unwrap(),
        phase: phase.parse().unwrap(),
        outcome: Outcome::Succeeded,
        stated,
        body: Arc::new(body),
        reason: None,
    };
    story.tell(Input::Reply(reply)).unwrap()
}

fn reason_of(story: &Story, step: &str) -> String {
    let state = &story.saga.steps[&step.parse::<StepPath>().unwrap()];
    state.reason.clone().unwrap_or_default()
}

#[test]
fn an_answer_that_does_not_say_its_outcome_is_a_failed_attempt_where_that_is_required() {
    let mut story = begin();
    assert!(answer(&mut story, "hold reserve", false, json!({ "ref": "r" })).is_empty());
    let why = "the reply has no header `outcome`, which the definition requires";
    assert_eq!(reason_of(&story, "hold"), why);
    assert_eq!(story.wake(), ["hold reserve#2"]);
    assert_eq!(
        answer(&mut story, "hold reserve", true, json!({ "ref": "r" })),
        ["pay action#1"]
    );
    // Where nothing is required, silence about it is a yes.
    assert_eq!(
        answer(&mut story, "pay action", false, json!({ "error": "x" })),
        ["hold confirm#1"]
    );
    assert!(answer(&mut story, "hold confirm", false, json!({})).is_empty());
    assert_eq!(story.wake(), ["hold confirm#2"]);
}

#[test]
fn an_answer_that_breaks_the_schema_is_a_failed_attempt_that_says_where() {
    let mut story = begin();
    answer(&mut story, "hold reserve", true, json!({ "ref": 7 }));
    let why = reason_of(&story, "hold");
    assert!(
        why.starts_with("the reply does not fit its schema: /ref: "),
        "{why}"
    );
    story.wake();
    assert_eq!(
        answer(&mut story, "hold reserve", true, json!({ "data": null })),
        ["hold compensate#1"],
        "it may have been done, so it is undone"
    );
    let reason = story.reason();
    assert!(reason.contains("after 2 attempt(s)"), "{reason}");
    // The answer to a compensation is no result.
    answer(&mut story, "hold compensate", true, Value::Null);
    assert_eq!(story.saga.status(), Status::Compensated);
}

/// At the suspended `print`, whose `with` can't be computed.
fn stuck() -> Story {
    let mut story = begin();
    answer(&mut story, "hold reserve", true, json!({ "ref": "r" }));
    story.yes("pay action");
    assert!(answer(&mut story, "hold confirm", true, json!({})).is_empty());
    assert_eq!(story.saga.status(), Status::Suspended);
    story
}

#[test]
fn a_person_says_what_came_of_a_step_that_was_done_by_hand() {
    let skip = |reply: Option<Value>| OperatorKind::Skip {
        step: StepPath::plain("print"),
        reply: reply.map(Arc::new),
    };
    let mut story = stuck();
    let wrong = story.tell(operator("a", skip(Some(json!({ "uri": "u" })))));
    let Err(Refusal::NotPossible(why)) = wrong else {
        panic!("{wrong:?}")
    };
    assert!(why.contains("schema"), "{why}");
    let sent = story
        .tell(operator("b", skip(Some(json!({ "url": "https://p/1" })))))
        .unwrap();
    assert_eq!(sent, ["mail action#1"]);
    let with = story.saga.steps[&StepPath::plain("mail")].with.clone();
    assert_eq!(with.as_deref(), Some(&json!({ "url": "https://p/1" })));
    // The journal has it.
    let journal = serde_json::to_string(&story.journal).unwrap();
    assert!(
        journal.contains(r#""reply":{"url":"https://p/1"}"#),
        "{journal}"
    );
    story.yes("mail action");
    assert_eq!(story.saga.status(), Status::Completed);
}

#[test]
fn a_reply_by_hand_is_only_taken_where_something_could_use_it() {
    let mut story = begin();
    answer(&mut story, "hold reserve", true, json!({ "ref": "r" }));
    story.yes("pay action");
    story.no("hold confirm");
    let skip = OperatorKind::Skip {
        step: StepPath::plain("hold"),
        reply: Some(Arc::new(json!({ "ref": "s" }))),
    };
    let refused = story.tell(operator("a", skip));
    let Err(Refusal::NotPossible(why)) = refused else {
        panic!("{refused:?}")
    };
    assert!(why.contains("leave the reply out"), "{why}");
}

#[test]
fn a_person_gives_a_step_other_input() {
    let retry = |step: Option<&str>, with: Value| OperatorKind::Retry {
        step: step.map(StepPath::plain),
        with: Some(Arc::new(with)),
    };
    let mut story = stuck();
    let unnamed = story.tell(operator("a", retry(None, json!({ "id": "p" }))));
    assert!(
        matches!(unnamed, Err(Refusal::NotPossible(_))),
        "{unnamed:?}"
    );
    let sent = story
        .tell(operator("b", retry(Some("print"), json!({ "id": "p" }))))
        .unwrap();
    assert_eq!(sent, ["print action#1"]);
    let path = StepPath::plain("print");
    let with = || Some(json!({ "id": "p" }));
    assert_eq!(story.saga.steps[&path].with.as_deref().cloned(), with());
    // It is kept for later attempts.
    story.fail("print action");
    let again = OperatorKind::Retry {
        step: None,
        with: None,
    };
    assert_eq!(
        story.tell(operator("c", again)).unwrap(),
        ["print action#1"]
    );
    assert_eq!(story.saga.steps[&path].with.as_deref().cloned(), with());
    assert_eq!(
        answer(&mut story, "print action", true, json!({ "url": "u" })),
        ["mail action#1"]
    );

    let waits = "
saga: w
version: 1
key: ${ input.id }
timeout: 1h
steps:
  - { step: a, action: p.a, read_only: true, pivot: true }
  - { wait: b, timeout: '${ input.patience }', on_timeout: continue }
";
    let (mut story, _) = Story::begin(waits, json!({ "id": "1" }));
    story.yes("a action");
    assert_eq!(story.saga.status(), Status::Suspended);
    let refused = story.tell(operator("a", retry(Some("b"), json!(1))));
    let Err(Refusal::NotPossible(why)) = refused else {
        panic!("{refused:?}")
    };
    assert!(why.contains("sends no command"), "{why}");
    let skip = OperatorKind::Skip {
        step: StepPath::plain("b"),
        reply: Some(Arc::new(json!({ "paid": true }))),
    };
    story.tell(operator("b", skip)).unwrap();
    assert_eq!(story.saga.status(), Status::Completed);
    assert_eq!(story.saga.steps[&StepPath::plain("b")].phase, Phase::Action);
}
