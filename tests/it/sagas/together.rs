//! Sagas that make several services do something together, or none of them.

use backstitch::saga::OperatorKind;
use backstitch::sim::stage::{Stage, on, rejects, silent, succeeds};
use serde_json::json;

use super::{End, output, source, stage};

fn deletion() -> Stage {
    stage(&["delete-product"])
        .answer("product-calculations.hide", succeeds(json!({ "count": 7 })))
        .start("delete-product", json!({ "product": "p", "revision": 3 }))
}

#[test]
fn a_product_is_deleted_with_its_calculations_or_not_at_all() {
    let hidden = &[
        "product-details.hide",
        "product-calculations.hide",
        "product-details.delete",
        "product-calculations.delete",
    ];
    let play = End {
        what: "both agree",
        stage: deletion(),
        key: "p/3",
        ended_as: "completed",
        done: hidden,
    }
    .reached();
    assert_eq!(
        *output(&play, "p/3"),
        json!({ "product": "p", "calculations": 7 })
    );
    let ends = [
        End {
            what: "the details refuse",
            stage: stage(&["delete-product"])
                .answer("product-details.hide", rejects("somebody is editing it"))
                .start("delete-product", json!({ "product": "p", "revision": 3 })),
            key: "p/3",
            ended_as: "compensated: details rejected: somebody is editing it",
            done: &["product-calculations.hide", "product-calculations.show"],
        },
        End {
            what: "the calculations refuse",
            stage: stage(&["delete-product"])
                .answer("product-calculations.hide", rejects("one is running"))
                .start("delete-product", json!({ "product": "p", "revision": 3 })),
            key: "p/3",
            ended_as: "compensated: calculations rejected: one is running",
            done: &["product-details.hide", "product-details.show"],
        },
        End {
            what: "nobody knows whether the calculations are hidden",
            stage: stage(&["delete-product"])
                .answer("product-calculations.hide", silent())
                .start("delete-product", json!({ "product": "p", "revision": 3 })),
            key: "p/3",
            ended_as: "compensated: calculations reserve: no answer within 10s, after 5 attempt(s)",
            done: &[
                "product-details.hide",
                "product-details.show",
                "product-calculations.show",
            ],
        },
        End {
            what: "a person calls it off in time",
            stage: stage(&["delete-product"])
                .answer(
                    "product-calculations.hide",
                    succeeds(json!({ "count": 0 })).after(std::time::Duration::from_secs(5)),
                )
                .start("delete-product", json!({ "product": "p", "revision": 3 }))
                .after(std::time::Duration::from_secs(1))
                .operate("delete-product", "p/3", OperatorKind::Cancel),
            key: "p/3",
            ended_as: "compensated: cancelled by the stage: it is in the script",
            done: &[
                "product-details.hide",
                "product-calculations.hide",
                "product-details.show",
                "product-calculations.show",
            ],
        },
    ];
    for end in ends {
        end.reached();
    }
}

/// Listens for the event of a completed sign-up, as anybody's service could.
const WELCOME: &str = r#"
saga: welcome
version: 1
key: ${ input.key }
start:
  on: { exchange: backstitch.events, routing_key: sign-up.completed }
steps:
  - step: party
    with: { user: "${ input.output.user }" }
    confirm: welcome.party
"#;

fn sign_up(prepared: impl FnOnce(Stage) -> Stage) -> Stage {
    let sources = [source("sign-up"), WELCOME.to_owned()];
    let stage = Stage::of(&sources).unwrap();
    let input = json!({ "email": "ada@example.com", "phone": "+44 1", "name": "Ada" });
    prepared(stage)
        .answer("users.create", succeeds(json!({ "id": "u-1" })))
        .start("sign-up", input)
}

#[test]
fn a_sign_up_happens_everywhere_and_is_told_once() {
    let play = sign_up(|stage| stage).play();
    play.assert_sound();
    let saga = play.sagas_of("sign-up").next().unwrap();
    assert_eq!(saga.ended_as(), "completed");
    let mut did = saga.done();
    did.sort_unstable();
    assert_eq!(
        did,
        [
            "cache.put",
            "email.draft",
            "email.send",
            "sms.draft",
            "sms.send",
            "users.activate",
            "users.create",
        ]
    );
    assert_eq!(play.count("welcome.party"), 1);
    let heard = play.sagas_of("welcome").next().unwrap();
    assert_eq!(heard.effects().len(), 1);
}

#[test]
fn a_sign_up_that_one_refuses_happens_nowhere_and_nobody_is_told() {
    let all = ["users.create", "cache.put", "email.draft", "sms.draft"];
    let undone = [
        "users.remove",
        "cache.evict",
        "email.discard",
        "sms.discard",
    ];
    for (refusing, step) in [
        ("users.create", "user"),
        ("cache.put", "profile"),
        ("email.draft", "email"),
        ("sms.draft", "sms"),
    ] {
        let play = sign_up(|stage| stage.answer(refusing, rejects("not you"))).play();
        play.assert_sound();
        let saga = play.saga("ada@example.com");
        assert_eq!(
            saga.ended_as(),
            format!("compensated: {step} rejected: not you")
        );
        for (did, undid) in all.iter().zip(undone) {
            assert_eq!(
                saga.count(did),
                saga.count(undid),
                "{did}\n{}",
                play.timeline()
            );
        }
        for sent in ["users.activate", "email.send", "sms.send", "welcome.party"] {
            assert_eq!(play.count(sent), 0, "{sent}\n{}", play.timeline());
        }
    }
}

#[test]
fn mail_and_sms_that_can_not_go_out_yet_go_out_later_and_once() {
    let busy = backstitch::sim::stage::fails("the gateway is down");
    let play = sign_up(|stage| {
        stage
            .answer(on("email.send").first(3), busy.clone())
            .answer(on("sms.send").first(5), busy)
    })
    .play();
    play.assert_sound();
    assert_eq!((play.count("email.send"), play.count("sms.send")), (1, 1));
    assert_eq!(
        play.sagas_of("sign-up").next().unwrap().ended_as(),
        "completed"
    );
}
