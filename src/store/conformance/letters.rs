//! Cases: dead letters as data.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::Complete;
use super::sample::{at, dead_letter, outbox, saga, uuid};
use crate::error::code;
use crate::message::Message;
use crate::store::dead_letters::audit::{AuditHead, verify};
use crate::store::dead_letters::{
    Actor, LetterAction, LetterChange, LetterFilter, LetterHead, LetterPage, LetterStatus,
    PublishedReplays, ReturnedReplay,
};
use crate::store::{Commit, DeadLetter};

const NONE: [Uuid; 0] = [];

fn drained(number: u128) -> DeadLetter {
    let message = Message {
        body: format!("body {number}").into(),
        ..dead_letter(number).message
    };
    DeadLetter {
        at: at(i64::try_from(number).unwrap()),
        queue: "shop.dlq".to_owned(),
        code: code::DEAD_LETTERED,
        reason: format!("rejected: no stock for {number}"),
        message,
        ..dead_letter(number)
    }
}

fn with_headers(number: u128, headers: Value) -> DeadLetter {
    let mut letter = drained(number);
    letter.message.properties.headers = serde_json::from_value(headers).unwrap();
    letter
}

async fn put(store: &dyn Complete, letters: &[DeadLetter]) -> usize {
    store
        .store_drained("shop.dlq", at(99), letters)
        .await
        .unwrap()
}

fn actor() -> Actor {
    Actor {
        by: "ann".to_owned(),
        why: "stock is back".to_owned(),
        at: at(500),
    }
}

fn page(oldest_first: bool, limit: usize) -> LetterPage {
    LetterPage {
        after: None,
        oldest_first,
        limit,
    }
}

async fn found(store: &dyn Complete, filter: LetterFilter) -> Vec<u128> {
    let heads = store.letters(&filter, &page(true, 100)).await.unwrap();
    let number = |head: &LetterHead| head.id.as_u128() & u128::from(u64::MAX);
    heads.iter().map(number).collect()
}

async fn change(store: &dyn Complete, number: u128, version: u64, what: LetterAction) -> Vec<Uuid> {
    let change = LetterChange {
        letter: uuid(number),
        version,
        what,
    };
    let nothing = PublishedReplays::default();
    store
        .change_letters(&actor(), &[change], &nothing)
        .await
        .unwrap()
}

async fn head(store: &dyn Complete, number: u128) -> LetterHead {
    let letters = store.load_letters(&[uuid(number)]).await.unwrap();
    letters.into_iter().next().unwrap().head
}

async fn assert_chain(store: &dyn Complete, entries: usize) {
    let log = store.letter_audit(None, 0, 1_000).await.unwrap();
    let mut end = AuditHead::default();
    verify(&mut end, &log).unwrap();
    assert_eq!(
        (log.len(), end),
        (entries, store.audit_head().await.unwrap())
    );
}

/// Whatever it is asked for by, and page after page in either direction.
// One table.
#[allow(clippy::too_many_lines)]
pub async fn letters_are_found_by_what_they_are(store: &dyn Complete) {
    let origin = json!({ "x-first-death-queue": "shop.orders", "x-death": [
        { "queue": "shop.orders", "reason": "rejected", "count": 2, "exchange": "shop",
          "routing-keys": ["order.new"] } ] });
    let mut of_saga = drained(3);
    of_saga.message.properties.correlation_id = Some(format!("{}/stock[2]/reserve/00", saga(7)));
    of_saga.message.properties.kind = Some("other".to_owned());
    "odd".clone_into(&mut of_saga.reason);
    assert_eq!(
        put(store, &[drained(1), with_headers(2, origin), of_saga]).await,
        3
    );
    store
        .commit(Commit {
            dead_letters: vec![dead_letter(4)],
            ..Commit::default()
        })
        .await
        .unwrap();

    let all = LetterFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let cause = head(store, 1).await.fingerprint;
    for (filter, expected) in [
        (all(), vec![1, 2, 3, 4]),
        (
            LetterFilter {
                queue: text("shop.orders"),
                ..all()
            },
            vec![2],
        ),
        (
            LetterFilter {
                queue: text("shop.dlq"),
                ..all()
            },
            vec![1, 2, 3],
        ),
        (
            LetterFilter {
                kind: text("other"),
                ..all()
            },
            vec![3],
        ),
        (
            LetterFilter {
                message_id: text("2"),
                ..all()
            },
            vec![2],
        ),
        (
            LetterFilter {
                fingerprint: Some(cause),
                ..all()
            },
            vec![1],
        ),
        (
            LetterFilter {
                saga: Some(saga(7)),
                ..all()
            },
            vec![3],
        ),
        (
            LetterFilter {
                status: Some(LetterStatus::Open),
                ..all()
            },
            vec![1, 2, 3, 4],
        ),
        (
            LetterFilter {
                status: Some(LetterStatus::Replayed),
                ..all()
            },
            vec![],
        ),
        (
            LetterFilter {
                since: Some(at(2)),
                until: Some(at(3)),
                ..all()
            },
            vec![2],
        ),
        (
            LetterFilter {
                reason: text("no stock"),
                ..all()
            },
            vec![1, 2],
        ),
        (
            LetterFilter {
                body: text("dy 3"),
                ..all()
            },
            vec![3],
        ),
        (
            LetterFilter {
                body: text("\u{0}"),
                ..all()
            },
            vec![4],
        ),
    ] {
        assert_eq!(found(store, filter.clone()).await, expected, "{filter:?}");
    }
    let died = head(store, 2).await.origin;
    assert_eq!(
        (died.routing_key.as_deref(), died.count),
        (Some("order.new"), 2)
    );
    assert_eq!(
        head(store, 3).await.step.as_deref(),
        Some("stock[2]/reserve")
    );

    assert_pages(store, [1, 2, 3, 4]).await;
    assert_chain(store, 1).await;
}

