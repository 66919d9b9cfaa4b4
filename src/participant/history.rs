//! Aggregates as they were: at a revision, as recorded up to a time, as valid at a time.
//!
//! The newest state is a row, and so is every [`SNAPSHOT_EVERY`](super::SNAPSHOT_EVERY)th or so; what
//! lies between is replayed. Replay folds events and does nothing else: no command is sent, no
//! follow-up asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::aggregate::Aggregate;
use crate::id::Timestamp;
use crate::store::StoreError;
use crate::store::feed::{EventFeed, PlacedEvent};
use crate::store::participant::AggregateKey;

/// Events read at once.
const PAGE_EVENTS: usize = 1_000;
/// Most events replayed for one question about what was valid: those can't start at a snapshot.
pub const EVENTS_SORTED_MAX: usize = 100_000;
/// Most bytes that those may have together, about.
pub const BYTES_SORTED_MAX: usize = 64 * 1024 * 1024;

/// The kinds of aggregates whose events a program can replay.
#[derive(Clone, Default)]
pub struct Kinds(BTreeMap<&'static str, Arc<dyn Replay>>);

impl Kinds {
    /// Adds a kind.
    #[must_use]
    pub fn with<A: Aggregate>(mut self) -> Self {
        self.0
            .insert(A::KIND, Arc::new(Of::<A>(std::marker::PhantomData)));
        self
    }

    /// Adds all of others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }
}

/// Which state of an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The newest.
    Now,
    /// After so many events.
    Revision(u64),
    /// As it was recorded up to a time.
    Recorded(Timestamp),
    /// As it was valid at a time, by all that is recorded up to another: each event counts from its
    /// `valid_from`.
    Valid {
        /// When it is to be valid.
        at: Timestamp,
        /// What of the record counts; all, if absent.
        recorded: Option<Timestamp>,
    },
}

impl At {
    /// Which state two texts mean, either of which may be absent: a revision or the time up to which
    /// the record counts, and the time at which the state is to be valid.
    pub fn parse(at: Option<&str>, valid_at: Option<&str>) -> Result<Self, String> {
        let time = |what: &str, text: &str| -> Result<Timestamp, String> {
            let wrong = format!("this must be {what}, as in 2026-11-01T00:00:00Z, not `{text}`");
            text.parse().map_err(|_| wrong)
        };
        match (at, valid_at) {
            (None, None) => Ok(Self::Now),
            (Some(text), None) => match text.parse() {
                Ok(revision) => Ok(Self::Revision(revision)),
                Err(_) => time("a revision, as in 17, or a time", text).map(Self::Recorded),
            },
            (recorded, Some(text)) => Ok(Self::Valid {
                at: time("a time", text)?,
                recorded: recorded.map(|text| time("a time", text)).transpose()?,
            }),
        }
    }
}

/// A state of an aggregate.
#[derive(Debug, Clone, PartialEq)]
pub struct StateAt {
    /// The number of the newest event in it.
    pub revision: u64,
    /// The state.
    pub state: Value,
}

/// Why a state can't be told.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// This program has no code for the kind.
    #[error(
        "this program can't replay events of `{0}`: it has no aggregate of that kind; only the newest state is known here"
    )]
    UnknownKind(String),
    /// There are not so many events.
    #[error("{kind} `{id}` has {revision} events")]
    NoSuchRevision {
        /// The kind.
        kind: String,
        /// Which.
        id: String,
        /// How many it has.
        revision: u64,
    },
    /// There are too many events.
    #[error(
        "{kind} `{id}` has more than {EVENTS_SORTED_MAX} events or {} MiB of them, which are too many to be put in order of their validity",
        BYTES_SORTED_MAX >> 20
    )]
    TooLong {
        /// The kind.
        kind: String,
        /// Which.
        id: String,
    },
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A state of an aggregate; `None` if it has no event.
pub async fn state_at(
    kinds: &Kinds,
    feed: &(impl EventFeed + ?Sized),
    key: &AggregateKey,
    at: At,
) -> Result<Option<StateAt>, HistoryError> {
    let Some(newest) = feed.aggregate(key).await? else {
        return Ok(None);
    };
    if at == At::Now || at == At::Revision(newest.revision) {
        let state = read_state(key, &newest.state)?;
        return Ok(Some(StateAt {
            revision: newest.revision,
            state,
        }));
    }
    let replay = kinds.0.get(key.kind.as_str());
    let replay = replay.ok_or_else(|| HistoryError::UnknownKind(key.kind.clone()))?;
    match at {
        At::Revision(revision) if revision > newest.revision => Err(HistoryError::NoSuchRevision {
            kind: key.kind.clone(),
            id: key.id.clone(),
            revision: newest.revision,
        }),
        At::Revision(revision) => {
            let state = upto(
                &**replay,
                feed,
                key,
                revision,
                Timestamp::from_micros(i64::MAX),
            )
            .await?;
            Ok(Some(state))
        }
        At::Recorded(time) => {
            let state = upto(&**replay, feed, key, newest.revision, time).await?;
            Ok(Some(state))
        }
        At::Valid { at, recorded } => valid(&**replay, feed, key, at, recorded).await.map(Some),
        At::Now => Ok(None),
    }
}

