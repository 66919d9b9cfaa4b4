//! A saga that another one runs: it stops at its pivot, and answers.

use super::parents::{TRIP, trip};
use super::*;
use crate::id::Phase;

const FLIGHT: &str = "
saga: book-flight
version: 1
key: ${ input.id }
timeout: 1m
steps:
  - step: seat
    reserve: seats.hold
    confirm: seats.book
    compensate: seats.free
    timeout: 10s
    retry: { attempts: 1 }
  - step: miles
    confirm: miles.credit
output: { seat: '${ steps.seat.number }' }
";

/// A story whose saga is run by another one, and what it told that one.
pub(super) struct Child(pub(super) Story);

impl Child {
    fn begin(yaml: &str, input: Value) -> (Self, Vec<String>) {
        let mut child = Self(Story::unstarted(yaml));
        let sent = child.obey(ParentOrder::Reserve {
            parent: parent(),
            input: Arc::new(input),
            refused: None,
        });
        (child, sent.unwrap())
    }

    pub(super) fn flight() -> Self {
        let (child, sent) = Self::begin(FLIGHT, json!({ "id": "f1" }));
        assert_eq!(sent, ["seat reserve#1"]);
        child
    }

    /// A flight that has told its parent that it is prepared.
    pub(super) fn prepared() -> Self {
        let mut child = Self::flight();
        child
            .0
            .answer_with(
                "seat reserve",
                Outcome::Succeeded,
                json!({ "number": "7A" }),
            )
            .unwrap();
        assert_eq!(child.told(), ["reserve succeeded: {\"seat\":\"7A\"}"]);
        child
    }

    fn obey(&mut self, order: ParentOrder) -> Result<Vec<String>, Refusal> {
        self.0.tell(Input::Parent(order))
    }

    fn confirm(&mut self) -> Result<Vec<String>, Refusal> {
        self.obey(ParentOrder::Confirm)
    }

    pub(super) fn compensate(&mut self) -> Result<Vec<String>, Refusal> {
        self.obey(ParentOrder::Compensate { parent: parent() })
    }

    /// What the parent was told since the last time.
    pub(super) fn told(&mut self) -> Vec<String> {
        self.0.told.drain(..).map(in_words).collect()
    }

    /// What it answers if asked again.
    fn answers(&self) -> [Option<String>; 3] {
        [Phase::Reserve, Phase::Confirm, Phase::Compensate]
            .map(|phase| answer_to_parent(&self.0.saga, phase).map(in_words))
    }
}

fn parent() -> Parent {
    Parent {
        saga: SagaId(Uuid::from_u128(9)),
        step: "flight".parse().unwrap(),
        depth: 1,
    }
}

fn in_words(answer: ChildAnswer) -> String {
    let ChildAnswer {
        phase,
        outcome,
        reason,
        body,
    } = answer;
    format!(
        "{phase} {}: {}",
        outcome.as_str(),
        reason.unwrap_or_else(|| body.to_string())
    )
}

fn texts<const N: usize>(texts: [&str; N]) -> [Option<String>; N] {
    texts.map(|text| (!text.is_empty()).then(|| text.to_owned()))
}

#[test]
fn a_child_stops_at_its_pivot_until_its_parent_confirms() {
    let mut child = Child::prepared();
    assert_eq!(child.0.saga.status(), Status::Running);
    assert_eq!(
        child.0.saga.wake_at(),
        None,
        "its own timeout counts no more"
    );
    assert_eq!(child.confirm().unwrap(), ["seat confirm#1"]);
    assert_eq!(child.0.yes("seat confirm"), ["miles confirm#1"]);
    assert_eq!(child.told(), [""; 0], "only when all is done");
    child.0.yes("miles confirm");
    assert_eq!(child.told(), ["confirm succeeded: {\"seat\":\"7A\"}"]);
    assert_eq!(child.0.saga.status(), Status::Completed);
    assert_eq!(
        child.0.notices,
        ["started", "prepared", "confirming", "completed"]
    );
}

#[test]
fn a_child_rolls_back_when_its_parent_says_so() {
    let mut child = Child::prepared();
    assert_eq!(child.compensate().unwrap(), ["seat compensate#1"]);
    assert_eq!(child.told(), [""; 0]);
    child.0.yes("seat compensate");
    assert_eq!(child.told(), ["compensate succeeded: null"]);
    assert!(
        child.0.reason().starts_with("rolled back by saga "),
        "{}",
        child.0.reason()
    );
}

