//! Sagas that sell: against money, against credit, in tickets, on an invoice.

use std::time::Duration;

use backstitch::aggregates::{Credit, Inventory, Invoices, Payments, credit, inventory, payments};
use backstitch::participant::Participant;
use backstitch::saga::OperatorKind;
use backstitch::sim::stage::{DAY, Play, Stage, fails, rejects, silent};
use serde_json::{Value, json};

use super::{End, output, stage, state_of};

/// A shop with five lamps, and a customer with ten euros.
fn shop(saga: &str) -> Stage {
    stage(&[saga])
        .shipped_participants()
        .given::<Inventory>("lamp", [inventory::Event::Received { quantity: 5 }])
        .given::<Payments>("ada", [payments::Event::Deposited { amount: 1_000 }])
}

/// Lamps on hand and sold, and what ada has paid; nothing may be left held.
fn books(play: &Play) -> (u64, u64, u64) {
    let lamps = state_of::<Inventory>(play, "lamp");
    let ada = state_of::<Payments>(play, "ada");
    assert_eq!(
        (lamps.reserved, ada.actual - ada.available),
        (0, 0),
        "{}",
        play.timeline()
    );
    (lamps.on_hand, lamps.sold, ada.captured)
}

fn order(quantity: u64, total: u64) -> Value {
    json!({
        "order_id": "o", "customer": "ada", "total": total,
        "items": [{ "sku": "lamp", "quantity": quantity }],
    })
}

#[test]
fn an_order_is_sold_and_paid_and_told_or_nothing_of_it() {
    // What is ordered, how it ends, and what is on hand, sold and paid then.
    let cases = [
        (order(2, 600), "completed", (3, 2, 600)),
        (order(5, 1_000), "completed", (0, 5, 1_000)),
        (
            order(6, 600),
            "compensated: stock[0] rejected: not enough stock: 6 of `lamp` wanted, 5 left",
            (5, 0, 0),
        ),
        (
            order(2, 1_001),
            "compensated: payment rejected: not enough money: 1001 cents wanted, 1000 available on `ada`",
            (5, 0, 0),
        ),
    ];
    for (input, ended_as, totals) in cases {
        let play = shop("place-order")
            .start("place-order", input.clone())
            .play();
        play.assert_sound();
        assert_eq!(play.saga("o").ended_as(), ended_as);
        assert_eq!(books(&play), totals, "{input}");
    }
    let play = shop("place-order")
        .start("place-order", order(2, 600))
        .play();
    assert_eq!(*output(&play, "o"), json!({ "order_id": "o", "paid": 600 }));
}

#[test]
fn an_order_that_nobody_answers_or_that_is_called_off_leaves_nothing_behind() {
    let ends = [
        End {
            what: "the bank does not answer",
            stage: stage(&["place-order"])
                .answer("payments.reserve", silent())
                .start("place-order", order(1, 1)),
            key: "o",
            ended_as: "compensated: payment reserve: no answer within 2s, after 3 attempt(s)",
            done: &[
                "orders.open",
                "inventory.reserve",
                "inventory.release",
                "payments.release",
                "orders.cancel",
            ],
        },
        End {
            what: "the whole takes too long",
            stage: stage(&["place-order"])
                .answer("inventory.reserve", fails("stocktaking"))
                .answer("payments.reserve", fails("closed"))
                .start("place-order", order(1, 1)),
            key: "o",
            ended_as: "compensated: payment reserve: closed, after 3 attempt(s)",
            done: &[
                "orders.open",
                "inventory.release",
                "payments.release",
                "orders.cancel",
            ],
        },
        End {
            what: "a person calls it off",
            stage: stage(&["place-order"])
                .latency(Duration::from_secs(1))
                .start("place-order", order(1, 1))
                .after(Duration::from_millis(1_500))
                .operate("place-order", "o", OperatorKind::Cancel),
            key: "o",
            ended_as: "compensated: cancelled by the stage: it is in the script",
            done: &[
                "orders.open",
                "inventory.reserve",
                "payments.reserve",
                "inventory.release",
                "payments.release",
                "orders.cancel",
            ],
        },
    ];
    for end in ends {
        end.reached();
    }
}

fn purchase(seats: u64, cents: u64) -> Value {
    json!({ "purchase": "b", "buyer": "ada", "concert": "lamp", "seats": seats, "cents": cents })
}

#[test]
fn a_ticket_is_held_and_paid_or_free_again() {
    let cases = [
        (purchase(2, 900), "completed", (3, 2, 900)),
        (
            purchase(6, 900),
            "compensated: seats rejected: not enough stock: 6 of `lamp` wanted, 5 left",
            (5, 0, 0),
        ),
        (
            purchase(2, 1_001),
            "compensated: payment rejected: not enough money: 1001 cents wanted, 1000 available on `ada`",
            (5, 0, 0),
        ),
    ];
    for (input, ended_as, totals) in cases {
        let play = shop("buy-ticket").start("buy-ticket", input).play();
        play.assert_sound();
        assert_eq!(play.saga("b").ended_as(), ended_as);
        assert_eq!(books(&play), totals);
    }
    End {
        what: "the payment hangs until the saga gives up",
        stage: stage(&["buy-ticket"])
            .answer("payments.reserve", silent())
            .start("buy-ticket", purchase(1, 1)),
        key: "b",
        ended_as: "compensated: payment reserve: no answer within 5s, after 5 attempt(s)",
        done: &["inventory.reserve", "payments.release", "inventory.release"],
    }
    .reached();
}

