//! What holds for every shipped saga, whatever it is about: whichever step is refused or silent, what was
//! done is undone; whatever can't be confirmed yet is confirmed later; and all of it on a bad day too.

use std::collections::BTreeSet;

use backstitch::definition::{BlockKind, Definition, Forward, OnReject, Step};
use backstitch::id::Phase;
use backstitch::saga::Status;
use backstitch::sim::network::FaultRates;
use backstitch::sim::stage::{DAY, SagaPlay, Stage, fails, on, on_step, rejects, silent, succeeds};
use serde_json::json;

use super::{definitions, directory, stage};

/// Plays with a bad network, for each saga.
const BAD_DAYS: u64 = 8;

/// A shipped saga, and a scenario in which all its steps are run and it completes.
struct Shipped {
    saga: &'static str,
    /// It and those that it runs.
    files: &'static [&'static str],
    scenario: fn(Stage) -> Stage,
}

const SHIPPED: &[Shipped] = &[
    Shipped {
        saga: "accept-offer",
        files: &["accept-offer"],
        scenario: |stage| {
            stage
                .answer("offers.accept", succeeds(json!({ "price": 1 })))
                .start("accept-offer", json!({ "offer": "o", "customer": "c" }))
        },
    },
    Shipped {
        saga: "add-project",
        files: &["add-project"],
        scenario: |stage| {
            stage
                .answer("quotas.reserve", succeeds(json!({ "left": {} })))
                .answer("storage.allocate", succeeds(json!({ "volume": "v" })))
                .start(
                    "add-project",
                    json!({ "tenant": "t", "project": "p", "members": ["a", "b"], "megabytes": 1 }),
                )
        },
    },
    Shipped {
        saga: "award-points",
        files: &["award-points"],
        scenario: |stage| {
            stage
                .answer("projects.set-points-aside", succeeds(json!({ "left": 1 })))
                .start(
                    "award-points",
                    json!({ "award": "a", "project": "p", "task": "t", "points": 1 }),
                )
        },
    },
    Shipped {
        saga: "buy-on-credit",
        files: &["buy-on-credit"],
        scenario: |stage| {
            stage
                .answer("credit.reserve", succeeds(json!({ "year": 2026, "left": 1 })))
                .start(
                    "buy-on-credit",
                    json!({ "purchase": "p", "customer": "c", "sku": "s", "quantity": 1, "amount": 1 }),
                )
        },
    },
    Shipped {
        saga: "buy-ticket",
        files: &["buy-ticket"],
        scenario: |stage| {
            stage.start(
                "buy-ticket",
                json!({ "purchase": "p", "buyer": "b", "concert": "c", "seats": 1, "cents": 1 }),
            )
        },
    },
    Shipped {
        saga: "cancel-order",
        files: &["cancel-order"],
        scenario: |stage| {
            stage
                .answer("orders.hold-for-cancelling", held_order())
                .start("cancel-order", json!({ "order_id": "o", "because": "b" }))
        },
    },
    Shipped {
        saga: "contract",
        files: &["contract"],
        scenario: |stage| {
            stage
                .event(
                    "contracts",
                    "contract.signed",
                    json!({ "contract": "k", "customer": "c" }),
                )
                .after(DAY)
                .event("contracts", "contract.renewed", json!({ "contract": "k" }))
        },
    },
    Shipped {
        saga: "delete-product",
        files: &["delete-product"],
        scenario: |stage| {
            stage
                .answer("product-calculations.hide", succeeds(json!({ "count": 1 })))
                .start("delete-product", json!({ "product": "p", "revision": 1 }))
        },
    },
    Shipped {
        saga: "edit-invoice",
        files: &["edit-invoice"],
        scenario: |stage| {
            let lines = json!([{ "sku": "a", "quantity": 1 }, { "sku": "b", "quantity": 2 }]);
            stage.start(
                "edit-invoice",
                json!({
                    "edit": "e", "invoice": "i", "editor": "x", "revision": 1, "more": lines,
                    "fewer": [{ "sku": "c", "quantity": 1 }],
                }),
            )
        },
    },
    Shipped {
        saga: "issue-voucher",
        files: &["issue-voucher"],
        scenario: |stage| {
            stage
                .answer("vouchers.reserve", succeeds(json!({ "code": "c" })))
                .start(
                    "issue-voucher",
                    json!({ "campaign": "x", "customer": "c", "cents": 1 }),
                )
        },
    },
    Shipped {
        saga: "make-offer",
        files: &["make-offer"],
        scenario: |stage| {
            let time = "2030-01-01T00:00:00Z";
            stage.start(
                "make-offer",
                json!({
                    "offer": "o", "customer": "c", "price": 2, "expires_at": time,
                    "later": [{ "price": 1, "valid_from": time }],
                }),
            )
        },
    },
    Shipped {
        saga: "mark-read",
        files: &["mark-read"],
        scenario: |stage| {
            stage
                .answer("badges.read", succeeds(json!({ "unread": 1 })))
                .start(
                    "mark-read",
                    json!({ "customer": "c", "chat": "x", "upto": "m" }),
                )
        },
    },
    Shipped {
        saga: "monthly-vouchers",
        files: &["monthly-vouchers", "issue-voucher"],
        scenario: |stage| {
            let page = |is_last| succeeds(json!({ "customers": ["a", "b"], "is_last": is_last }));
            stage
                .answer(on("customers.list").item(0), page(false))
                .answer(
                    "customers.list",
                    succeeds(json!({ "customers": ["c"], "is_last": true })),
                )
                .answer("vouchers.reserve", succeeds(json!({ "code": "c" })))
                .start("monthly-vouchers", json!({ "campaign": "x", "cents": 1 }))
        },
    },
    Shipped {
        saga: "open-work-item",
        files: &["open-work-item"],
        scenario: |stage| {
            let people = json!([{ "person": "a", "role": "r" }, { "person": "b", "role": "r" }]);
            stage.start(
                "open-work-item",
                json!({ "work_item": "w", "title": "t", "people": people }),
            )
        },
    },
    Shipped {
        saga: "payment-reminders",
        files: &["payment-reminders"],
        scenario: |stage| {
            let overdue = json!({ "customer": "c", "invoices": ["i"], "open_cents": 1 });
            stage.event("billing", "invoices.overdue", overdue)
        },
    },
    Shipped {
        saga: "payment-webhook",
        files: &["payment-webhook"],
        scenario: |stage| {
            stage
                .answer(
                    "accounting.announce-payment",
                    succeeds(json!({ "still_open_cents": 0 })),
                )
                .start(
                    "payment-webhook",
                    json!({ "invoice": "i", "cents": 1, "paid_at": "now" }),
                )
        },
    },
    Shipped {
        saga: "place-order",
        files: &["place-order"],
        scenario: |stage| {
            stage.start(
                "place-order",
                json!({
                    "order_id": "o", "customer": "c", "total": 1,
                    "items": [{ "sku": "a", "quantity": 1 }, { "sku": "b", "quantity": 2 }],
                }),
            )
        },
    },
    Shipped {
        saga: "post-message",
        files: &["post-message"],
        scenario: |stage| {
            stage
                .answer("badges.read", succeeds(json!({ "unread": 1 })))
                .start(
                    "post-message",
                    json!({ "message": "m", "chat": "x", "from": "f", "to": "t", "text": "hi" }),
                )
        },
    },
    Shipped {
        saga: "product-discontinued",
        files: &["product-discontinued", "cancel-order"],
        scenario: |stage| {
            stage
                .answer(
                    "orders.list-open",
                    succeeds(json!({ "orders": ["o", "p"] })),
                )
                .answer("orders.hold-for-cancelling", held_order())
                .event("catalogue", "product.discontinued", json!({ "sku": "s" }))
        },
    },
    Shipped {
        saga: "record-action",
        files: &["record-action"],
        scenario: |stage| {
            stage.start(
                "record-action",
                json!({ "action": "a", "work_item": "w", "by": "b", "text": "t", "closes": true }),
            )
        },
    },
    Shipped {
        saga: "sign-up",
        files: &["sign-up"],
        scenario: |stage| {
            stage
                .answer("users.create", succeeds(json!({ "id": "u" })))
                .start(
                    "sign-up",
                    json!({ "email": "a@b", "phone": "+1 2", "name": "n" }),
                )
        },
    },
    Shipped {
        saga: "transfer-money",
        files: &["transfer-money"],
        scenario: |stage| {
            stage.start(
                "transfer-money",
                json!({ "transfer": "t", "from": "a", "to": "b", "amount": 1 }),
            )
        },
    },
];

