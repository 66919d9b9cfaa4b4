//! What all shipped aggregates have in common, and totals under random commands.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::id::{Phase, SagaId, Timestamp};
use crate::participant::{Aggregate, Command, Rejection, ReplyAddress, fingerprint, replay};

/// A command as the barrier would let it through.
pub(super) fn command(name: &str, saga: u128, step: &str, payload: serde_json::Value) -> Command {
    let phase = match name.split_once('.').map_or(name, |(_, verb)| verb) {
        "confirm" | "capture" | "use" | "save" | "send-receipt" | "put-back" | "refund" => {
            Phase::Confirm
        }
        "release" | "cancel" | "discard" | "expect-no-more" => Phase::Compensate,
        // Stock comes from outside; money, from an account that has agreed.
        "receive" if name.starts_with("payments.") => Phase::Confirm,
        "receive" | "deposit" | "set-limits" | "give-back" | "grant" => Phase::Action,
        _ => Phase::Reserve,
    };
    Command {
        name: name.to_owned(),
        saga: SagaId(Uuid::from_u128(saga)),
        step: step.parse().unwrap(),
        phase,
        fingerprint: fingerprint(phase, &payload),
        payload,
        message_id: None,
        saga_key: None,
        correlation: None,
        reply_address: Some(ReplyAddress {
            reply_to: "replies".to_owned(),
            correlation_id: "none".to_owned(),
            traceparent: None,
        }),
    }
}

/// One aggregate under test: its state, and all that happened to it.
pub(super) struct Bundle<A: Aggregate> {
    pub state: A::State,
    pub events: Vec<A::Event>,
    pub now: Timestamp,
}

impl<A: Aggregate> Bundle<A> {
    pub fn new() -> Self {
        Self {
            state: A::State::default(),
            events: Vec::new(),
            now: Timestamp::from_micros(1_700_000_000_000_000),
        }
    }

    pub fn tell(&mut self, command: &Command) -> Result<serde_json::Value, Rejection> {
        let (events, reply) = A::handle(&self.state, command, self.now)?;
        for event in events {
            // By way of JSON, as the store would.
            let text = serde_json::to_vec(&event).unwrap();
            let event: A::Event = serde_json::from_slice(&text).unwrap();
            A::apply(&mut self.state, &event);
            self.events.push(event);
        }
        Ok(reply)
    }
}

#[test]
fn every_command_has_one_participant_named_like_its_queue() {
    let mut owners = BTreeMap::new();
    for participant in participants().into_iter().chain(read_back()) {
        for command in participant.commands() {
            let queue = command.split('.').next().unwrap();
            assert_eq!(queue, participant.name(), "{command}");
            assert!(owners.insert(command, queue.to_owned()).is_none());
        }
    }
    assert_eq!(
        owners.len(),
        5 + 3 + 8 + 1 + 4 + 5 + 3 + 3 + 2 + 2 + 3 + 1 + 6
    );
}

#[test]
fn a_payload_that_makes_no_sense_is_rejected_with_the_field_that_is_wrong() {
    let cases = [
        (json!({}), "sku"),
        (json!({"sku": 7, "quantity": 1}), "sku"),
        (json!({"sku": "a"}), "quantity"),
        (json!({"sku": "a", "quantity": -1}), "-1"),
        (json!({"sku": "a", "quantity": 1.5}), "1.5"),
        (json!({"sku": "a", "quantity": 0}), "quantity"),
        (json!([]), "sku"),
        (json!(null), "sku"),
    ];
    for (payload, hint) in cases {
        let mut bundle = Bundle::<Inventory>::new();
        let told = bundle.tell(&command("inventory.reserve", 1, "stock", payload.clone()));
        let reason = told.unwrap_err().0;
        assert!(reason.contains(hint), "{payload}: {reason}");
    }
    // A whole number, however it is written: what it asks for is understood, and not there.
    let payload = json!({"sku": "a", "quantity": 3.0});
    let mut bundle = Bundle::<Inventory>::new();
    let told = bundle.tell(&command("inventory.reserve", 1, "stock", payload));
    let reason = told.unwrap_err().0;
    assert!(!reason.contains("payload of"), "{reason}");
}

#[test]
fn ids_that_no_database_column_takes_are_rejected() {
    for id in [String::new(), "a\u{0}b".to_owned(), "x".repeat(256)] {
        assert!(crate::participant::key_of::<Inventory>(id).is_err());
    }
}

#[test]
fn each_receipt_is_counted() {
    let mut bundle = Bundle::<Mailer>::new();
    let mail = command(
        "mailer.send-receipt",
        1,
        "receipt",
        json!({"order_id": "o1"}),
    );
    assert_eq!(
        bundle.tell(&mail).unwrap(),
        json!({"order_id": "o1", "receipt": 1})
    );
    assert_eq!(bundle.state, mailer::State { count: 1 });
}

/// A random command: which verb, by which of a few sagas and steps, how much, and after how long.
fn asks() -> impl Strategy<Value = Vec<(usize, u128, usize, u64, u64)>> {
    let amount = prop_oneof![9 => 0_u64..40, 1 => (u64::MAX - 3)..=u64::MAX];
    prop::collection::vec(
        (0_usize..8, 0_u128..4, 0_usize..2, amount, 0_u64..8),
        0..120,
    )
}

const STEPS: [&str; 2] = ["stock[0]", "stock[1]"];

