//! Commands that found no queue.

use super::*;
use crate::message::Destination;

const HOTEL: &str = "
saga: hotel
version: 1
key: ${ input.id }
steps:
  - step: room
    reserve: rooms.hold
    confirm: rooms.book
    compensate: rooms.free
    timeout: 20s
    retry: { attempts: 2, first: 1s, factor: 1, max: 1s }
    suspend_after: 2
  - step: pay
    reserve: payments.reserve
    confirm: payments.capture
    compensate: payments.release
    timeout: 20s
    retry: { attempts: 2, first: 1s, factor: 1, max: 1s }
";

fn begin() -> Story {
    Story::begin(HOTEL, json!({ "id": "i" })).0
}

fn returned(command: &str, attempt: u32, certain: bool) -> Input {
    let (step, phase) = command.split_once(' ').unwrap();
    Input::Returned(Returned {
        step: step.parse().unwrap(),
        phase: phase.parse().unwrap(),
        attempt,
        to: Destination::queue("rooms"),
        certain,
    })
}

/// No queue takes the command until the saga does something else than send it again; says what,
/// and how long that took.
fn nobody_listens(story: &mut Story, command: &str, certain: bool) -> (Vec<String>, Duration) {
    let began = story.now;
    let mut attempt =
        story.saga.steps[&command.split(' ').next().unwrap().parse().unwrap()].attempt;
    for _ in 0..100 {
        story.tell(returned(command, attempt, certain)).unwrap();
        let mut sent = story.wake();
        if sent.is_empty() && story.saga.suspended.is_empty() {
            // The attempt's time is up; the next one is planned.
            sent = story.wake();
        }
        let again = |attempt| vec![format!("{command}#{attempt}")];
        if sent == again(attempt + 1) {
            attempt += 1;
        } else if sent != again(attempt) {
            return (sent, story.now.since(began));
        }
    }
    panic!("it is sent for ever");
}

#[test]
fn a_participant_that_is_away_for_a_while_is_waited_for() {
    let mut story = begin();
    let began = story.now;
    while story.now.since(began) < Duration::from_secs(10) {
        story.tell(returned("room reserve", 1, true)).unwrap();
        assert_eq!(story.wake(), ["room reserve#1"], "it is not a failure");
    }
    assert_eq!(story.yes("room reserve"), ["pay reserve#1"]);
}

#[test]
fn what_was_never_delivered_needs_no_compensation() {
    let mut story = begin();
    story.yes("room reserve");
    let (sent, took) = nobody_listens(&mut story, "pay reserve", true);
    assert_eq!(sent, ["room compensate#1"]);
    let both = Duration::from_secs(40);
    assert!(
        took >= both && took < both * 2,
        "as for no answer: {took:?}"
    );
    assert_eq!(story.step("pay"), StepStatus::Undelivered);
    assert!(story.reason().contains("nobody listens at"));
    story.yes("room compensate");
    assert_eq!(story.saga.status(), Status::Compensated);
}

#[test]
fn what_may_have_been_delivered_is_compensated() {
    // Published twice: one of them may have found its queue.
    let mut story = begin();
    story.yes("room reserve");
    let (sent, _) = nobody_listens(&mut story, "pay reserve", false);
    assert_eq!(sent, ["pay compensate#1"]);
    // The first attempt was silent.
    let mut story = begin();
    story.yes("room reserve");
    assert!(story.wake().is_empty());
    assert_eq!(story.wake(), ["pay reserve#2"]);
    let (sent, _) = nobody_listens(&mut story, "pay reserve", true);
    assert_eq!(sent, ["pay compensate#1"]);
}

#[test]
fn a_roll_back_does_not_wait_for_what_found_no_queue() {
    for (certain, expected) in [(true, "room compensate#1"), (false, "pay compensate#1")] {
        // While it waits to be sent again, and while it is on its way.
        for early in [true, false] {
            let mut story = begin();
            story.yes("room reserve");
            let come_back = returned("pay reserve", 1, certain);
            let cancel = operator("c", OperatorKind::Cancel);
            let sent = if early {
                story.tell(come_back).unwrap();
                story.tell(cancel).unwrap()
            } else {
                story.tell(cancel).unwrap();
                story.tell(come_back).unwrap()
            };
            assert_eq!(sent, [expected], "{certain} {early}");
        }
    }
}

#[test]
fn a_confirm_that_finds_no_queue_is_suspended_in_the_end() {
    let mut story = begin();
    story.yes("room reserve");
    story.yes("pay reserve");
    story.yes("pay confirm");
    let (sent, _) = nobody_listens(&mut story, "room confirm", true);
    assert_eq!(sent, [""; 0]);
    assert_eq!(story.saga.status(), Status::Suspended);
}

#[test]
fn news_of_another_attempt_or_of_what_is_settled_changes_nothing() {
    let mut story = begin();
    let old = story.tell(returned("room reserve", 2, true));
    assert_eq!(old, Err(Refusal::Settled));
    story.tell(returned("room reserve", 1, true)).unwrap();
    let again = story.tell(returned("room reserve", 1, true));
    assert_eq!(again, Err(Refusal::Settled));
    // An answer all the same: believed.
    assert_eq!(story.yes("room reserve"), ["pay reserve#1"]);
    let late = story.tell(returned("room reserve", 1, true));
    assert_eq!(late, Err(Refusal::Settled));
    story.tell(operator("p", OperatorKind::Pause)).unwrap();
    let paused = story.tell(returned("pay reserve", 1, true));
    assert_eq!(paused, Err(Refusal::Settled));
}