/// From the nearest snapshot on.
async fn upto(
    replay: &dyn Replay,
    feed: &(impl EventFeed + ?Sized),
    key: &AggregateKey,
    revision_max: u64,
    at_max: Timestamp,
) -> Result<StateAt, HistoryError> {
    let snapshot = feed.snapshot(key, revision_max, at_max).await?;
    let mut revision = snapshot.as_ref().map_or(0, |snapshot| snapshot.revision);
    let mut folding = replay.open(key, snapshot.as_ref().map(|it| &it.state[..]))?;
    while revision < revision_max {
        let page = feed.history(key, revision, PAGE_EVENTS).await?;
        for placed in &page.events {
            if placed.event.seq > revision_max || placed.event.at > at_max {
                return Ok(StateAt {
                    revision,
                    state: folding.state(key)?,
                });
            }
            folding.apply(key, placed)?;
            revision = placed.event.seq;
        }
        if !page.more {
            break;
        }
    }
    Ok(StateAt {
        revision,
        state: folding.state(key)?,
    })
}

/// All events that are valid by then, in the order in which they became so.
async fn valid(
    replay: &dyn Replay,
    feed: &(impl EventFeed + ?Sized),
    key: &AggregateKey,
    at: Timestamp,
    recorded: Option<Timestamp>,
) -> Result<StateAt, HistoryError> {
    let mut events: Vec<PlacedEvent> = Vec::new();
    let (mut after, mut bytes) = (0, 0);
    loop {
        let page = feed.history(key, after, PAGE_EVENTS).await?;
        after = page.events.last().map_or(after, |last| last.event.seq);
        bytes += page
            .events
            .iter()
            .map(|placed| placed.event.body.len())
            .sum::<usize>();
        events.extend(page.events);
        if !page.more {
            break;
        }
        if events.len() > EVENTS_SORTED_MAX || bytes > BYTES_SORTED_MAX {
            return Err(HistoryError::TooLong {
                kind: key.kind.clone(),
                id: key.id.clone(),
            });
        }
    }
    let since = |placed: &PlacedEvent| placed.event.valid_from.unwrap_or(placed.event.at);
    events.retain(|placed| {
        since(placed) <= at && recorded.is_none_or(|recorded| placed.event.at <= recorded)
    });
    let revision = events.iter().map(|placed| placed.event.seq).max();
    events.sort_by_key(|placed| (since(placed), placed.event.seq));
    let mut folding = replay.open(key, None)?;
    for placed in &events {
        folding.apply(key, placed)?;
    }
    Ok(StateAt {
        revision: revision.unwrap_or(0),
        state: folding.state(key)?,
    })
}

/// Replays events of one kind.
trait Replay: Send + Sync {
    fn open(
        &self,
        key: &AggregateKey,
        state: Option<&[u8]>,
    ) -> Result<Box<dyn Folding>, StoreError>;
}

trait Folding: Send {
    fn apply(&mut self, key: &AggregateKey, placed: &PlacedEvent) -> Result<(), StoreError>;
    fn state(&self, key: &AggregateKey) -> Result<Value, StoreError>;
}

struct Of<A>(std::marker::PhantomData<fn() -> A>);

struct State<A: Aggregate>(A::State);

impl<A: Aggregate> Replay for Of<A> {
    fn open(
        &self,
        key: &AggregateKey,
        state: Option<&[u8]>,
    ) -> Result<Box<dyn Folding>, StoreError> {
        let state = match state {
            None => A::State::default(),
            Some(state) => serde_json::from_slice(state).map_err(|error| corrupt(key, &error))?,
        };
        Ok(Box::new(State::<A>(state)))
    }
}

impl<A: Aggregate> Folding for State<A> {
    fn apply(&mut self, key: &AggregateKey, placed: &PlacedEvent) -> Result<(), StoreError> {
        let event = serde_json::from_slice(&placed.event.body);
        let event = event.map_err(|error| StoreError::Corrupt {
            what: format!("event {} of {} `{}`", placed.event.seq, key.kind, key.id),
            why: error.to_string(),
        })?;
        A::apply(&mut self.0, &event);
        Ok(())
    }

    fn state(&self, key: &AggregateKey) -> Result<Value, StoreError> {
        serde_json::to_value(&self.0).map_err(|error| corrupt(key, &error))
    }
}

fn read_state(key: &AggregateKey, state: &[u8]) -> Result<Value, StoreError> {
    serde_json::from_slice(state).map_err(|error| corrupt(key, &error))
}

fn corrupt(key: &AggregateKey, error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt {
        what: format!("{} `{}`", key.kind, key.id),
        why: error.to_string(),
    }
}