fn held_order() -> backstitch::sim::stage::Response {
    succeeds(json!({ "customer": "c", "paid": 1, "items": [{ "sku": "s", "quantity": 1 }] }))
}

impl Shipped {
    fn stage(&self) -> Stage {
        stage(self.files)
    }

    /// Its own definition.
    fn definition(&self) -> Definition {
        let all = definitions(self.files);
        all.into_iter()
            .find(|definition| definition.name == self.saga)
            .unwrap()
    }
}

fn steps(definition: &Definition) -> impl Iterator<Item = &Step> {
    definition
        .blocks
        .iter()
        .filter_map(|node| match &node.kind {
            BlockKind::Step(step) => Some(step),
            _ => None,
        })
}

fn phase(forward: &Forward) -> Phase {
    match forward {
        Forward::Reserve(_) => Phase::Reserve,
        Forward::Action(_) => Phase::Action,
    }
}

#[test]
fn every_file_is_played_here_and_found_in_the_table() {
    let files: BTreeSet<String> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let played: BTreeSet<String> = SHIPPED
        .iter()
        .map(|shipped| shipped.saga.to_owned())
        .collect();
    assert_eq!(files, played);
    let table = std::fs::read_to_string(directory().join("README.md")).unwrap();
    for file in &files {
        assert!(
            table.contains(&format!("({file}.yaml)")),
            "{file} is not in sagas/README.md"
        );
        let text = super::source(file);
        assert!(
            text.starts_with("# Solves: "),
            "{file} does not say what it solves"
        );
    }
}

