//! Noes, failures, time-outs and what they lead to.

use super::*;

#[test]
fn a_rejection_rolls_back_in_reverse_order() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    story.yes("stock[0] reserve");
    assert_eq!(story.no("payment reserve"), ["stock[0] compensate#1"]);
    assert_eq!(story.saga.status(), Status::Compensating);
    assert_eq!(story.yes("stock[0] compensate"), ["order compensate#1"]);
    assert!(story.yes("order compensate").is_empty());
    assert_eq!(story.saga.status(), Status::Compensated);
    assert_eq!(story.reason(), "payment rejected: because");
    assert_eq!(story.step("payment"), StepStatus::Rejected);
    assert_eq!(story.notices, ["started", "compensating", "compensated"]);
}

#[test]
fn a_rejection_is_never_retried_and_a_failure_is() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    assert!(story.fail("stock[0] reserve").is_empty());
    assert_eq!(story.wake(), ["stock[0] reserve#2"]);
    assert!(
        story.no("stock[0] reserve").is_empty(),
        "payment is heard out first"
    );
    assert_eq!(story.yes("payment reserve"), ["payment compensate#1"]);
}

#[test]
fn a_step_in_flight_is_heard_out_before_it_is_compensated() {
    let cases = [
        (Some(Outcome::Succeeded), vec!["payment compensate#1"]),
        (Some(Outcome::Rejected), vec!["order compensate#1"]),
        (Some(Outcome::Failed), vec!["payment compensate#1"]),
        (None, vec!["payment compensate#1"]),
    ];
    for (outcome, expected) in cases {
        let mut story = Story::order(&["a"]);
        story.yes("order reserve");
        assert!(story.no("stock[0] reserve").is_empty());
        let sent = match outcome {
            Some(outcome) => story.answer("payment reserve", outcome).unwrap(),
            None => story.wake(),
        };
        assert_eq!(sent, expected, "{outcome:?}");
    }
}

#[test]
fn an_unknown_outcome_is_compensated() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    story.yes("payment reserve");
    assert!(story.wake().is_empty(), "first time-out plans a retry");
    assert_eq!(story.wake(), ["stock[0] reserve#2"]);
    assert_eq!(
        story.wake(),
        ["stock[0] compensate#1", "payment compensate#1"]
    );
    assert_eq!(
        story.reason(),
        "stock[0] reserve: no answer within 10s, after 2 attempt(s)"
    );
}

#[test]
fn late_reply_after_timeout_is_compensated() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    story.yes("payment reserve");
    story.wake();
    story.wake();
    story.wake();
    assert_eq!(
        story.answer("stock[0] reserve", Outcome::Succeeded),
        Err(Refusal::Settled)
    );
    story.yes("payment compensate");
    assert_eq!(story.yes("stock[0] compensate"), ["order compensate#1"]);
}

#[test]
fn a_reply_that_comes_while_a_retry_is_planned_counts() {
    let mut story = Story::order(&[]);
    story.yes("order reserve");
    assert!(story.fail("payment reserve").is_empty());
    assert_eq!(
        story.answer("payment reserve", Outcome::Failed),
        Err(Refusal::Settled)
    );
    assert_eq!(
        story.yes("payment reserve"),
        ["order confirm#1", "payment confirm#1"]
    );
}

#[test]
fn a_retry_planned_when_the_roll_back_comes_is_compensated_instead() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    story.fail("payment reserve");
    assert_eq!(story.no("stock[0] reserve"), ["payment compensate#1"]);
}

#[test]
fn an_empty_answer_is_an_answer() {
    let mut story = Story::order(&[]);
    let sent = story.answer_with("order reserve", Outcome::Succeeded, Value::Null);
    assert_eq!(sent.unwrap(), ["payment reserve#1"]);
}
