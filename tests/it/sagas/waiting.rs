//! Sagas that mostly wait: reminders, and contracts that run out.

use std::time::Duration;

use backstitch::saga::OperatorKind;
use backstitch::sim::stage::{DAY, Play, SagaPlay, Stage, fails, on, rejects};
use serde_json::{Value, json};

use super::{End, output, stage};

fn overdue(invoices: &[&str]) -> Value {
    json!({ "customer": "c", "invoices": invoices, "open_cents": 100 * invoices.len() })
}

fn reminders() -> Stage {
    stage(&["payment-reminders"]).event("billing", "invoices.overdue", overdue(&["i-1"]))
}

fn paid(still_open_cents: u64) -> Value {
    json!({ "customer": "c", "still_open_cents": still_open_cents })
}

/// The days on which something was done, counted from the saga's start.
fn days(play: &Play, key: &str, command: &str) -> Vec<u64> {
    let times = play.saga(key).times(command);
    times
        .iter()
        .map(|time| time.as_secs() / DAY.as_secs())
        .collect()
}

#[test]
fn three_reminders_without_payment_end_at_collection() {
    let play = End {
        what: "nobody pays",
        stage: reminders(),
        key: "c",
        ended_as: "completed",
        done: &[
            "mailer.send-reminder",
            "mailer.send-reminder",
            "mailer.send-reminder",
            "collection.take-over",
        ],
    }
    .reached();
    assert_eq!(days(&play, "c", "mailer.send-reminder"), [0, 14, 28]);
    assert_eq!(days(&play, "c", "collection.take-over"), [42]);
    assert_eq!(
        *output(&play, "c"),
        json!({ "reminders": 3, "outcome": "collection" })
    );
}

#[test]
fn reminders_stop_when_all_is_paid() {
    for (day, count) in [(1, 1), (13, 1), (15, 2), (41, 3)] {
        let play = reminders()
            .at(DAY * day)
            .event("billing", "payment.booked", paid(0))
            .play();
        play.assert_sound();
        let saga = play.saga("c");
        assert_eq!(saga.ended_as(), "completed");
        assert_eq!(
            saga.count("mailer.send-reminder"),
            count,
            "paid on day {day}"
        );
        assert_eq!(saga.count("collection.take-over"), 0, "paid on day {day}");
        assert_eq!(
            *output(&play, "c"),
            json!({ "reminders": count, "outcome": "paid" })
        );
    }
}

#[test]
fn a_part_of_the_money_or_somebody_elses_stops_nothing() {
    let other = json!({ "customer": "d", "still_open_cents": 0 });
    let play = reminders()
        .at(DAY)
        .event("billing", "payment.booked", paid(50))
        .event("billing", "payment.booked", other)
        .play();
    play.assert_sound();
    assert_eq!(days(&play, "c", "mailer.send-reminder"), [0, 14, 28]);
    assert_eq!(play.count("collection.take-over"), 1);
}

#[test]
fn new_invoices_begin_the_reminders_anew_with_all_that_is_open() {
    let play = reminders()
        .at(DAY * 20)
        .event("billing", "invoices.overdue", overdue(&["i-1", "i-2"]))
        .play();
    play.assert_sound();
    let both: Vec<_> = play.sagas_of("payment-reminders").collect();
    assert_eq!(both.len(), 2, "{}", play.timeline());
    let (old, new) = (both[0], both[1]);
    assert!(
        old.ended_as().starts_with("compensated"),
        "{}",
        old.ended_as()
    );
    assert_eq!(old.count("mailer.send-reminder"), 2);
    assert_eq!(old.count("collection.take-over"), 0);
    assert_eq!(new.ended_as(), "completed");
    assert_eq!(days(&play, "c", "mailer.send-reminder"), [0, 14, 28]);
    assert_eq!(play.count("collection.take-over"), 1);
    let said = new.reply("remind[0]").unwrap();
    assert_eq!(said["invoices"], json!(["i-1", "i-2"]));
    assert_eq!(said["reminder"], 1);
}

