//! Sagas that somebody else begins: a webhook, a domain event, the calendar.

use backstitch::saga::{OperatorKind, Status};
use backstitch::sim::network::FaultRates;
use backstitch::sim::stage::{DAY, Play, Stage, fails, on, rejects, succeeds};
use serde_json::{Value, json};

use super::{End, output, stage};

fn webhook(cents: u64) -> Value {
    json!({ "invoice": "i", "cents": cents, "paid_at": "2026-01-01T09:00:00Z" })
}

fn books(still_open_cents: u64) -> Stage {
    let reply = json!({ "still_open_cents": still_open_cents });
    stage(&["payment-webhook"]).answer("accounting.announce-payment", succeeds(reply))
}

#[test]
fn a_webhook_that_comes_five_times_at_once_books_one_payment() {
    let once = |stage: Stage, input: &Value| {
        (0..5).fold(stage, |stage, _| {
            stage.start("payment-webhook", input.clone())
        })
    };
    let mut with_id = webhook(500);
    with_id["id"] = "evt-1".into();
    for input in [webhook(500), with_id] {
        let play = once(books(0), &input).play();
        play.assert_sound();
        assert_eq!(play.sagas.len(), 1, "{}", play.timeline());
        assert_eq!(play.count("accounting.book-payment"), 1);
        assert_eq!(play.count("mailer.send-thanks"), 1);
        assert_eq!(play.refused, [""; 0]);
        // Two nodes, a network that doubles messages, and crashes.
        for seed in 0..5 {
            let stage = books(0).seed(seed).faults(FaultRates::default());
            let play = once(stage, &input).play();
            play.assert_sound();
            assert_eq!(play.sagas.len(), 1, "{}", play.timeline());
            assert!(play.count("accounting.book-payment") <= 1);
        }
    }
}

#[test]
fn webhooks_that_differ_are_different_payments() {
    let mut later = webhook(500);
    later["paid_at"] = "2026-01-01T09:00:01Z".into();
    let play = books(0)
        .start("payment-webhook", webhook(500))
        .start("payment-webhook", webhook(501))
        .start("payment-webhook", later)
        .play();
    play.assert_sound();
    assert_eq!(play.count("accounting.book-payment"), 3);
}

#[test]
fn one_id_with_two_payloads_is_booked_once_and_the_other_is_refused() {
    let call = |cents: u64| {
        let mut input = webhook(cents);
        input["id"] = "evt-1".into();
        input
    };
    let play = books(0)
        .start("payment-webhook", call(500))
        .after(DAY)
        .start("payment-webhook", call(600))
        .play();
    play.assert_sound();
    assert_eq!(play.count("accounting.book-payment"), 1);
    assert_eq!(play.refused.len(), 1, "{:?}", play.refused);
}

#[test]
fn a_payment_ends_booked_with_or_without_thanks_or_not_at_all() {
    let key = |play: &Play| play.sagas[0].key.clone();
    let part = books(100).start("payment-webhook", webhook(500)).play();
    part.assert_sound();
    assert_eq!(part.saga(&key(&part)).ended_as(), "completed");
    assert_eq!(part.count("mailer.send-thanks"), 0);
    assert_eq!(
        *output(&part, &key(&part)),
        json!({ "still_open_cents": 100 })
    );
    let unknown = stage(&["payment-webhook"])
        .answer(
            "accounting.announce-payment",
            rejects("there is no invoice `i`"),
        )
        .start("payment-webhook", webhook(500))
        .play();
    unknown.assert_sound();
    let saga = unknown.saga(&key(&unknown));
    assert_eq!(
        saga.ended_as(),
        "compensated: booking rejected: there is no invoice `i`"
    );
    let down = stage(&["payment-webhook"])
        .answer("accounting.announce-payment", fails("the books are closed"))
        .start("payment-webhook", webhook(500))
        .play();
    down.assert_sound();
    assert_eq!(down.saga(&key(&down)).status, Status::Compensated);
}

fn order(id: &str) -> Value {
    json!({ "customer": "c", "paid": 700, "items": [
        { "sku": "lamp", "quantity": 2 }, { "sku": "bulb", "quantity": 4 },
    ], "order": id })
}

/// A product with three open orders.
fn discontinued() -> Stage {
    stage(&["product-discontinued", "cancel-order"]).answer(
        "orders.list-open",
        succeeds(json!({ "orders": ["o-1", "o-2", "o-3"] })),
    )
}

fn discontinue(stage: Stage) -> Stage {
    stage
        .answer("orders.hold-for-cancelling", succeeds(order("o")))
        .event(
            "catalogue",
            "product.discontinued",
            json!({ "sku": "lamp", "by": "ada" }),
        )
}

