//! Cases: which deliveries are one letter, and which letters belong together.

use serde_json::{Value, json};
use uuid::Uuid;

use super::Complete;
use super::sample::{at, dead_letter, outbox, uuid};
use crate::error::code;
use crate::message::Message;
use crate::store::dead_letters::{
    Actor, Earlier, HEADER_LETTER, HEADER_REPLAYS, LetterAction, LetterChange, LetterFilter,
    LetterHead, LetterPage, LetterStatus, PublishedReplays, Sighting,
};
use crate::store::participant::ParticipantWrites;
use crate::store::{Commit, DeadLetter};

const QUEUE: &str = "shop.dlq";

/// A delivery of one and the same message.
fn delivery(id: u128, session: u128, earlier: Earlier) -> DeadLetter {
    DeadLetter {
        id: uuid(id),
        queue: QUEUE.to_owned(),
        sighting: Sighting {
            session: uuid(session),
            earlier,
        },
        ..dead_letter(1)
    }
}

/// Ways in which letters are stored; each says how many of them were new.
#[derive(Debug, Clone, Copy)]
enum Way {
    Node,
    Participant,
    Drain,
}

const WAYS: [Way; 3] = [Way::Node, Way::Participant, Way::Drain];

impl Way {
    /// Stores letters, and says which numbers there are then.
    async fn put(self, store: &dyn Complete, letters: Vec<DeadLetter>) -> Vec<u128> {
        let before = all(store).await.len();
        let ids: Vec<Uuid> = letters.iter().map(|letter| letter.id).collect();
        match self {
            Self::Node => {
                let commit = Commit {
                    dead_letters: letters,
                    ..Commit::default()
                };
                let known = store.commit(commit).await.unwrap().known_letters;
                assert!(known.iter().all(|id| ids.contains(id)));
                assert_eq!(all(store).await.len(), before + ids.len() - known.len());
            }
            Self::Participant => {
                let mut transaction = store.begin().await.unwrap();
                transaction.load(&[], &[]).await.unwrap();
                let writes = ParticipantWrites {
                    dead_letters: letters,
                    ..ParticipantWrites::default()
                };
                transaction.commit(writes).await.unwrap();
            }
            Self::Drain => {
                let new = store.store_drained(QUEUE, at(99), &letters).await.unwrap();
                assert_eq!(all(store).await.len(), before + new);
            }
        }
        all(store).await.iter().map(number).collect()
    }
}

async fn all(store: &dyn Complete) -> Vec<LetterHead> {
    let page = LetterPage {
        after: None,
        oldest_first: true,
        limit: 100,
    };
    let all = LetterFilter::default();
    store.letters(&all, &page).await.unwrap()
}

fn number(head: &LetterHead) -> u128 {
    head.id.as_u128() & u128::from(u64::MAX)
}

async fn head(store: &dyn Complete, number: u128) -> LetterHead {
    let letters = store.load_letters(&[uuid(number)]).await.unwrap();
    letters.into_iter().next().unwrap().head
}

async fn change(store: &dyn Complete, number: u128, what: LetterAction) {
    let actor = Actor {
        by: "ann".to_owned(),
        why: "stock is back".to_owned(),
        at: at(500),
    };
    let change = LetterChange {
        letter: uuid(number),
        version: head(store, number).await.version,
        what,
    };
    let nothing = PublishedReplays::default();
    let lost = store.change_letters(&actor, &[change], &nothing).await;
    assert!(lost.unwrap().is_empty());
}

/// Each in a world of its own; `clean` makes the next one.
async fn every_way(store: &dyn Complete, case: impl AsyncFn(&dyn Complete, Way)) {
    for (way, base) in WAYS.into_iter().zip(1_u32..) {
        case(store, way).await;
        // Handled and old, so that nothing is left of this way.
        for letter in all(store).await {
            if letter.status == LetterStatus::Open {
                change(store, number(&letter), LetterAction::Discard).await;
            }
        }
        let actor = Actor {
            by: "ann".to_owned(),
            why: format!("round {base}"),
            at: at(1_000),
        };
        store.purge_letters(&actor, at(900), 100).await.unwrap();
        assert_eq!(all(store).await.len(), 0, "{way:?}");
    }
}

/// What comes for the first time is a letter; what comes again is counted on its letter, one on each.
pub async fn a_redelivery_is_no_new_letter_and_a_new_delivery_is(store: &dyn Complete) {
    every_way(store, async |store: &dyn Complete, way: Way| {
        let (first, again) = (Earlier::Never, Earlier::Times(1));
        let two = vec![delivery(1, 1, first), delivery(2, 1, first)];
        assert_eq!(way.put(store, two).await, [1, 2], "{way:?}");
        let two = vec![delivery(3, 2, again), delivery(4, 2, again)];
        assert_eq!(way.put(store, two).await, [1, 2], "{way:?}");
        assert_eq!(head(store, 1).await.seen_again, 1);
        assert_eq!(head(store, 2).await.seen_again, 1);
        // Nothing is delivered twice by one connection, or twice for the first time.
        assert_eq!(way.put(store, vec![delivery(5, 2, again)]).await, [1, 2, 5]);
        let other = vec![delivery(6, 3, again)];
        assert_eq!(way.put(store, other).await, [1, 2, 5, 6]);
        let third = vec![delivery(7, 4, Earlier::Times(2))];
        assert_eq!(way.put(store, third).await, [1, 2, 5, 6]);
        // A broker that does not count.
        let unknown = vec![delivery(8, 5, Earlier::Perhaps)];
        assert_eq!(way.put(store, unknown).await, [1, 2, 5, 6]);
        // The same delivery, after a lost answer.
        let retry = vec![delivery(6, 3, Earlier::Never)];
        if !matches!(way, Way::Participant) {
            let before = head(store, 6).await;
            let stored = store.commit(Commit {
                dead_letters: retry,
                ..Commit::default()
            });
            assert!(stored.await.unwrap().known_letters.is_empty());
            assert_eq!(head(store, 6).await, before);
        }
    })
    .await;
}

