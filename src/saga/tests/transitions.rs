//! What can be and what can't, pair by pair, and what becomes of that which can't.

use super::*;
use crate::id::Phase;
use crate::saga::journal::{Cause, GENESIS, JournalEntry, JournalError, Record, fold};
use crate::saga::transition::next;

/// The table in the module's documentation: rows of cells, the first one the heads.
fn table() -> Vec<Vec<&'static str>> {
    let lines = include_str!("../mod.rs").lines();
    let rows = lines.filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |"));
    let rows = rows.filter(|row| !row.starts_with("---"));
    rows.map(|row| row.split(" | ").collect()).collect()
}

/// Where a step stands, by the name of that.
fn status(name: &str) -> Option<StepStatus> {
    let known = |name: &str| serde_json::from_value(json!(name));
    (name != "none").then(|| known(name).unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// An event of this kind, whatever it says besides.
fn event(kind: &str, fields: Value) -> Event {
    let usual = json!({
        "at": 5, "reason": "r", "reply": 1, "attempt": 1, "due": 9, "until": 8, "again": 7, "certain": false,
        "by": "b", "why": "w", "id": "i", "signal": true,
    });
    let needs: &[&str] = match kind {
        "asked" => &["step", "attempt", "due"],
        "succeeded" => &["step", "reply"],
        "rejected" | "never_delivered" | "outcome_unknown" | "suspended" => &["step", "reason"],
        "retry_planned" => &["step", "at", "reason"],
        "returned" => &["step", "again", "due", "certain", "reason"],
        "unsent" => &["step", "until"],
        "sent_late" => &["step", "due"],
        "resumed" => &["step", "by", "why"],
        "waiting" => &["step", "signal"],
        "received" => &["step", "id"],
        "unjudged" => &["step", "id", "reason"],
        "skipped" | "elapsed" => &["step"],
        "rollback_started" => &["reason"],
        "operated" => &["id", "by", "why"],
        "signalled" => &["id"],
        "started" | "completed" | "compensated" | "left_off" => &["at"],
        _ => &[],
    };
    let mut event = json!({ "event": kind });
    for name in needs {
        event[*name] = if *name == "step" {
            json!("s")
        } else {
            usual[*name].clone()
        };
    }
    let given = fields.as_object().unwrap().clone();
    event.as_object_mut().unwrap().extend(given);
    serde_json::from_value(event).unwrap_or_else(|error| panic!("{kind}: {error}"))
}

/// The events that a column is about, each with the statuses to which its phase belongs.
fn events(column: &str) -> Vec<(Event, &'static [&'static str])> {
    const ANY: &[&str] = &[
        "none",
        "reserving",
        "reserved",
        "unknown",
        "confirming",
        "compensating",
        "waiting",
        "skipped",
        "rejected",
        "undelivered",
        "confirmed",
        "compensated",
        "done",
    ];
    const PHASES: [(&str, &[&str]); 4] = [
        ("reserve", &["none", "reserving"]),
        ("action", &["none", "reserving"]),
        ("confirm", &["none", "confirming"]),
        ("compensate", &["compensating"]),
    ];
    let plain = |kinds: &[&str]| {
        kinds
            .iter()
            .map(|kind| (event(kind, json!({})), ANY))
            .collect::<Vec<_>>()
    };
    let ask = |phases: &[&str]| {
        let ask = |phase| (event("asked", json!({ "phase": phase })), ANY);
        phases.iter().map(ask).collect::<Vec<_>>()
    };
    let of_phases = |kinds: &[&str]| {
        let of = |kind| PHASES.map(|(phase, fits)| (event(kind, json!({ "phase": phase })), fits));
        kinds.iter().flat_map(|kind| of(kind)).collect::<Vec<_>>()
    };
    match column {
        "ask forward" => ask(&["reserve", "action"]),
        "ask confirm" => ask(&["confirm"]),
        "ask compensate" => ask(&["compensate"]),
        "yes" => of_phases(&["succeeded"]),
        "no" => plain(&["rejected"]),
        "undelivered" => plain(&["never_delivered"]),
        "unknown" => plain(&["outcome_unknown"]),
        "again" => of_phases(&["retry_planned", "returned", "unsent", "sent_late"]),
        "suspended" => of_phases(&["suspended"]),
        "resumed" => plain(&["resumed"]),
        "skipped" => plain(&["skipped"]),
        "waits" => plain(&["waiting"]),
        "unjudged" => plain(&["unjudged"]),
        "over" => plain(&["received", "elapsed"]),
        other => panic!("no column is called `{other}`"),
    }
}

/// A saga in a pass, with the step `s` standing somewhere.
fn standing(pass: Pass, at: Option<StepStatus>) -> Saga {
    let mut saga = Saga::new(
        SagaId(Uuid::from_u128(1)),
        "s",
        "k",
        Timestamp::from_micros(1),
    );
    saga.pass = pass;
    if let Some(at) = at {
        saga.update(&StepPath::plain("s"), at, |state| state.deliverable = 1);
    }
    saga
}

#[test]
fn every_pair_of_the_table_is_what_the_table_says() {
    let table = table();
    let (mut legal, mut illegal) = (0, 0);
    for row in &table[1..] {
        let at = status(row[0]);
        for (column, cell) in table[0].iter().zip(row).skip(1) {
            for (event, fits) in events(column) {
                let expected = match *cell {
                    "·" => None,
                    _ if !fits.contains(&row[0]) => None,
                    "its command's" => Some(event_phase_status(&event)),
                    name => status(name),
                };
                let found = next(at, &event);
                assert_eq!(
                    found.as_ref().ok(),
                    expected.as_ref(),
                    "{} {event:?}",
                    row[0]
                );
                if expected.is_some() {
                    legal += 1;
                    continue;
                }
                illegal += 1;
                for pass in [Pass::Forward, Pass::Confirm, Pass::Finish, Pass::Rollback] {
                    let mut saga = standing(pass, at);
                    let before = saga.clone();
                    assert!(
                        apply(&mut saga, &event).is_err(),
                        "{pass:?} {} {event:?}",
                        row[0]
                    );
                    assert_eq!(saga, before, "what can't be changes nothing");
                }
            }
        }
    }
    assert_eq!(table.len(), 14, "each status has its row");
    assert_eq!((legal, legal + illegal), (51, 481));
}

/// Where a step stands that was suspended before it was asked.
fn event_phase_status(event: &Event) -> StepStatus {
    match event {
        Event::Suspended { phase, .. } if *phase == Phase::Confirm => StepStatus::Confirming,
        _ => StepStatus::Reserving,
    }
}

/// Events, the passes in which each can be, and where it leads if the pass changes.
fn pass_cases() -> Vec<(Event, Vec<Pass>, Option<Pass>)> {
    use Pass::*;
    let under_way = [Forward, Prepared, Confirm, Finish, Rollback];
    let at = json!({ "at": 5 });
    vec![
        (
            event("started", json!({ "input": 1 })),
            vec![New],
            Some(Forward),
        ),
        (
            event("prepared", json!({ "output": 1 })),
            vec![Forward],
            Some(Prepared),
        ),
        (Event::PivotPassed, vec![Forward, Prepared], Some(Confirm)),
        (Event::ReservationsConfirmed, vec![Confirm], Some(Finish)),
        (
            event("rollback_started", json!({})),
            vec![Forward, Prepared],
            Some(Rollback),
        ),
        (
            event("completed", json!({ "output": 1 })),
            vec![Finish],
            Some(Completed),
        ),
        (event("compensated", at), vec![Rollback], Some(Compensated)),
        (
            event("asked", json!({ "phase": "reserve" })),
            vec![Forward, Finish, Rollback],
            None,
        ),
        (
            event("asked", json!({ "phase": "confirm" })),
            vec![Confirm, Finish],
            None,
        ),
        (event("skipped", json!({})), vec![Forward, Finish], None),
        (
            event("opened", json!({ "at": { "block": 0 }, "children": 1 })),
            vec![Forward, Finish, Rollback],
            None,
        ),
        (
            event("signalled", json!({ "name": "n", "body": 1, "at": 3 })),
            vec![Forward, Prepared, Confirm, Finish],
            None,
        ),
        (
            event("parent_asked", json!({ "phase": "confirm" })),
            vec![Forward, Prepared, Rollback],
            None,
        ),
        (
            event("operated", json!({ "kind": { "action": "pause" } })),
            under_way.to_vec(),
            None,
        ),
        (
            event("left_off", json!({ "moves": [] })),
            under_way.to_vec(),
            None,
        ),
    ]
}

#[test]
fn a_saga_goes_one_way_and_what_ended_does_not_change_again() {
    use Pass::*;
    let all = [
        New,
        Forward,
        Prepared,
        Confirm,
        Finish,
        Rollback,
        Completed,
        Compensated,
    ];
    let under_way = &all[1..6];
    let parent = Parent {
        saga: SagaId(Uuid::from_u128(2)),
        step: StepPath::plain("p"),
        depth: 1,
    };
    let family = Some(Family {
        parent,
        asked: None,
        prepared: None,
    });
    for (event, legal, leads_to) in pass_cases() {
        for pass in all {
            let mut saga = Saga {
                family: family.clone(),
                ..standing(pass, None)
            };
            let before = saga.clone();
            let applied = apply(&mut saga, &event);
            assert_eq!(
                applied.is_ok(),
                legal.contains(&pass),
                "{pass:?} {event:?}: {applied:?}"
            );
            match applied {
                Ok(()) => assert_eq!(saga.pass, leads_to.unwrap_or(pass)),
                Err(_) => assert_eq!(saga, before),
            }
        }
    }
    for (end, fields) in [
        ("completed", json!({ "output": 1 })),
        ("compensated", json!({})),
    ] {
        let end = event(end, fields);
        for pass in all {
            let forced = Some(Forced {
                by: "ann".into(),
                why: "w".into(),
            });
            let mut saga = Saga {
                forced,
                ..standing(pass, None)
            };
            assert_eq!(
                apply(&mut saga, &end).is_ok(),
                under_way.contains(&pass),
                "{pass:?}"
            );
        }
    }
}

#[test]
fn what_is_counted_does_not_fall_below_nothing() {
    let at = json!({ "at": { "block": 1 } });
    let opened = event(
        "opened",
        json!({ "at": { "block": 1 }, "children": 2, "sequential": true }),
    );
    let cases = [
        (vec![], event("advanced", at.clone()), "never entered"),
        (
            vec![event("block_skipped", at.clone())],
            event("advanced", at.clone()),
            "skipped",
        ),
        (
            vec![opened.clone()],
            event("block_skipped", at.clone()),
            "entered before",
        ),
        (
            vec![opened.clone(), event("next_item", at.clone())],
            event("next_item", at.clone()),
            "all items",
        ),
        (
            vec![
                opened,
                event("advanced", at.clone()),
                event("advanced", at.clone()),
            ],
            event("advanced", at),
            "all children",
        ),
        (
            vec![],
            event(
                "held",
                json!({ "reply": { "step": "s", "phase": "reserve", "outcome": "succeeded", "body": 1, "reason": null } }),
            ),
            "not paused",
        ),
        (vec![], Event::AnswerTaken, "no answer"),
        (
            vec![event("waiting", json!({}))],
            event("received", json!({})),
            "no such signal",
        ),
        (
            vec![
                event("asked", json!({ "phase": "reserve" })),
                event("returned", json!({ "phase": "reserve", "certain": true })),
            ],
            event("returned", json!({ "phase": "reserve", "certain": true })),
            "come back",
        ),
    ];
    for (history, event, why) in cases {
        let mut saga = standing(Pass::Forward, None);
        for before in &history {
            apply(&mut saga, before).unwrap();
        }
        let before = saga.clone();
        let illegal = apply(&mut saga, &event).unwrap_err();
        assert!(illegal.to_string().contains(why), "{illegal}");
        assert_eq!(saga, before);
    }
    let mut confirming = standing(Pass::Confirm, Some(StepStatus::Confirming));
    let yes = event("succeeded", json!({ "phase": "confirm" }));
    assert!(
        apply(&mut confirming, &yes).is_err(),
        "none is left to confirm"
    );
    let mut confirming = Saga {
        unconfirmed: 1,
        ..standing(Pass::Confirm, None)
    };
    assert!(apply(&mut confirming, &Event::ReservationsConfirmed).is_err());
}

#[test]
fn a_journal_that_says_what_can_not_be_is_refused_with_the_place() {
    let id = SagaId(Uuid::from_u128(1));
    let mut head = GENESIS;
    let mut entry = |seq, events| {
        let record = Record {
            cause: Cause::Reply,
            events,
        };
        let entry = JournalEntry::link(id, &head, seq, Timestamp::default(), &record).unwrap();
        head = entry.hash;
        entry
    };
    let entries = [
        entry(
            1,
            vec![
                event("started", json!({ "input": 1 })),
                event("asked", json!({ "phase": "reserve" })),
            ],
        ),
        entry(
            2,
            vec![
                Event::LeftOff(LeftOff {
                    at: Timestamp::default(),
                    moves: Vec::new(),
                }),
                event("succeeded", json!({ "phase": "confirm" })),
            ],
        ),
    ];
    let mut saga = Saga::new(id, "s", "k", Timestamp::default());
    let refused = fold(&mut saga, 0, &entries).unwrap_err();
    assert!(
        matches!(
            refused,
            JournalError::Illegal {
                seq: 2,
                event: 2,
                ..
            }
        ),
        "{refused:?}"
    );
    assert_eq!(
        refused.to_string(),
        "entry 2, event 2: the event `succeeded confirm` can't be: step `s` is reserving"
    );
}

/// A copy of a saga in memory that is not what its journal says.
#[test]
fn a_decision_that_wants_what_can_not_be_is_given_up() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    let stock = story.saga.blocks.keys().last().cloned().unwrap();
    story.saga.blocks.get_mut(&stock).unwrap().remaining = 0;
    let reply = Input::Reply(Reply {
        step: "stock[0]".parse().unwrap(),
        phase: Phase::Reserve,
        outcome: Outcome::Succeeded,
        stated: true,
        body: Arc::default(),
        reason: None,
    });
    let refused = decide(&story.definition, &mut story.saga, reply, story.now);
    let Err(Refusal::Illegal(illegal)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(illegal.event, "advanced");
}
