//! The way of a saga when participants answer.

use super::*;

#[test]
fn everything_succeeds_in_order_and_completes() {
    let (mut story, sent) = Story::begin(ORDER, json!({ "id": "o1", "items": ["a", "b"] }));
    assert_eq!(sent, ["order reserve#1"]);
    assert_eq!(
        story.yes("order reserve"),
        [
            "stock[0] reserve#1",
            "stock[1] reserve#1",
            "payment reserve#1"
        ]
    );
    assert!(story.yes("stock[1] reserve").is_empty());
    assert!(story.yes("payment reserve").is_empty());
    assert_eq!(story.saga.status(), Status::Running);
    assert_eq!(
        story.yes("stock[0] reserve"),
        [
            "order confirm#1",
            "payment confirm#1",
            "stock[0] confirm#1",
            "stock[1] confirm#1"
        ]
    );
    assert_eq!(story.saga.status(), Status::Confirming);
    for command in ["payment confirm", "stock[1] confirm", "order confirm"] {
        assert!(story.yes(command).is_empty());
    }
    assert_eq!(story.yes("stock[0] confirm"), ["receipt confirm#1"]);
    assert!(story.yes("receipt confirm").is_empty());
    assert_eq!(story.saga.status(), Status::Completed);
    assert_eq!(story.saga.output.as_deref(), Some(&json!({ "paid": 7 })));
    assert_eq!(story.saga.wake_at(), None);
    assert_eq!(story.notices, ["started", "confirming", "completed"]);
}

#[test]
fn duplicates_and_answers_nobody_asked_for_change_nothing() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    assert_eq!(
        story.answer("order reserve", Outcome::Succeeded),
        Err(Refusal::Settled)
    );
    assert_eq!(
        story.answer("order reserve", Outcome::Rejected),
        Err(Refusal::Settled)
    );
    for command in [
        "order confirm",
        "order compensate",
        "order action",
        "stock[1] reserve",
        "stock reserve",
        "receipt confirm",
        "nonsense reserve",
    ] {
        let refusal = story.answer(command, Outcome::Succeeded);
        assert!(
            matches!(refusal, Err(Refusal::NeverAsked { .. })),
            "{command}: {refusal:?}"
        );
    }
    let again = Input::Start {
        input: Arc::new(json!({})),
        starter: None,
    };
    assert_eq!(story.tell(again), Err(Refusal::AlreadyStarted));
    assert_eq!(
        story.tell(Input::Wake),
        Err(Refusal::Settled),
        "nothing is due yet"
    );
}

#[test]
fn what_ended_does_not_change_again() {
    let mut story = Story::order(&[]);
    story.no("order reserve");
    assert_eq!(story.saga.status(), Status::Compensated);
    story.now = story.now.after(Duration::from_hours(1));
    assert_eq!(
        story.answer("order reserve", Outcome::Succeeded),
        Err(Refusal::Settled)
    );
    assert_eq!(story.tell(Input::Wake), Err(Refusal::Settled));
    let resume = operator("a-1", OperatorKind::Resume);
    assert_eq!(story.tell(resume), Err(Refusal::Ended));
}

#[test]
fn the_sagas_timeout_counts_before_the_pivot_only() {
    let yaml = ORDER.replace("timeout: 10m", "timeout: 15s");
    let input = json!({ "id": "o1", "items": [] });
    let (mut before, _) = Story::begin(&yaml, input.clone());
    before.yes("order reserve");
    assert!(
        before.wake().is_empty(),
        "the payment's own time-out comes first"
    );
    before.wake();
    before.yes("payment reserve");
    assert_eq!(before.saga.status(), Status::Confirming);

    let (mut late, _) = Story::begin(&yaml, input);
    late.now = late.now.after(Duration::from_secs(15));
    assert!(
        late.tell(Input::Wake).unwrap().is_empty(),
        "the order is heard out"
    );
    assert_eq!(late.reason(), "timed out: not past the pivot within 15s");
    assert_eq!(late.yes("order reserve"), ["order compensate#1"]);

    before.now = before.now.after(Duration::from_mins(5));
    before.tell(Input::Wake).unwrap();
    assert_eq!(
        before.saga.status(),
        Status::Confirming,
        "past the pivot it is driven on"
    );
}

#[test]
fn payloads_carry_what_was_computed_and_the_reservation() {
    let mut story = Story::order(&["a"]);
    let reply = |step: &str, body| {
        Input::Reply(Reply {
            step: step.parse().unwrap(),
            phase: crate::id::Phase::Reserve,
            outcome: Outcome::Succeeded,
            stated: true,
            body: Arc::new(body),
            reason: None,
        })
    };
    let mut bodies = Vec::new();
    for (step, answer) in [
        ("order", json!({ "ticket": 1 })),
        ("stock[0]", json!({ "ticket": 2 })),
        ("payment", json!({ "ticket": 3, "amount": 5 })),
    ] {
        let input = reply(step, answer);
        let decision = decide(&story.definition, &mut story.saga, input, story.now).unwrap();
        for send in decision.emissions {
            if let Emission::Command {
                step,
                phase,
                body,
                to,
                command,
                ..
            } = send
            {
                bodies.push((format!("{step} {phase} {command} {to}"), body));
            }
        }
    }
    assert_eq!(
        bodies,
        [
            (
                "stock[0] reserve inventory.reserve queue `inventory`".to_owned(),
                json!({ "sku": "a" })
            ),
            (
                "payment reserve payments.reserve queue `payments`".to_owned(),
                json!({})
            ),
            (
                "order confirm orders.confirm queue `orders`".to_owned(),
                json!({ "id": "o1", "reservation": { "ticket": 1 } })
            ),
            (
                "payment confirm payments.capture queue `payments`".to_owned(),
                json!({ "reservation": { "ticket": 3, "amount": 5 } })
            ),
            (
                "stock[0] confirm inventory.confirm queue `inventory`".to_owned(),
                json!({ "sku": "a", "reservation": { "ticket": 2 } })
            ),
        ]
    );
}
