//! Rows of the SQL stores, as both databases give them, and back into the store's types.
//!
//! Separate because PostgreSQL and SQLite have the same columns. A row that can't be read is
//! [`StoreError::Corrupt`] and names itself. Integers are signed in both databases; ours are not,
//! so each is checked on its way back.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::census::{Activity, LiveGroup, Minute};
use super::dead_letters::Sighting;
use super::feed::{PlacedEvent, Position};
use super::participant::{
    AggregateEvent, AggregateKey, AggregateRow, AggregateSnapshot, BarrierKey, BarrierRow, Origin,
};
use super::projections::{DocumentRow, Generation};
use super::{
    DeadLetter, DefinitionRow, Hash, JournalEntry, KeyMatch, LiveCount, Moved, OutboxMessage,
    SagaCount, SagaKey, ScheduleKey, ScheduleRow, Snapshot, Status, StoreError,
};
use crate::error::Code;
use crate::id::{SagaId, Timestamp};
use crate::message::{Destination, Message, Properties};

/// The minute, `status`, `count(*)` of `sagas`.
pub(super) type EndedRow = (i64, String, i64);

/// What was counted by minute, in the order of the minutes.
pub(super) fn activity(
    minutes: &[Minute],
    started: &[(i64, i64)],
    ended: Vec<EndedRow>,
) -> Result<Vec<Activity>, StoreError> {
    let mut by_minute = BTreeMap::<i64, Vec<(Status, u64)>>::new();
    for (at, status, count) in ended {
        let status = parsed(&status, || "a saga that has ended".to_owned())?;
        let ended = by_minute.entry(at).or_default();
        ended.push((status, count.unsigned_abs()));
    }
    let of = |minute: &Minute| {
        let at = minute.at.as_micros();
        let started = started.iter().find(|(of, _)| *of == at);
        let started = started.map_or(0, |(_, count)| count.unsigned_abs());
        let ended = by_minute.get(&at).map(Vec::as_slice).unwrap_or_default();
        Activity::of(*minute, started, ended)
    };
    Ok(minutes.iter().map(of).collect())
}

/// `name, key, id, input_hash, status` of `sagas`.
pub(super) type KeyRow = (String, String, Uuid, Vec<u8>, String);

pub(super) fn key_match(row: KeyRow) -> Result<(SagaKey, KeyMatch), StoreError> {
    let (name, key, id, input_hash, status) = row;
    let what = || format!("saga {id}");
    let found = KeyMatch {
        id: SagaId(id),
        input_hash: hash(&input_hash, what)?,
        status: parsed(&status, what)?,
    };
    Ok((SagaKey { name, key }, found))
}

/// `saga_id, revision, body` of `snapshots`.
pub(super) type SnapshotRow = (Uuid, i64, Vec<u8>);

pub(super) fn snapshot(row: SnapshotRow) -> Result<(SagaId, Snapshot), StoreError> {
    let (id, revision, body) = row;
    let snapshot = Snapshot {
        revision: number(revision, || format!("snapshot of saga {id}"))?,
        body: Bytes::from(body),
    };
    Ok((SagaId(id), snapshot))
}

/// `saga_id, seq, at, hash, body` of `journal`.
pub(super) type EntryRow = (Uuid, i64, i64, Vec<u8>, Vec<u8>);

pub(super) fn entry(row: EntryRow) -> Result<(SagaId, JournalEntry), StoreError> {
    let (id, seq, at, hash_bytes, body) = row;
    let what = || format!("journal entry {seq} of saga {id}");
    let entry = JournalEntry {
        seq: number(seq, what)?,
        at: Timestamp::from_micros(at),
        hash: hash(&hash_bytes, what)?,
        body: Bytes::from(body),
    };
    Ok((SagaId(id), entry))
}

/// `name, status, count(*)` of `sagas`.
pub(super) type CountRow = (String, String, i64);

pub(super) fn count(row: CountRow) -> Result<SagaCount, StoreError> {
    let (name, status, count) = row;
    let what = || format!("number of sagas `{name}`");
    Ok(SagaCount {
        status: parsed(&status, what)?,
        count: number(count, what)?,
        name,
    })
}

/// `name, version, count(*)` of `sagas`.
pub(super) type LiveRow = (String, i64, i64);

pub(super) fn live(row: LiveRow) -> Result<LiveCount, StoreError> {
    let (name, version, count) = row;
    let what = || format!("number of live sagas `{name}`");
    Ok(LiveCount {
        version: number(version, what)?,
        count: number(count, what)?,
        name,
    })
}