/// However often it may have come: another type, another header, another queue is another message.
pub async fn what_differs_in_anything_is_another_letter(store: &dyn Complete) {
    every_way(store, async |store: &dyn Complete, way: Way| {
        way.put(store, vec![delivery(1, 1, Earlier::Never)]).await;
        let other = |id: u128, change: &dyn Fn(&mut DeadLetter)| {
            let mut letter = delivery(id, 2, Earlier::Times(id.try_into().unwrap()));
            change(&mut letter);
            letter
        };
        let header = |letter: &mut DeadLetter, name: &str, value: Value| {
            let headers = &mut letter.message.properties.headers;
            headers.insert(name.to_owned(), value);
        };
        let others = vec![
            other(2, &|of| of.message.properties.kind = Some("x".to_owned())),
            other(3, &|of| header(of, "tenant", json!("b"))),
            other(4, &|of| of.message.properties.message_id = None),
            other(5, &|of| of.message.body = "x".into()),
        ];
        assert_eq!(way.put(store, others).await, [1, 2, 3, 4, 5], "{way:?}");
        // What the broker counts is no difference.
        let counted = other(6, &|of| header(of, "x-delivery-count", json!(6)));
        assert_eq!(way.put(store, vec![counted]).await, [1, 2, 3, 4, 5]);
        assert_eq!(head(store, 1).await.seen_again, 1);
    })
    .await;
}

/// What was handled is over: the same again is a new letter, open, and linked to it.
pub async fn what_comes_after_a_letter_was_handled_is_a_new_one(store: &dyn Complete) {
    every_way(store, async |store: &dyn Complete, way: Way| {
        let sent = |id: u128, message_id: Option<&str>| {
            let mut letter = delivery(id, id, Earlier::Times(1));
            let message_id = message_id.map(str::to_owned);
            letter.message.properties.message_id = message_id;
            letter
        };
        for (first, id) in [(1, Some("a")), (11, None)] {
            way.put(store, vec![sent(first, id)]).await;
            change(store, first, LetterAction::Discard).await;
            way.put(store, vec![sent(first + 1, id)]).await;
            let replay = LetterAction::Replay(Box::new(outbox(1_000 + first)));
            change(store, first + 1, replay).await;
            store.remove_sent(&[uuid(1_000 + first)]).await.unwrap();
            store.settle_replays().await.unwrap();
            way.put(store, vec![sent(first + 2, id)]).await;
            for (letter, parent) in [(first + 1, first), (first + 2, first + 1)] {
                let parent = Some(uuid(parent));
                let head = head(store, letter).await;
                assert_eq!(head.came_back_from, parent, "{way:?} {letter}");
            }
            let last = head(store, first + 2).await;
            assert_eq!((last.status, last.replays), (LetterStatus::Open, 1));
        }
    })
    .await;
}

/// Who merely has the same id is no relative.
pub async fn a_message_of_another_type_did_not_come_back(store: &dyn Complete) {
    let first = dead_letter(1);
    let mut other = DeadLetter {
        id: uuid(2),
        ..dead_letter(1)
    };
    other.message.properties.kind = Some("another".to_owned());
    Way::Node.put(store, vec![first]).await;
    change(store, 1, LetterAction::Discard).await;
    Way::Node.put(store, vec![other]).await;
    assert_eq!(head(store, 2).await.came_back_from, None);
}

fn drained(number: u128) -> DeadLetter {
    DeadLetter {
        queue: QUEUE.to_owned(),
        code: code::DEAD_LETTERED,
        message: Message {
            body: format!("body {number}").into(),
            ..dead_letter(number).message
        },
        ..dead_letter(number)
    }
}

async fn put(store: &dyn Complete, letters: &[DeadLetter]) -> usize {
    store.store_drained(QUEUE, at(99), letters).await.unwrap()
}

/// By its header, or by its message's id if whoever buried it again dropped the header.
pub async fn a_replay_that_comes_back_is_linked_to_its_letter(store: &dyn Complete) {
    put(store, &[drained(1), drained(2), drained(3)]).await;
    change(store, 1, LetterAction::Replay(Box::new(outbox(50)))).await;
    let marked = json!({ HEADER_LETTER: uuid(2).to_string(), HEADER_REPLAYS: 2 });
    let mut from_another = drained(12);
    from_another.message.properties.headers = serde_json::from_value(marked).unwrap();
    let mut unmarked = drained(11);
    unmarked.message.properties.message_id = Some("1".to_owned());
    assert_eq!(put(store, &[from_another, unmarked]).await, 2);
    let links = [head(store, 12).await, head(store, 11).await];
    let links = links.map(|head| (head.came_back_from, head.replays));
    assert_eq!(links, [(Some(uuid(2)), 2), (Some(uuid(1)), 1)]);
    let mut back = store.came_back(&[uuid(1), uuid(2), uuid(3)]).await.unwrap();
    back.sort_unstable();
    assert_eq!(back, [uuid(1), uuid(2)]);
}
