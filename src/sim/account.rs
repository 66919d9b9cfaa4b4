//! The account at the end of a run: nothing that was acknowledged is gone.
//!
//! Every message that was acknowledged is an effect or a duplicate of one (its saga is there), or an
//! open letter; and every letter that is not open any more was discarded by somebody, or sent again,
//! and what was sent again was acknowledged in its turn. What the broker knows ([`super::books`]) is
//! held against what the stores know; what the nodes say of themselves is not asked.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use uuid::Uuid;

use super::books::{Books, Page};
use super::now::now;
use crate::canonical;
use crate::id::SagaId;
use crate::message::START_QUEUE;
use crate::message::child::ChildCommand;
use crate::message::correlation::{Correlation, Secret};
use crate::store::dead_letters::occurrence::content_key;
use crate::store::dead_letters::{
    DeadLetterStore, HEADER_LETTER, HEADER_REPLAYS, LETTER_ROWS_MAX, Letter, LetterFilter,
    LetterPage, LetterStatus,
};
use crate::store::memory::MemoryStore;
use crate::store::{LIST_ROWS_MAX, ListFilter, SagaHead, Store};

/// What does not hold. `store` is the orchestrator's, `shop` the participants'.
pub(super) fn wrong(books: &Books, store: &MemoryStore, shop: &MemoryStore) -> Vec<String> {
    let pages = books.pages();
    let mut letters = letters(store);
    letters.extend(self::letters(shop));
    let mut by_content: BTreeMap<Uuid, Vec<&Letter>> = BTreeMap::new();
    for letter in &letters {
        let key = content_key(&letter.head.queue, &letter.original);
        by_content.entry(key).or_default().push(letter);
    }
    let effects = Effects::of(store);
    let mut wrong = Vec::new();
    for (key, page) in &pages {
        let kept = by_content.get(key).map_or(&[][..], Vec::as_slice);
        if kept.is_empty() {
            if page.acked > 0 && !effects.cover(page) {
                wrong.push(format!(
                    "{}: acknowledged {} times, and it is neither an effect nor a letter",
                    described(page),
                    page.acked
                ));
            }
        } else {
            wrong.extend(miscounted(page, kept));
        }
    }
    let sent = sent_again(&pages);
    for letter in &letters {
        wrong.extend(fate_unknown(store, letter, &sent));
    }
    wrong
}

/// Letters that are neither replayed nor discarded, for a run that does not end.
pub(super) fn undecided(store: &MemoryStore) -> Vec<String> {
    let undecided = letters(store).into_iter().filter(|letter| {
        matches!(
            letter.head.status,
            LetterStatus::Open | LetterStatus::Replaying
        )
    });
    let told = undecided.map(|letter| {
        let head = letter.head;
        format!(
            "letter {} of type {:?} from `{}` is {}, replayed {} times, edited {} times: {}",
            head.id, head.kind, head.queue, head.status, head.replays, head.edits, head.reason
        )
    });
    told.collect()
}

fn letters(store: &MemoryStore) -> Vec<Letter> {
    let page = LetterPage {
        after: None,
        oldest_first: true,
        limit: LETTER_ROWS_MAX,
    };
    let heads = now(store.letters(&LetterFilter::default(), &page));
    let ids: Vec<Uuid> = heads.iter().map(|head| head.id).collect();
    now(store.load_letters(&ids))
}

/// Each occurrence is a letter of its own; only one that was given out again may have been counted on
/// another's. And all name the letter that they came back from.
fn miscounted(page: &Page, kept: &[&Letter]) -> Vec<String> {
    let Page {
        delivered, acked, ..
    } = *page;
    let rows = kept.len() as u64;
    let again: u64 = kept
        .iter()
        .map(|letter| u64::from(letter.head.seen_again))
        .sum();
    let redelivered = delivered - acked;
    let mut wrong = Vec::new();
    if rows + again < acked || rows + redelivered < acked || rows > delivered {
        wrong.push(format!(
            "{}: given out {delivered} times, acknowledged {acked} times, but there are {rows} letters, seen again {again} times",
            described(page)
        ));
    }
    let parent: Option<Uuid> = page
        .message
        .header(HEADER_LETTER)
        .and_then(|id| id.parse().ok());
    if let Some(parent) = parent {
        let unlinked = kept
            .iter()
            .filter(|letter| letter.head.came_back_from != Some(parent));
        wrong.extend(unlinked.map(|letter| {
            format!(
                "letter {} came back from {parent}, and does not say so",
                letter.head.id
            )
        }));
    }
    wrong
}

