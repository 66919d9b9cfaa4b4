//! Commands that an aggregate gives itself, and what events say of what led to them.

use super::*;
use crate::aggregates::{Offers, offers};
use crate::message::{HEADER_CORRELATION, HEADER_SAGA_KEY};
use crate::store::Outbox;
use crate::store::feed::{EventFeed, PlacedEvent};

fn offer_shop() -> Participant {
    Participant::new("offers").aggregate::<Offers>()
}

fn make(saga: u128, expires_at: Timestamp) -> Message {
    let payload = json!({ "offer": "o", "price": 100, "expires_at": expires_at.to_string() });
    let mut message = command("offers.make", saga, Phase::Action, &payload);
    let headers = &mut message.properties.headers;
    headers.insert(HEADER_CORRELATION.to_owned(), "c-1".into());
    headers.insert(HEADER_SAGA_KEY.to_owned(), "k-1".into());
    message
}

async fn state(bundle: &Bundle) -> offers::State {
    let states = states::<Offers>(&bundle.store).await.unwrap();
    states.into_iter().next().expect("there is an offer").1
}

async fn history(bundle: &Bundle) -> Vec<PlacedEvent> {
    let key = key_of::<Offers>("o".to_owned()).unwrap();
    bundle.store.history(&key, 0, 100).await.unwrap().events
}

/// What waits in the outbox for its time, by then at the latest.
async fn reminders(bundle: &Bundle, by: Timestamp) -> Vec<Message> {
    let rows = bundle.store.sweep_outbox(by, by, 100).await.unwrap();
    let to_itself = rows
        .into_iter()
        .filter(|row| row.destination.routing_key == "offers");
    to_itself.map(|row| row.message).collect()
}

