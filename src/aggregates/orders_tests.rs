use super::*;
use crate::aggregates::tests::{Bundle, command};

fn ask(name: &str, saga: u128) -> Command {
    command(
        name,
        saga,
        "order",
        json!({ "order_id": "o1", "customer": "ada" }),
    )
}

#[test]
fn an_order_is_opened_then_confirmed() {
    let mut bundle = Bundle::<Orders>::new();
    let reply = bundle.tell(&ask(OPEN, 1)).unwrap();
    assert_eq!(reply, json!({ "order_id": "o1", "status": "open" }));
    bundle.tell(&ask(CONFIRM, 1)).unwrap();
    assert_eq!(bundle.state.status, OrderStatus::Confirmed);
    assert_eq!(bundle.state.customer.as_deref(), Some("ada"));
}

#[test]
fn what_each_status_allows() {
    // Commands so far, the command, and whether it is taken.
    let cases: [(&[&str], &str, bool); 11] = [
        (&[], OPEN, true),
        (&[], CONFIRM, false),
        (&[], CANCEL, true),
        (&[OPEN], OPEN, false),
        (&[OPEN], CANCEL, true),
        (&[OPEN, CONFIRM], OPEN, false),
        (&[OPEN, CONFIRM], CONFIRM, false),
        (&[OPEN, CONFIRM], CANCEL, true),
        (&[OPEN, CANCEL], CONFIRM, false),
        (&[OPEN, CANCEL], CANCEL, true),
        (&[OPEN, CANCEL], OPEN, true),
    ];
    for (before, name, taken) in cases {
        let mut bundle = Bundle::<Orders>::new();
        for name in before {
            bundle.tell(&ask(name, 1)).unwrap();
        }
        assert_eq!(
            bundle.tell(&ask(name, 1)).is_ok(),
            taken,
            "{name} after {before:?}"
        );
    }
}

#[test]
fn cancelling_does_not_undo_a_confirmed_order() {
    let mut bundle = Bundle::<Orders>::new();
    for name in [OPEN, CONFIRM, CANCEL] {
        bundle.tell(&ask(name, 1)).unwrap();
    }
    assert_eq!(bundle.state.status, OrderStatus::Confirmed);
}

#[test]
fn another_saga_can_neither_confirm_nor_cancel_it() {
    let mut bundle = Bundle::<Orders>::new();
    bundle.tell(&ask(OPEN, 1)).unwrap();
    bundle.tell(&ask(CONFIRM, 2)).unwrap_err();
    bundle.tell(&ask(CANCEL, 2)).unwrap();
    assert_eq!(bundle.state.status, OrderStatus::Open);
}
