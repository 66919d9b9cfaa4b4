//! What is decided before the clock was looked at: after a pause, an outage, a backlog.

use super::children::Child;
use super::*;

/// Holds a seat, then pays; waits for nobody.
const SEAT: &str = "
saga: seat
version: 1
key: ${ input.id }
timeout: 1m
steps:
  - step: seat
    reserve: seats.hold
    confirm: seats.book
    compensate: seats.free
    retry: { attempts: 3 }
  - step: pay
    reserve: payments.reserve
    confirm: payments.capture
    compensate: payments.release
";

/// Waits with something held.
const WAITS: &str = "
saga: s
version: 1
key: ${ input.id }
steps:
  - step: hold
    reserve: x.hold
    confirm: x.keep
    compensate: x.free
  - wait: paid
    timeout: 10s
    on_timeout: ON_TIMEOUT
  - step: thank
    confirm: mailer.thank
";

fn seat() -> Story {
    Story::begin(SEAT, json!({ "id": "i" })).0
}

/// The seat is held until then, and the payment is asked for.
fn held(until: Duration) -> Story {
    let mut story = seat();
    let expires_at = story.now.after(until).to_string();
    let reply = json!({ "expires_at": expires_at });
    let sent = story.answer_with("seat reserve", Outcome::Succeeded, reply);
    assert_eq!(sent.unwrap(), ["pay reserve#1"]);
    story
}

fn pass(story: &mut Story, seconds: u64) {
    story.now = story.now.after(Duration::from_secs(seconds));
}

fn waiting(on_timeout: &str) -> Story {
    let yaml = WAITS.replace("ON_TIMEOUT", on_timeout);
    let mut story = Story::begin(&yaml, json!({ "id": "i" })).0;
    story.yes("hold reserve");
    story
}

fn paid(id: &str) -> Input {
    Input::Signal(Signal {
        name: "paid".into(),
        id: id.into(),
        body: Arc::new(json!({})),
        at: None,
    })
}

#[test]
fn the_last_reply_does_not_pass_the_pivot_of_what_has_lapsed() {
    let mut story = held(Duration::from_secs(30));
    pass(&mut story, 28);
    assert_eq!(story.yes("pay reserve"), ["pay compensate#1"]);
    assert!(
        story
            .reason()
            .starts_with("the reservation of seat lapses at "),
        "{}",
        story.reason()
    );
    assert_eq!(story.yes("pay compensate"), ["seat compensate#1"]);

    let mut story = held(Duration::from_secs(30));
    pass(&mut story, 27);
    assert_eq!(
        story.yes("pay reserve"),
        ["pay confirm#1", "seat confirm#1"]
    );
}

#[test]
fn the_last_reply_does_not_pass_the_pivot_after_the_deadline() {
    let mut story = seat();
    story.yes("seat reserve");
    pass(&mut story, 60);
    assert_eq!(story.yes("pay reserve"), ["pay compensate#1"]);
    assert!(
        story.reason().starts_with("timed out"),
        "{}",
        story.reason()
    );
}

#[test]
fn after_the_deadline_nothing_more_is_begun() {
    for outcome in [Outcome::Succeeded, Outcome::Rejected, Outcome::Failed] {
        let mut story = seat();
        pass(&mut story, 60);
        let sent = story.answer("seat reserve", outcome).unwrap();
        assert!(
            sent.iter().all(|command| command == "seat compensate#1"),
            "{outcome:?}: {sent:?}"
        );
        assert!(story.reason().starts_with("timed out"), "{outcome:?}");
    }
}

#[test]
fn a_late_answer_to_a_step_between_two_attempts_is_undone_once() {
    let mut story = seat();
    story.fail("seat reserve");
    pass(&mut story, 60);
    assert_eq!(story.yes("seat reserve"), ["seat compensate#1"]);
    story.yes("seat compensate");
    assert_eq!(story.saga.status(), Status::Compensated);
}

#[test]
fn a_saga_that_lapses_while_it_is_paused_is_rolled_back_when_it_goes_on() {
    for (lease, seconds) in [(30, 30), (3_000, 60)] {
        let mut story = held(Duration::from_secs(lease));
        story.tell(operator("a", OperatorKind::Pause)).unwrap();
        assert!(story.yes("pay reserve").is_empty(), "kept");
        pass(&mut story, seconds);
        let sent = story.tell(operator("b", OperatorKind::Resume)).unwrap();
        assert_eq!(sent, ["pay compensate#1"], "{lease}");
        story.yes("pay compensate");
        story.yes("seat compensate");
        assert_eq!(story.saga.status(), Status::Compensated);
    }
}

#[test]
fn a_retry_by_a_person_after_the_deadline_begins_nothing() {
    let mut story = seat();
    story.fail("seat reserve");
    pass(&mut story, 60);
    let sent = story.tell(operator(
        "a",
        OperatorKind::Retry {
            step: None,
            with: None,
        },
    ));
    assert_eq!(sent.unwrap(), ["seat compensate#1"]);
}