#[tokio::test]
async fn an_aggregate_expires_by_itself_once_and_replaying_that_sends_nothing() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(offer_shop());
    let soon = TokioEnvironment.now().after(Duration::from_millis(30));
    let made = bundle.ask("offers", make(1, soon)).await;
    assert_eq!(made.outcome, "succeeded", "{made:?}");
    within_bounds(async {
        while state(&bundle).await.status != offers::Status::Expired {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within_bounds(async {
        while bundle.store.outbox_len().await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let events = history(&bundle).await;
    assert_eq!(events.len(), 2);
    let [made, expired] = [&events[0].event, &events[1].event];
    assert_eq!(made.origin.saga, Some(SagaId(Uuid::from_u128(1))));
    assert_eq!(made.origin.saga_key.as_deref(), Some("k-1"));
    assert!(made.origin.message_id.is_some());
    assert_eq!(made.origin.correlation.as_deref(), Some("c-1"));
    assert_eq!(expired.origin.saga, None, "no saga has asked for it");
    assert_eq!(expired.origin.correlation.as_deref(), Some("c-1"));
    assert_eq!(expired.valid_from, Some(soon));

    let key = key_of::<Offers>("o".to_owned()).unwrap();
    let rebuilt = rebuild::<Offers>(&bundle.store, &key).await.unwrap();
    assert_eq!(rebuilt, state(&bundle).await);
    assert_eq!(bundle.store.outbox_len().await.unwrap(), 0);
    assert_eq!(bundle.broker.queue_len("offers"), 0);
    assert_eq!(bundle.broker.queue_len(REPLIES), 0, "it answers nobody");
    running.stop().await;
}

#[tokio::test]
async fn a_follow_up_that_comes_early_waits_and_one_that_comes_twice_acts_once() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(offer_shop());
    let later = TokioEnvironment.now().after(Duration::from_hours(24));
    bundle.ask("offers", make(1, later)).await;
    // As an instance would that has a clock a day ahead.
    let early = reminders(&bundle, later).await.remove(0);
    bundle.send("offers", vec![early.clone()]).await;
    let waiting = within_bounds(async {
        loop {
            let waiting = reminders(&bundle, later).await;
            if waiting.len() == 2 {
                return waiting;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(waiting.await, [early.clone(), early.clone()], "as it was");
    assert_eq!(state(&bundle).await.status, offers::Status::Open);

    // Its time has come for one that says so; the offer, too, must be over.
    let mut due = early;
    due.properties
        .headers
        .remove(crate::message::HEADER_NOT_BEFORE);
    bundle.send("offers", vec![due.clone(), due]).await;
    within_bounds(async {
        while bundle.broker.queue_len("offers") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    running.stop().await;
    assert_eq!(
        history(&bundle).await.len(),
        1,
        "it is still open, so nothing happened"
    );
    let key = crate::store::participant::BarrierKey {
        participant: "offers".to_owned(),
        saga: SagaId(Uuid::new_v5(&Uuid::NAMESPACE_OID, b"offers/o")),
        step: StepPath::at("follow-up", &[1]),
    };
    let mut transaction = bundle.store.begin().await.unwrap();
    let loaded = transaction.load(&[key], &[]).await.unwrap();
    assert_eq!(loaded.barriers.len(), 1, "it was answered, for good");
}

#[tokio::test]
async fn a_correlation_that_is_none_is_refused_and_says_why() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    for wrong in [
        json!(7),
        json!(""),
        json!("a\u{0}b"),
        json!("x".repeat(256)),
    ] {
        let mut message = reserve(1, 1);
        let headers = &mut message.properties.headers;
        headers.insert(HEADER_CORRELATION.to_owned(), wrong.clone());
        let reply = bundle.ask("inventory", message).await;
        assert_eq!(reply.outcome, "rejected", "{wrong}");
        assert!(reply.reason.unwrap().contains("`correlation`"), "{wrong}");
    }
    running.stop().await;
    assert_eq!(bundle.dead_letters().await.len(), 4);
}

#[tokio::test]
async fn states_are_kept_now_and_then_and_read_as_they_were() {
    use crate::participant::history::{At, state_at};

    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    let receive = |saga| {
        let payload = json!({ "sku": "a", "quantity": 1 });
        command("inventory.receive", saga, Phase::Action, &payload)
    };
    let count = u128::from(SNAPSHOT_EVERY) + 40;
    bundle
        .send("inventory", (1..=count).map(receive).collect())
        .await;
    bundle.replies(usize::try_from(count).unwrap()).await;
    running.stop().await;
    let key = key_of::<Inventory>("a".to_owned()).unwrap();
    let everlasting = Timestamp::from_micros(i64::MAX);
    let kept = bundle
        .store
        .snapshot(&key, u64::MAX, everlasting)
        .await
        .unwrap();
    assert!(kept.unwrap().revision >= SNAPSHOT_EVERY);
    let kinds = history::Kinds::default().with::<Inventory>();
    for revision in [1, 100, SNAPSHOT_EVERY - 1, SNAPSHOT_EVERY + 20] {
        let found = state_at(&kinds, &bundle.store, &key, At::Revision(revision)).await;
        let state = found.unwrap().unwrap();
        // Ten to begin with, by one event.
        assert_eq!(state.state["on_hand"], json!(9 + revision));
    }
    let unknown = state_at(
        &history::Kinds::default(),
        &bundle.store,
        &key,
        At::Revision(3),
    )
    .await;
    assert!(
        matches!(unknown, Err(history::HistoryError::UnknownKind(_))),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_state_is_told_as_it_was_known_and_as_it_was_valid() {
    use crate::participant::history::{At, state_at};

    let bundle = Bundle::new().await;
    let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
    let event =
        |seq, recorded: i64, event: &offers::Event| crate::store::participant::AggregateEvent {
            key: key_of::<Offers>("o".to_owned()).unwrap(),
            seq,
            at: at(recorded),
            valid_from: Offers::valid_from(event),
            origin: crate::store::participant::Origin::default(),
            body: serde_json::to_vec(event).unwrap().into(),
        };
    let made = offers::Event::Made {
        offer: "o".to_owned(),
        at: at(10),
        price: 100,
        expires_at: at(99),
    };
    let repriced = |price, from| offers::Event::Repriced {
        price,
        valid_from: at(from),
    };
    let events = vec![
        event(1, 10, &made),
        event(2, 20, &repriced(80, 60)),
        event(3, 30, &repriced(90, 50)),
    ];
    let row = crate::store::participant::AggregateRow {
        key: key_of::<Offers>("o".to_owned()).unwrap(),
        revision: 3,
        state: b"{}"[..].into(),
    };
    let writes = crate::store::participant::ParticipantWrites {
        aggregates: vec![crate::store::participant::Write::Insert(row.clone())],
        events,
        ..Default::default()
    };
    bundle
        .store
        .begin()
        .await
        .unwrap()
        .commit(writes)
        .await
        .unwrap();
    let kinds = history::Kinds::default().with::<Offers>();
    // Valid when, by what was recorded until when: the newest price, and of which revision.
    for (valid, recorded, price, revision) in [
        (5, None, None, 0),
        (40, None, Some(100), 1),
        (55, None, Some(90), 3),
        (70, None, Some(80), 3),
        (55, Some(25), Some(100), 1),
        (70, Some(25), Some(80), 2),
    ] {
        let when = At::Valid {
            at: at(valid),
            recorded: recorded.map(at),
        };
        let found = state_at(&kinds, &bundle.store, &row.key, when)
            .await
            .unwrap()
            .unwrap();
        let prices = found.state["prices"].as_array().unwrap();
        let newest = prices.last().map(|price| price[1].as_u64().unwrap());
        assert_eq!((newest, found.revision), (price, revision), "{when:?}");
    }
}
