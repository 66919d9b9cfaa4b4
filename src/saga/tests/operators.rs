//! What a person can do to a saga.

use super::*;

#[test]
fn a_saga_is_cancelled_before_the_pivot_and_not_after_it() {
    let mut story = Story::order(&[]);
    story.yes("order reserve");
    assert!(
        story
            .tell(operator("a", OperatorKind::Cancel))
            .unwrap()
            .is_empty()
    );
    assert_eq!(story.reason(), "cancelled by ann: I looked");
    assert_eq!(story.yes("payment reserve"), ["payment compensate#1"]);
    let again = story.tell(operator("b", OperatorKind::Cancel));
    assert!(matches!(again, Err(Refusal::NotPossible(_))), "{again:?}");

    let mut story = Story::order(&[]);
    story.yes("order reserve");
    story.yes("payment reserve");
    let late = story.tell(operator("a", OperatorKind::Cancel));
    assert!(matches!(late, Err(Refusal::NotPossible(_))), "{late:?}");
}

#[test]
fn the_same_action_again_changes_nothing() {
    let mut story = Story::order(&[]);
    story.tell(operator("a", OperatorKind::Pause)).unwrap();
    assert_eq!(
        story.tell(operator("a", OperatorKind::Pause)),
        Err(Refusal::Settled)
    );
}

#[test]
fn a_retry_does_not_wait_for_the_backoff() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    let nothing = story.tell(operator(
        "a",
        OperatorKind::Retry {
            step: None,
            with: None,
        },
    ));
    assert!(matches!(nothing, Err(Refusal::NotPossible(_))));
    story.fail("stock[0] reserve");
    let step = Some("stock[0]".parse().unwrap());
    let sent = story
        .tell(operator("b", OperatorKind::Retry { step, with: None }))
        .unwrap();
    assert_eq!(sent, ["stock[0] reserve#1"]);
}

#[test]
fn a_suspended_confirm_is_skipped_with_evidence() {
    let mut story = Story::order(&[]);
    story.yes("order reserve");
    story.yes("payment reserve");
    story.yes("order confirm");
    let early = OperatorKind::Skip {
        step: "payment".parse().unwrap(),
        reply: None,
    };
    let refusal = story.tell(operator("a", early.clone()));
    assert!(
        matches!(refusal, Err(Refusal::NotPossible(_))),
        "it is still being asked"
    );
    story.no("payment confirm");
    story.tell(operator("p", OperatorKind::Pause)).unwrap();
    let paused = story.tell(operator("q", early.clone()));
    assert!(
        matches!(paused, Err(Refusal::NotPossible(_))),
        "a paused saga decides nothing: {paused:?}"
    );
    story.tell(operator("r", OperatorKind::Resume)).unwrap();
    story.no("payment confirm");
    assert_eq!(
        story.tell(operator("b", early)).unwrap(),
        ["receipt confirm#1"]
    );
    story.yes("receipt confirm");
    assert_eq!(story.saga.status(), Status::Completed);
}

#[test]
fn a_paused_saga_keeps_answers_and_goes_on_where_it_was() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    story.tell(operator("a", OperatorKind::Pause)).unwrap();
    assert_eq!(story.saga.status(), Status::Suspended);
    assert!(story.yes("payment reserve").is_empty());
    assert!(story.yes("stock[0] reserve").is_empty());
    assert!(
        story.yes("stock[0] reserve").is_empty(),
        "a duplicate is kept too, and settled later"
    );
    assert_eq!(story.saga.wake_at(), None, "its clock stands still");
    story.now = story.now.after(Duration::from_mins(9));
    assert_eq!(story.tell(Input::Wake), Err(Refusal::Settled));
    assert_eq!(
        story.tell(operator("b", OperatorKind::Resume)).unwrap(),
        ["order confirm#1", "payment confirm#1", "stock[0] confirm#1"]
    );
}

#[test]
fn a_saga_is_ended_by_force_and_says_by_whom() {
    for (kind, status) in [
        (OperatorKind::ForceComplete, Status::Completed),
        (OperatorKind::ForceCompensated, Status::Compensated),
    ] {
        let mut story = Story::order(&["a"]);
        story.yes("order reserve");
        assert!(story.tell(operator("a", kind)).unwrap().is_empty());
        assert_eq!(story.saga.status(), status);
        assert_eq!(story.reason(), "forced by ann: I looked");
        assert_eq!(story.saga.wake_at(), None);
        assert_eq!(
            story.answer("stock[0] reserve", Outcome::Succeeded),
            Err(Refusal::Settled)
        );
        let after = story.tell(operator("b", OperatorKind::Resume));
        assert_eq!(after, Err(Refusal::Ended));
    }
}

#[test]
fn a_lapsing_reservation_rolls_back_before_the_pivot_only() {
    let mut story = Story::order(&[]);
    let lapses = story.now.after(Duration::from_secs(5));
    let reply = json!({ "expires_at": lapses.to_string() });
    story
        .answer_with("order reserve", Outcome::Succeeded, reply.clone())
        .unwrap();
    assert_eq!(story.saga.wake_at(), Some(lapses.before(LEASE_MARGIN)));
    assert!(story.wake().is_empty(), "the payment is heard out");
    let expected = format!("the reservation of order lapses at {lapses}");
    assert_eq!(story.reason(), expected);

    let mut story = Story::order(&[]);
    story
        .answer_with("order reserve", Outcome::Succeeded, reply)
        .unwrap();
    story.yes("payment reserve");
    assert_eq!(story.saga.status(), Status::Confirming);
    assert!(story.saga.leases.is_empty());
}

#[test]
fn an_ended_saga_is_not_called_paused() {
    let mut story = Story::order(&[]);
    story.tell(operator("a", OperatorKind::Pause)).unwrap();
    assert_eq!(story.reason(), "paused by a person");
    // As an older version left sagas that it let be skipped to their ends.
    story.saga.pass = Pass::Completed;
    assert_eq!(story.saga.status_reason(), None);
}
