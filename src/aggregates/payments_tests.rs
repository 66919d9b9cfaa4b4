use super::*;
use crate::aggregates::tests::{Bundle, command};

fn funded(amount: u64) -> Bundle<Payments> {
    let mut bundle = Bundle::new();
    bundle.tell(&ask(DEPOSIT, 0, amount)).unwrap();
    bundle
}

fn ask(name: &str, saga: u128, amount: u64) -> Command {
    command(
        name,
        saga,
        "payment",
        json!({ "account": "c", "amount": amount }),
    )
}

fn balances(state: &State) -> (u64, u64, u64) {
    (state.actual, state.available, state.captured)
}

#[test]
fn a_reservation_lowers_what_is_available_and_a_capture_what_is_there() {
    let mut bundle = funded(1_000);
    let reply = bundle.tell(&ask(RESERVE, 1, 300)).unwrap();
    assert_eq!(
        reply,
        json!({ "account": "c", "amount": 300, "available": 700 })
    );
    assert_eq!(balances(&bundle.state), (1_000, 700, 0));
    bundle.tell(&ask(CAPTURE, 1, 300)).unwrap();
    assert_eq!(balances(&bundle.state), (700, 700, 300));
    assert!(bundle.state.reservations.is_empty());
}

#[test]
fn a_released_reservation_is_available_again_and_releasing_nothing_is_fine() {
    let mut bundle = funded(1_000);
    bundle.tell(&ask(RESERVE, 1, 300)).unwrap();
    assert_eq!(bundle.tell(&ask(RELEASE, 1, 300)).unwrap()["released"], 300);
    assert_eq!(bundle.tell(&ask(RELEASE, 1, 300)).unwrap()["released"], 0);
    assert_eq!(balances(&bundle.state), (1_000, 1_000, 0));
}

#[test]
fn what_others_have_reserved_can_not_be_reserved_again() {
    let mut bundle = funded(1_000);
    bundle.tell(&ask(RESERVE, 1, 700)).unwrap();
    let reason = bundle.tell(&ask(RESERVE, 2, 301)).unwrap_err().0;
    assert_eq!(
        reason,
        "not enough money: 301 cents wanted, 300 available on `c`"
    );
    bundle.tell(&ask(RESERVE, 2, 300)).unwrap();
    assert_eq!(balances(&bundle.state), (1_000, 0, 0));
}

#[test]
fn a_capture_without_a_reservation_is_rejected() {
    let mut bundle = funded(1_000);
    bundle.tell(&ask(CAPTURE, 1, 300)).unwrap_err();
    assert_eq!(balances(&bundle.state), (1_000, 1_000, 0));
}

#[test]
fn nothing_may_be_free_but_it_can_not_be_deposited() {
    let mut bundle = funded(1);
    bundle.tell(&ask(RESERVE, 1, 0)).unwrap();
    bundle.tell(&ask(CAPTURE, 1, 0)).unwrap();
    bundle.tell(&ask(DEPOSIT, 2, 0)).unwrap_err();
    assert_eq!(balances(&bundle.state), (1, 1, 0));
}

#[test]
fn a_deposit_beyond_what_can_be_counted_is_rejected_even_when_the_money_is_spent() {
    let mut bundle = funded(u64::MAX);
    bundle.tell(&ask(RESERVE, 1, u64::MAX)).unwrap();
    bundle.tell(&ask(CAPTURE, 1, u64::MAX)).unwrap();
    bundle.tell(&ask(DEPOSIT, 2, 1)).unwrap_err();
    assert_eq!(balances(&bundle.state), (0, 0, u64::MAX));
}