async fn assert_pages(store: &dyn Complete, mut expected: [u128; 4]) {
    for oldest_first in [true, false] {
        let mut seen = Vec::new();
        let mut part = page(oldest_first, 1);
        let all = LetterFilter::default();
        while let [one] = &store.letters(&all, &part).await.unwrap()[..] {
            seen.push(one.id);
            part.after = Some((one.at, one.id));
        }
        assert_eq!(seen, expected.map(uuid));
        expected.reverse();
    }
}

/// Status, outbox row and audit entry together; not on another version; then confirmed.
pub async fn a_replay_is_committed_whole_and_once(store: &dyn Complete) {
    put(store, &[drained(1), drained(2)]).await;
    let replay = || LetterAction::Replay(Box::new(outbox(50)));
    assert_eq!(change(store, 1, 0, replay()).await, NONE);
    assert_eq!(change(store, 1, 0, replay()).await, [uuid(1)]);
    assert_eq!(change(store, 9, 0, replay()).await, [uuid(9)]);
    let replaying = head(store, 1).await;
    assert_eq!(replaying.status, LetterStatus::Replaying);
    assert_eq!((replaying.replays, replaying.version), (1, 1));
    assert_eq!(store.outbox_len().await.unwrap(), 1);
    assert_eq!(store.settle_replays().await.unwrap(), 1);

    let confirmed = PublishedReplays {
        confirmed: vec![(uuid(1), uuid(50))],
        ..PublishedReplays::default()
    };
    assert_eq!(
        store
            .change_letters(&actor(), &[], &confirmed)
            .await
            .unwrap(),
        NONE
    );
    assert_eq!(head(store, 1).await.status, LetterStatus::Replayed);
    assert_eq!(store.outbox_len().await.unwrap(), 0);

    // No queue took this one.
    change(store, 2, 0, LetterAction::Replay(Box::new(outbox(51)))).await;
    let returned = PublishedReplays {
        returned: vec![ReturnedReplay {
            letter: uuid(2),
            row: uuid(51),
            why: "no queue takes it".to_owned(),
        }],
        ..PublishedReplays::default()
    };
    store
        .change_letters(&actor(), &[], &returned)
        .await
        .unwrap();
    assert_eq!(head(store, 2).await.status, LetterStatus::Open);
    let audit = store.letter_audit(Some(uuid(2)), 0, 9).await.unwrap();
    let last = audit.last().unwrap();
    assert_eq!(last.action, "return");
    assert!(last.body.contains("no queue takes it"), "{}", last.body);

    // A relay published this one.
    change(store, 2, 2, LetterAction::Replay(Box::new(outbox(52)))).await;
    store.remove_sent(&[uuid(52)]).await.unwrap();
    assert_eq!(store.settle_replays().await.unwrap(), 0);
    assert_eq!(head(store, 2).await.status, LetterStatus::Replayed);
    let of_letter = store.letter_audit(Some(uuid(2)), 0, 9).await.unwrap();
    let actions: Vec<_> = of_letter
        .iter()
        .map(|entry| entry.action.as_str())
        .collect();
    assert_eq!(actions, ["replay", "return", "replay"]);
    assert!(of_letter[0].body.contains("stock is back"));
    assert_chain(store, 5).await;
}

