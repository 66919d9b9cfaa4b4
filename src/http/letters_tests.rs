//! What the API lets somebody do with dead letters who has nothing else.

use serde_json::{Value, json};
use uuid::Uuid;

use super::tests::Bundle;
use crate::broker::{Broker, Outgoing};
use crate::message::{Destination, Message, REPLY_QUEUE};

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_show_what_came_and_why_it_stayed() {
    let node = Bundle::start().await;
    let bad = Outgoing {
        destination: Destination::queue(REPLY_QUEUE),
        message: Message {
            body: "what?".into(),
            ..Message::default()
        },
        mandatory: true,
    };
    node.broker.publish(vec![bad]).await;
    let letter = loop {
        let (status, mut page) = node.get("/dead-letters?limit=5").await;
        assert_eq!(status, 200);
        if let Some(letter) = page["dead_letters"].get_mut(0) {
            break letter.take();
        }
    };
    assert_eq!(letter["code"], "BST-0020");
    assert_eq!(letter["queue"], REPLY_QUEUE);
    // A list goes without bodies; they may be large.
    assert_eq!(letter["body"], Value::Null);
    let path = format!("/dead-letters/{}", letter["id"].as_str().unwrap());
    let (_, letter) = node.get(&path).await;
    assert_eq!(letter["body"], "what?", "{letter}");
    node.stop().await;
}

/// With nothing but the API: to see a mac, or to answer in a participant's place.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_speak_for_a_participant_through_dead_letters() {
    let node = Bundle::start().await;
    let id = node.order("A-1").await;
    node.answer("perhaps").await;
    let letter = loop {
        let (_, mut page) = node.get("/dead-letters?limit=5").await;
        if let Some(letter) = page["dead_letters"].get_mut(0) {
            break letter["id"].take().as_str().unwrap().to_owned();
        }
    };
    for path in ["/{id}", "/{id}/document", "", "/groups", "/export"] {
        let path = path.replace("{id}", &letter);
        let (status, shown) = node.get(&format!("/dead-letters{path}")).await;
        let shown = shown.to_string();
        assert_eq!(status, 200, "{path}: {shown}");
        let saga = format!("{id}/");
        let signed = shown.split(&saga).skip(1);
        let macs = signed.filter_map(|rest| rest.split('/').nth(2));
        let unmasked: Vec<_> = macs.filter(|mac| !mac.starts_with("masked:")).collect();
        assert!(unmasked.is_empty(), "{path}: {unmasked:?}");
    }
    let (_, shown) = node.get(&format!("/dead-letters/{letter}")).await;
    let correlation = &shown["properties"]["correlation_id"];
    assert!(
        correlation.as_str().unwrap().contains("/masked:"),
        "{shown}"
    );
    let forged = Uuid::from_u128(7);
    let line = json!({
        "id": forged, "at": "2026-01-01T00:00:00Z", "queue": REPLY_QUEUE, "code": 24,
        "reason": "x", "properties": { "correlation_id": correlation }, "body": "e30=",
    });
    let import = |words: Value| {
        let mut order = json!({ "letters": [line] });
        order
            .as_object_mut()
            .unwrap()
            .extend(words.as_object().unwrap().clone());
        order.to_string()
    };
    let (status, _, told) = node.post("/dead-letters/import", import(json!({}))).await;
    assert_eq!(status, 400, "{told}");
    let blank = json!({ "by": " ", "why": "" });
    assert_eq!(
        node.post("/dead-letters/import", import(blank)).await.0,
        400
    );
    let words = json!({ "by": "mallory", "why": "let me in" });
    let (status, _, told) = node.post("/dead-letters/import", import(words)).await;
    assert_eq!((status, &told["new"]), (200, &json!(1)), "{told}");
    let order = json!({ "by": "mallory", "why": "let me in", "ids": [forged] });
    let (_, _, told) = node.post("/dead-letters/replay", order.to_string()).await;
    assert_eq!(told["replayed"], 0, "{told}");
    assert!(
        told["refused"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("BST-0058"),
        "{told}"
    );
    // In a letter's own queue a masked id is no more than one without a mac.
    let patch = json!([{ "op": "add", "path": "/properties/headers", "value": { "outcome": "succeeded" } },
                       { "op": "replace", "path": "/properties/correlation_id",
                         "value": format!("{id}/pay/confirm/masked:0123456789abcdef012345678") }]);
    let order = json!({ "by": "m", "why": "w", "patch": patch });
    let (status, _, told) = node
        .post(&format!("/dead-letters/{letter}/edit"), order.to_string())
        .await;
    assert_eq!(status, 200, "{told}");
    let order = json!({ "by": "m", "why": "w", "ids": [letter] });
    let (_, _, told) = node.post("/dead-letters/replay", order.to_string()).await;
    assert_eq!(told["replayed"], 1, "{told}");
    loop {
        let (_, page) = node.get("/dead-letters?limit=5&order=newest").await;
        let heads = page["dead_letters"].as_array().unwrap().clone();
        if heads.iter().any(|head| head["code"] == "BST-0021") {
            break;
        }
    }
    node.stop().await;
}