/// `name, status, count(*), min(updated_at)` of live `sagas`.
pub(super) type LiveGroupRow = (String, String, i64, i64);

pub(super) fn live_group(row: LiveGroupRow) -> Result<LiveGroup, StoreError> {
    let (name, status, count, oldest) = row;
    let what = || format!("number of live sagas `{name}`");
    Ok(LiveGroup {
        status: parsed(&status, what)?,
        count: number(count, what)?,
        oldest: Timestamp::from_micros(oldest),
        name,
    })
}

/// `name, rhythm, settled, absent_since, moved_by, moved_why, moved_at` of `schedules`.
pub(super) type ScheduleTuple = (
    String,
    String,
    i64,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<i64>,
);

pub(super) fn schedule(row: ScheduleTuple) -> ScheduleRow {
    let (name, rhythm, settled, absent_since, moved_by, why, at) = row;
    let moved = moved_by.map(|by| Moved {
        by,
        why: why.unwrap_or_default(),
        at: Timestamp::from_micros(at.unwrap_or_default()),
    });
    ScheduleRow {
        key: ScheduleKey { name, rhythm },
        settled: Timestamp::from_micros(settled),
        absent_since: absent_since.map(Timestamp::from_micros),
        moved,
    }
}

/// `name, version, hash, source, stored_at` of `definitions`.
pub(super) type DefinitionTuple = (String, i64, Vec<u8>, String, i64);

pub(super) fn definition(row: DefinitionTuple) -> Result<DefinitionRow, StoreError> {
    let (name, version, hash_bytes, source, stored_at) = row;
    let what = || format!("definition {name} {version}");
    Ok(DefinitionRow {
        version: number(version, what)?,
        hash: hash(&hash_bytes, what)?,
        name,
        source,
        stored_at: Timestamp::from_micros(stored_at),
    })
}

/// `id, exchange, routing_key, properties, body, due_at` of `outbox`.
pub(super) type OutboxRow = (Uuid, String, String, String, Vec<u8>, i64);

pub(super) fn outbox_message(row: OutboxRow) -> Result<OutboxMessage, StoreError> {
    let (id, exchange, routing_key, text, body, due_at) = row;
    Ok(OutboxMessage {
        id,
        destination: Destination {
            exchange,
            routing_key,
        },
        message: message(&text, body, || format!("outbox row {id}"))?,
        due_at: Timestamp::from_micros(due_at),
    })
}

/// `id, at, queue, code, reason, properties, body` of `dead_letters`.
pub(super) type DeadLetterRow = (Uuid, i64, String, i32, String, String, Vec<u8>);

pub(super) fn dead_letter(row: DeadLetterRow) -> Result<DeadLetter, StoreError> {
    let (id, at, queue, code, reason, text, body) = row;
    let what = || format!("dead letter {id}");
    Ok(DeadLetter {
        id,
        at: Timestamp::from_micros(at),
        queue,
        code: Code(number(i64::from(code), what)?),
        reason,
        message: message(&text, body, what)?,
        sighting: Sighting::default(),
    })
}

/// `participant, saga_id, step, status, body, at` of `barriers`.
pub(super) type BarrierTuple = (String, Uuid, String, i16, Vec<u8>, i64);

pub(super) fn barrier(row: BarrierTuple) -> Result<BarrierRow, StoreError> {
    let (participant, saga, step, status, body, at) = row;
    let what = || format!("barrier of step {step} of saga {saga}");
    Ok(BarrierRow {
        key: BarrierKey {
            step: parsed(&step, what)?,
            saga: SagaId(saga),
            participant,
        },
        status,
        body: Bytes::from(body),
        at: Timestamp::from_micros(at),
    })
}

/// `kind, id, revision, state` of `aggregates`.
pub(super) type AggregateTuple = (String, String, i64, Vec<u8>);

pub(super) fn aggregate(row: AggregateTuple) -> Result<AggregateRow, StoreError> {
    let (kind, id, revision, state) = row;
    Ok(AggregateRow {
        revision: number(revision, || format!("{kind} `{id}`"))?,
        key: AggregateKey { kind, id },
        state: Bytes::from(state),
    })
}

/// `kind, id, seq, at, body, position, valid_from, saga_id, saga_key, message_id, correlation` of
/// `aggregate_events`.
pub(super) type EventTuple = (
    String,
    String,
    i64,
    i64,
    Vec<u8>,
    i64,
    Option<i64>,
    Option<Uuid>,
    Option<String>,
    Option<String>,
    Option<String>,
);