#[test]
fn a_saga_whose_first_decision_is_its_last_has_a_pivot_in_time() {
    let yaml = "{ saga: s, version: 1, key: '${ input.id }', timeout: 1m, steps: [{ step: a, confirm: x.y }] }";
    let (_, sent) = Story::begin(yaml, json!({ "id": "i" }));
    assert_eq!(sent, ["a confirm#1"]);
}

#[test]
fn a_signal_after_the_waits_time_comes_too_late() {
    let mut story = waiting("fail");
    pass(&mut story, 11);
    let refused = story.tell(paid("s-1"));
    let why = "paid: no signal `paid` came in time".to_owned();
    assert_eq!(refused, Err(Refusal::RollingBack(why)));
    assert_eq!(story.wake(), ["hold compensate#1"]);

    let mut story = waiting("continue");
    pass(&mut story, 11);
    assert_eq!(story.tell(paid("s-1")).unwrap(), ["hold confirm#1"]);
    let wait = &story.saga.steps[&StepPath::plain("paid")];
    assert_eq!(wait.reply, None, "it went on without the signal");
}

#[test]
fn a_signal_in_time_is_in_time_however_late_the_saga_goes_on() {
    for (when, expected) in [(9, "hold confirm#1"), (11, "hold compensate#1")] {
        let mut story = waiting("fail");
        story.tell(operator("a", OperatorKind::Pause)).unwrap();
        pass(&mut story, when);
        assert!(story.tell(paid("s-1")).unwrap().is_empty());
        pass(&mut story, 60);
        let sent = story.tell(operator("b", OperatorKind::Resume)).unwrap();
        assert_eq!(sent, [expected], "{when} s");
    }
}

#[test]
fn a_signal_to_a_saga_that_is_rolled_back_is_refused() {
    let mut story = waiting("fail");
    story.tell(operator("a", OperatorKind::Cancel)).unwrap();
    let refused = story.tell(paid("s-1"));
    let why = "cancelled by ann: I looked".to_owned();
    assert_eq!(refused, Err(Refusal::RollingBack(why)));
}

#[test]
fn an_expiry_that_cant_be_read_is_a_failed_attempt() {
    let mut story = seat();
    let reply = json!({ "expires_at": "2026-01-31T12:00:00" });
    for attempt in 1..=3 {
        let sent = story.answer_with("seat reserve", Outcome::Succeeded, reply.clone());
        let sent = sent.unwrap();
        if attempt < 3 {
            assert!(sent.is_empty());
            let reason = story.saga.steps[&StepPath::plain("seat")].reason.clone();
            assert!(reason.unwrap().starts_with("BST-0087: "));
            assert_eq!(story.wake(), [format!("seat reserve#{}", attempt + 1)]);
        } else {
            assert_eq!(sent, ["seat compensate#1"]);
        }
    }
    assert!(story.reason().contains("BST-0087"), "{}", story.reason());
}

#[test]
fn an_expiry_matters_only_while_there_is_something_to_confirm() {
    let mut story = seat();
    story.tell(operator("a", OperatorKind::Cancel)).unwrap();
    let reply = json!({ "expires_at": "tomorrow" });
    let sent = story.answer_with("seat reserve", Outcome::Succeeded, reply);
    assert_eq!(sent.unwrap(), ["seat compensate#1"], "it is undone");
}

#[test]
fn a_sub_saga_that_is_late_at_its_pivot_tells_its_parent_so() {
    let mut child = Child::flight();
    pass(&mut child.0, 60);
    let reply = json!({ "number": "7A" });
    let sent = child
        .0
        .answer_with("seat reserve", Outcome::Succeeded, reply);
    assert_eq!(sent.unwrap(), ["seat compensate#1"]);
    child.0.yes("seat compensate");
    let told = child.told().concat();
    assert!(told.starts_with("reserve rejected: timed out"), "{told}");

    let mut child = Child::flight();
    let at = child.0.now.to_string();
    let reply = json!({ "number": "7A", "expires_at": at });
    let sent = child
        .0
        .answer_with("seat reserve", Outcome::Succeeded, reply);
    assert_eq!(sent.unwrap(), ["seat compensate#1"]);
    assert!(child.0.reason().contains("lapses at"));
}

#[test]
fn a_wait_that_the_roll_back_has_ended_takes_no_signal_any_more() {
    let yaml = "
saga: s
version: 1
key: ${ input.id }
steps:
  - parallel:
      - { wait: first, signal: paid, timeout: 10s, on_timeout: fail }
      - { wait: second, signal: paid, timeout: none }
";
    let (mut story, _) = Story::begin(yaml, json!({ "id": "i" }));
    story.tell(operator("p", OperatorKind::Pause)).unwrap();
    pass(&mut story, 20);
    let signal = Signal {
        name: "paid".into(),
        id: "s".into(),
        body: Arc::default(),
        at: None,
    };
    story.tell(Input::Signal(signal)).unwrap();
    story.tell(operator("r", OperatorKind::Resume)).unwrap();
    assert_eq!(story.saga.status(), Status::Compensated);
    assert_eq!(story.step("second"), StepStatus::Done);
    assert_eq!(story.reason(), "first: no signal `paid` came in time");
}