#[test]
fn invoices_that_fall_due_after_the_last_ones_were_paid_are_reminded_of_too() {
    let play = reminders()
        .at(DAY)
        .event("billing", "payment.booked", paid(0))
        .at(DAY * 30)
        .event("billing", "invoices.overdue", overdue(&["i-2"]))
        .at(DAY * 31)
        .event("billing", "payment.booked", paid(0))
        .play();
    play.assert_sound();
    let ends: Vec<String> = play.sagas.iter().map(SagaPlay::ended_as).collect();
    assert_eq!(ends, ["completed", "completed"]);
    assert_eq!(play.count("mailer.send-reminder"), 2);
    assert_eq!(play.count("collection.take-over"), 0);
}

#[test]
fn the_same_event_twice_reminds_once() {
    let play = reminders()
        .event("billing", "invoices.overdue", overdue(&["i-1"]))
        .after(DAY)
        .event("billing", "invoices.overdue", overdue(&["i-1"]))
        .play();
    play.assert_sound();
    assert_eq!(play.sagas.len(), 1);
    assert_eq!(play.count("mailer.send-reminder"), 3);
}

#[test]
fn who_has_no_mailbox_still_owes_the_money() {
    let play = End {
        what: "the second and third reminder come back",
        stage: reminders()
            .answer(
                on("mailer.send-reminder").item(1),
                rejects("no such mailbox"),
            )
            .answer(
                on("mailer.send-reminder").item(2),
                rejects("no such mailbox"),
            ),
        key: "c",
        ended_as: "completed",
        done: &["mailer.send-reminder", "collection.take-over"],
    }
    .reached();
    assert_eq!(output(&play, "c")["reminders"], 1);
}

#[test]
fn reminders_end_early_when_a_person_says_so_or_the_mail_is_down_for_days() {
    let ends = [
        End {
            what: "a person calls it off",
            stage: reminders()
                .at(DAY)
                .operate("payment-reminders", "c", OperatorKind::Cancel),
            key: "c",
            ended_as: "compensated: cancelled by the stage: it is in the script",
            done: &["mailer.send-reminder"],
        },
        End {
            what: "no mail goes out for days",
            stage: reminders().answer("mailer.send-reminder", fails("out of order")),
            key: "c",
            ended_as: "compensated: remind[0] action: out of order, after 50 attempt(s)",
            done: &[],
        },
    ];
    for end in ends {
        end.reached();
    }
}

#[test]
fn a_mail_server_that_is_down_for_a_day_delays_a_reminder_and_loses_none() {
    let play = reminders()
        .answer(on("mailer.send-reminder").first(25), fails("out of order"))
        .play();
    play.assert_sound();
    let first = play.saga("c").times("mailer.send-reminder")[0];
    assert!(
        first > Duration::from_hours(12) && first < DAY * 2,
        "{first:?}"
    );
    assert_eq!(play.count("mailer.send-reminder"), 3);
}

fn contract() -> Stage {
    stage(&["contract"]).event(
        "contracts",
        "contract.signed",
        json!({ "contract": "k", "customer": "c" }),
    )
}

#[test]
fn a_contract_expires_after_a_year_unless_it_was_renewed() {
    // On which days it is renewed, and how many years it runs.
    let cases: [(&[u32], u64); 6] = [
        (&[], 1),
        (&[1], 2),
        (&[364], 2),
        (&[200, 201], 3),
        (&[200, 365 + 200, 2 * 365 + 200], 4),
        (&[200, 3 * 365], 2),
    ];
    for (renewals, years) in cases {
        let renewed = renewals.iter().fold(contract(), |stage, day| {
            stage
                .at(DAY * *day)
                .event("contracts", "contract.renewed", json!({ "contract": "k" }))
        });
        let play = renewed.play();
        play.assert_sound();
        let saga = play.saga("k");
        assert_eq!(saga.ended_as(), "completed");
        assert_eq!(
            *output(&play, "k"),
            json!({ "years": years }),
            "renewed on {renewals:?}"
        );
        assert_eq!(days(&play, "k", "contracts.expire"), [years * 365]);
        assert_eq!(saga.count("mailer.send-farewell"), 1);
    }
}

#[test]
fn a_contract_that_is_called_off_does_not_expire() {
    End {
        what: "a person annuls it",
        stage: contract()
            .at(DAY * 100)
            .operate("contract", "k", OperatorKind::Cancel),
        key: "k",
        ended_as: "compensated: cancelled by the stage: it is in the script",
        done: &[],
    }
    .reached();
}
