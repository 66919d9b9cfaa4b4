//! Reading back over HTTP.

use serde_json::{Value, json};

use super::tests::Bundle;
use crate::aggregates::{Inventory, inventory, seed};
use crate::id::Timestamp;
use crate::store::memory::MemoryStore;
use crate::store::participant::{
    AggregateEvent, AggregateKey, Origin, ParticipantStore, ParticipantWrites,
};

/// Ten lamps, and three more later; and a work item with an event, to be read on demand.
async fn fill(store: &MemoryStore) {
    let events =
        [10, 3].map(|quantity| ("lamp".to_owned(), inventory::Event::Received { quantity }));
    seed::<Inventory>(store, Timestamp::from_micros(1_000_000), events)
        .await
        .unwrap();
    let event = AggregateEvent {
        key: AggregateKey {
            kind: "work-items".to_owned(),
            id: "w".to_owned(),
        },
        seq: 1,
        at: Timestamp::from_micros(2_000_000),
        valid_from: None,
        origin: Origin {
            correlation: Some("w".to_owned()),
            saga_key: Some("k".to_owned()),
            ..Origin::default()
        },
        body: json!({ "event": "opened", "title": "roof" })
            .to_string()
            .into(),
    };
    let writes = ParticipantWrites {
        events: vec![event],
        ..ParticipantWrites::default()
    };
    store.begin().await.unwrap().commit(writes).await.unwrap();
}

#[tokio::test]
async fn an_aggregate_is_read_now_and_as_it_was() {
    let bundle = Bundle::start().await;
    fill(&bundle.store).await;
    let on_hand = |answer: &(u16, Value)| (answer.0, answer.1["state"]["on_hand"].clone());
    for (query, status, expected) in [
        ("", 200, json!(13)),
        ("?at=1", 200, json!(10)),
        ("?at=2", 200, json!(13)),
        ("?at=1970-01-01T00:00:01Z", 200, json!(13)),
        ("?at=1970-01-01T00:00:00Z", 200, json!(0)),
        ("?valid_at=1970-01-01T00:00:02Z", 200, json!(13)),
        ("?at=3", 404, Value::Null),
        ("?at=soon", 400, Value::Null),
        ("?when=now", 400, Value::Null),
    ] {
        let answer = bundle
            .get(&format!("/aggregates/inventory/lamp{query}"))
            .await;
        assert_eq!(
            on_hand(&answer),
            (status, expected),
            "{query}: {}",
            answer.1
        );
    }
    let missing = bundle.get("/aggregates/inventory/chair").await;
    assert_eq!((missing.0, &missing.1["code"]), (404, &json!("BST-0111")));
    let (_, listed) = bundle.get("/aggregates/inventory").await;
    assert_eq!(
        listed["aggregates"],
        json!([{ "id": "lamp", "revision": 2 }])
    );
    let (_, events) = bundle
        .get("/aggregates/inventory/lamp/events?limit=1")
        .await;
    assert_eq!(events["events"][0]["event"]["quantity"], json!(10));
    assert_eq!(events["next"], json!(1));
    let (_, events) = bundle
        .get("/aggregates/inventory/lamp/events?after=1")
        .await;
    assert_eq!(events["events"][0]["seq"], json!(2));
    assert_eq!(events["next"], Value::Null);
    bundle.stop().await;
}

#[tokio::test]
async fn the_feed_is_read_on_from_where_one_was() {
    let bundle = Bundle::start().await;
    fill(&bundle.store).await;
    let (_, first) = bundle.get("/events?limit=2").await;
    assert_eq!(
        (first["events"].as_array().unwrap().len(), &first["more"]),
        (2, &json!(true))
    );
    let (_, second) = bundle
        .get(&format!("/events?after={}", first["next"]))
        .await;
    assert_eq!(second["events"][0]["kind"], json!("work-items"));
    assert_eq!(second["events"][0]["saga_key"], json!("k"));
    assert_eq!(second["more"], json!(false));
    let (_, none) = bundle
        .get(&format!("/events?after={}", second["next"]))
        .await;
    assert_eq!(
        (&none["events"], &none["next"]),
        (&json!([]), &second["next"])
    );
    let (_, correlated) = bundle.get("/events?correlation=w").await;
    assert_eq!(correlated["events"].as_array().unwrap().len(), 1);
    let (_, of_kind) = bundle.get("/events?kind=inventory").await;
    assert_eq!(of_kind["events"].as_array().unwrap().len(), 2);
    assert_eq!(bundle.get("/events?after=x").await.0, 400);
    assert_eq!(
        bundle.get("/events?after=18446744073709551615").await.0,
        400
    );
    bundle.stop().await;
}

#[tokio::test]
async fn a_document_is_read_as_it_is_kept_or_on_demand() {
    let bundle = Bundle::start().await;
    fill(&bundle.store).await;
    let (status, document) = bundle
        .get("/projections/work-item-details/w?as=on-demand")
        .await;
    assert_eq!(
        (status, &document["document"]["title"]),
        (200, &json!("roof"))
    );
    let (status, document) = bundle.get("/projections/work-item-details/w?as=now").await;
    assert_eq!((status, &document["as"]), (200, &json!("now")));
    // No projector runs here.
    let (status, problem) = bundle.get("/projections/work-item-details/w").await;
    assert_eq!((status, &problem["code"]), (404, &json!("BST-0113")));
    assert_eq!(bundle.get("/projections/nothing/w").await.0, 404);
    assert_eq!(
        bundle
            .get("/projections/unread-badge/c?as=on-demand")
            .await
            .0,
        409
    );
    assert_eq!(
        bundle
            .get("/projections/work-item-details/w?as=soon")
            .await
            .0,
        400
    );
    let (_, listed) = bundle.get("/projections").await;
    assert_eq!(
        listed["projections"],
        json!(["work-item-details", "unread-badge"])
    );
    bundle.stop().await;
}
