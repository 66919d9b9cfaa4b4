//! The barrier's table, every cell of it.

use super::*;

const PAYLOAD: Hash = [1; 32];
const OTHER_PAYLOAD: Hash = [2; 32];

fn asked(phase: Phase) -> Asked {
    Asked {
        phase,
        fingerprint: PAYLOAD,
        standalone: false,
    }
}

fn said(text: &str) -> Answer {
    Answer::succeeded(json!({ "said": text }))
}

/// A row after these answers, built as a participant would.
fn row(answers: &[(Phase, Answer)]) -> Option<Barrier> {
    answers.iter().fold(None, |row, (phase, answer)| {
        settle(row.as_ref(), &asked(*phase), answer).or(row)
    })
}

fn none() -> Option<Barrier> {
    None
}
fn rejected() -> Option<Barrier> {
    row(&[(Phase::Reserve, Answer::rejected("no stock"))])
}
fn held() -> Option<Barrier> {
    row(&[(Phase::Reserve, said("reserved"))])
}
fn done() -> Option<Barrier> {
    row(&[(Phase::Action, said("acted"))])
}
fn confirmed() -> Option<Barrier> {
    row(&[
        (Phase::Reserve, said("reserved")),
        (Phase::Confirm, said("confirmed")),
    ])
}
fn standalone_confirmed() -> Option<Barrier> {
    row(&[(Phase::Confirm, said("confirmed"))])
}
fn compensated() -> Option<Barrier> {
    row(&[
        (Phase::Reserve, said("reserved")),
        (Phase::Compensate, said("released")),
    ])
}
fn undone() -> Option<Barrier> {
    row(&[
        (Phase::Action, said("acted")),
        (Phase::Compensate, said("undone")),
    ])
}
fn barred() -> Option<Barrier> {
    row(&[(Phase::Compensate, Answer::succeeded(json!({})))])
}
fn rejected_then_compensated() -> Option<Barrier> {
    row(&[
        (Phase::Reserve, Answer::rejected("no stock")),
        (Phase::Compensate, Answer::succeeded(json!({}))),
    ])
}

/// What a cell of the table must say; reasons are not compared.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Execute,
    RecordEmpty,
    Same(&'static str),
    SameEmpty,
    SameRejection,
    Refused,
    Error(Code),
}

fn cell(verdict: Verdict) -> Cell {
    match verdict {
        Verdict::Execute => Cell::Execute,
        Verdict::Settle(answer) => {
            assert_eq!(answer, Answer::succeeded(json!({})));
            Cell::RecordEmpty
        }
        Verdict::Repeat(answer) => match (answer.outcome, answer.reason.as_deref()) {
            (Outcome::Succeeded, None) => match answer.body["said"].as_str() {
                Some("reserved") => Cell::Same("reserved"),
                Some("acted") => Cell::Same("acted"),
                Some("confirmed") => Cell::Same("confirmed"),
                Some("released") => Cell::Same("released"),
                Some("undone") => Cell::Same("undone"),
                _ => Cell::SameEmpty,
            },
            (Outcome::Rejected, Some("no stock")) => Cell::SameRejection,
            (Outcome::Rejected, Some(reason)) => {
                assert!(reason.contains("compensated before"), "{reason}");
                Cell::Refused
            }
            other => panic!("unexpected answer {other:?}"),
        },
        Verdict::Contradiction(code, answer) => {
            assert_eq!(answer.outcome, Outcome::Rejected);
            assert!(answer.reason.is_some());
            Cell::Error(code)
        }
        Verdict::PayloadChanged(reason) => panic!("{reason}"),
    }
}