proptest! {
    #[test]
    fn stock_is_conserved_whatever_is_asked(asks in asks(), expiring in any::<bool>()) {
        let mut bundle = Bundle::<Inventory>::new();
        for (verb, saga, step, quantity, wait_s) in asks {
            bundle.now = bundle.now.after(std::time::Duration::from_secs(wait_s));
            let name = ["inventory.reserve", "inventory.confirm", "inventory.release", "inventory.receive", "inventory.put-back"][verb % 5];
            let mut payload = json!({"sku": "a", "quantity": quantity});
            if expiring && saga % 2 == 0 {
                payload["expires_in_s"] = 5.into();
            }
            let (before, received) = (bundle.state.clone(), bundle.state.received);
            let told = bundle.tell(&command(name, saga, STEPS[step], payload));
            let state = &bundle.state;
            prop_assert_eq!(
                u128::from(state.on_hand) + u128::from(state.reserved) + u128::from(state.sold),
                u128::from(state.received)
            );
            let held: u64 = state.reservations.values().map(|held| held.quantity).sum();
            prop_assert_eq!(state.reserved, held);
            prop_assert!(state.sold >= before.sold || verb % 5 == 4);
            if told.is_err() {
                prop_assert_eq!(state, &before);
            } else if verb % 5 != 3 {
                prop_assert_eq!(state.received, received);
            }
        }
        prop_assert_eq!(replay::<Inventory>(&bundle.events), bundle.state);
    }

    #[test]
    fn money_is_conserved_whatever_is_asked(asks in asks()) {
        let mut bundle = Bundle::<Payments>::new();
        for (verb, saga, step, amount, _) in asks {
            let name = [
                "payments.reserve", "payments.capture", "payments.release", "payments.deposit",
                "payments.expect", "payments.receive", "payments.expect-no-more", "payments.refund",
            ][verb];
            let before = bundle.state.clone();
            let told = bundle.tell(&command(name, saga, STEPS[step], json!({"account": "c", "amount": amount})));
            let state = &bundle.state;
            prop_assert_eq!(
                u128::from(state.actual) + u128::from(state.captured),
                u128::from(state.deposited) + u128::from(state.received)
            );
            let held: u128 = state.reservations.values().map(|held| u128::from(*held)).sum();
            prop_assert_eq!(u128::from(state.available) + held, u128::from(state.actual));
            prop_assert!(state.captured >= before.captured || name == "payments.refund");
            if told.is_err() {
                prop_assert_eq!(state, &before);
            }
        }
        prop_assert_eq!(replay::<Payments>(&bundle.events), bundle.state);
    }

    #[test]
    fn a_credit_limit_is_never_exceeded_whatever_is_asked(asks in asks()) {
        let mut bundle = Bundle::<Credit>::new();
        for (verb, saga, step, amount, _) in asks {
            let name = ["credit.reserve", "credit.use", "credit.release", "credit.grant"][verb % 4];
            let payload = json!({"customer": "c", "at": "2026", "amount": amount, "limit": amount});
            let before = bundle.state.clone();
            let told = bundle.tell(&command(name, saga, STEPS[step], payload));
            let state = &bundle.state;
            prop_assert!(u128::from(state.used) + u128::from(state.reserved) <= u128::from(state.limit));
            prop_assert_eq!(state.reserved, state.reservations.values().sum::<u64>());
            prop_assert!(told.is_ok() || *state == before);
        }
        prop_assert_eq!(replay::<Credit>(&bundle.events), bundle.state);
    }

    #[test]
    fn no_quota_is_exceeded_by_a_reservation_whatever_is_asked(asks in asks()) {
        let mut bundle = Bundle::<Quotas>::new();
        for (verb, saga, step, amount, other) in asks {
            let name = [
                "quotas.reserve", "quotas.confirm", "quotas.release", "quotas.set-limits", "quotas.give-back",
            ][verb % 5];
            let payload = json!({"tenant": "t", "users": amount, "projects": other, "storage_mb": amount / 2});
            let before = bundle.state.clone();
            let told = bundle.tell(&command(name, saga, STEPS[step], payload));
            let state = &bundle.state;
            if told.is_ok() && name == "quotas.reserve" {
                let (used, held, limits) = (state.used, state.reserved, state.limits);
                for (wanted, used, held, limit) in [
                    (amount, used.users, held.users, limits.users),
                    (other, used.projects, held.projects, limits.projects),
                    (amount / 2, used.storage_mb, held.storage_mb, limits.storage_mb),
                ] {
                    // Nothing can be had even where a limit was lowered below what is used.
                    let sum = u128::from(used) + u128::from(held);
                    prop_assert!(wanted == 0 || sum <= u128::from(limit));
                }
            }
            prop_assert!(told.is_ok() || *state == before);
        }
        prop_assert_eq!(replay::<Quotas>(&bundle.events), bundle.state);
    }

    #[test]
    fn an_order_is_confirmed_at_most_once(asks in asks()) {
        let mut bundle = Bundle::<Orders>::new();
        for (verb, saga, step, _, _) in asks {
            let name = ["orders.open", "orders.confirm", "orders.cancel", "orders.open"][verb % 4];
            let _ = bundle.tell(&command(name, saga, STEPS[step], json!({"order_id": "o"})));
            let state = &bundle.state;
            prop_assert!(state.times_confirmed <= 1);
            let ended = state.times_cancelled + state.times_confirmed;
            let is_open = u32::from(state.status == orders::OrderStatus::Open);
            prop_assert_eq!(state.times_opened, ended + is_open);
        }
        prop_assert_eq!(replay::<Orders>(&bundle.events), bundle.state);
    }
}
