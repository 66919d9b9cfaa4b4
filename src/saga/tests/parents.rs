//! A saga that runs others, as steps.

use super::*;

pub(super) const TRIP: &str = "
saga: trip
version: 1
key: ${ input.id }
timeout: 2h
steps:
  - saga: flight
    run: book-flight
    with: { to: '${ input.to }' }
    timeout: 40s
    suspend_after: 2
  - step: insurance
    with: { seat: '${ steps.flight.seat }' }
    reserve: insurance.reserve
    confirm: insurance.confirm
    compensate: insurance.release
    timeout: 10s
    retry: { attempts: 1 }
  - step: mail
    confirm: mailer.send
";

pub(super) fn trip() -> Story {
    let (story, sent) = Story::begin(TRIP, json!({ "id": "t1", "to": "OSL" }));
    assert_eq!(sent, ["flight reserve#1"]);
    story
}

#[test]
fn a_sub_saga_is_reserved_confirmed_and_its_output_is_its_reply() {
    let mut story = trip();
    let ticket = json!({ "seat": "7A" });
    let sent = story.answer_with("flight reserve", Outcome::Succeeded, ticket.clone());
    assert_eq!(sent.unwrap(), ["insurance reserve#1"]);
    assert_eq!(
        story.saga.steps[&"insurance".parse().unwrap()]
            .with
            .as_deref(),
        Some(&ticket)
    );
    assert_eq!(
        story.yes("insurance reserve"),
        ["flight confirm#1", "insurance confirm#1"]
    );
    story.yes("insurance confirm");
    assert_eq!(story.yes("flight confirm"), ["mail confirm#1"]);
    story.yes("mail confirm");
    assert_eq!(story.saga.status(), Status::Completed);
}

#[test]
fn commands_to_a_sub_saga_go_to_the_start_queue_with_its_name_and_input() {
    let mut story = Story::unstarted(TRIP);
    let input = Arc::new(json!({ "id": "t1", "to": "OSL" }));
    let start = Input::Start {
        input,
        starter: None,
    };
    let mut emissions = decide(&story.definition, &mut story.saga, start, story.now)
        .unwrap()
        .emissions;
    let cancel = operator("a-1", OperatorKind::Cancel);
    emissions.extend(
        decide(&story.definition, &mut story.saga, cancel, story.now)
            .unwrap()
            .emissions,
    );
    let commands: Vec<_> = emissions
        .into_iter()
        .filter_map(|send| match send {
            Emission::Command {
                phase,
                command,
                to,
                body,
                ..
            } => Some(format!("{phase} {command} {to} {body}")),
            _ => None,
        })
        .collect();
    assert_eq!(
        commands,
        [
            "reserve book-flight queue `backstitch.start` {\"to\":\"OSL\"}",
            "compensate book-flight queue `backstitch.start` null",
        ]
    );
}

#[test]
fn a_rejected_sub_saga_rolls_its_parent_back_without_being_compensated() {
    let mut story = trip();
    assert!(story.no("flight reserve").is_empty());
    assert_eq!(story.saga.status(), Status::Compensated);
    assert_eq!(story.reason(), "flight rejected: because");
}

#[test]
fn a_parent_goes_on_without_a_rejected_sub_saga_if_it_may() {
    let yaml = TRIP
        .replace("    suspend_after: 2\n", "    on_reject: continue\n")
        .replace(
            "${ steps.flight.seat }",
            "${ has(steps.flight) ? steps.flight.seat : \"\" }",
        );
    let (mut story, _) = Story::begin(&yaml, json!({ "id": "t1", "to": "OSL" }));
    assert_eq!(story.no("flight reserve"), ["insurance reserve#1"]);
    assert_eq!(story.yes("insurance reserve"), ["insurance confirm#1"]);
}

#[test]
fn what_comes_later_fails_and_the_sub_saga_is_rolled_back() {
    let mut story = trip();
    story
        .answer_with(
            "flight reserve",
            Outcome::Succeeded,
            json!({ "seat": "7A" }),
        )
        .unwrap();
    assert_eq!(story.no("insurance reserve"), ["flight compensate#1"]);
    story.yes("flight compensate");
    assert_eq!(story.saga.status(), Status::Compensated);
}