#[test]
fn a_child_that_is_at_work_hears_its_own_participants_out_first() {
    let mut child = Child::flight();
    assert!(child.compensate().unwrap().is_empty());
    assert_eq!(child.0.yes("seat reserve"), ["seat compensate#1"]);
    child.0.yes("seat compensate");
    assert_eq!(child.told(), ["compensate succeeded: null"]);
}

#[test]
fn a_child_that_rolls_back_by_itself_rejects() {
    let mut refused = Child::flight();
    refused.0.no("seat reserve");
    assert_eq!(refused.told(), ["reserve rejected: seat rejected: because"]);

    let mut late = Child::flight();
    late.0.wake();
    assert_eq!(late.told(), [""; 0], "not before it is undone");
    late.0.yes("seat compensate");
    let told = late.told();
    assert!(
        told[0].starts_with("reserve rejected: seat reserve: no answer"),
        "{told:?}"
    );

    // The parent was faster to give up: it wants to know that only.
    let mut both = Child::flight();
    both.0.wake();
    both.compensate().unwrap();
    both.0.yes("seat compensate");
    assert_eq!(both.told(), ["compensate succeeded: null"]);
}

#[test]
fn what_is_asked_again_is_answered_from_the_state_alone() {
    let flight = Child::flight();
    let early = "confirm failed: it has not reached its pivot";
    assert_eq!(flight.answers(), texts(["", early, ""]));

    let mut child = Child::prepared();
    let reserved = "reserve succeeded: {\"seat\":\"7A\"}";
    assert_eq!(child.answers(), texts([reserved, "", ""]));
    child.confirm().unwrap();
    let past = "compensate rejected: it is past its pivot and can't be undone";
    assert_eq!(child.answers(), texts([reserved, "", past]));
    child.0.yes("seat confirm");
    child.0.yes("miles confirm");
    let confirmed = "confirm succeeded: {\"seat\":\"7A\"}";
    assert_eq!(child.answers(), texts([reserved, confirmed, past]));
    for order in [
        ParentOrder::Confirm,
        ParentOrder::Compensate { parent: parent() },
        ParentOrder::Reserve {
            parent: parent(),
            input: Arc::default(),
            refused: None,
        },
    ] {
        assert_eq!(child.obey(order), Err(Refusal::Settled));
    }

    let mut undone = Child::prepared();
    undone.compensate().unwrap();
    assert_eq!(undone.compensate(), Err(Refusal::Settled));
    undone.0.yes("seat compensate");
    let [reserve, confirm, compensate] = undone.answers().map(Option::unwrap);
    assert!(
        reserve.starts_with("reserve rejected: rolled back by saga"),
        "{reserve}"
    );
    assert!(
        confirm.starts_with("confirm rejected: it was rolled back: "),
        "{confirm}"
    );
    assert_eq!(compensate, "compensate succeeded: null");
}

#[test]
fn compensated_before_it_began_it_refuses_to_begin() {
    let mut child = Child(Story::unstarted(FLIGHT));
    assert!(child.compensate().unwrap().is_empty());
    assert_eq!(child.told(), ["compensate succeeded: null"]);
    assert_eq!(child.0.saga.status(), Status::Compensated);
    assert_eq!(child.0.notices, [""; 0]);
    let reserve = ParentOrder::Reserve {
        parent: parent(),
        input: Arc::default(),
        refused: None,
    };
    assert_eq!(child.obey(reserve), Err(Refusal::Settled));
    let [reserve, _, compensate] = child.answers().map(Option::unwrap);
    assert!(reserve.contains("before it began"), "{reserve}");
    assert_eq!(compensate, "compensate succeeded: null");
}

#[test]
fn a_child_that_cant_be_run_is_born_compensated() {
    let mut child = Child(Story::unstarted(FLIGHT));
    let refused = Some("the key is taken".to_owned());
    let order = ParentOrder::Reserve {
        parent: parent(),
        input: Arc::default(),
        refused,
    };
    assert!(child.obey(order).unwrap().is_empty());
    assert_eq!(child.told(), ["reserve rejected: the key is taken"]);
    child.compensate().unwrap_err();
}

