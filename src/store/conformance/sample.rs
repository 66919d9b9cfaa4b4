//! Rows to store: small, and different in every field.

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use crate::error::code;
use crate::id::{SagaId, StepPath, Timestamp};
use crate::message::{Destination, Message, Properties};
use crate::store::dead_letters::Sighting;
use crate::store::participant::{
    AggregateEvent, AggregateKey, AggregateRow, BarrierKey, BarrierRow, Origin,
};
use crate::store::{
    Commit, DeadLetter, DefinitionRow, Hash, JournalEntry, LoadRequest, OutboxMessage, SagaHead,
    SagaWrite, Snapshot, Status,
};

/// The definition that the samples' sagas are of.
pub const NAME: &str = "place-order";

/// Bytes that are neither text nor JSON.
pub const BINARY: &[u8] = &[0, 255, 1, 128, b'\'', b'"', b'\\', b'\n', 0];

/// A point in time.
pub fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + micros)
}

/// Ids in the order of their numbers.
pub fn uuid(number: u128) -> Uuid {
    Uuid::from_u128((0x018b_cfe5 << 96) + number)
}

/// A saga's id.
pub fn saga(number: u128) -> SagaId {
    SagaId(uuid(number))
}

/// A request for all of a saga.
pub fn whole(number: u128) -> LoadRequest {
    after(number, 0)
}

/// A request for what follows a revision.
pub fn after(number: u128, after: u64) -> LoadRequest {
    LoadRequest {
        id: saga(number),
        after,
    }
}

/// A saga that starts with this many journal entries.
pub fn new_saga(number: u128, key: &str, revision: u64) -> SagaWrite {
    SagaWrite {
        expected: 0,
        head: SagaHead {
            id: saga(number),
            name: NAME.to_owned(),
            version: 3,
            key: key.to_owned(),
            input_hash: hash(number, 0),
            status: Status::Running,
            reason: None,
            revision,
            head_hash: hash(number, revision),
            started_at: at(1),
            updated_at: at(2),
            ended_at: None,
            wake_at: Some(at(1_000)),
            parent: None,
            awaits: None,
            cause: None,
            superseded: false,
        },
        entries: entries(number, 1, revision),
        snapshot: None,
        outbox: Vec::new(),
        labels: Vec::new(),
    }
}

/// What follows `before`: this many more entries.
pub fn next(before: &SagaWrite, more: u64) -> SagaWrite {
    let expected = before.head.revision;
    let number = before.head.id.0.as_u128() & u128::from(u64::MAX);
    let revision = expected + more;
    SagaWrite {
        expected,
        head: SagaHead {
            revision,
            head_hash: hash(number, revision),
            updated_at: before
                .head
                .updated_at
                .after(std::time::Duration::from_micros(7)),
            ..before.head.clone()
        },
        entries: entries(number, expected + 1, revision),
        snapshot: None,
        outbox: Vec::new(),
        labels: Vec::new(),
    }
}

/// Journal entries `first ..= last`.
pub fn entries(number: u128, first: u64, last: u64) -> Vec<JournalEntry> {
    let entry = |seq: u64| JournalEntry {
        seq,
        at: at(i64::try_from(seq).unwrap()),
        hash: hash(number, seq),
        body: Bytes::from([BINARY, &seq.to_be_bytes()].concat()),
    };
    (first..=last).map(entry).collect()
}

/// A snapshot at a revision.
pub fn snapshot(revision: u64) -> Snapshot {
    Snapshot {
        revision,
        body: Bytes::from([BINARY, &revision.to_be_bytes()].concat()),
    }
}

/// A batch of sagas and nothing else.
pub fn batch(sagas: Vec<SagaWrite>) -> Commit {
    Commit {
        sagas,
        ..Commit::default()
    }
}

/// An outbox row that is due at once.
pub fn outbox(number: u128) -> OutboxMessage {
    OutboxMessage {
        id: uuid(number),
        destination: Destination::event(format!("place-order.{number}")),
        message: message(number),
        due_at: at(0),
    }
}

/// A dead letter.
pub fn dead_letter(number: u128) -> DeadLetter {
    DeadLetter {
        id: uuid(number),
        at: at(5),
        queue: "backstitch.replies".to_owned(),
        code: code::REPLY_FOR_NO_SAGA,
        reason: format!("no saga {number}"),
        message: message(number),
        sighting: Sighting::default(),
    }
}

/// A message with all properties and a binary body.
pub fn message(number: u128) -> Message {
    let headers = [
        ("attempt", json!(3)),
        ("deadline", json!("2026-01-01T00:00:00Z")),
        ("odd", json!({ "a": [1, null, "\u{0}\u{1F9F5}"] })),
    ];
    Message {
        properties: Properties {
            message_id: Some(number.to_string()),
            kind: Some("inventory.reserve".to_owned()),
            correlation_id: Some("a/b/c/d".to_owned()),
            reply_to: Some("backstitch.replies".to_owned()),
            content_type: Some("application/json".to_owned()),
            timestamp: Some(at(9)),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            ..Properties::default()
        },
        body: Bytes::from_static(BINARY),
    }
}

/// A definition.
pub fn definition(name: &str, version: u32) -> DefinitionRow {
    DefinitionRow {
        name: name.to_owned(),
        version,
        hash: hash(7, u64::from(version)),
        source: format!("saga: {name}\n"),
        stored_at: at(4),
    }
}

/// A barrier of the participant `inventory`.
pub fn barrier(number: u128, step: StepPath) -> BarrierRow {
    BarrierRow {
        key: BarrierKey {
            participant: "inventory".to_owned(),
            saga: saga(number),
            step,
        },
        status: 1,
        body: Bytes::from_static(BINARY),
        at: at(6),
    }
}

/// The key of an article's stock.
pub fn article(id: &str) -> AggregateKey {
    AggregateKey {
        kind: "inventory".to_owned(),
        id: id.to_owned(),
    }
}

/// An article's stock at a revision.
pub fn stock(id: &str, revision: u64) -> AggregateRow {
    AggregateRow {
        key: article(id),
        revision,
        state: Bytes::from([BINARY, &revision.to_be_bytes()].concat()),
    }
}

/// An event of an article's stock.
pub fn event(id: &str, seq: u64) -> AggregateEvent {
    AggregateEvent {
        key: article(id),
        seq,
        at: at(8),
        valid_from: None,
        origin: Origin::default(),
        body: Bytes::from([BINARY, &seq.to_be_bytes()].concat()),
    }
}

fn hash(number: u128, seq: u64) -> Hash {
    let mut hash = [0xEE; 32];
    hash[..16].copy_from_slice(&number.to_be_bytes());
    hash[24..].copy_from_slice(&seq.to_be_bytes());
    hash
}