#[test]
fn all_are_sound_together() {
    let all: Vec<&str> = SHIPPED.iter().map(|shipped| shipped.saga).collect();
    assert_eq!(definitions(&all).len(), SHIPPED.len());
}

#[test]
fn every_saga_completes_when_everybody_agrees() {
    for shipped in SHIPPED {
        let play = (shipped.scenario)(shipped.stage()).play();
        play.assert_sound();
        assert!(
            !play.sagas.is_empty(),
            "{}: {:?}",
            shipped.saga,
            play.refused
        );
        assert_eq!(
            play.letters.len(),
            0,
            "{}: {}",
            shipped.saga,
            play.timeline()
        );
        for saga in &play.sagas {
            assert_eq!(saga.status, Status::Completed, "{}", play.timeline());
        }
        // Or the other tests would try what is never run.
        for step in steps(&shipped.definition()) {
            let mut ran = play.sagas_of(shipped.saga).flat_map(SagaPlay::effects);
            assert!(
                ran.any(|effect| effect.step.name == step.name),
                "{}: {}",
                shipped.saga,
                step.name
            );
        }
    }
}

#[test]
fn whichever_step_says_no_nothing_remains() {
    each_forward_step(|shipped, step, phase| {
        let refused = shipped
            .stage()
            .answer(on_step(&step.name).phase(phase), rejects("no"));
        let play = (shipped.scenario)(refused).play();
        play.assert_sound();
        let goes_on = step.on_reject == OnReject::Continue;
        for saga in play.sagas_of(shipped.saga) {
            if goes_on {
                assert_eq!(saga.status, Status::Completed, "{}", play.timeline());
            } else {
                let ended = saga.ended_as();
                assert!(
                    ended.ends_with(" rejected: no"),
                    "{ended}\n{}",
                    play.timeline()
                );
            }
        }
    });
}

#[test]
fn whichever_step_is_silent_nothing_remains() {
    each_forward_step(|shipped, step, phase| {
        let hushed = shipped
            .stage()
            .answer(on_step(&step.name).phase(phase), silent());
        let play = (shipped.scenario)(hushed).play();
        play.assert_sound();
        for saga in play.sagas_of(shipped.saga) {
            assert_eq!(saga.status, Status::Compensated, "{}", play.timeline());
            let undone = saga.effects().iter().filter(|effect| {
                effect.step.name == step.name && effect.phase == Phase::Compensate
            });
            // Nobody knows whether it was done, so it is undone.
            assert_eq!(
                undone.count() > 0,
                step.compensate.is_some(),
                "{}",
                play.timeline()
            );
        }
    });
}

/// Steps before the pivot: what they fail at is undone.
fn each_forward_step(check: impl Fn(&Shipped, &Step, Phase)) {
    for shipped in SHIPPED {
        let definition = shipped.definition();
        for step in steps(&definition).filter(|step| !is_behind_pivot(&definition, step)) {
            if let Some(forward) = &step.forward {
                check(shipped, step, phase(forward));
            }
        }
    }
}

fn is_behind_pivot(definition: &Definition, step: &Step) -> bool {
    let mut pivots = definition.blocks.iter().filter(|block| block.pivot);
    pivots.any(|pivot| definition.steps[&step.name] > pivot.id)
}

#[test]
fn whatever_can_not_be_confirmed_yet_is_confirmed_later() {
    for shipped in SHIPPED {
        let definition = shipped.definition();
        for step in steps(&definition) {
            let phase = match &step.forward {
                Some(forward) if is_behind_pivot(&definition, step) => phase(forward),
                _ if step.confirm.is_some() => Phase::Confirm,
                _ => continue,
            };
            let slow = on_step(&step.name).phase(phase).first(4);
            let play = (shipped.scenario)(shipped.stage().answer(slow, fails("not now"))).play();
            play.assert_sound();
            for saga in play.sagas_of(shipped.saga) {
                assert_eq!(saga.status, Status::Completed, "{}", play.timeline());
            }
        }
    }
}

#[test]
fn every_saga_is_all_or_nothing_on_a_bad_day() {
    let (mut completed, mut compensated) = (0, 0);
    for shipped in SHIPPED {
        for seed in 0..BAD_DAYS {
            let stage = shipped.stage().seed(seed).faults(FaultRates::default());
            let play = (shipped.scenario)(if seed % 4 == 0 {
                stage
            } else {
                stage.improvise()
            });
            let play = play.attended().play();
            play.assert_sound();
            for saga in &play.sagas {
                match saga.status {
                    Status::Completed => completed += 1,
                    _ => compensated += 1,
                }
            }
        }
    }
    assert!(
        completed > 50 && compensated > 5,
        "{completed} {compensated}"
    );
}
