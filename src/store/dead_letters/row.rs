//! Rows of letters, as both databases give them, and back into the store's types.

use std::collections::BTreeMap;

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

use super::occurrence::{Parent, Twin};
use super::plan::Current;
use super::{AuditEntry, Letter, LetterCount, LetterEdit, LetterGroup, LetterHead, LetterOrigin};
use crate::error::Code;
use crate::id::{SagaId, Timestamp};
use crate::store::StoreError;
use crate::store::rows::{hash, message, number, parsed};

/// The columns of a [`LetterRow`].
macro_rules! letter_columns {
    () => {
        "dead_letters.id, dead_letters.at, dead_letters.queue, dead_letters.code, \
         dead_letters.reason, origin_exchange, origin_routing_key, origin_queue, death_reason, \
         death_count, type, message_id, fingerprint, saga_id, step, status, version, replays, \
         came_back_from, seen_again, edits, body_bytes, handled_at"
    };
}
pub(in crate::store) use letter_columns;

/// A letter's row without its message.
pub(in crate::store) struct LetterRow {
    id: Uuid,
    at: i64,
    queue: String,
    code: i32,
    reason: String,
    origin_exchange: Option<String>,
    origin_routing_key: Option<String>,
    origin_queue: Option<String>,
    death_reason: Option<String>,
    death_count: i64,
    kind: Option<String>,
    message_id: Option<String>,
    fingerprint: String,
    saga_id: Option<Uuid>,
    step: Option<String>,
    status: String,
    version: i64,
    replays: i64,
    came_back_from: Option<Uuid>,
    seen_again: i64,
    edits: i64,
    body_bytes: i64,
    handled_at: Option<i64>,
}

impl<'r, R> FromRow<'r, R> for LetterRow
where
    R: Row,
    &'static str: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    i32: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            queue: row.try_get("queue")?,
            code: row.try_get("code")?,
            reason: row.try_get("reason")?,
            origin_exchange: row.try_get("origin_exchange")?,
            origin_routing_key: row.try_get("origin_routing_key")?,
            origin_queue: row.try_get("origin_queue")?,
            death_reason: row.try_get("death_reason")?,
            death_count: row.try_get("death_count")?,
            kind: row.try_get("type")?,
            message_id: row.try_get("message_id")?,
            fingerprint: row.try_get("fingerprint")?,
            saga_id: row.try_get("saga_id")?,
            step: row.try_get("step")?,
            status: row.try_get("status")?,
            version: row.try_get("version")?,
            replays: row.try_get("replays")?,
            came_back_from: row.try_get("came_back_from")?,
            seen_again: row.try_get("seen_again")?,
            edits: row.try_get("edits")?,
            body_bytes: row.try_get("body_bytes")?,
            handled_at: row.try_get("handled_at")?,
        })
    }
}

pub(in crate::store) fn head(row: LetterRow) -> Result<LetterHead, StoreError> {
    let what = || format!("dead letter {}", row.id);
    Ok(LetterHead {
        code: Code(number(i64::from(row.code), what)?),
        status: parsed(&row.status, what)?,
        version: number(row.version, what)?,
        replays: number(row.replays, what)?,
        seen_again: number(row.seen_again, what)?,
        edits: number(row.edits, what)?,
        body_bytes: number(row.body_bytes, what)?,
        origin: LetterOrigin {
            count: number(row.death_count, what)?,
            exchange: row.origin_exchange,
            routing_key: row.origin_routing_key,
            queue: row.origin_queue,
            reason: row.death_reason,
        },
        id: row.id,
        at: Timestamp::from_micros(row.at),
        queue: row.queue,
        reason: row.reason,
        kind: row.kind,
        message_id: row.message_id,
        fingerprint: row.fingerprint,
        saga: row.saga_id.map(SagaId),
        step: row.step,
        came_back_from: row.came_back_from,
        handled_at: row.handled_at.map(Timestamp::from_micros),
    })
}

/// A letter's row with its message, as received and as last edited.
pub(in crate::store) struct WholeRow {
    head: LetterRow,
    properties: String,
    body: Vec<u8>,
    edited_properties: Option<String>,
    edited_body: Option<Vec<u8>>,
}

impl<'r, R> FromRow<'r, R> for WholeRow
where
    R: Row,
    LetterRow: FromRow<'r, R>,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            head: LetterRow::from_row(row)?,
            properties: row.try_get("properties")?,
            body: row.try_get("body")?,
            edited_properties: row.try_get("edited_properties")?,
            edited_body: row.try_get("edited_body")?,
        })
    }
}