#[test]
fn every_open_order_of_a_discontinued_product_is_cancelled() {
    let play = discontinue(discontinued()).play();
    play.assert_sound();
    assert_eq!(play.saga("lamp").ended_as(), "completed");
    assert_eq!(*output(&play, "lamp"), json!({ "sku": "lamp", "found": 3 }));
    assert_eq!(play.saga("lamp").count("catalogue.remove"), 1);
    for order in ["o-1", "o-2", "o-3"] {
        let saga = play.saga(&format!("{order} discontinued lamp"));
        assert_eq!(saga.ended_as(), "completed");
        assert_eq!(saga.count("orders.cancel-for-good"), 1);
        assert_eq!(saga.count("inventory.put-back"), 2);
        assert_eq!(saga.count("payments.refund"), 1);
        assert_eq!(saga.count("mailer.send-cancellation"), 1);
    }
}

#[test]
fn an_order_that_was_shipped_in_the_meantime_is_left_alone_and_the_others_are_not() {
    let shipped = on("orders.hold-for-cancelling").key("o-2 discontinued lamp");
    let play = discontinue(discontinued().answer(shipped, rejects("it is shipped"))).play();
    play.assert_sound();
    assert_eq!(play.saga("lamp").ended_as(), "completed");
    assert_eq!(play.count("orders.cancel-for-good"), 2);
    assert_eq!(play.count("payments.refund"), 2);
    let left = play.saga("o-2 discontinued lamp");
    assert_eq!(
        left.ended_as(),
        "compensated: order rejected: it is shipped"
    );
}

#[test]
fn a_discontinued_product_without_orders_is_only_removed() {
    let play = End {
        what: "nobody ordered it",
        stage: discontinue(
            stage(&["product-discontinued", "cancel-order"])
                .answer("orders.list-open", succeeds(json!({ "orders": [] }))),
        ),
        key: "lamp",
        ended_as: "completed",
        done: &[
            "catalogue.stop-sale",
            "orders.list-open",
            "catalogue.remove",
        ],
    }
    .reached();
    assert_eq!(output(&play, "lamp")["found"], 0);
}

#[test]
fn a_product_whose_orders_nobody_can_list_is_on_sale_again() {
    End {
        what: "the orders can't be listed",
        stage: discontinue(
            stage(&["product-discontinued", "cancel-order"])
                .answer("orders.list-open", rejects("there is no index")),
        ),
        key: "lamp",
        ended_as: "compensated: open-orders rejected: there is no index",
        done: &["catalogue.stop-sale", "catalogue.resume-sale"],
    }
    .reached();
}

#[test]
fn an_order_whose_cancelling_nobody_answers_is_let_go_and_the_others_are_cancelled() {
    let stuck = on("orders.hold-for-cancelling").key("o-3 discontinued lamp");
    let play = discontinue(discontinued().answer(stuck, fails("locked"))).play();
    play.assert_sound();
    let stuck = play.saga("o-3 discontinued lamp");
    assert_eq!(stuck.status, Status::Compensated);
    assert_eq!(stuck.count("orders.go-on"), 1);
    assert_eq!(play.saga("lamp").ended_as(), "completed");
    assert_eq!(play.count("orders.cancel-for-good"), 2);
}

#[test]
fn the_event_twice_discontinues_once() {
    let play = discontinue(discontinued())
        .after(DAY)
        .event(
            "catalogue",
            "product.discontinued",
            json!({ "sku": "lamp", "by": "bob" }),
        )
        .play();
    play.assert_sound();
    assert_eq!(play.sagas_of("product-discontinued").count(), 1);
    assert_eq!(play.count("orders.cancel-for-good"), 3);
}

#[test]
fn an_order_is_cancelled_by_its_customer_or_not_at_all() {
    let input = json!({ "order_id": "o-1", "because": "too late" });
    let play = End {
        what: "the order agrees",
        stage: stage(&["cancel-order"])
            .answer("orders.hold-for-cancelling", succeeds(order("o-1")))
            .start("cancel-order", input.clone()),
        key: "o-1 too late",
        ended_as: "completed",
        done: &[
            "orders.hold-for-cancelling",
            "orders.cancel-for-good",
            "inventory.put-back",
            "inventory.put-back",
            "payments.refund",
            "mailer.send-cancellation",
        ],
    }
    .reached();
    assert_eq!(
        *output(&play, "o-1 too late"),
        json!({ "order_id": "o-1", "refunded": 700 })
    );
    End {
        what: "the order was shipped",
        stage: stage(&["cancel-order"])
            .answer("orders.hold-for-cancelling", rejects("it is shipped"))
            .start("cancel-order", input),
        key: "o-1 too late",
        ended_as: "compensated: order rejected: it is shipped",
        done: &[],
    }
    .reached();
}