#[test]
fn a_child_without_anything_to_reserve_is_prepared_at_once() {
    let yaml = "
saga: notes
version: 1
key: ${ input.id }
steps:
  - { step: note, confirm: notes.write }
";
    let (mut child, sent) = Child::begin(yaml, json!({ "id": "n1" }));
    assert!(sent.is_empty());
    assert_eq!(child.told(), ["reserve succeeded: null"]);
    assert_eq!(child.confirm().unwrap(), ["note confirm#1"]);
    child.0.yes("note confirm");
    assert_eq!(child.told(), ["confirm succeeded: null"]);
}

#[test]
fn a_child_with_an_early_pivot_waits_there() {
    let yaml = "
saga: seats
version: 1
key: ${ input.id }
steps:
  - { step: charge, action: cards.charge, compensate: cards.refund, pivot: true }
  - { step: print, action: printer.print }
";
    let (mut child, _) = Child::begin(yaml, json!({ "id": "s1" }));
    assert!(child.0.yes("charge action").is_empty());
    assert_eq!(child.told(), ["reserve succeeded: null"]);
    let mut back = Child(Story {
        told: Vec::new(),
        ..child.0
    });
    assert_eq!(back.confirm().unwrap(), ["print action#1"]);
    back.0.yes("print action");
    assert_eq!(back.told(), ["confirm succeeded: null"]);
}

#[test]
fn the_earliest_lease_reaches_the_parent_with_a_margin() {
    let lease = |yaml: &str| {
        let mut child = Child::begin(yaml, json!({ "id": "f1" })).0;
        let lapses = child.0.now.after(Duration::from_secs(30));
        let reply = json!({ "number": "7A", "expires_at": lapses.to_string() });
        child
            .0
            .answer_with("seat reserve", Outcome::Succeeded, reply)
            .unwrap();
        let earlier = lapses.before(LEASE_MARGIN).to_string();
        (child.told(), earlier, child)
    };
    let (told, earlier, child) = lease(FLIGHT);
    let expected = format!("reserve succeeded: {{\"expires_at\":\"{earlier}\",\"seat\":\"7A\"}}");
    assert_eq!(told, [expected]);
    assert_eq!(
        child.0.saga.wake_at(),
        None,
        "what lapses now is the parent's business"
    );

    let no_output = FLIGHT.replace("output: { seat: '${ steps.seat.number }' }", "");
    let (told, earlier, _) = lease(&no_output);
    assert_eq!(
        told,
        [format!(
            "reserve succeeded: {{\"expires_at\":\"{earlier}\"}}"
        )]
    );

    let text = FLIGHT.replace(
        "{ seat: '${ steps.seat.number }' }",
        "${ steps.seat.number }",
    );
    let (told, _, mut child) = lease(&text);
    assert_eq!(told, [""; 0]);
    child.0.yes("seat compensate");
    assert!(child.told()[0].contains("its output must have fields"));
}

#[test]
fn an_output_that_cant_be_computed_at_the_pivot_rolls_a_child_back() {
    let mut child = Child::flight();
    let sent = child
        .0
        .answer_with("seat reserve", Outcome::Succeeded, json!({}))
        .unwrap();
    assert_eq!(sent, ["seat compensate#1"]);
    child.0.yes("seat compensate");
    let told = child.told();
    assert!(
        told[0].contains("its output can't be computed at its pivot"),
        "{told:?}"
    );
}

#[test]
fn a_child_can_be_cancelled_until_it_is_prepared() {
    let mut child = Child::flight();
    child.0.tell(operator("a-1", OperatorKind::Cancel)).unwrap();
    child.0.yes("seat reserve");
    child.0.yes("seat compensate");
    assert_eq!(
        child.told(),
        ["reserve rejected: cancelled by ann: I looked"]
    );

    // Nor forced: its parent counts on it.
    let mut prepared = Child::prepared();
    let (complete, compensated) = (OperatorKind::ForceComplete, OperatorKind::ForceCompensated);
    for kind in [OperatorKind::Cancel, complete, compensated.clone()] {
        let refusal = prepared.0.tell(operator("a-1", kind));
        let Err(Refusal::NotPossible(why)) = refusal else {
            panic!("{refusal:?}");
        };
        assert!(why.contains(&parent().saga.to_string()), "{why}");
    }
    // Once it has been asked, its word is kept or broken by itself.
    prepared
        .0
        .tell(operator("a-2", OperatorKind::Pause))
        .unwrap();
    prepared.compensate().unwrap();
    prepared.0.tell(operator("a-3", compensated)).unwrap();
    assert_eq!(prepared.told(), ["compensate succeeded: null"]);
}

