//! Signals: early, late, twice, and not the one that is waited for.

use super::*;
use crate::saga::state::SEEN_IDS_MAX;

const WAITS: &str = "
saga: s
version: 1
key: ${ input.id }
timeout: 30d
steps:
  - step: hold
    reserve: x.hold
    confirm: x.keep
    compensate: x.free
  - wait: paid
    match: ${ signal.amount >= input.total }
    timeout: 3d
  - step: thank
    with: { amount: '${ steps.paid.amount }' }
    confirm: mailer.thank
";

fn begin() -> Story {
    Story::begin(WAITS, json!({ "id": "i", "total": 10 })).0
}

fn signal(id: &str, amount: u64) -> Input {
    Input::Signal(Signal {
        name: "paid".into(),
        id: id.into(),
        body: Arc::new(json!({ "amount": amount })),
        at: None,
    })
}

#[test]
fn a_signal_ends_the_wait_it_fits() {
    let mut story = begin();
    story.yes("hold reserve");
    assert!(
        story.tell(signal("s1", 9)).unwrap().is_empty(),
        "too little"
    );
    assert_eq!(story.tell(signal("s2", 10)).unwrap(), ["hold confirm#1"]);
    assert_eq!(story.yes("hold confirm"), ["thank confirm#1"]);
    let with = story.saga.steps[&StepPath::plain("thank")].with.clone();
    assert_eq!(with.unwrap()["amount"], json!(10));
}

#[test]
fn an_early_signal_is_kept_and_a_second_copy_changes_nothing() {
    let mut story = begin();
    assert!(story.tell(signal("s1", 12)).unwrap().is_empty());
    assert_eq!(story.tell(signal("s1", 12)), Err(Refusal::Settled));
    assert_eq!(story.yes("hold reserve"), ["hold confirm#1"]);
    assert_eq!(story.tell(signal("s1", 12)), Err(Refusal::Settled));
}

#[test]
fn an_id_says_one_thing_whoever_comes_first() {
    let mut story = begin();
    assert!(story.tell(signal("s1", 1)).unwrap().is_empty());
    let other = Err(Refusal::OtherSignal("s1".to_owned()));
    assert_eq!(story.tell(signal("s1", 12)), other);
    assert_eq!(story.tell(signal("s1", 1)), Err(Refusal::Settled));
    // Also once it was taken, and for a snapshot that does not know yet what was said.
    assert!(story.tell(signal("s2", 12)).unwrap().is_empty());
    assert_eq!(story.yes("hold reserve"), ["hold confirm#1"]);
    let other = Err(Refusal::OtherSignal("s2".to_owned()));
    assert_eq!(story.tell(signal("s2", 13)), other);
    let stored = serde_json::to_value(&story.saga).unwrap();
    story.saga = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(story.tell(signal("s2", 13)), other);
    let mut older = stored;
    older.as_object_mut().unwrap().remove("said");
    story.saga = serde_json::from_value(older).unwrap();
    assert_eq!(story.tell(signal("s2", 13)), Err(Refusal::Settled));
}

#[test]
fn what_is_remembered_of_signals_is_bounded() {
    let mut story = begin();
    for number in 0..=SEEN_IDS_MAX {
        let id = format!("s{number}");
        story.saga.remember_signal(&as_signal(signal(&id, 1)));
    }
    assert_eq!(story.saga.said.len(), SEEN_IDS_MAX);
    assert!(!story.saga.said.contains_key("s0"));
}

fn as_signal(input: Input) -> Signal {
    match input {
        Input::Signal(signal) => signal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wait_that_is_not_ended_in_time_rolls_back() {
    let mut story = begin();
    story.yes("hold reserve");
    assert_eq!(story.wake(), ["hold compensate#1"]);
    assert_eq!(story.reason(), "paid: no signal `paid` came in time");
    story.yes("hold compensate");
    assert_eq!(story.tell(signal("s1", 12)), Err(Refusal::Ended));
}

#[test]
fn a_signal_that_comes_during_a_pause_is_taken_afterwards() {
    let mut story = begin();
    story.yes("hold reserve");
    story.tell(operator("a", OperatorKind::Pause)).unwrap();
    assert!(story.tell(signal("s1", 12)).unwrap().is_empty());
    let sent = story.tell(operator("b", OperatorKind::Resume)).unwrap();
    assert_eq!(sent, ["hold confirm#1"]);
}

#[test]
fn a_signal_that_nothing_ever_waits_for_is_refused() {
    let mut story = begin();
    let other = Input::Signal(Signal {
        name: "piad".into(),
        id: "s1".into(),
        body: Arc::new(json!({ "amount": 12 })),
        at: None,
    });
    let refused = story.tell(other);
    assert_eq!(refused, Err(Refusal::NoSuchSignal("piad".into())));
}

#[test]
fn no_more_signals_are_kept_than_a_saga_may() {
    let mut story = begin();
    for number in 0..SIGNALS_KEPT_MAX {
        story.tell(signal(&number.to_string(), 1)).unwrap();
    }
    assert_eq!(story.tell(signal("more", 1)), Err(Refusal::TooManySignals));
}

#[test]
fn a_signal_that_a_wait_takes_at_once_needs_no_room() {
    let mut story = begin();
    story.yes("hold reserve");
    for number in 0..SIGNALS_KEPT_MAX {
        story.tell(signal(&number.to_string(), 1)).unwrap();
    }
    assert_eq!(story.tell(signal("more", 1)), Err(Refusal::TooManySignals));
    story.tell(operator("a", OperatorKind::Pause)).unwrap();
    let during = story.tell(signal("paused", 10));
    assert_eq!(during, Err(Refusal::TooManySignals));
    story.tell(operator("b", OperatorKind::Resume)).unwrap();
    assert_eq!(story.tell(signal("fits", 10)).unwrap(), ["hold confirm#1"]);
}

/// Two rounds of approval, of which the second one wants an answer of its own.
const ROUNDS: &str = "
saga: s
version: 1
key: ${ input.id }
timeout: 30d
steps:
  - { wait: first, signal: paid, timeout: 1d }
  - { step: hold, reserve: x.hold, confirm: x.keep, compensate: x.free }
  - { wait: second, signal: paid, since: SINCE, timeout: 1d }
";

#[test]
fn what_is_left_over_does_not_decide_the_next_round_if_that_says_so() {
    for (since, ends) in [("start", true), ("begin", false)] {
        let yaml = ROUNDS.replace("SINCE", since);
        let (mut story, _) = Story::begin(&yaml, json!({ "id": "i" }));
        assert_eq!(story.tell(signal("s1", 1)).unwrap(), ["hold reserve#1"]);
        assert!(story.tell(signal("s2", 2)).unwrap().is_empty());
        let sent = story.yes("hold reserve");
        assert_eq!(sent == ["hold confirm#1"], ends, "{since}");
        if !ends {
            assert_eq!(story.step("second"), StepStatus::Waiting);
            assert_eq!(story.tell(signal("s3", 3)).unwrap(), ["hold confirm#1"]);
        }
        let taken = story.saga.steps[&StepPath::plain("second")].reply.clone();
        let amount = if ends { 2 } else { 3 };
        assert_eq!(taken.unwrap()["amount"], json!(amount), "{since}");
    }
}