/// Which replays of which letters were acknowledged by whoever got them.
fn sent_again(pages: &BTreeMap<Uuid, Page>) -> BTreeMap<Uuid, BTreeSet<u64>> {
    let mut sent: BTreeMap<Uuid, BTreeSet<u64>> = BTreeMap::new();
    for page in pages.values().filter(|page| page.acked > 0) {
        let letter = page.message.header(HEADER_LETTER);
        let count = page.message.properties.headers.get(HEADER_REPLAYS);
        if let (Some(letter), Some(count)) = (
            letter.and_then(|id| id.parse().ok()),
            count.and_then(Value::as_u64),
        ) {
            sent.entry(letter).or_default().insert(count);
        }
    }
    sent
}

/// A letter is open, or the audit log says who did what to it, and what was sent has arrived.
fn fate_unknown(
    store: &MemoryStore,
    letter: &Letter,
    sent: &BTreeMap<Uuid, BTreeSet<u64>>,
) -> Option<String> {
    let id = letter.head.id;
    let audit = now(store.letter_audit(Some(id), 0, LIST_ROWS_MAX));
    let count = |action: &str| audit.iter().filter(|entry| entry.action == action).count();
    let replays = count("replay").saturating_sub(count("return"));
    let arrived = sent.get(&id).map_or(0, BTreeSet::len);
    let accounted = match letter.head.status {
        LetterStatus::Open => true,
        LetterStatus::Replaying => false,
        LetterStatus::Replayed => replays > 0,
        LetterStatus::Discarded => count("discard") > 0,
    };
    (!accounted || arrived < replays).then(|| {
        format!(
            "letter {id} is {}: replayed {replays} times, discarded {} times, {arrived} replays arrived",
            letter.head.status,
            count("discard")
        )
    })
}

fn described(page: &Page) -> String {
    let properties = &page.message.properties;
    let body: String = String::from_utf8_lossy(&page.message.body)
        .chars()
        .take(60)
        .collect();
    format!(
        "message {:?} of type {:?} in `{}` ({body})",
        properties.message_id, properties.kind, page.queue
    )
}

/// What a message may have done.
struct Effects {
    secret: Secret,
    sagas: Vec<SagaHead>,
    ids: BTreeSet<SagaId>,
}

impl Effects {
    fn of(store: &MemoryStore) -> Self {
        let filter = ListFilter {
            limit: LIST_ROWS_MAX,
            ..ListFilter::default()
        };
        let sagas = now(store.list(&filter));
        Self {
            secret: Secret::new(now(store.secret([0; 32]))),
            ids: sagas.iter().map(|saga| saga.id).collect(),
            sagas,
        }
    }

    /// Whether a message of this kind may be acknowledged without a letter: the saga that it starts,
    /// or is about, is there.
    fn cover(&self, page: &Page) -> bool {
        let properties = &page.message.properties;
        if ChildCommand::is_meant(&page.message) {
            return ChildCommand::verify(&page.message, &self.secret).is_some();
        }
        if page.queue == START_QUEUE {
            let Ok(input) = serde_json::from_slice::<Value>(&page.message.body) else {
                return false;
            };
            let hash = canonical::fingerprint(&input);
            return self.sagas.iter().any(|saga| {
                Some(&saga.name) == properties.kind.as_ref() && saga.input_hash == hash
            });
        }
        let correlation = properties.correlation_id.as_deref();
        let correlation = correlation.and_then(|text| Correlation::verify(text, &self.secret).ok());
        correlation.is_some_and(|of| self.ids.contains(&of.saga))
    }
}