pub(super) fn event(row: EventTuple) -> Result<AggregateEvent, StoreError> {
    placed(row).map(|placed| placed.event)
}

pub(super) fn placed(row: EventTuple) -> Result<PlacedEvent, StoreError> {
    let (kind, id, seq, at, body, position, valid_from, saga, saga_key, message_id, correlation) =
        row;
    let what = || format!("event {seq} of {kind} `{id}`");
    let (position, seq_read) = (number(position, what)?, number(seq, what)?);
    let event = AggregateEvent {
        key: AggregateKey { kind, id },
        seq: seq_read,
        at: Timestamp::from_micros(at),
        valid_from: valid_from.map(Timestamp::from_micros),
        origin: Origin {
            saga: saga.map(SagaId),
            saga_key,
            message_id,
            correlation,
        },
        body: Bytes::from(body),
    };
    Ok(PlacedEvent {
        position: Position(position),
        event,
    })
}

/// `kind, id, revision, at, state` of `aggregate_snapshots`.
pub(super) type AggregateSnapshotTuple = (String, String, i64, i64, Vec<u8>);

pub(super) fn aggregate_snapshot(
    row: AggregateSnapshotTuple,
) -> Result<AggregateSnapshot, StoreError> {
    let (kind, id, revision, at, state) = row;
    Ok(AggregateSnapshot {
        revision: number(revision, || format!("a snapshot of {kind} `{id}`"))?,
        key: AggregateKey { kind, id },
        at: Timestamp::from_micros(at),
        state: Bytes::from(state),
    })
}

/// `name, generation, version, position, serving` of `projections`.
pub(super) type GenerationTuple = (String, i64, i64, i64, bool);

pub(super) fn generation(row: GenerationTuple) -> Result<Generation, StoreError> {
    let (name, generation, version, position, serving) = row;
    let what = || format!("generation {generation} of projection `{name}`");
    Ok(Generation {
        generation: number(generation, what)?,
        version: number(version, what)?,
        position: Position(number(position, what)?),
        serving,
        name,
    })
}

/// `key, position, body` of `projection_documents` or `projection_cache`.
pub(super) type DocumentTuple = (String, i64, Vec<u8>);

pub(super) fn document(row: DocumentTuple) -> Result<DocumentRow, StoreError> {
    let (key, position, body) = row;
    Ok(DocumentRow {
        position: Position(number(position, || format!("document `{key}`"))?),
        key,
        body: Bytes::from(body),
    })
}

/// Reads all rows of an answer.
pub(super) fn all<R, T>(
    rows: Vec<R>,
    read: impl Fn(R) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    rows.into_iter().map(read).collect()
}

/// The hash in a column.
pub(super) fn hash(bytes: &[u8], what: impl Fn() -> String) -> Result<Hash, StoreError> {
    bytes
        .try_into()
        .map_err(|_| corrupt(what, format!("a hash of {} bytes, not 32", bytes.len())))
}

/// The properties of each message, as text.
pub(super) fn outbox_properties(messages: &[OutboxMessage]) -> Result<Vec<String>, StoreError> {
    let messages = messages.iter();
    messages.map(|row| properties(&row.message)).collect()
}

/// A message's properties as the text column has them.
pub(super) fn properties(message: &Message) -> Result<String, StoreError> {
    serde_json::to_string(&message.properties).map_err(|error| StoreError::Refused(error.into()))
}

/// Text meant for people, without the one character that PostgreSQL can't keep.
pub(super) fn readable(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

/// A number of rows as SQL takes it.
pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// An unsigned number as SQL takes it. None of ours comes near the sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn message(
    text: &str,
    body: Vec<u8>,
    what: impl Fn() -> String,
) -> Result<Message, StoreError> {
    let properties: Properties =
        serde_json::from_str(text).map_err(|error| corrupt(what, error.to_string()))?;
    Ok(Message {
        properties,
        body: Bytes::from(body),
    })
}

pub(super) fn number<T: TryFrom<i64>>(
    number: i64,
    what: impl Fn() -> String,
) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| corrupt(what, format!("{number} is out of range")))
}

pub(super) fn parsed<T>(text: &str, what: impl Fn() -> String) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| corrupt(what, error.to_string()))
}

fn corrupt(what: impl Fn() -> String, why: String) -> StoreError {
    StoreError::Corrupt { what: what(), why }
}
