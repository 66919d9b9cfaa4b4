//! Which deliveries are one: every occurrence of a refused message is a letter of its own.
//!
//! A broker delivers a message again if its acknowledgement was lost, and nothing in the message
//! says so for certain: the same content may rightly come twice (sent twice, or a replay that is
//! refused again). So a letter is new unless it *must be taken* for one that is there:
//!
//! * a delivery that comes for the first time is a new letter, always;
//! * one that may have come before falls together with an open letter of the same content (every
//!   property, the headers, the body, the queue), if that one can be an earlier delivery of it: it
//!   was not stored or seen on the same connection, where no delivery comes twice, and with fewer
//!   deliveries, since the broker's count only grows. Each letter stands for one delivery at a time.
//!   It is counted there as seen again;
//! * what was replayed or discarded is over: the same content again is a new letter, linked to it.
//!
//! What remains is this: of several messages that are equal to the last byte, one that was never
//! stored may, after a crash, be counted on the letter of an equal one. That letter is open.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::LetterFacts;
use crate::error::code;
use crate::message::Message;
use crate::store::{DeadLetter, StoreError, rows};

/// Headers that the broker changes from one delivery to the next.
const HEADERS_OF_DELIVERY: [&str; 2] = ["x-delivery-count", "x-acquired-count"];

/// What is known of a delivery besides its message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sighting {
    /// The connection it came by; nil if there was none.
    pub session: Uuid,
    /// Whether it came before.
    pub earlier: Earlier,
}

/// Whether a message was delivered before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Earlier {
    /// It was not.
    #[default]
    Never,
    /// It may have been.
    Perhaps,
    /// It was, this often.
    Times(u32),
}

impl Earlier {
    /// What is kept of it: how many deliveries came before, as far as it is known.
    pub(in crate::store) fn count(self) -> u32 {
        match self {
            Self::Never | Self::Perhaps => 0,
            Self::Times(count) => count,
        }
    }

    /// An earlier delivery of it has a smaller count than this.
    fn bound(self) -> Option<i64> {
        match self {
            Self::Never => None,
            Self::Perhaps => Some(i64::MAX),
            Self::Times(count) => Some(i64::from(count)),
        }
    }
}

/// The same for deliveries that can't be told apart by what they carry.
pub fn content_key(queue: &str, message: &Message) -> Uuid {
    let mut properties = message.properties.clone();
    for header in HEADERS_OF_DELIVERY {
        properties.headers.remove(header);
        properties.exact.remove(header);
    }
    let mut hasher = Sha256::new();
    hasher.update(queue.as_bytes());
    hasher.update([0]);
    // Text keys and plain values: this can't fail, and if it did, the body still counts.
    hasher.update(serde_json::to_vec(&properties).unwrap_or_default());
    hasher.update([0]);
    hasher.update(&message.body);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &hasher.finalize())
}

/// A letter that is to be stored.
#[derive(Debug)]
pub(in crate::store) struct NewLetter<'a> {
    pub(in crate::store) letter: &'a DeadLetter,
    /// The message's properties as text.
    pub(in crate::store) properties: String,
    pub(in crate::store) facts: LetterFacts,
}

impl<'a> NewLetter<'a> {
    /// Letters of any origin.
    pub(in crate::store) fn all(letters: &'a [DeadLetter]) -> Result<Vec<Self>, StoreError> {
        let new = |letter: &'a DeadLetter| {
            Ok(Self {
                properties: rows::properties(&letter.message)?,
                facts: LetterFacts::of(letter),
                letter,
            })
        };
        letters.iter().map(new).collect()
    }

    /// AMQP `type`.
    pub(in crate::store) fn kind(&self) -> Option<&'a str> {
        self.letter.message.properties.kind.as_deref()
    }

    /// AMQP `message_id`.
    pub(in crate::store) fn message_id(&self) -> Option<&'a str> {
        self.letter.message.properties.message_id.as_deref()
    }

    /// Length of the body.
    pub(in crate::store) fn body_bytes(&self) -> i64 {
        i64::try_from(self.letter.message.body.len()).unwrap_or(i64::MAX)
    }
}

/// An open letter that a redelivery may fall together with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Twin {
    pub(in crate::store) id: Uuid,
    pub(in crate::store) key: Uuid,
    pub(in crate::store) session: Uuid,
    pub(in crate::store) deliveries: i64,
}

