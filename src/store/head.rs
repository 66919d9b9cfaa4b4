//! A saga's row, as both databases give it, and back into a [`SagaHead`].

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

use super::labels::SagaCause;
use super::rows::{hash, number, parsed};
use super::{SagaHead, StoreError};
use crate::id::{SagaId, Timestamp};

/// The columns of a [`HeadRow`].
macro_rules! head_columns {
    () => {
        "sagas.id, sagas.name, sagas.version, sagas.key, sagas.input_hash, sagas.status, \
         sagas.reason, sagas.revision, sagas.head_hash, sagas.started_at, sagas.updated_at, \
         sagas.ended_at, sagas.wake_at, sagas.superseded, sagas.parent, sagas.awaits, sagas.cause, \
         sagas.cause_step, sagas.cause_reason, sagas.cause_since"
    };
}
pub(super) use head_columns;

/// A query for whole rows of `sagas`.
macro_rules! heads {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            $crate::store::head::head_columns!(),
            " FROM sagas WHERE ",
            $rest
        )
    };
}
pub(super) use heads;

/// A saga's row.
pub(super) struct HeadRow {
    id: Uuid,
    name: String,
    version: i64,
    key: String,
    input_hash: Vec<u8>,
    status: String,
    reason: Option<String>,
    revision: i64,
    head_hash: Vec<u8>,
    started_at: i64,
    updated_at: i64,
    ended_at: Option<i64>,
    wake_at: Option<i64>,
    superseded: bool,
    parent: Option<Uuid>,
    awaits: Option<String>,
    cause: Option<String>,
    cause_step: Option<String>,
    cause_reason: Option<String>,
    cause_since: Option<i64>,
}

impl<'r, R> FromRow<'r, R> for HeadRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    // By position: rows are read on every saga's way.
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            version: row.try_get(2)?,
            key: row.try_get(3)?,
            input_hash: row.try_get(4)?,
            status: row.try_get(5)?,
            reason: row.try_get(6)?,
            revision: row.try_get(7)?,
            head_hash: row.try_get(8)?,
            started_at: row.try_get(9)?,
            updated_at: row.try_get(10)?,
            ended_at: row.try_get(11)?,
            wake_at: row.try_get(12)?,
            superseded: row.try_get(13)?,
            parent: row.try_get(14)?,
            awaits: row.try_get(15)?,
            cause: row.try_get(16)?,
            cause_step: row.try_get(17)?,
            cause_reason: row.try_get(18)?,
            cause_since: row.try_get(19)?,
        })
    }
}

pub(super) fn head(row: HeadRow) -> Result<SagaHead, StoreError> {
    let what = || format!("saga {}", row.id);
    let spot = |text: Option<String>| text.map(|text| parsed(&text, what)).transpose();
    let cause = row.cause.map(|id| {
        Ok::<_, StoreError>(SagaCause {
            id,
            spot: spot(row.cause_step)?,
            reason: row.cause_reason.unwrap_or_default(),
            since: Timestamp::from_micros(row.cause_since.unwrap_or_default()),
        })
    });
    Ok(SagaHead {
        id: SagaId(row.id),
        version: number(row.version, what)?,
        input_hash: hash(&row.input_hash, what)?,
        status: parsed(&row.status, what)?,
        revision: number(row.revision, what)?,
        head_hash: hash(&row.head_hash, what)?,
        name: row.name,
        key: row.key,
        reason: row.reason,
        started_at: Timestamp::from_micros(row.started_at),
        updated_at: Timestamp::from_micros(row.updated_at),
        ended_at: row.ended_at.map(Timestamp::from_micros),
        wake_at: row.wake_at.map(Timestamp::from_micros),
        superseded: row.superseded,
        parent: row.parent.map(SagaId),
        awaits: spot(row.awaits)?,
        cause: cause.transpose()?,
    })
}