#[test]
fn a_silent_sub_saga_is_asked_again_within_its_time_and_then_rolled_back() {
    let mut story = trip();
    let began = story.now;
    let mut asked = Vec::new();
    while story.saga.status() == Status::Running {
        asked.extend(story.wake());
    }
    assert_eq!(
        asked,
        [
            "flight reserve#2",
            "flight reserve#3",
            "flight reserve#4",
            "flight compensate#1"
        ]
    );
    let took = story.now.since(began).as_secs();
    assert!((40..44).contains(&took), "{took} s");
    assert!(
        story.reason().contains("no answer within 10s"),
        "{}",
        story.reason()
    );
}

#[test]
fn a_sub_saga_at_work_is_not_heard_out_when_the_roll_back_comes() {
    let mut story = trip();
    let sent = story.tell(operator("a-1", OperatorKind::Cancel)).unwrap();
    assert_eq!(sent, ["flight compensate#1"]);
    // Its first answer was on its way.
    assert_eq!(
        story.answer("flight reserve", Outcome::Succeeded),
        Err(Refusal::Settled)
    );
    story.yes("flight compensate");
    assert_eq!(story.saga.status(), Status::Compensated);
}

#[test]
fn silence_behind_the_pivot_means_that_a_sub_saga_is_at_work_and_a_failure_does_not() {
    let mut story = trip();
    story
        .answer_with(
            "flight reserve",
            Outcome::Succeeded,
            json!({ "seat": "7A" }),
        )
        .unwrap();
    story.yes("insurance reserve");
    story.yes("insurance confirm");
    for _ in 0..50 {
        assert_eq!(story.wake(), ["flight confirm#1"]);
    }
    assert_eq!(story.saga.status(), Status::Confirming);
    story.fail("flight confirm");
    assert_eq!(story.wake(), ["flight confirm#2"]);
    story.fail("flight confirm");
    assert_eq!(story.saga.status(), Status::Suspended);

    let mut back = trip();
    back.tell(operator("a-1", OperatorKind::Cancel)).unwrap();
    for _ in 0..50 {
        assert_eq!(back.wake(), ["flight compensate#1"]);
    }
    assert_eq!(back.saga.status(), Status::Compensating);
}

#[test]
fn a_sub_saga_that_breaks_its_word_suspends_its_parent_at_once() {
    let mut story = trip();
    story
        .answer_with(
            "flight reserve",
            Outcome::Succeeded,
            json!({ "seat": "7A" }),
        )
        .unwrap();
    story.yes("insurance reserve");
    story.no("flight confirm");
    assert_eq!(story.saga.status(), Status::Suspended);
    assert_eq!(story.reason(), "flight confirm: rejected: because");
}

#[test]
fn the_lease_of_a_sub_saga_is_its_parents() {
    let mut story = trip();
    let lapses = story.now.after(Duration::from_secs(9));
    let reply = json!({ "seat": "7A", "expires_at": lapses.to_string() });
    story
        .answer_with("flight reserve", Outcome::Succeeded, reply)
        .unwrap();
    assert!(story.wake().is_empty(), "the insurance is heard out");
    let expected = format!("the reservation of flight lapses at {lapses}");
    assert_eq!(story.reason(), expected);
    assert_eq!(story.yes("insurance reserve"), ["insurance compensate#1"]);
    assert_eq!(story.yes("insurance compensate"), ["flight compensate#1"]);
}

#[test]
fn a_loop_runs_one_sub_saga_for_each_item() {
    let yaml = "
saga: tour
version: 1
key: ${ input.id }
steps:
  - saga: leg
    for_each: ${ input.legs }
    when: ${ item != '' }
    run: book-flight
    with: { to: '${ item }' }
output: { seats: '${ steps.leg }' }
";
    let input = json!({ "id": "t1", "legs": ["OSL", "", "BGO"] });
    let (mut story, sent) = Story::begin(yaml, input);
    assert_eq!(sent, ["leg[0] reserve#1", "leg[2] reserve#1"]);
    story.yes("leg[2] reserve");
    assert_eq!(
        story.yes("leg[0] reserve"),
        ["leg[0] confirm#1", "leg[2] confirm#1"]
    );
    story.yes("leg[0] confirm");
    story.yes("leg[2] confirm");
    let reply = json!({ "amount": 7 });
    assert_eq!(
        story.saga.output.as_deref(),
        Some(&json!({ "seats": [reply, null, reply] }))
    );
}
