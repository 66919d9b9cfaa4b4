use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::aggregates::{Inventory, Payments, inventory, payments};
use crate::definition::parse_all;
use crate::id::Phase;
use crate::limits::COMMAND;
use crate::saga::{OperatorKind, PlantedBug, Sabotage, Status};
use crate::sim::network::FaultRates;

const TRIP: &str = "
saga: trip
version: 1
key: ${ input.id }
steps:
  - step: flight
    with: { to: \"${ input.to }\" }
    reserve: airline.reserve
    confirm: airline.confirm
    compensate: airline.release
    retry: { attempts: 3 }
  - parallel:
      - step: hotel
        reserve: hotel.reserve
        confirm: hotel.confirm
        compensate: hotel.release
        timeout: 1m
        retry: { attempts: 1 }
      - step: seat
        for_each: 3
        sequential: true
        action: seats.take
        compensate: seats.leave
  - step: mail
    to: { exchange: outgoing, routing_key: mail.trip }
    confirm: mailer.send
output: { to: \"${ steps.flight.to }\" }
";

fn trip() -> Stage {
    Stage::of(&[TRIP])
        .unwrap()
        .start("trip", json!({ "id": "t", "to": "Rome" }))
}

#[test]
fn without_a_script_everything_is_done_and_echoed() {
    let play = trip().play();
    play.assert_sound();
    let saga = play.saga("t");
    assert_eq!(saga.ended_as(), "completed");
    assert_eq!(saga.output.as_deref(), Some(&json!({ "to": "Rome" })));
    assert_eq!(saga.count("seats.take"), 3);
    assert_eq!(saga.count("mailer.send"), 1);
    assert_eq!(play.count("airline.confirm"), 1);
}

#[test]
fn a_script_says_what_is_answered() {
    let cases: [(&str, Stage, &str, &[&str]); 6] = [
        (
            "rejected",
            trip().answer("airline.reserve", rejects("full")),
            "compensated: flight rejected: full",
            &[],
        ),
        (
            "fails twice",
            trip().answer(on("airline.reserve").first(2), fails("busy")),
            "completed",
            &["airline.reserve"],
        ),
        (
            "fails for good",
            trip().answer("airline.reserve", fails("busy")),
            "compensated: flight reserve: busy, after 3 attempt(s)",
            &["airline.release"],
        ),
        (
            "silent",
            trip().answer("hotel.reserve", silent()),
            "compensated: hotel reserve: no answer within 60s, after 1 attempt(s)",
            &["hotel.release", "airline.release"],
        ),
        (
            "done, but late",
            trip().answer("hotel.reserve", echoes().after(DAY)),
            "compensated: hotel reserve: no answer within 60s, after 1 attempt(s)",
            &["hotel.reserve", "hotel.release"],
        ),
        (
            "the second item's only",
            trip().answer(on("seats.take").item(1), rejects("taken")),
            "compensated: seat[1] rejected: taken",
            &["seats.take", "seats.leave", "airline.release"],
        ),
    ];
    for (name, stage, ended, done) in cases {
        let play = stage.play();
        play.assert_sound();
        let saga = play.saga("t");
        assert_eq!(saga.ended_as(), ended, "{name}\n{}", play.timeline());
        for command in done {
            assert_eq!(
                saga.count(command),
                1,
                "{name}: {command}\n{}",
                play.timeline()
            );
        }
    }
}

#[test]
fn a_year_costs_only_what_happens_in_it() {
    let play = Stage::of(&["
saga: contract
version: 1
key: ${ input.id }
steps:
  - step: begin
    action: contracts.begin
    compensate: contracts.undo
    pivot: true
  - sleep: term
    for: 3650d
  - step: end
    action: contracts.end
"])
    .unwrap()
    .start("contract", json!({ "id": "c" }))
    .play();
    play.assert_sound();
    let saga = play.saga("c");
    assert_eq!(saga.times("contracts.end")[0].as_secs() / 86_400, 3650);
    assert!(play.polls < 1_000, "{} polls", play.polls);
}

#[test]
fn a_time_out_is_exact() {
    let play = trip()
        .latency(Duration::ZERO)
        .answer("hotel.reserve", silent())
        .play();
    let released = play.saga("t").times("hotel.release")[0];
    assert!(released < Duration::from_millis(60_010), "{released:?}");
}

#[test]
fn people_step_in_when_the_script_says_so() {
    let play = Stage::of(&["
saga: slow
version: 1
key: ${ input.id }
steps:
  - step: hold
    reserve: store.hold
    confirm: store.sell
    compensate: store.free
  - sleep: thinking
    for: 30d
"])
    .unwrap()
    .start("slow", json!({ "id": "s" }))
    .after(DAY)
    .operate("slow", "s", OperatorKind::Cancel)
    .play();
    play.assert_sound();
    let saga = play.saga("s");
    assert!(saga.ended_as().contains("cancelled"), "{}", saga.ended_as());
    assert_eq!(saga.done(), ["store.hold", "store.free"]);
    assert!(saga.took.unwrap() < DAY + Duration::from_secs(1));
}

#[test]
fn shipped_participants_may_play_too() {
    const ORDER: &str = include_str!("../../../sagas/place-order.yaml");
    let stage = |stock| {
        Stage::of(&[ORDER])
            .unwrap()
            .shipped_participants()
            .given::<Inventory>("book", [inventory::Event::Received { quantity: stock }])
            .given::<Payments>("ada", [payments::Event::Deposited { amount: 500 }])
            .start(
                "place-order",
                json!({
                    "order_id": "o-1", "customer": "ada", "total": 300,
                    "items": [{ "sku": "book", "quantity": 2 }],
                }),
            )
    };
    let play = stage(5).play();
    play.assert_sound();
    assert_eq!(play.saga("o-1").ended_as(), "completed");
    let counts = play.ledger.counts(play.saga("o-1").id);
    assert_eq!(counts[&"stock[0]".parse().unwrap()].confirmed, 1);
    let play = stage(1).play();
    play.assert_sound();
    assert_eq!(play.saga("o-1").status, Status::Compensated);
}

#[test]
fn what_is_refused_is_said() {
    let play = Stage::of(&[TRIP])
        .unwrap()
        .start("trap", json!({}))
        .operate("trip", "nobody", OperatorKind::Cancel)
        .play();
    assert!(play.sagas.is_empty());
    assert!(play.refused[0].contains("no saga"), "{:?}", play.refused);
    assert_eq!(play.refused.len(), 2, "{:?}", play.refused);
}

#[test]
fn a_saga_that_never_ends_is_found_out_at_once() {
    let play = trip().answer("airline.confirm", rejects("no")).play();
    let wrong = play.wrong();
    assert!(
        wrong[0].contains("never ends; it is suspended"),
        "{wrong:?}"
    );
    let attended = trip()
        .answer("airline.confirm", rejects("no"))
        .attended()
        .play();
    attended.assert_sound();
}

#[test]
fn improvised_plays_end_soundly_whatever_breaks() {
    let (mut completed, mut compensated) = (0, 0);
    for seed in 0..40 {
        let stage = trip().seed(seed).improvise();
        let play = if seed % 2 == 0 {
            stage.play()
        } else {
            stage.faults(FaultRates::default()).play()
        };
        play.assert_sound();
        match play.saga("t").status {
            Status::Completed => completed += 1,
            _ => compensated += 1,
        }
        assert_eq!(play.crashes > 0, seed % 2 == 1);
    }
    assert!(
        completed > 3 && compensated > 3,
        "{completed} {compensated}"
    );
}

#[test]
fn the_same_seed_is_the_same_play() {
    let stage = || trip().seed(5).improvise().faults(FaultRates::default());
    let (one, other) = (stage().play(), stage().play());
    assert_eq!(one.timeline(), other.timeline());
    assert_eq!(one.polls, other.polls);
}

#[test]
fn an_unknown_outcome_that_is_not_undone_is_noticed() {
    let forgetful = Sabotage::with(PlantedBug::ForgetUnknown);
    let stage = || trip().answer("hotel.reserve", echoes().lost());
    stage().play().assert_sound();
    let wrong = stage().sabotage(forgetful).play().wrong().join("; ");
    assert!(wrong.contains("hotel was not undone"), "{wrong}");
}

/// What is optional is missing from some inputs that are made up, so that a guard that does not guard
/// is found.
#[test]
fn a_payload_that_is_computed_for_a_block_that_does_not_run_is_noticed() {
    const GIFT: &str = "
saga: gift
version: 1
key: ${ input.id }
input:
  type: object
  required: [id]
  properties: { id: { type: string }, gift: { type: object } }
steps:
  - { step: order, reserve: bank.reserve, confirm: bank.capture, compensate: bank.release }
  - { step: card, when: '${ has(input.gift) }', with: { text: '${ input.gift.text }' }, confirm: mail.print }
";
    let search = |sabotage: Sabotage| -> Vec<String> {
        let definitions = parse_all(&[("gift.yaml", GIFT)]).unwrap();
        let definition = Arc::new(definitions.into_iter().next().unwrap());
        (0..20)
            .flat_map(|seed| {
                let mut random = fastrand::Rng::with_seed(seed);
                let input = invent::input(&definition, &mut random).unwrap();
                let stage = Stage::sharing(vec![Arc::clone(&definition)]).seed(seed);
                let play = stage.sabotage(sabotage).start("gift", input).play();
                play.wrong()
            })
            .collect()
    };
    assert_eq!(search(Sabotage::default()), [""; 0]);
    let wrong = search(Sabotage::with(PlantedBug::RenderSkipped)).join("; ");
    assert!(wrong.contains("never ends"), "{wrong}");
}

#[test]
fn a_payload_of_any_size_and_a_fan_out_that_is_forgotten_in_part_are_noticed() {
    // The reserve is just not too large for the participant; the confirm, with the reservation, is.
    const PIECES: usize = 6;
    let glued = "${ input.text }".repeat(PIECES);
    let note = format!(
        "saga: note\nversion: 1\nkey: ${{ input.id }}\nsteps:\n  - {{ step: stock, with: {{ sku: book, quantity: 1, note: '{glued}' }}, reserve: inventory.reserve, confirm: inventory.confirm, compensate: inventory.release }}"
    );
    let text = "x".repeat((COMMAND.bytes - 60) / PIECES);
    let large = || {
        Stage::of(&[&note])
            .unwrap()
            .shipped_participants()
            .given::<Inventory>("book", [inventory::Event::Received { quantity: 5 }])
            .start("note", json!({ "id": "n", "text": text }))
    };
    large().play().assert_sound();
    let wrong = large()
        .sabotage(Sabotage::with(PlantedBug::AnyPayload))
        .play();
    let wrong = wrong.wrong().join("; ");
    assert!(wrong.contains("never ends"), "{wrong}");

    let wide = "saga: wide\nversion: 1\nkey: ${ input.id }\nsteps:\n  - { step: part, for_each: 12, with: { all: '${ input.text }' }, reserve: a.reserve, confirm: a.confirm, compensate: a.release }";
    let input = json!({ "id": "w", "text": "x".repeat(500_000) });
    let wide = || Stage::of(&[wide]).unwrap().start("wide", input.clone());
    let play = wide().play();
    play.assert_sound();
    assert_eq!(play.saga("w").ended_as(), "completed");
    let wrong = wide()
        .sabotage(Sabotage::with(PlantedBug::ForgetLeftOff))
        .play();
    let wrong = wrong.wrong().join("; ");
    assert!(wrong.contains("never ends"), "{wrong}");
}

/// The judge is worth nothing if it lets known wrongs pass.
#[test]
fn the_judge_notices_what_is_wrong() {
    let at = |play: &Play, step: &str, phase| {
        let found = play
            .ledger
            .effects
            .iter()
            .position(|effect| effect.step.to_string() == step && effect.phase == phase);
        found.unwrap()
    };
    let mut unconfirmed = trip().play();
    let lost = at(&unconfirmed, "flight", Phase::Confirm);
    unconfirmed.ledger.effects.remove(lost);
    let mut doubled = trip().play();
    let twice = doubled.ledger.effects[0].clone();
    doubled.ledger.effects.push(twice);
    let mut not_undone = trip().answer("hotel.reserve", rejects("no")).play();
    let lost = at(&not_undone, "flight", Phase::Compensate);
    not_undone.ledger.effects.remove(lost);
    for (play, complaint) in [
        (unconfirmed, "flight was not confirmed"),
        (doubled, "flight took effect more than once"),
        (not_undone, "flight was not undone"),
    ] {
        let wrong = play.wrong().join("; ");
        assert!(wrong.contains(complaint), "{wrong}");
    }
}

#[test]
fn signals_and_domain_events_come_when_the_script_says_so() {
    let stage = || {
        Stage::of(&["
saga: dunning
version: 1
key: ${ input.id }
start: { on: { exchange: shop, routing_key: invoice.sent } }
steps:
  - step: remind
    action: mailer.remind
    read_only: true
  - wait: paid
    timeout: 30d
    on_timeout: continue
  - step: collect
    when: ${ !has(steps.paid) }
    confirm: collection.take
"])
        .unwrap()
        .event("shop", "invoice.sent", json!({ "id": "i-1" }))
    };
    let paid = stage()
        .after(3 * DAY)
        .signal("dunning", "i-1", "paid", json!({ "cents": 5 }))
        .play();
    paid.assert_sound();
    assert_eq!(paid.saga("i-1").count("collection.take"), 0);
    assert_eq!(paid.saga("i-1").reply("paid"), Some(&json!({ "cents": 5 })));
    let unpaid = stage().play();
    unpaid.assert_sound();
    let collected = unpaid.saga("i-1").times("collection.take")[0];
    assert_eq!(collected.as_secs() / 86_400, 30);
}

#[test]
fn schedules_tick_on_the_stage() {
    let play = Stage::of(&["
saga: vouchers
version: 1
key: vouchers-${ input.month }
start: { every: \"0 9 1 * *\", with: { month: \"${ tick }\" } }
steps:
  - { step: issue, action: vouchers.issue, read_only: true }
"])
    .unwrap()
    .run_for(100 * DAY)
    .play();
    play.assert_sound();
    assert_eq!(play.count("vouchers.issue"), 4, "{}", play.timeline());
}

#[test]
fn sub_sagas_are_judged_with_their_parents() {
    const PARENT: &str = "
saga: tour
version: 1
key: ${ input.id }
steps:
  - saga: leg
    run: leg
    with: { id: \"${ input.id }-leg\" }
  - step: guide
    reserve: guides.reserve
    confirm: guides.confirm
    compensate: guides.release
";
    const CHILD: &str = "
saga: leg
version: 1
key: ${ input.id }
steps:
  - step: bus
    reserve: buses.reserve
    confirm: buses.confirm
    compensate: buses.release
";
    let tour = || {
        Stage::of(&[PARENT, CHILD])
            .unwrap()
            .start("tour", json!({ "id": "t" }))
    };
    let play = tour().play();
    play.assert_sound();
    assert_eq!(play.count("buses.confirm"), 1);
    let play = tour().answer("guides.reserve", rejects("ill")).play();
    play.assert_sound();
    assert_eq!(play.saga("t-leg").status, Status::Compensated);
    assert_eq!(
        play.saga("t-leg").done(),
        ["buses.reserve", "buses.release"]
    );
}

#[test]
fn sagas_that_others_run_are_sent_signals_too() {
    const PARENT: &str = "
saga: tour
version: 1
key: ${ input.id }
steps:
  - { saga: visa, run: visa, with: { id: \"${ input.id }-visa\" }, timeout: 10d }
";
    const CHILD: &str = "
saga: visa
version: 1
key: ${ input.id }
steps:
  - { wait: stamp, timeout: 5d }
";
    let completed = (0..20).filter(|seed| {
        let play = Stage::of(&[PARENT, CHILD])
            .unwrap()
            .seed(*seed)
            .improvise()
            .start("tour", json!({ "id": "t" }))
            .play();
        play.assert_sound();
        play.saga("t").status == Status::Completed
    });
    assert!(completed.count() > 2);
}
