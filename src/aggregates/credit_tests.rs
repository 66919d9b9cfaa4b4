use super::*;
use crate::aggregates::tests::{Bundle, command};

fn granted(limit: u64) -> Bundle<Credit> {
    let mut bundle = Bundle::new();
    bundle.tell(&grant_of(limit)).unwrap();
    bundle
}

fn grant_of(limit: u64) -> Command {
    let payload = json!({ "customer": "c", "at": "2026", "limit": limit });
    command(GRANT, 0, "grant", payload)
}

fn ask(name: &str, saga: u128, amount: u64) -> Command {
    let payload = json!({ "customer": "c", "at": "2026-12-31T23:59:59.5Z", "amount": amount });
    command(name, saga, "credit", payload)
}

#[test]
fn the_limit_is_used_to_the_last_cent_and_not_one_more() {
    let mut bundle = granted(1_000);
    bundle.tell(&ask(RESERVE, 1, 600)).unwrap();
    let reason = bundle.tell(&ask(RESERVE, 2, 401)).unwrap_err().0;
    assert_eq!(
        reason,
        "over the credit limit of `c` for 2026: 401 cents wanted, 400 of 1000 left"
    );
    bundle.tell(&ask(USE, 1, 600)).unwrap();
    let reply = bundle.tell(&ask(RESERVE, 2, 400)).unwrap();
    assert_eq!((&reply["left"], &reply["year"]), (&json!(0), &json!(2026)));
    bundle.tell(&ask(USE, 2, 400)).unwrap();
    assert_eq!((bundle.state.used, bundle.state.reserved), (1_000, 0));
    bundle.tell(&ask(RESERVE, 3, 1)).unwrap_err();
}

#[test]
fn released_credit_is_free_again_and_without_a_grant_there_is_none() {
    let mut bundle = granted(10);
    bundle.tell(&ask(RESERVE, 1, 10)).unwrap();
    assert_eq!(bundle.tell(&ask(RELEASE, 1, 10)).unwrap()["released"], 10);
    assert_eq!(bundle.tell(&ask(RELEASE, 1, 10)).unwrap()["released"], 0);
    assert_eq!(bundle.state.left(), 10);
    bundle.tell(&ask(USE, 1, 10)).unwrap_err();
    Bundle::<Credit>::new()
        .tell(&ask(RESERVE, 1, 1))
        .unwrap_err();
}

#[test]
fn a_limit_can_not_be_lowered_below_what_is_owed() {
    let mut bundle = granted(10);
    bundle.tell(&ask(RESERVE, 1, 4)).unwrap();
    bundle.tell(&ask(USE, 1, 4)).unwrap();
    bundle.tell(&ask(RESERVE, 2, 3)).unwrap();
    bundle.tell(&grant_of(6)).unwrap_err();
    bundle.tell(&grant_of(7)).unwrap();
    assert_eq!(bundle.state.left(), 0);
}

#[test]
fn the_year_is_that_of_the_command() {
    let id = |at: serde_json::Value| {
        Credit::id_of(&command(
            RESERVE,
            1,
            "credit",
            json!({ "customer": "a/b", "at": at }),
        ))
    };
    assert_eq!(id(json!("2026-12-31T23:59:59Z")).unwrap(), "2026/a/b");
    assert_eq!(id(json!("2027")).unwrap(), Credit::id(2027, "a/b"));
    for wrong in [
        json!("20"),
        json!("20x6-01-01"),
        json!("20261"),
        json!("２026"),
        json!(2026),
    ] {
        assert!(id(wrong.clone()).is_err(), "{wrong}");
    }
}