#[test]
fn what_a_parent_says_to_a_paused_child_is_done_when_it_resumes() {
    let paused = |mut child: Child| {
        child.0.tell(operator("a-1", OperatorKind::Pause)).unwrap();
        child
    };
    let mut child = paused(Child::prepared());
    assert!(child.confirm().unwrap().is_empty());
    assert_eq!(child.0.saga.status(), Status::Suspended);
    let sent = child.0.tell(operator("a-2", OperatorKind::Resume)).unwrap();
    assert_eq!(sent, ["seat confirm#1"]);

    let mut child = paused(Child::flight());
    assert!(child.compensate().unwrap().is_empty());
    assert_eq!(child.compensate(), Err(Refusal::Settled));
    let answer = child.0.yes("seat reserve");
    assert!(answer.is_empty(), "kept");
    let sent = child.0.tell(operator("a-2", OperatorKind::Resume)).unwrap();
    assert_eq!(sent, ["seat compensate#1"]);
}

#[test]
fn a_suspended_roll_back_of_a_child_is_waited_for() {
    let yaml = FLIGHT.replace("    retry: { attempts: 1 }\n", "    suspend_after: 1\n");
    let mut child = Child::begin(&yaml, json!({ "id": "f1" })).0;
    child
        .0
        .answer_with("seat reserve", Outcome::Succeeded, json!({ "number": 1 }))
        .unwrap();
    child.told();
    child.compensate().unwrap();
    child.0.fail("seat compensate");
    assert_eq!(child.0.saga.status(), Status::Suspended);
    assert_eq!(child.compensate(), Err(Refusal::Settled));
    assert_eq!(child.answers()[2], None, "a person must look first");
    let skip = OperatorKind::Skip {
        step: "seat".parse().unwrap(),
        reply: None,
    };
    child.0.tell(operator("a-1", skip)).unwrap();
    assert_eq!(child.told(), ["compensate succeeded: null"]);
}

#[test]
fn what_a_person_forces_is_told_to_the_parent() {
    let force = |mut child: Child, kind| {
        child.0.tell(operator("a-1", kind)).unwrap();
        (child.told(), child)
    };
    let (told, child) = force(Child::flight(), OperatorKind::ForceCompensated);
    assert_eq!(told, ["reserve rejected: forced by ann: I looked"]);
    // A confirm would be refused, and a person look at the parent too.
    let confirm = child.answers()[1].clone().unwrap();
    assert_eq!(
        confirm,
        "confirm rejected: it was rolled back: forced by ann: I looked"
    );
    let (told, _) = force(Child::flight(), OperatorKind::ForceComplete);
    assert!(told[0].starts_with("reserve succeeded: "), "{told:?}");
}

#[test]
fn only_a_saga_that_another_one_runs_obeys() {
    let mut story = trip();
    for order in [
        ParentOrder::Confirm,
        ParentOrder::Compensate { parent: parent() },
    ] {
        let refusal = story.tell(Input::Parent(order));
        assert!(
            matches!(refusal, Err(Refusal::NotPossible(_))),
            "{refusal:?}"
        );
    }
    assert_eq!(answer_to_parent(&story.saga, Phase::Reserve), None);
}

#[test]
fn a_saga_between_two_others_is_confirmed_from_above_and_confirms_below() {
    let (mut middle, sent) = Child::begin(TRIP, json!({ "id": "t1", "to": "OSL" }));
    assert_eq!(sent, ["flight reserve#1"]);
    middle
        .0
        .answer_with(
            "flight reserve",
            Outcome::Succeeded,
            json!({ "seat": "7A" }),
        )
        .unwrap();
    assert!(middle.0.yes("insurance reserve").is_empty());
    assert_eq!(middle.told(), ["reserve succeeded: null"]);
    assert_eq!(
        middle.confirm().unwrap(),
        ["flight confirm#1", "insurance confirm#1"]
    );
}
