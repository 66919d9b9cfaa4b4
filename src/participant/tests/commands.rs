//! What becomes of commands, in whatever order and number they come.

use bytes::Bytes;

use super::*;
use crate::aggregates::{Mailer, mailer};
use crate::error::code;
use crate::store::Outbox;

#[tokio::test]
async fn a_reservation_is_held_confirmed_and_answered() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    let reply = bundle.ask("inventory", reserve(1, 3)).await;
    assert_eq!(reply.outcome, "succeeded");
    assert_eq!(reply.body, json!({ "sku": "a", "quantity": 3, "left": 7 }));
    assert_eq!(bundle.stock().await, (7, 3, 0));
    assert_eq!(
        bundle.ask("inventory", confirm(1, 3)).await.outcome,
        "succeeded"
    );
    assert_eq!(bundle.stock().await, (7, 0, 3));
    running.stop().await;
    assert_eq!(bundle.store.outbox_len().await.unwrap(), 0);
    assert_eq!(bundle.broker.queue_len("inventory"), 0);
}

#[tokio::test]
async fn duplicates_are_answered_alike_and_take_effect_once_in_one_batch_or_in_two() {
    let mut bundle = Bundle::new().await;
    // Sent before the participant starts, so both are in its first batch.
    bundle
        .send("inventory", vec![reserve(1, 3), reserve(1, 3)])
        .await;
    let running = bundle.start(shop());
    let mut replies = bundle.replies(2).await;
    bundle.ask("inventory", confirm(1, 3)).await;
    replies.push(bundle.ask("inventory", reserve(1, 3)).await);
    assert!(
        replies.iter().all(|reply| *reply == replies[0]),
        "{replies:?}"
    );
    assert_eq!(bundle.stock().await, (7, 0, 3));
    running.stop().await;
}

#[tokio::test]
async fn a_hot_aggregate_is_written_once_a_batch() {
    let mut bundle = Bundle::new().await;
    bundle
        .send("inventory", (1..=20).map(|saga| reserve(saga, 1)).collect())
        .await;
    let running = bundle.start(shop());
    let replies = bundle.replies(20).await;
    let taken = replies.iter().filter(|reply| reply.outcome == "succeeded");
    assert_eq!(taken.count(), 10);
    assert_eq!(bundle.stock().await, (0, 10, 0));
    running.stop().await;
}

#[tokio::test]
async fn compensate_before_reserve_succeeds_empty_and_bars_the_reserve() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    let reply = bundle.ask("inventory", release(1, 3)).await;
    assert_eq!(
        (reply.outcome.as_str(), reply.body),
        ("succeeded", json!({}))
    );
    let late = bundle.ask("inventory", reserve(1, 3)).await;
    assert_eq!(late.outcome, "rejected");
    assert!(late.reason.unwrap().contains("compensated before"));
    assert_eq!(bundle.stock().await, (10, 0, 0));
    running.stop().await;
}

#[tokio::test]
async fn compensate_before_reserve_in_one_batch_does_the_same() {
    let mut bundle = Bundle::new().await;
    bundle
        .send("inventory", vec![release(1, 3), reserve(1, 3)])
        .await;
    let running = bundle.start(shop());
    let replies = bundle.replies(2).await;
    assert_eq!(replies[0].outcome, "succeeded");
    assert_eq!(replies[1].outcome, "rejected");
    assert_eq!(bundle.stock().await, (10, 0, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_rejected_reserve_stays_rejected_and_its_compensation_succeeds_empty() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    let first = bundle.ask("inventory", reserve(1, 11)).await;
    assert_eq!(first.outcome, "rejected");
    let payload = json!({ "sku": "a", "quantity": 90 });
    let receive = command("inventory.receive", 2, Phase::Action, &payload);
    assert_eq!(bundle.ask("inventory", receive).await.outcome, "succeeded");
    assert_eq!(bundle.ask("inventory", reserve(1, 11)).await, first);
    assert_eq!(
        bundle.ask("inventory", release(1, 11)).await.body,
        json!({})
    );
    assert_eq!(bundle.stock().await, (100, 0, 0));
    running.stop().await;
}

#[tokio::test]
async fn contradictions_become_dead_letters_and_are_answered() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    let reply = bundle.ask("inventory", confirm(1, 3)).await;
    assert_eq!(reply.outcome, "rejected");
    let letters = bundle.dead_letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].code, code::CONFIRM_WITHOUT_RESERVE);
    assert_eq!(letters[0].message, confirm(1, 3));
    assert_eq!(letters[0].queue, "inventory");
    running.stop().await;
}

#[tokio::test]
async fn the_same_command_with_another_payload_is_a_dead_letter_without_an_answer() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    bundle.ask("inventory", reserve(1, 3)).await;
    // The answer to the second shows that the first was handled.
    bundle.send("inventory", vec![reserve(1, 4)]).await;
    let reply = bundle.ask("inventory", reserve(2, 1)).await;
    assert_eq!(reply.body["quantity"], 1);
    let letters = bundle.dead_letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].code, code::PAYLOAD_CHANGED);
    assert_eq!(bundle.stock().await, (6, 4, 0));
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_command_is_kept_and_refused_where_it_can_be() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    let mut not_json = reserve(1, 3);
    not_json.body = Bytes::from_static(b"{oops");
    let mut unknown = reserve(2, 3);
    unknown.properties.kind = Some("inventory.explode".to_owned());
    let mut silent = reserve(3, 3);
    silent.properties.reply_to = None;
    bundle
        .send("inventory", vec![not_json, unknown, silent])
        .await;
    let replies = bundle.replies(2).await;
    assert!(
        replies
            .iter()
            .all(|reply| reply.outcome == "rejected" && reply.reason.is_some())
    );
    assert_eq!(
        bundle.ask("inventory", reserve(4, 1)).await.outcome,
        "succeeded"
    );
    let mut codes: Vec<_> = bundle
        .dead_letters()
        .await
        .iter()
        .map(|letter| letter.code)
        .collect();
    codes.sort_unstable();
    let expected = [
        code::BODY_NOT_JSON,
        code::COMMAND_UNKNOWN,
        code::COMMAND_MALFORMED,
    ];
    assert_eq!(codes, expected);
    running.stop().await;
}

#[tokio::test]
async fn a_confirm_only_command_runs_once() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(Participant::new("mailer").aggregate::<Mailer>());
    let payload = json!({ "order_id": "o1" });
    let mail = command("mailer.send-receipt", 1, Phase::Confirm, &payload);
    for _ in 0..2 {
        let reply = bundle.ask("mailer", mail.clone()).await;
        assert_eq!(reply.body, json!({ "order_id": "o1", "receipt": 1 }));
    }
    let states = states::<Mailer>(&bundle.store).await.unwrap();
    assert_eq!(states, [("o1".to_owned(), mailer::State { count: 1 })]);
    running.stop().await;
}

#[tokio::test]
async fn seeding_twice_is_seeding_once() {
    let bundle = Bundle::new().await;
    let stock = [("a".to_owned(), inventory::Event::Received { quantity: 10 })];
    let seeded = aggregates::seed::<Inventory>(&bundle.store, Timestamp::default(), stock).await;
    assert_eq!(seeded.unwrap(), 0);
    assert_eq!(bundle.stock().await, (10, 0, 0));
}