/// The original stays; the newest edit counts.
pub async fn an_edit_leaves_the_original(store: &dyn Complete) {
    put(store, &[drained(1)]).await;
    for (version, body) in [(0, "first"), (1, "second")] {
        let message = Message {
            body: body.into(),
            ..Message::default()
        };
        assert_eq!(
            change(store, 1, version, LetterAction::Edit(Box::new(message))).await,
            NONE
        );
    }
    let letter = store.load_letters(&[uuid(1)]).await.unwrap().remove(0);
    assert_eq!(letter.original, drained(1).message);
    assert_eq!(letter.message().body, "second");
    assert_eq!(letter.head.edits, 2);
    let edits = store.letter_edits(uuid(1)).await.unwrap();
    let told: Vec<_> = edits
        .iter()
        .map(|edit| (edit.number, edit.by.as_str()))
        .collect();
    assert_eq!(told, [(1, "ann"), (2, "ann")]);
    assert_chain(store, 3).await;
}

/// Counted, with the newest of each.
pub async fn letters_are_grouped_by_cause(store: &dyn Complete) {
    let mut other = drained(3);
    "something else".clone_into(&mut other.reason);
    put(store, &[drained(1), drained(2), other]).await;
    change(store, 1, 0, LetterAction::Discard).await;
    let groups = store
        .letter_groups(&LetterFilter::default(), 9)
        .await
        .unwrap();
    let told: Vec<_> = groups
        .iter()
        .map(|group| {
            (
                group.count,
                group.open,
                group.newest.id,
                group.first_at,
                group.last_at,
            )
        })
        .collect();
    assert_eq!(
        told,
        [(2, 1, uuid(2), at(1), at(2)), (1, 1, uuid(3), at(3), at(3))]
    );
    let open = LetterFilter {
        status: Some(LetterStatus::Discarded),
        ..LetterFilter::default()
    };
    let groups = store.letter_groups(&open, 9).await.unwrap();
    assert_eq!(
        groups.iter().map(|group| group.count).collect::<Vec<_>>(),
        [1]
    );
    let counts = store.letter_counts().await.unwrap();
    let counts: Vec<_> = counts.iter().map(|of| (of.status, of.count)).collect();
    assert_eq!(
        counts,
        [(LetterStatus::Discarded, 1), (LetterStatus::Open, 2)]
    );
}

/// Only what is handled, and only what is old.
pub async fn retention_spares_what_is_open(store: &dyn Complete) {
    put(store, &[drained(1), drained(2), drained(3)]).await;
    change(store, 1, 0, LetterAction::Discard).await;
    change(store, 2, 0, LetterAction::Replay(Box::new(outbox(50)))).await;
    let late = actor().at.after(Duration::from_secs(1));
    assert_eq!(
        store.purge_letters(&actor(), actor().at, 9).await.unwrap(),
        0
    );
    assert_eq!(store.purge_letters(&actor(), late, 9).await.unwrap(), 1);
    assert_eq!(store.purge_letters(&actor(), late, 9).await.unwrap(), 0);
    assert_eq!(found(store, LetterFilter::default()).await, [2, 3]);
    assert_chain(store, 4).await;
}

/// Who brings a letter, and why, is in the log; and for ever, that it was brought.
pub async fn an_import_has_entries_of_its_own_and_is_remembered(store: &dyn Complete) {
    put(store, &[drained(1)]).await;
    let letters = [drained(2), drained(3)];
    assert_eq!(store.store_imported(&actor(), &letters).await.unwrap(), 2);
    let log = store.letter_audit(None, 1, 10).await.unwrap();
    let entries: Vec<_> = log
        .iter()
        .map(|entry| (&*entry.action, entry.letter))
        .collect();
    assert_eq!(
        entries,
        [("import", Some(uuid(2))), ("import", Some(uuid(3)))]
    );
    let body: Value = serde_json::from_str(&log[0].body).unwrap();
    assert_eq!(
        (&body["by"], &body["why"]),
        (&json!("ann"), &json!("stock is back"))
    );
    assert_chain(store, 3).await;
    let asked = [1, 2, 3, 4].map(uuid);
    let mut imported = store.imported(&asked).await.unwrap();
    imported.sort_unstable();
    assert_eq!(imported, [uuid(2), uuid(3)]);
    change(store, 2, 0, LetterAction::Discard).await;
    store.purge_letters(&actor(), at(1_000), 10).await.unwrap();
    assert_eq!(store.imported(&[uuid(2)]).await.unwrap(), [uuid(2)]);
    assert_eq!(store.imported(&NONE).await.unwrap(), NONE);
}