/// Five customers on two pages.
fn campaign() -> Stage {
    let page = |customers: &[&str], is_last: bool| {
        succeeds(json!({ "customers": customers, "is_last": is_last }))
    };
    stage(&["monthly-vouchers", "issue-voucher"])
        .answer(
            on("customers.list").item(0),
            page(&["ada", "bob", "cy"], false),
        )
        .answer("customers.list", page(&["dan", "eve"], true))
        .answer("vouchers.reserve", succeeds(json!({ "code": "SAVE5" })))
}

const BY_HAND: &str = "extra";

fn by_hand(stage: Stage) -> Stage {
    stage.start(
        "monthly-vouchers",
        json!({ "campaign": BY_HAND, "cents": 500 }),
    )
}

#[test]
fn every_month_every_customer_gets_one_voucher() {
    let play = campaign().run_for(DAY * 75).play();
    play.assert_sound();
    let months: Vec<_> = play.sagas_of("monthly-vouchers").collect();
    // January (the play opens on New Year's night), February and March.
    assert_eq!(months.len(), 3, "{}", play.timeline());
    for month in &months {
        assert_eq!(month.ended_as(), "completed");
        for customer in ["ada", "bob", "cy", "dan", "eve"] {
            let voucher = play.saga(&format!("{}/{customer}", month.key));
            assert_eq!(voucher.ended_as(), "completed");
            assert_eq!(voucher.count("vouchers.activate"), 1);
            assert_eq!(voucher.count("mailer.send-voucher"), 1);
        }
    }
    assert_eq!(play.count("vouchers.activate"), 15);
}

#[test]
fn a_campaign_that_is_started_twice_gives_each_customer_one_voucher() {
    let play = by_hand(by_hand(campaign())).after(DAY / 4).play();
    play.assert_sound();
    let sagas: Vec<_> = play
        .sagas_of("monthly-vouchers")
        .filter(|saga| saga.key == BY_HAND)
        .collect();
    assert_eq!(sagas.len(), 1);
    assert_eq!(
        *output(&play, BY_HAND),
        json!({ "campaign": BY_HAND, "pages": 2 })
    );
    assert_eq!(play.count("vouchers.activate"), 5);
}

#[test]
fn who_has_a_voucher_already_or_may_not_have_one_does_not_keep_it_from_the_others() {
    let barred = on("vouchers.reserve").key("extra/bob");
    let stage = campaign()
        .answer(barred, rejects("bob is barred"))
        .start(
            "issue-voucher",
            json!({ "campaign": BY_HAND, "customer": "ada", "cents": 500 }),
        )
        .after(DAY / 24);
    let play = by_hand(stage).play();
    play.assert_sound();
    assert_eq!(play.saga(BY_HAND).ended_as(), "completed");
    let of_ada: Vec<_> = play
        .sagas
        .iter()
        .filter(|saga| saga.key == "extra/ada")
        .collect();
    assert_eq!(
        of_ada
            .iter()
            .map(|saga| saga.count("vouchers.activate"))
            .sum::<usize>(),
        1
    );
}

#[test]
fn a_campaign_whose_customers_nobody_can_list_gives_nobody_a_voucher() {
    let play = by_hand(
        stage(&["monthly-vouchers", "issue-voucher"])
            .answer(on("customers.list").item(1), fails("no connection"))
            .answer(
                "customers.list",
                succeeds(json!({ "customers": ["ada"], "is_last": false })),
            )
            .answer("vouchers.reserve", succeeds(json!({ "code": "SAVE5" }))),
    )
    .play();
    play.assert_sound();
    assert_eq!(play.saga(BY_HAND).status, Status::Compensated);
    let voucher = play.saga("extra/ada");
    assert_eq!(voucher.status, Status::Compensated);
    assert_eq!(voucher.done(), ["vouchers.reserve", "vouchers.void"]);
}

#[test]
fn a_campaign_that_is_called_off_in_time_takes_its_vouchers_back() {
    let slow = succeeds(json!({ "customers": ["dan"], "is_last": true }));
    let play = by_hand(
        stage(&["monthly-vouchers", "issue-voucher"])
            .answer(
                on("customers.list").item(1),
                slow.after(std::time::Duration::from_secs(20)),
            )
            .answer(
                "customers.list",
                succeeds(json!({ "customers": ["ada"], "is_last": false })),
            )
            .answer("vouchers.reserve", succeeds(json!({ "code": "SAVE5" }))),
    )
    .after(std::time::Duration::from_secs(10))
    .operate("monthly-vouchers", BY_HAND, OperatorKind::Cancel)
    .play();
    play.assert_sound();
    assert_eq!(play.saga(BY_HAND).status, Status::Compensated);
    assert_eq!(
        play.saga("extra/ada").done(),
        ["vouchers.reserve", "vouchers.void"]
    );
    assert_eq!(play.count("vouchers.activate"), 0);
}
