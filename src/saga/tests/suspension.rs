//! What can't be brought to an end without a person.

use super::*;

#[test]
fn a_confirm_is_retried_and_then_waits_for_a_person_while_others_go_on() {
    let mut story = Story::order(&["a"]);
    for command in ["order reserve", "stock[0] reserve", "payment reserve"] {
        story.yes(command);
    }
    story.fail("payment confirm");
    assert_eq!(story.wake(), ["payment confirm#2"]);
    assert!(story.fail("payment confirm").is_empty());
    assert_eq!(story.saga.status(), Status::Suspended);
    assert_eq!(story.reason(), "payment confirm: because, after 2 attempts");
    assert!(story.yes("order confirm").is_empty());
    assert!(story.yes("stock[0] confirm").is_empty());
    assert_eq!(story.saga.status(), Status::Suspended);
    let resume = operator("a-1", OperatorKind::Resume);
    assert_eq!(story.tell(resume).unwrap(), ["payment confirm#1"]);
    assert_eq!(story.saga.status(), Status::Confirming);
    assert_eq!(story.yes("payment confirm"), ["receipt confirm#1"]);
    assert_eq!(
        story.notices,
        ["started", "confirming", "suspended", "resumed"]
    );
}

#[test]
fn a_late_yes_ends_a_suspension() {
    let mut story = Story::order(&[]);
    story.yes("order reserve");
    story.yes("payment reserve");
    story.no("payment confirm");
    assert_eq!(
        story.saga.status(),
        Status::Suspended,
        "a confirm can't be refused"
    );
    assert_eq!(
        story.answer("payment confirm", Outcome::Failed),
        Err(Refusal::Settled)
    );
    story.yes("order confirm");
    assert_eq!(story.yes("payment confirm"), ["receipt confirm#1"]);
    assert_eq!(story.saga.status(), Status::Confirming);
}

#[test]
fn a_refused_compensation_waits_for_a_person_while_others_unwind() {
    let mut story = Story::order(&["a", "b"]);
    for command in ["order reserve", "stock[0] reserve", "stock[1] reserve"] {
        story.yes(command);
    }
    assert_eq!(
        story.no("payment reserve"),
        ["stock[0] compensate#1", "stock[1] compensate#1"]
    );
    assert!(story.no("stock[0] compensate").is_empty());
    assert_eq!(story.saga.status(), Status::Suspended);
    assert!(story.yes("stock[1] compensate").is_empty());
    let resume = operator("a-1", OperatorKind::Resume);
    assert_eq!(story.tell(resume).unwrap(), ["stock[0] compensate#1"]);
    assert_eq!(story.yes("stock[0] compensate"), ["order compensate#1"]);
    story.yes("order compensate");
    assert_eq!(story.saga.status(), Status::Compensated);
}
