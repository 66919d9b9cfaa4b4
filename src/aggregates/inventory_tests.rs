use std::time::Duration;

use super::*;
use crate::aggregates::tests::{Bundle, command};

fn stocked(quantity: u64) -> Bundle<Inventory> {
    let mut bundle = Bundle::new();
    bundle.tell(&ask(RECEIVE, 0, quantity)).unwrap();
    bundle
}

fn ask(name: &str, saga: u128, quantity: u64) -> Command {
    command(
        name,
        saga,
        "stock",
        json!({ "sku": "a", "quantity": quantity }),
    )
}

fn ask_for(name: &str, saga: u128, quantity: u64, expires_in_s: u64) -> Command {
    let payload = json!({ "sku": "a", "quantity": quantity, "expires_in_s": expires_in_s });
    command(name, saga, "stock", payload)
}

fn counts(state: &State) -> (u64, u64, u64) {
    (state.on_hand, state.reserved, state.sold)
}

#[test]
fn reserved_stock_is_sold_by_confirm_and_leaves_the_snapshot() {
    let mut bundle = stocked(10);
    let reply = bundle.tell(&ask(RESERVE, 1, 3)).unwrap();
    assert_eq!(reply, json!({ "sku": "a", "quantity": 3, "left": 7 }));
    assert_eq!(counts(&bundle.state), (7, 3, 0));
    bundle.tell(&ask(CONFIRM, 1, 3)).unwrap();
    assert_eq!(counts(&bundle.state), (7, 0, 3));
    assert!(bundle.state.reservations.is_empty());
}

#[test]
fn released_stock_is_back_on_hand_and_releasing_nothing_is_fine() {
    let mut bundle = stocked(10);
    bundle.tell(&ask(RESERVE, 1, 3)).unwrap();
    let reply = bundle.tell(&ask(RELEASE, 1, 3)).unwrap();
    assert_eq!(reply, json!({ "sku": "a", "released": 3 }));
    let reply = bundle.tell(&ask(RELEASE, 1, 3)).unwrap();
    assert_eq!(reply, json!({ "sku": "a", "released": 0 }));
    assert_eq!(counts(&bundle.state), (10, 0, 0));
}

#[test]
fn more_than_is_left_is_rejected_and_says_how_much_there_is() {
    let mut bundle = stocked(2);
    let reason = bundle.tell(&ask(RESERVE, 1, 3)).unwrap_err().0;
    assert_eq!(reason, "not enough stock: 3 of `a` wanted, 2 left");
    assert_eq!(counts(&bundle.state), (2, 0, 0));
}

#[test]
fn one_saga_may_reserve_the_same_article_in_two_steps() {
    let mut bundle = stocked(10);
    for step in ["stock[0]", "stock[1]"] {
        let payload = json!({ "sku": "a", "quantity": 4 });
        bundle.tell(&command(RESERVE, 1, step, payload)).unwrap();
    }
    assert_eq!(counts(&bundle.state), (2, 8, 0));
}

#[test]
fn an_expired_reservation_gives_way_to_the_next_buyer() {
    let mut bundle = stocked(3);
    let reply = bundle.tell(&ask_for(RESERVE, 1, 3, 60)).unwrap();
    let expires_at = bundle.now.after(Duration::from_mins(1));
    assert_eq!(reply["expires_at"], expires_at.to_string());

    bundle.tell(&ask(RESERVE, 2, 1)).unwrap_err();
    bundle.now = expires_at;
    bundle.tell(&ask(RESERVE, 2, 1)).unwrap();
    assert_eq!(counts(&bundle.state), (2, 1, 0));
    assert!(bundle.state.expiring.is_empty());
}

#[test]
fn confirm_after_the_expiry_takes_the_stock_again_if_it_is_there() {
    let mut bundle = stocked(3);
    bundle.tell(&ask_for(RESERVE, 1, 2, 60)).unwrap();
    bundle.now = bundle.now.after(Duration::from_secs(61));
    bundle.tell(&ask(RESERVE, 2, 1)).unwrap();
    let reply = bundle.tell(&ask_for(CONFIRM, 1, 2, 60)).unwrap();
    assert_eq!(reply["expired"], true);
    assert_eq!(counts(&bundle.state), (0, 1, 2));
}

#[test]
fn confirm_after_the_expiry_is_rejected_when_the_stock_is_gone() {
    let mut bundle = stocked(3);
    bundle.tell(&ask_for(RESERVE, 1, 2, 60)).unwrap();
    bundle.now = bundle.now.after(Duration::from_secs(61));
    bundle.tell(&ask(RESERVE, 2, 2)).unwrap();
    let reason = bundle.tell(&ask_for(CONFIRM, 1, 2, 60)).unwrap_err().0;
    assert!(
        reason.contains("expired") && reason.contains("1 left"),
        "{reason}"
    );
}

#[test]
fn a_reservation_past_its_time_that_nobody_needed_is_still_good() {
    let mut bundle = stocked(3);
    bundle.tell(&ask_for(RESERVE, 1, 2, 60)).unwrap();
    bundle.now = bundle.now.after(Duration::from_secs(61));
    let reply = bundle.tell(&ask_for(CONFIRM, 1, 2, 60)).unwrap();
    assert_eq!(reply, json!({ "sku": "a", "quantity": 2 }));
    assert_eq!(counts(&bundle.state), (1, 0, 2));
}

#[test]
fn a_reservation_without_time_limit_that_is_not_there_is_not_confirmed() {
    let mut bundle = stocked(3);
    bundle.tell(&ask(CONFIRM, 1, 2)).unwrap_err();
    assert_eq!(counts(&bundle.state), (3, 0, 0));
}

#[test]
fn stock_beyond_what_can_be_counted_is_rejected() {
    let mut bundle = stocked(u64::MAX);
    bundle.tell(&ask(RECEIVE, 1, 1)).unwrap_err();
    bundle.tell(&ask(RESERVE, 2, u64::MAX)).unwrap();
    bundle.tell(&ask(RECEIVE, 1, 1)).unwrap_err();
    assert_eq!(counts(&bundle.state), (0, u64::MAX, 0));
}
