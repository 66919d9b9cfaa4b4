use std::time::Duration;

use super::*;
use crate::aggregates::tests::{Bundle, command};

fn at(bundle: &Bundle<Offers>, hours: u64) -> Timestamp {
    bundle.now.after(Duration::from_hours(hours))
}

/// An offer of 100 cents that is open for a day.
fn offered() -> Bundle<Offers> {
    let mut bundle = Bundle::<Offers>::new();
    let expires_at = at(&bundle, 24).to_string();
    let payload = json!({ "offer": "o", "price": 100, "expires_at": expires_at });
    bundle.tell(&command(MAKE, 1, "offer", payload)).unwrap();
    bundle
}

fn ask(name: &str) -> Command {
    command(name, 2, "s", json!({ "offer": "o" }))
}

fn reprice(bundle: &mut Bundle<Offers>, price: u64, hours: u64) -> Result<Value, Rejection> {
    let valid_from = at(bundle, hours).to_string();
    let payload = json!({ "offer": "o", "price": price, "valid_from": valid_from });
    bundle.tell(&command(REPRICE, 3, "s", payload))
}

#[test]
fn an_offer_asks_once_for_a_reminder_when_it_expires() {
    let bundle = offered();
    let asked: Vec<FollowUp> = bundle.events.iter().filter_map(Offers::follow_up).collect();
    let reminder = FollowUp {
        command: EXPIRE,
        payload: json!({ "offer": "o" }),
        at: at(&bundle, 24),
    };
    assert_eq!(asked, [reminder]);
}

#[test]
fn it_expires_by_its_time_and_not_by_the_reminder() {
    let mut bundle = offered();
    let early = bundle.tell(&ask(EXPIRE)).unwrap_err();
    assert!(early.0.contains("still open"), "{early}");
    bundle.now = at(&bundle, 24);
    // The reminder is late, and the offer is over all the same.
    bundle.tell(&ask(ACCEPT)).unwrap_err();
    let reminded = bundle.now;
    bundle.tell(&ask(EXPIRE)).unwrap();
    assert_eq!(bundle.state.status, Status::Expired);
    assert_eq!(bundle.events.last(), Some(&Event::Expired { at: reminded }));
    let events = bundle.events.len();
    bundle.tell(&ask(EXPIRE)).unwrap();
    assert_eq!(
        bundle.events.len(),
        events,
        "a second reminder changes nothing"
    );
}

#[test]
fn a_reminder_for_what_was_accepted_or_withdrawn_changes_nothing() {
    for (name, status) in [(ACCEPT, Status::Accepted), (WITHDRAW, Status::Withdrawn)] {
        let mut bundle = offered();
        bundle.tell(&ask(name)).unwrap();
        bundle.now = at(&bundle, 48);
        bundle.tell(&ask(EXPIRE)).unwrap();
        assert_eq!(bundle.state.status, status);
    }
}

#[test]
fn a_price_counts_from_its_time_in_whatever_order_it_was_set() {
    let mut bundle = offered();
    reprice(&mut bundle, 80, 10).unwrap();
    reprice(&mut bundle, 90, 5).unwrap();
    let past = bundle.tell(&command(
        REPRICE,
        4,
        "s",
        json!({ "offer": "o", "price": 1, "valid_from": "2020-01-01T00:00:00Z" }),
    ));
    assert!(past.unwrap_err().0.contains("over"));
    let prices = [0, 4, 5, 9, 10, 20].map(|hours| bundle.state.price_at(at(&bundle, hours)));
    assert_eq!(prices, [100, 100, 90, 90, 80, 80]);
    bundle.now = at(&bundle, 7);
    assert_eq!(bundle.tell(&ask(ACCEPT)).unwrap()["price"], 90);
}

#[test]
fn an_acceptance_that_is_taken_back_leaves_the_offer_as_open_as_it_would_be() {
    for (hours, status) in [(1, Status::Open), (25, Status::Expired)] {
        let mut bundle = offered();
        bundle.tell(&ask(ACCEPT)).unwrap();
        bundle.now = at(&bundle, hours);
        bundle.tell(&ask(TAKE_BACK)).unwrap();
        bundle.tell(&ask(TAKE_BACK)).unwrap();
        assert_eq!(bundle.state.status, status);
        assert_eq!(bundle.events.len(), 3);
    }
}
