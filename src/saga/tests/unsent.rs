//! Commands that were still in the outbox when their answers were due.

use super::*;
use crate::id::Phase;

const ROOM: &str = "
saga: room
version: 1
key: ${ input.id }
steps:
  - step: room
    reserve: rooms.hold
    confirm: rooms.book
    compensate: rooms.free
    timeout: 20s
    retry: { attempts: 1 }
  - step: pay
    reserve: payments.reserve
    confirm: payments.capture
    compensate: payments.release
    timeout: 20s
    retry: { attempts: 1 }
    suspend_after: 1
";

fn begin() -> Story {
    Story::begin(ROOM, json!({ "id": "i" })).0
}

fn unsent(story: &mut Story) -> Result<Vec<String>, Refusal> {
    story.now = story.saga.wake_at().expect("nothing is due");
    let overdue = story.saga.overdue(story.now);
    story.tell(Input::Unsent(
        overdue.into_iter().map(|it| it.step).collect(),
    ))
}

fn sent(command: &str, attempt: u32) -> Input {
    let (step, phase) = command.split_once(' ').unwrap();
    Input::Sent {
        step: step.parse().unwrap(),
        phase: phase.parse().unwrap(),
        attempt,
    }
}

#[test]
fn who_was_not_asked_is_not_silent() {
    let mut story = begin();
    let began = story.now;
    while story.now.since(began) < Duration::from_mins(5) {
        assert_eq!(unsent(&mut story).unwrap(), [""; 0]);
        assert_eq!(story.tell(Input::Wake), Err(Refusal::Settled));
    }
    // It is sent, and has all its time.
    let at = story.now;
    story.tell(sent("room reserve", 1)).unwrap();
    assert_eq!(
        story.saga.wake_at(),
        Some(at.after(Duration::from_secs(20)))
    );
    assert_eq!(story.yes("room reserve"), ["pay reserve#1"]);
}

#[test]
fn who_was_asked_late_has_all_the_time_and_no_more() {
    for said in [true, false] {
        let mut story = begin();
        unsent(&mut story).unwrap();
        if said {
            story.tell(sent("room reserve", 1)).unwrap();
        } else {
            // The row has gone, and nobody said so.
            assert_eq!(story.wake(), [""; 0]);
        }
        let at = story.now;
        assert_eq!(story.wake(), ["room compensate#1"], "{said}");
        assert_eq!(story.now, at.after(Duration::from_secs(20)));
    }
}

#[test]
fn what_was_sent_while_most_of_the_time_was_left_changes_nothing() {
    let mut story = begin();
    story.now = story.now.after(Duration::from_secs(9));
    assert_eq!(story.tell(sent("room reserve", 1)), Err(Refusal::Settled));
    story.now = story.now.after(Duration::from_secs(2));
    assert_eq!(story.tell(sent("room reserve", 2)), Err(Refusal::Settled));
    story.tell(sent("room reserve", 1)).unwrap();
    story.yes("room reserve");
    assert_eq!(story.tell(sent("room reserve", 1)), Err(Refusal::Settled));
    story.tell(operator("p", OperatorKind::Pause)).unwrap();
    assert!(
        story
            .saga
            .overdue(Timestamp::from_micros(i64::MAX))
            .is_empty()
    );
    assert_eq!(story.tell(sent("pay reserve", 1)), Err(Refusal::Settled));
}

#[test]
fn each_sending_has_a_row_of_its_own() {
    let row = |story: &Story| story.saga.overdue(story.now)[0].row;
    let mut story = begin();
    let asked = story.now;
    story.now = story.saga.wake_at().unwrap();
    let first = row(&story);
    unsent(&mut story).unwrap();
    story.now = story.saga.wake_at().unwrap();
    assert_eq!(row(&story), first, "it is the same command");
    // Found no queue after all, and is sent again as the same attempt.
    let returned = Input::Returned(Returned {
        step: "room".parse().unwrap(),
        phase: Phase::Reserve,
        attempt: 1,
        to: crate::message::Destination::queue("rooms"),
        certain: true,
    });
    story.tell(returned).unwrap();
    assert_eq!(story.wake(), ["room reserve#1"], "not a failure: {asked}");
    story.now = story.saga.wake_at().unwrap();
    assert_ne!(row(&story), first);
}

#[test]
fn nothing_is_given_up_behind_the_pivot_because_it_was_not_sent() {
    let mut story = begin();
    story.yes("room reserve");
    story.yes("pay reserve");
    story.yes("room confirm");
    for _ in 0..10 {
        unsent(&mut story).unwrap();
    }
    assert_eq!(story.saga.status(), Status::Confirming);
    story.tell(sent("pay confirm", 1)).unwrap();
    assert_eq!(story.wake(), [""; 0]);
    assert_eq!(story.saga.status(), Status::Suspended);
}