#[test]
fn every_row_answers_every_phase_as_the_table_says() {
    use Cell::{Execute, RecordEmpty, Refused, Same, SameEmpty, SameRejection};
    const NO_RESERVE: Cell = Cell::Error(code::CONFIRM_WITHOUT_RESERVE);
    const FINAL: Cell = Cell::Error(code::COMPENSATE_AFTER_CONFIRM);
    const MIXED: Cell = Cell::Error(code::COMMAND_MALFORMED);
    type Row = (&'static str, fn() -> Option<Barrier>, [Cell; 4]);
    // Columns: reserve, action, confirm, compensate.
    let table: [Row; 10] = [
        ("none", none, [Execute, Execute, NO_RESERVE, RecordEmpty]),
        (
            "rejected",
            rejected,
            [SameRejection, MIXED, NO_RESERVE, RecordEmpty],
        ),
        ("held", held, [Same("reserved"), MIXED, Execute, Execute]),
        ("done", done, [MIXED, Same("acted"), NO_RESERVE, Execute]),
        (
            "confirmed",
            confirmed,
            [Same("reserved"), MIXED, Same("confirmed"), FINAL],
        ),
        (
            "standalone confirmed",
            standalone_confirmed,
            [MIXED, MIXED, Same("confirmed"), FINAL],
        ),
        (
            "compensated",
            compensated,
            [Same("reserved"), Refused, NO_RESERVE, Same("released")],
        ),
        (
            "undone",
            undone,
            [Refused, Same("acted"), NO_RESERVE, Same("undone")],
        ),
        ("barred", barred, [Refused, Refused, NO_RESERVE, SameEmpty]),
        (
            "rejected, then compensated",
            rejected_then_compensated,
            [SameRejection, Refused, NO_RESERVE, SameEmpty],
        ),
    ];
    let phases = [
        Phase::Reserve,
        Phase::Action,
        Phase::Confirm,
        Phase::Compensate,
    ];
    for (name, barrier, cells) in table {
        for (phase, expected) in phases.into_iter().zip(cells) {
            let found = cell(judge(barrier().as_ref(), &asked(phase)));
            assert_eq!(found, expected, "{phase} on {name}");
        }
    }
}

#[test]
fn a_standalone_command_may_confirm_what_was_never_reserved_and_nothing_else() {
    let standalone = Asked {
        standalone: true,
        ..asked(Phase::Confirm)
    };
    assert_eq!(judge(None, &standalone), Verdict::Execute);
    for contradictory in [rejected(), done(), compensated(), barred()] {
        assert!(matches!(
            judge(contradictory.as_ref(), &standalone),
            Verdict::Contradiction(code::CONFIRM_WITHOUT_RESERVE, _)
        ));
    }
}

#[test]
fn another_payload_for_an_answered_phase_is_neither_run_nor_answered() {
    let rows = [
        (rejected(), Phase::Reserve),
        (held(), Phase::Reserve),
        (done(), Phase::Action),
        (confirmed(), Phase::Reserve),
        (confirmed(), Phase::Confirm),
        (compensated(), Phase::Compensate),
        (barred(), Phase::Compensate),
    ];
    for (row, phase) in rows {
        let changed = Asked {
            fingerprint: OTHER_PAYLOAD,
            ..asked(phase)
        };
        let verdict = judge(row.as_ref(), &changed);
        assert!(
            matches!(verdict, Verdict::PayloadChanged(_)),
            "{phase}: {verdict:?}"
        );
    }
}

#[test]
fn a_failed_answer_leaves_no_trace_in_any_phase() {
    for phase in [
        Phase::Reserve,
        Phase::Action,
        Phase::Confirm,
        Phase::Compensate,
    ] {
        for row in [none(), held(), done()] {
            let failed = Answer::failed("database away");
            assert_eq!(settle(row.as_ref(), &asked(phase), &failed), None);
        }
    }
}

#[test]
fn a_rejection_is_final_for_reserve_and_action_but_not_for_confirm_and_compensate() {
    let no = Answer::rejected("no");
    for (phase, kept) in [
        (Phase::Reserve, true),
        (Phase::Action, true),
        (Phase::Confirm, false),
        (Phase::Compensate, false),
    ] {
        let before = if kept { none() } else { held() };
        let after = settle(before.as_ref(), &asked(phase), &no);
        assert_eq!(after.is_some(), kept, "{phase}");
    }
}

#[test]
fn the_status_follows_the_answers_and_only_rises() {
    for (row, status) in [
        (rejected(), BarrierStatus::Rejected),
        (held(), BarrierStatus::Held),
        (done(), BarrierStatus::Done),
        (confirmed(), BarrierStatus::Confirmed),
        (standalone_confirmed(), BarrierStatus::Confirmed),
        (compensated(), BarrierStatus::Compensated),
        (undone(), BarrierStatus::Compensated),
        (barred(), BarrierStatus::Compensated),
    ] {
        let row = row.unwrap();
        assert_eq!(row.status(), status);
        for phase in [
            Phase::Reserve,
            Phase::Action,
            Phase::Confirm,
            Phase::Compensate,
        ] {
            if !matches!(
                judge(Some(&row), &asked(phase)),
                Verdict::Execute | Verdict::Settle(_)
            ) {
                continue;
            }
            for answer in [said("yes"), Answer::rejected("no"), Answer::failed("again")] {
                let after = settle(Some(&row), &asked(phase), &answer);
                assert!(
                    after.is_none_or(|after| after.status() >= status),
                    "{phase} on {row:?}"
                );
            }
        }
    }
}

#[test]
fn a_row_survives_its_encoding_and_damage_is_noticed() {
    for row in [
        rejected(),
        held(),
        done(),
        confirmed(),
        compensated(),
        barred(),
    ] {
        let row = row.unwrap();
        assert_eq!(Barrier::decode(&row.encode().unwrap()).unwrap(), row);
    }
    let body = String::from_utf8(held().unwrap().encode().unwrap().to_vec()).unwrap();
    for damaged in [
        body.replace("0101", "01"),
        body.replace("0101", "01é"),
        body.replace("0101", "0x01"),
        body.replace("reserve", "deserve"),
        String::new(),
    ] {
        assert!(Barrier::decode(damaged.as_bytes()).is_err(), "{damaged}");
    }
}