/// Which open letters to look for: those with this key, of another session, with fewer deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct TwinsWanted {
    pub(in crate::store) key: Uuid,
    pub(in crate::store) session: Uuid,
    pub(in crate::store) below: i64,
}

/// The open letters that must be known before these are placed, and how many of each at most.
pub(in crate::store) fn twins_wanted(letters: &[NewLetter<'_>]) -> (Vec<TwinsWanted>, usize) {
    let mut wanted: BTreeMap<(Uuid, Uuid), i64> = BTreeMap::new();
    let mut most = 0;
    for new in letters {
        let Sighting { session, earlier } = new.letter.sighting;
        if let Some(bound) = earlier.bound() {
            let below = wanted.entry((new.facts.key, session)).or_default();
            *below = bound.max(*below);
            most += 1;
        }
    }
    let wanted = wanted.into_iter();
    let wanted = wanted.map(|((key, session), below)| TwinsWanted {
        key,
        session,
        below,
    });
    (wanted.collect(), most)
}

/// The letter that a new one is linked to, if its headers name none: the one that was handled last
/// of those with this message id (or, if it has none, this content).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct ParentWanted<'a> {
    /// Of the new letter, among those that are placed.
    pub(in crate::store) place: usize,
    pub(in crate::store) key: Uuid,
    pub(in crate::store) message_id: Option<&'a str>,
    pub(in crate::store) queue: &'a str,
    pub(in crate::store) kind: Option<&'a str>,
    /// It must be of the same queue and type. A consumer that buries a replay may have dropped its
    /// headers and changed its queue; what reaches our own queues comes as it was sent.
    pub(in crate::store) strict: bool,
}

/// Which parents to look for.
pub(in crate::store) fn parents_wanted<'a>(letters: &[NewLetter<'a>]) -> Vec<ParentWanted<'a>> {
    let letters = letters.iter().enumerate();
    let unlinked = letters.filter(|(_, new)| new.facts.came_back_from.is_none());
    let wanted = unlinked.map(|(place, new)| ParentWanted {
        place,
        key: new.facts.key,
        message_id: new.message_id().filter(|id| !id.is_empty()),
        queue: &new.letter.queue,
        kind: new.kind(),
        strict: new.letter.code != code::DEAD_LETTERED,
    });
    wanted.collect()
}

/// (place, letter, replays) of a parent that was found.
pub(in crate::store) type Parent = (usize, Uuid, u32);

/// What becomes of letters.
#[derive(Debug, Default)]
pub(in crate::store) struct Settled<'a> {
    /// To be inserted.
    pub(in crate::store) new: Vec<NewLetter<'a>>,
    /// Letters that are there, and were seen again.
    pub(in crate::store) again: Vec<(Uuid, Sighting)>,
    /// The ids of those that were not inserted, because they were seen again.
    pub(in crate::store) known: Vec<Uuid>,
}

/// Tells redeliveries from new letters, and links these. The order of `letters` is that of
/// [`parents_wanted`].
pub(in crate::store) fn place(
    letters: Vec<NewLetter<'_>>,
    twins: Vec<Twin>,
    parents: Vec<Parent>,
) -> Settled<'_> {
    let mut settled = Settled::default();
    let mut taken = BTreeSet::new();
    let mut links: BTreeMap<usize, (Uuid, u32)> = BTreeMap::new();
    for (place, parent, replays) in parents {
        links.insert(place, (parent, replays));
    }
    for (place, mut new) in letters.into_iter().enumerate() {
        let Sighting { session, earlier } = new.letter.sighting;
        let bound = earlier.bound().unwrap_or(i64::MIN);
        let fits = |twin: &&Twin| {
            twin.key == new.facts.key
                && twin.session != session
                && twin.deliveries < bound
                && !taken.contains(&twin.id)
        };
        let twin = twins.iter().filter(fits).max_by_key(|twin| twin.deliveries);
        if let Some(twin) = twin {
            taken.insert(twin.id);
            settled.again.push((twin.id, new.letter.sighting));
            settled.known.push(new.letter.id);
            continue;
        }
        if let Some((parent, replays)) = links.get(&place) {
            new.facts.came_back_from = Some(*parent);
            new.facts.replays = new.facts.replays.max(*replays);
        }
        settled.new.push(new);
    }
    settled
}
