//! Cases: outbox and dead letters.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use uuid::Uuid;

use super::sample::{self, at, dead_letter, outbox, uuid};
use super::{Complete, until_stored};
use crate::store::{Commit, DeadLetter, OutboxMessage};

async fn put(store: &dyn Complete, outbox: Vec<OutboxMessage>) {
    let commit = Commit {
        outbox,
        ..Commit::default()
    };
    store.commit(commit).await.unwrap();
}

async fn put_letters(store: &dyn Complete, dead_letters: Vec<DeadLetter>) {
    let commit = Commit {
        dead_letters,
        ..Commit::default()
    };
    store.commit(commit).await.unwrap();
}

fn due(number: u128, due_at: i64) -> OutboxMessage {
    OutboxMessage {
        due_at: at(due_at),
        ..outbox(number)
    }
}

fn ids(rows: &[OutboxMessage]) -> Vec<Uuid> {
    rows.iter().map(|row| row.id).collect()
}

/// All properties, and the body byte for byte; due when the sweeper said.
pub async fn an_outbox_row_comes_back_as_it_was_written(store: &dyn Complete) {
    let mut bare = due(2, 1);
    bare.message = crate::message::Message::default();
    bare.destination = crate::message::Destination::queue("inventory");
    put(store, vec![outbox(1), bare.clone()]).await;
    let expected = [outbox(1), bare].map(|row| OutboxMessage {
        due_at: at(9),
        ..row
    });
    assert_eq!(store.sweep_outbox(at(1), at(9), 5).await.unwrap(), expected);
}

/// Whether they are due or not, and also if they were swept.
pub async fn it_is_known_which_rows_are_still_there(store: &dyn Complete) {
    put(store, vec![due(1, 30), due(2, 10), due(3, 20)]).await;
    store.sweep_outbox(at(10), at(100), 5).await.unwrap();
    store.remove_sent(&[uuid(3)]).await.unwrap();
    let mut unsent = store.unsent(&[1, 2, 3, 4].map(uuid)).await.unwrap();
    unsent.sort_unstable();
    assert_eq!(unsent, [1, 2].map(uuid));
    assert!(store.unsent(&[]).await.unwrap().is_empty());
}

/// At most as many as asked for, not before they are due, and again when their sweeper's time is
/// over.
pub async fn due_outbox_rows_are_swept_oldest_first(store: &dyn Complete) {
    put(store, vec![due(1, 30), due(2, 10), due(3, 20), due(4, 31)]).await;
    let sweep = |now, limit| store.sweep_outbox(at(now), at(100), limit);
    assert_eq!(sweep(9, 5).await.unwrap(), []);
    assert_eq!(ids(&sweep(30, 2).await.unwrap()), [2, 3].map(uuid));
    assert_eq!(ids(&sweep(30, 5).await.unwrap()), [1].map(uuid));
    assert_eq!(sweep(30, 5).await.unwrap(), []);
    assert_eq!(store.outbox_len().await.unwrap(), 4);
    assert_eq!(ids(&sweep(100, 5).await.unwrap()), [4, 1, 2, 3].map(uuid));
}

/// Together they sweep all of them.
pub async fn an_outbox_row_is_swept_by_one_of_concurrent_nodes(store: &dyn Complete) {
    put(store, (1..=60).map(outbox).collect()).await;
    let nodes = (0..4).map(|_| until_stored(|| store.sweep_outbox(at(10), at(50), 20)));
    let mut swept = ids(&join_all(nodes).await.concat());
    // A node may have skipped what another was just sweeping or had not yet given up.
    swept.extend(ids(&store.sweep_outbox(at(10), at(50), 60).await.unwrap()));
    assert_eq!(swept.len(), 60);
    assert_eq!(swept.iter().collect::<BTreeSet<_>>().len(), 60);
}

/// Named twice, or gone already, or with a batch: all the same.
pub async fn sent_rows_are_removed_once_and_for_all(store: &dyn Complete) {
    put(store, (1..=5).map(outbox).collect()).await;
    store
        .remove_sent(&[uuid(1), uuid(1), uuid(9)])
        .await
        .unwrap();
    store.remove_sent(&[uuid(1)]).await.unwrap();
    store.remove_sent(&[]).await.unwrap();
    assert_eq!(store.outbox_len().await.unwrap(), 4);
    let only_sent = Commit {
        sent: vec![uuid(2), uuid(2), uuid(1)],
        ..Commit::default()
    };
    store.commit(only_sent).await.unwrap();
    let with_others = Commit {
        sent: vec![uuid(3), uuid(3)],
        outbox: vec![outbox(6)],
        ..Commit::default()
    };
    store.commit(with_others).await.unwrap();
    let left = store.sweep_outbox(at(10), at(50), 9).await.unwrap();
    assert_eq!(ids(&left), [4, 5, 6].map(uuid));
}

/// A batch is stored again when its answer was lost.
pub async fn an_outbox_row_is_stored_once(store: &dyn Complete) {
    put(store, vec![outbox(1)]).await;
    put(store, vec![due(1, 99), outbox(2)]).await;
    let swept = store.sweep_outbox(at(10), at(50), 9).await.unwrap();
    assert_eq!(ids(&swept), [1, 2].map(uuid));
}

/// The first record stays; the message comes back as it was.
pub async fn a_dead_letter_is_stored_once_and_listed_newest_first(store: &dyn Complete) {
    let mut nameless = dead_letter(3);
    nameless.message = sample::message(3);
    nameless.message.properties = crate::message::Properties::default();
    put_letters(store, vec![dead_letter(1), nameless.clone()]).await;
    let mut again = dead_letter(1);
    again.reason = "another\u{0}".into();
    let mut odd = dead_letter(2);
    odd.reason = "\u{0}odd".into();
    put_letters(store, vec![again, odd]).await;
    let found = store.dead_letters(usize::MAX).await.unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(found[0], nameless);
    assert!(found[1].reason.ends_with("odd"));
    assert_eq!(found[2], dead_letter(1));
    assert_eq!(store.dead_letters(1).await.unwrap(), [nameless]);
}
