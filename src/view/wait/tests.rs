use std::sync::Arc;

use serde_json::json;

use super::super::tests::Bundle;
use super::*;
use crate::message::Outcome;
use crate::saga::journal::Cause;
use crate::saga::{Input, OperatorAction};

fn of(steps: &str) -> Bundle {
    let text = format!("saga: order\nversion: 1\nkey: ${{ input.id }}\nsteps:\n{steps}");
    Bundle::of(&text, json!({ "id": "o-1" }))
}

fn operate(bundle: &mut Bundle, kind: OperatorKind) {
    let (id, by, why) = ("1".to_owned(), "ann".to_owned(), "stock-taking".to_owned());
    let action = OperatorAction { id, by, why, kind };
    bundle.tell(Cause::Operator, Input::Operator(action));
}

const PAID_ONCE: &str = "  - { step: money, reserve: bank.hold, confirm: bank.take, compensate: bank.free, suspend_after: 1 }";

#[test]
fn what_a_saga_waits_for_is_found_with_where_since_when_and_until_when() {
    let mut retried = Bundle::order();
    retried.reply("order", Phase::Reserve, Outcome::Failed);
    let mut suspended = of(PAID_ONCE);
    suspended.reply("money", Phase::Reserve, Outcome::Succeeded);
    suspended.reply("money", Phase::Confirm, Outcome::Failed);
    let mut paused = Bundle::order();
    operate(&mut paused, OperatorKind::Pause);
    let mut parallel = Bundle::order();
    parallel.reply("order", Phase::Reserve, Outcome::Succeeded);
    let sub_saga = of("  - { saga: flight, run: book-flight, timeout: 30m }");
    let start = Some("2023-11-14T22:13:20Z");
    let soon = Some("2023-11-14T22:13:20.005Z");
    for (bundle, kind, spot, since, until) in vec![
        (
            Bundle::order(),
            WaitKind::Reply,
            "order/reserve",
            start,
            Some("2023-11-14T22:13:50Z"),
        ),
        (retried, WaitKind::Retry, "order/reserve", start, None),
        (
            suspended,
            WaitKind::Person,
            "money/confirm",
            Some("2023-11-14T22:13:20.01Z"),
            None,
        ),
        (paused, WaitKind::Resume, "", soon, None),
        (parallel, WaitKind::Reply, "stock[0]/reserve", soon, None),
        (
            of("  - { sleep: nap, for: 1h }"),
            WaitKind::Time,
            "nap/action",
            start,
            Some("2023-11-14T23:13:20Z"),
        ),
        (
            of("  - { wait: paid, timeout: none }"),
            WaitKind::Signal,
            "paid/action",
            start,
            None,
        ),
        (sub_saga, WaitKind::SubSaga, "flight/reserve", start, None),
        (Bundle::prepared(), WaitKind::Parent, "", soon, None),
    ] {
        let why = bundle.view().why.unwrap();
        let found = why.spot.as_ref();
        let found = found.map(|spot| format!("{}/{}", spot.step, spot.phase));
        let text = &why.text;
        assert_eq!(
            (why.r#for, found.unwrap_or_default()),
            (kind, spot.to_owned()),
            "{text}"
        );
        assert_eq!(why.since.as_deref(), since, "{text}");
        if until.is_some() || kind == WaitKind::Signal {
            assert_eq!(why.until.as_deref(), until, "{text}");
        }
        assert_eq!(*text, why.sentence());
    }
}

#[test]
fn the_queue_is_that_of_the_command_that_is_waited_for() {
    let queue = |bundle: &Bundle| {
        let queue = bundle.view().why.unwrap().queue;
        queue.map(|queue| queue.name)
    };
    let mut bundle = Bundle::order();
    assert_eq!(queue(&bundle).as_deref(), Some("orders"));
    bundle.reply("order", Phase::Reserve, Outcome::Succeeded);
    assert_eq!(queue(&bundle).as_deref(), Some("inventory"));
    let elsewhere = of(
        "  - { step: m, action: bank.pay, compensate: bank.free, to: { exchange: pay, routing_key: now } }",
    );
    assert_eq!(
        queue(&elsewhere),
        None,
        "an exchange's queues are not known"
    );
    let sub_saga = of("  - { saga: flight, run: book-flight, timeout: 30m }");
    assert_eq!(queue(&sub_saga), None, "no message goes to a sub-saga");
}

#[test]
fn each_step_that_waits_for_a_signal_or_a_person_is_a_task() {
    let tasks = |bundle: &Bundle| {
        let tasks = bundle.tasks().into_iter();
        let shown = tasks.map(|task| {
            let spot = task.why.spot.as_ref().map(|spot| spot.step.clone());
            (
                spot.unwrap_or_default(),
                task.to_do(),
                task.why.until.is_some(),
            )
        });
        shown.collect::<Vec<_>>()
    };
    let task = |step: &str, to_do: &str, until| (step.to_owned(), to_do.to_owned(), until);
    let mut both = of(
        "  - parallel:\n      - { wait: money, signal: paid, timeout: 3d }\n      - { wait: parcel, timeout: none }",
    );
    let waiting = [
        task("money", "signal paid", true),
        task("parcel", "signal parcel", false),
    ];
    assert_eq!(tasks(&both), waiting);
    operate(&mut both, OperatorKind::Pause);
    assert_eq!(tasks(&both), [task("", "resume", false)]);
    let mut suspended = of(PAID_ONCE);
    suspended.reply("money", Phase::Reserve, Outcome::Succeeded);
    assert_eq!(tasks(&suspended), []);
    suspended.reply("money", Phase::Confirm, Outcome::Failed);
    assert_eq!(tasks(&suspended), [task("money", "retry or skip", false)]);
    operate(&mut suspended, OperatorKind::ForceComplete);
    assert_eq!(tasks(&suspended), []);
}

#[test]
fn an_ended_saga_waits_for_nothing() {
    let mut bundle = Bundle::order();
    operate(&mut bundle, OperatorKind::ForceCompensated);
    assert_eq!(bundle.view().why, None);
    let view = Bundle::waiting().view();
    let json = serde_json::to_value(Arc::new(view)).unwrap();
    let text = json["why"]["text"].as_str().unwrap();
    assert!(text.contains("the signal `paid` (money)"), "{text}");
}
