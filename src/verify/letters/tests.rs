//! What is done to letters in the ways that there are leaves no flaw.

use super::*;
use crate::error::code;
use crate::id::Timestamp;
use crate::store::dead_letters::{
    Actor, LetterAction, LetterChange, PublishedReplays, ReturnedReplay,
};
use crate::store::memory::MemoryStore;
use crate::store::{Commit, DeadLetter, OutboxMessage, Store};

fn letter(number: u128, code: crate::error::Code) -> DeadLetter {
    DeadLetter {
        id: Uuid::from_u128(number),
        at: Timestamp::from_micros(7),
        queue: "dlq".to_owned(),
        code,
        reason: "no".to_owned(),
        message: crate::message::Message {
            body: number.to_string().into(),
            ..crate::message::Message::default()
        },
        sighting: crate::store::dead_letters::Sighting::default(),
    }
}

fn actor() -> Actor {
    Actor {
        by: "ann".to_owned(),
        why: "why".to_owned(),
        at: Timestamp::from_micros(9),
    }
}

async fn change(store: &MemoryStore, number: u128, version: u64, what: LetterAction) {
    let letter = Uuid::from_u128(number);
    let change = LetterChange {
        letter,
        version,
        what,
    };
    let nothing = PublishedReplays::default();
    let lost = store.change_letters(&actor(), &[change], &nothing).await;
    assert_eq!(lost.unwrap(), Vec::<Uuid>::new());
}

fn replay(number: u128) -> LetterAction {
    LetterAction::Replay(Box::new(OutboxMessage {
        id: Uuid::from_u128(number),
        destination: crate::message::Destination::queue("q"),
        message: crate::message::Message::default(),
        due_at: Timestamp::from_micros(9),
    }))
}

/// Everything that can be done to letters.
async fn store() -> MemoryStore {
    let store = MemoryStore::new();
    let drained: Vec<_> = (1..=8).map(|n| letter(n, code::DEAD_LETTERED)).collect();
    store
        .store_drained("dlq", Timestamp::from_micros(8), &drained)
        .await
        .unwrap();
    let ours = Commit {
        dead_letters: (11..=14).map(|n| letter(n, code::BODY_NOT_JSON)).collect(),
        ..Commit::default()
    };
    store.commit(ours).await.unwrap();
    store
        .store_imported(&actor(), &[letter(21, code::DEAD_LETTERED)])
        .await
        .unwrap();
    change(&store, 1, 0, replay(101)).await;
    for number in [2, 11] {
        change(&store, number, 0, replay(100 + number)).await;
        let (letter, row) = (Uuid::from_u128(number), Uuid::from_u128(100 + number));
        let published = PublishedReplays {
            confirmed: vec![(letter, row)],
            ..PublishedReplays::default()
        };
        store
            .change_letters(&actor(), &[], &published)
            .await
            .unwrap();
    }
    change(&store, 3, 0, replay(103)).await;
    let returned = PublishedReplays {
        returned: vec![ReturnedReplay {
            letter: Uuid::from_u128(3),
            row: Uuid::from_u128(103),
            why: "no queue".to_owned(),
        }],
        ..PublishedReplays::default()
    };
    store
        .change_letters(&actor(), &[], &returned)
        .await
        .unwrap();
    for number in [4, 5, 12] {
        change(&store, number, 0, LetterAction::Discard).await;
    }
    change(&store, 5, 1, LetterAction::Reopen).await;
    change(&store, 6, 0, LetterAction::Edit(Box::default())).await;
    change(&store, 21, 0, LetterAction::Edit(Box::default())).await;
    store
}

#[tokio::test]
async fn whatever_is_done_to_letters_fits_the_log_also_once_they_are_deleted() {
    let store = store().await;
    let none = |finding: LetterFinding| panic!("{finding}");
    let all = Letters {
        letters: 13,
        flawed: 0,
    };
    assert_eq!(letters(&store, none).await.unwrap(), all);
    let purged = store
        .purge_letters(&actor(), Timestamp::from_micros(99), 100)
        .await;
    assert_eq!(purged.unwrap(), 4);
    let left = Letters {
        letters: 9,
        flawed: 0,
    };
    assert_eq!(letters(&store, none).await.unwrap(), left);
}

#[tokio::test]
async fn parts_are_judged_as_the_whole_is_and_what_was_written_meanwhile_counts() {
    let store = store().await;
    let halves = Part { of: 1, number: 0 }.halves();
    let mut count = 0;
    for part in halves.into_iter().flat_map(Part::halves) {
        let mut log = Log::read(&store, part).await.unwrap().unwrap();
        // As if this much had been written after the log was read.
        log.stories.clear();
        log.read_to = 0;
        let none = |finding: LetterFinding| panic!("{finding}");
        let (read, suspects) = compare(&store, part, log, &mut { none }).await.unwrap();
        count += read.letters;
        assert!(!suspects.stories.is_empty());
        let again = look_again(&store, &suspects.stories, 0, &mut { none }).await;
        assert_eq!(again.unwrap(), 0);
    }
    assert_eq!(count, 13);
}
