use serde_json::json;

use super::*;
use crate::aggregates::Payments;
use crate::aggregates::tests::{Bundle, command};

/// Two accounts, of which the first has money.
fn accounts() -> [(&'static str, Bundle<Payments>); 2] {
    ["a", "b"].map(|name| {
        let mut bundle = Bundle::new();
        tell(
            &mut bundle,
            "payments.deposit",
            0,
            &json!({ "account": name, "amount": 100 }),
        );
        (name, bundle)
    })
}

fn tell(bundle: &mut Bundle<Payments>, name: &str, saga: u128, payload: &serde_json::Value) {
    let step = if name.contains("expect") || name.contains("receive") {
        "credit"
    } else {
        "debit"
    };
    bundle
        .tell(&command(name, saga, step, payload.clone()))
        .unwrap();
}

fn read(accounts: &[(&'static str, Bundle<Payments>)]) -> Ledger {
    ledger(
        accounts
            .iter()
            .map(|(name, bundle)| (*name, bundle.events.as_slice())),
    )
}

#[test]
fn a_transfer_is_one_entry_with_two_halves() {
    let mut accounts = accounts();
    let pay = json!({ "account": "a", "amount": 30, "counterpart": "b" });
    let take = json!({ "account": "b", "amount": 30, "counterpart": "a" });
    tell(&mut accounts[0].1, "payments.reserve", 1, &pay);
    tell(&mut accounts[1].1, "payments.expect", 1, &take);
    assert_eq!(read(&accounts), Ledger::default());
    tell(&mut accounts[0].1, "payments.capture", 1, &pay);
    assert_eq!(read(&accounts).unbalanced.len(), 1, "only half is done");
    tell(&mut accounts[1].1, "payments.receive", 1, &take);
    let entry = Entry {
        from: "a".to_owned(),
        to: "b".to_owned(),
        amount: 30,
    };
    assert_eq!(
        read(&accounts),
        Ledger {
            entries: vec![entry],
            unbalanced: Vec::new()
        }
    );
    assert_eq!(accounts.map(|(_, account)| account.state.actual), [70, 130]);
}

#[test]
fn halves_of_different_amounts_are_told() {
    let mut accounts = accounts();
    let pay = json!({ "account": "a", "amount": 30, "counterpart": "b" });
    let take = json!({ "account": "b", "amount": 31, "counterpart": "a" });
    tell(&mut accounts[0].1, "payments.reserve", 1, &pay);
    tell(&mut accounts[0].1, "payments.capture", 1, &pay);
    tell(&mut accounts[1].1, "payments.expect", 1, &take);
    tell(&mut accounts[1].1, "payments.receive", 1, &take);
    let unbalanced = read(&accounts).unbalanced;
    assert!(
        unbalanced[0].contains("30") && unbalanced[0].contains("31"),
        "{unbalanced:?}"
    );
}

#[test]
fn payments_to_somebody_outside_have_no_other_half() {
    let mut accounts = accounts();
    let pay = json!({ "account": "a", "amount": 30 });
    tell(&mut accounts[0].1, "payments.reserve", 1, &pay);
    tell(&mut accounts[0].1, "payments.capture", 1, &pay);
    tell(
        &mut accounts[0].1,
        "payments.refund",
        2,
        &json!({ "account": "a", "amount": 10 }),
    );
    assert_eq!(read(&accounts), Ledger::default());
}