pub(in crate::store) fn whole(row: WholeRow) -> Result<Letter, StoreError> {
    let id = row.head.id;
    let what = || format!("dead letter {id}");
    let edited = row.edited_properties.zip(row.edited_body);
    let edited = edited.map(|(properties, body)| message(&properties, body, what));
    Ok(Letter {
        original: message(&row.properties, row.body, what)?,
        edited: edited.transpose()?,
        head: head(row.head)?,
    })
}

/// `id, version, status, replays, edits, outbox_id, handled_at`.
pub(in crate::store) type CurrentRow = (Uuid, i64, String, i64, i64, Option<Uuid>, Option<i64>);

pub(in crate::store) fn current(row: CurrentRow) -> Result<(Uuid, Current), StoreError> {
    let (id, version, status, replays, edits, outbox, handled_at) = row;
    let what = || format!("dead letter {id}");
    let current = Current {
        version: number(version, what)?,
        status: parsed(&status, what)?,
        replays: number(replays, what)?,
        edits: number(edits, what)?,
        outbox,
        handled_at: handled_at.map(Timestamp::from_micros),
    };
    Ok((id, current))
}

/// `id, drain_key, session, deliveries`.
pub(in crate::store) type TwinRow = (Uuid, Uuid, Uuid, i64);

pub(in crate::store) fn twin((id, key, session, deliveries): TwinRow) -> Twin {
    Twin {
        id,
        key,
        session,
        deliveries,
    }
}

/// Place of the new letter, `id, replays`.
pub(in crate::store) type ParentRow = (i64, Uuid, i64);

/// `None` if the numbers are not ours.
pub(in crate::store) fn parent((place, id, replays): ParentRow) -> Option<Parent> {
    let place = usize::try_from(place).ok()?;
    Some((place, id, u32::try_from(replays).unwrap_or(u32::MAX)))
}

/// `queue, status, count(*)`.
pub(in crate::store) fn count(row: (String, String, i64)) -> Result<LetterCount, StoreError> {
    let (queue, status, count) = row;
    let what = || format!("number of letters from `{queue}`");
    Ok(LetterCount {
        status: parsed(&status, what)?,
        count: number(count, what)?,
        queue,
    })
}

/// `number, at, by, why, properties, body` of `letter_edits`.
pub(in crate::store) type EditRow = (i64, i64, String, String, String, Vec<u8>);

pub(in crate::store) fn edit(letter: Uuid, row: EditRow) -> Result<LetterEdit, StoreError> {
    let (edit, at, by, why, properties, body) = row;
    let what = || format!("edit {edit} of dead letter {letter}");
    Ok(LetterEdit {
        number: number(edit, what)?,
        at: Timestamp::from_micros(at),
        message: message(&properties, body, what)?,
        by,
        why,
    })
}

/// `seq, at, action, letter_id, hash, body` of `letter_audit`.
pub(in crate::store) type AuditRow = (i64, i64, String, Option<Uuid>, Vec<u8>, Vec<u8>);

pub(in crate::store) fn audit(row: AuditRow) -> Result<AuditEntry, StoreError> {
    let (seq, at, action, letter, bytes, body) = row;
    let what = || format!("audit entry {seq}");
    let body = String::from_utf8(body);
    Ok(AuditEntry {
        seq: number(seq, what)?,
        at: Timestamp::from_micros(at),
        action,
        letter,
        hash: hash(&bytes, what)?,
        body: body.map_err(|error| StoreError::Corrupt {
            what: what(),
            why: error.to_string(),
        })?,
    })
}

/// `letters, open, first_at, last_at` of a group, and its newest letter.
pub(in crate::store) struct GroupRow {
    letters: i64,
    open: i64,
    first_at: i64,
    last_at: i64,
    newest: LetterRow,
}

impl<'r, R> FromRow<'r, R> for GroupRow
where
    R: Row,
    LetterRow: FromRow<'r, R>,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            letters: row.try_get("letters")?,
            open: row.try_get("open")?,
            first_at: row.try_get("first_at")?,
            last_at: row.try_get("last_at")?,
            newest: LetterRow::from_row(row)?,
        })
    }
}

pub(in crate::store) fn group(row: GroupRow) -> Result<LetterGroup, StoreError> {
    Ok(LetterGroup {
        fingerprint: row.newest.fingerprint.clone(),
        count: row.letters.unsigned_abs(),
        open: row.open.unsigned_abs(),
        first_at: Timestamp::from_micros(row.first_at),
        last_at: Timestamp::from_micros(row.last_at),
        newest: head(row.newest)?,
    })
}

/// Letters in the order in which they were asked for.
pub(in crate::store) fn in_order(ids: &[Uuid], letters: Vec<Letter>) -> Vec<Letter> {
    let mut by_id: BTreeMap<Uuid, Letter> = letters
        .into_iter()
        .map(|letter| (letter.head.id, letter))
        .collect();
    ids.iter().filter_map(|id| by_id.remove(id)).collect()
}