fn on_credit(amount: u64, quantity: u64) -> Value {
    json!({ "purchase": "p", "customer": "ada", "sku": "lamp", "quantity": quantity, "amount": amount })
}

fn with_credit(limit: u64) -> Stage {
    let grant = [credit::Event::Granted { limit }];
    shop("buy-on-credit").given::<Credit>(Credit::id(2026, "ada"), grant)
}

#[test]
fn a_purchase_on_credit_ends_within_the_limit_or_not_at_all() {
    let cases = [
        (on_credit(1_000, 1), "completed", 1_000, 1),
        (
            on_credit(1_001, 1),
            "compensated: credit rejected: over the credit limit of `ada` for 2026: 1001 cents wanted, 1000 of 1000 left",
            0,
            0,
        ),
        (
            on_credit(1_000, 6),
            "compensated: stock rejected: not enough stock: 6 of `lamp` wanted, 5 left",
            0,
            0,
        ),
    ];
    for (input, ended_as, used, sold) in cases {
        let play = with_credit(1_000).start("buy-on-credit", input).play();
        play.assert_sound();
        assert_eq!(play.saga("p").ended_as(), ended_as);
        let credit = state_of::<Credit>(&play, "2026/ada");
        assert_eq!((credit.used, credit.reserved), (used, 0));
        assert_eq!(books(&play).1, sold);
    }
}

#[test]
fn a_purchase_on_new_years_eve_counts_for_the_year_it_began_in() {
    // Stand-ins take their time, so midnight falls between the reserves and the confirms.
    let grant = || [credit::Event::Granted { limit: 1_000 }];
    let play = stage(&["buy-on-credit"])
        .participants(|| vec![Participant::new(Credit::NAME).aggregate::<Credit>()])
        .given::<Credit>(Credit::id(2026, "ada"), grant())
        .given::<Credit>(Credit::id(2027, "ada"), grant())
        .at((DAY * 365).saturating_sub(Duration::from_millis(1)))
        .start("buy-on-credit", on_credit(600, 1))
        .play();
    play.assert_sound();
    assert!(
        play.saga("p").took.unwrap() > Duration::from_millis(1),
        "{}",
        play.timeline()
    );
    assert_eq!(
        *output(&play, "p"),
        json!({ "purchase": "p", "year": 2026, "left": 400 })
    );
    assert_eq!(state_of::<Credit>(&play, "2026/ada").used, 600);
    assert_eq!(state_of::<Credit>(&play, "2027/ada").used, 0);
}

fn edit(id: &str, revision: u64, more: u64, fewer: u64) -> Value {
    let lines = |quantity: u64| match quantity {
        0 => json!([]),
        _ => json!([{ "sku": "lamp", "quantity": quantity }]),
    };
    json!({
        "edit": id, "invoice": "i", "editor": "ada", "revision": revision,
        "more": lines(more), "fewer": lines(fewer),
    })
}

#[test]
fn an_invoice_and_its_stock_change_together_or_not_at_all() {
    let first = || {
        shop("edit-invoice")
            .start("edit-invoice", edit("e-1", 0, 3, 0))
            .after(DAY)
    };
    // The second edit, how it ends, and what is invoiced then.
    let cases = [
        (edit("e-2", 1, 2, 0), "completed", 5),
        (edit("e-2", 1, 0, 1), "completed", 2),
        (edit("e-2", 1, 0, 3), "completed", 0),
        (
            edit("e-2", 1, 3, 0),
            "compensated: more[0] rejected: not enough stock: 3 of `lamp` wanted, 2 left",
            3,
        ),
        (
            edit("e-2", 1, 0, 4),
            "compensated: invoice rejected: invoice `i`: 4 of `lamp` off, but there are 3",
            3,
        ),
        (
            edit("e-2", 0, 1, 0),
            "compensated: invoice rejected: invoice `i` was changed by ada: it is at revision 1, not 0",
            3,
        ),
    ];
    for (second, ended_as, invoiced) in cases {
        let play = first().start("edit-invoice", second).play();
        play.assert_sound();
        assert_eq!(play.saga("e-2").ended_as(), ended_as);
        let invoice = state_of::<Invoices>(&play, "i");
        assert_eq!(
            invoice.lines.get("lamp").copied().unwrap_or(0),
            invoiced,
            "{ended_as}"
        );
        assert!(invoice.edit.is_none(), "{ended_as}");
        assert_eq!(books(&play), (5 - invoiced, invoiced, 0), "{ended_as}");
    }
}

#[test]
fn an_edit_whose_stock_nobody_can_tell_is_discarded() {
    End {
        what: "the stock refuses",
        stage: stage(&["edit-invoice"])
            .answer("inventory.reserve", rejects("stocktaking"))
            .start("edit-invoice", edit("e", 0, 1, 0)),
        key: "e",
        ended_as: "compensated: more[0] rejected: stocktaking",
        done: &["invoices.edit", "invoices.discard"],
    }
    .reached();
}
