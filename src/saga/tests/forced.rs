//! A person ends a saga that runs others by force: none of those waits for it for ever.

use super::children::Child;
use super::parents::trip;
use super::*;

/// How far each leg of a tour has got, and what it hears when the tour is ended by hand.
#[test]
fn what_a_saga_runs_is_let_go_when_a_person_ends_it() {
    let tour = "
saga: tour
version: 1
key: ${ input.id }
steps:
  - parallel:
      - { saga: first, run: book-flight, with: { to: OSL } }
      - { saga: second, run: book-flight, with: { to: BGO } }
      - { saga: third, run: book-flight, with: { to: TOS } }
";
    let begin = || Story::begin(tour, json!({ "id": "t1" })).0;
    let forced = |story: &mut Story, kind: OperatorKind| {
        let sent = story.tell(operator("a", kind)).unwrap();
        assert!(story.saga.status().is_ended());
        assert_eq!(story.saga.wake_at(), None, "nobody waits for the answers");
        sent
    };
    let (complete, compensated) = (OperatorKind::ForceComplete, OperatorKind::ForceCompensated);

    // One prepared, one refused, one at work.
    for (kind, first) in [(&complete, "confirm"), (&compensated, "compensate")] {
        let mut story = begin();
        story.yes("first reserve");
        if kind == &compensated {
            assert_eq!(story.no("second reserve").len(), 2);
        }
        let sent = forced(&mut story, kind.clone());
        let expected = match first {
            "confirm" => vec![
                "first confirm#1",
                "second compensate#1",
                "third compensate#1",
            ],
            _ => vec!["first compensate#1", "third compensate#1"],
        };
        assert_eq!(sent, expected, "{kind:?}");
    }

    // Prepared alone, before anything else was decided.
    let mut story = begin();
    story.yes("second reserve");
    assert_eq!(
        forced(&mut story, compensated.clone()),
        [
            "first compensate#1",
            "second compensate#1",
            "third compensate#1"
        ]
    );

    // Behind the pivot, what is not confirmed yet.
    for kind in [complete, compensated] {
        let mut story = begin();
        for leg in ["first", "second", "third"] {
            story.yes(&format!("{leg} reserve"));
        }
        story.yes("first confirm");
        story.no("second confirm");
        let sent = forced(&mut story, kind);
        assert_eq!(sent, ["second confirm#1", "third confirm#1"]);
    }
}

/// The answer of a child that is prepared finds that its parent was ended by hand; but the parent
/// has sent it word by then, whichever of the two comes first.
#[test]
fn a_child_that_is_prepared_after_its_parent_was_forced_does_not_wait_for_ever() {
    for prepared_first in [true, false] {
        let mut trip = trip();
        let mut flight = Child::flight();
        let force = operator("a", OperatorKind::ForceCompensated);
        assert_eq!(trip.tell(force).unwrap(), ["flight compensate#1"]);
        if prepared_first {
            let seat = json!({ "number": "7A" });
            let reserved = flight
                .0
                .answer_with("seat reserve", Outcome::Succeeded, seat);
            reserved.unwrap();
            assert_eq!(flight.0.saga.pass, Pass::Prepared);
            assert_eq!(
                trip.answer("flight reserve", Outcome::Succeeded),
                Err(Refusal::Settled)
            );
            assert_eq!(flight.compensate().unwrap(), ["seat compensate#1"]);
        } else {
            assert!(flight.compensate().unwrap().is_empty(), "it is heard out");
            assert_eq!(flight.0.yes("seat reserve"), ["seat compensate#1"]);
        }
        flight.0.yes("seat compensate");
        assert_eq!(flight.0.saga.status(), Status::Compensated);
        assert_eq!(
            trip.answer("flight compensate", Outcome::Succeeded),
            Err(Refusal::Settled)
        );
    }
}
