//! The feed of aggregate events in PostgreSQL, and up to where it can be read without missing any.
//!
//! Positions are drawn from a sequence while transactions are open, so a position may become
//! visible after a later one. To know when nothing below can turn up any more, a reader notes the
//! newest position it sees and *then* draws a transaction id: whoever holds an earlier position had
//! an id before that (an event is written after its aggregate's row), hence a smaller one. Once all
//! transactions with smaller ids have ended, the noted position is settled.
//!
//! The usual way, to order by the writers' transaction ids, would order the events of one aggregate
//! wrongly: who waits for its row may have the older id.
//!
//! A transaction that stays open anywhere in the server's databases holds readers back until it ends.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::PostgresStore;
use crate::id::Timestamp;
use crate::store::feed::{EventFeed, EventPage, EventQuery, PAGE_BYTES, Position};
use crate::store::participant::{AggregateKey, AggregateRow, AggregateSnapshot};
use crate::store::{StoreError, rows, shape};

/// Notes that wait until transactions have ended; when there are more, the newest wait for a place.
const NOTES_MAX: usize = 64;

/// From the end of `aggregate_events_by_position`.
const NEWEST: &str = "SELECT coalesce(max(position), 0) FROM aggregate_events";

/// A transaction id that is greater than any drawn before, and the smallest one still at work.
const IDS: &str = "
    SELECT
        pg_current_xact_id()::text::bigint,
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint";

/// The smallest transaction id still at work.
const OLDEST: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint";

/// In order of `aggregate_events_by_position`.
const EVENTS: &str = "
    WITH page AS (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY position) - octet_length(body) AS before
        FROM aggregate_events
        WHERE position > $1 AND position <= $2
            AND (cardinality($3::text[]) = 0 OR kind = ANY ($3))
        ORDER BY position LIMIT $4
    )
    SELECT
        kind, id, seq, at, body, position, valid_from, saga_id, saga_key, message_id, correlation
    FROM page WHERE before < $5 ORDER BY position";

/// In order of `aggregate_events_by_correlation`.
const CORRELATED: &str = "
    WITH page AS (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY position) - octet_length(body) AS before
        FROM aggregate_events
        WHERE position > $1 AND position <= $2
            AND (cardinality($3::text[]) = 0 OR kind = ANY ($3))
            AND correlation = $5
        ORDER BY position LIMIT $4
    )
    SELECT
        kind, id, seq, at, body, position, valid_from, saga_id, saga_key, message_id, correlation
    FROM page WHERE before < $6 ORDER BY position";

/// By primary key.
const AGGREGATE: &str = "
    SELECT kind, id, revision, state FROM aggregates WHERE kind = $1 AND id = $2";

/// In order of the primary key.
const HISTORY: &str = "
    WITH page AS (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS before
        FROM aggregate_events
        WHERE kind = $1 AND id = $2 AND seq > $3
        ORDER BY seq LIMIT $4
    )
    SELECT
        kind, id, seq, at, body, position, valid_from, saga_id, saga_key, message_id, correlation
    FROM page WHERE before < $5 ORDER BY seq";

/// Backwards in order of the primary key.
const SNAPSHOT: &str = "
    SELECT kind, id, revision, at, state FROM aggregate_snapshots
    WHERE kind = $1 AND id = $2 AND revision <= $3 AND at <= $4 ORDER BY revision DESC LIMIT 1";

/// Up to where events are settled, as far as this process knows.
#[derive(Debug, Default)]
pub(super) struct Horizon {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    settled: Position,
    /// Positions, and the transaction ids that must have ended before they are settled.
    notes: VecDeque<(Position, i64)>,
}

impl Horizon {
    fn settled(&self) -> (Position, bool) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        (known.settled, known.notes.is_empty())
    }

    /// All transactions with ids below `oldest` have ended.
    fn ended(&self, oldest: i64) -> Position {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // The ids don't rise with the positions if several readers note at once.
        let settled = known.notes.iter().filter(|(_, id)| *id <= oldest);
        let newest = settled.map(|(position, _)| *position).max();
        known.settled = known.settled.max(newest.unwrap_or_default());
        let settled = known.settled;
        known.notes.retain(|(position, _)| *position > settled);
        settled
    }

    fn note(&self, newest: Position, id: i64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = known.notes.back().is_none_or(|(last, _)| *last < newest);
        if is_new && newest > known.settled && known.notes.len() < NOTES_MAX {
            known.notes.push_back((newest, id));
        }
    }
}

#[async_trait]
impl EventFeed for PostgresStore {
    async fn settled(&self) -> Result<Position, StoreError> {
        let failed = |error| self.failed(error);
        let newest: i64 = sqlx::query_scalar(NEWEST)
            .fetch_one(&self.pool)
            .await
            .map_err(failed)?;
        let newest = position(newest)?;
        let (settled, nothing_noted) = self.horizon.settled();
        if newest == settled {
            return Ok(settled);
        }
        if !nothing_noted {
            let query = sqlx::query_scalar(OLDEST);
            let oldest: i64 = query.fetch_one(&self.pool).await.map_err(failed)?;
            if self.horizon.ended(oldest) >= newest {
                return Ok(newest);
            }
        }
        let query = sqlx::query_as(IDS);
        let (id, oldest): (i64, i64) = query.fetch_one(&self.pool).await.map_err(failed)?;
        self.horizon.note(newest, id);
        Ok(self.horizon.ended(oldest))
    }

    async fn events(&self, query: &EventQuery) -> Result<EventPage, StoreError> {
        let kinds: Vec<&str> = shape::keys(&query.kinds).collect();
        if kinds.is_empty() && !query.kinds.is_empty() {
            return Ok(EventPage::default());
        }
        let statement = match query.correlation {
            Some(_) => CORRELATED,
            None => EVENTS,
        };
        let mut asked = sqlx::query_as(statement)
            .bind(rows::signed(query.after.0))
            .bind(rows::signed(query.upto.0))
            .bind(kinds)
            .bind(rows::limit(query.limit.saturating_add(1)));
        if let Some(correlation) = &query.correlation {
            if !crate::store::is_key(correlation) {
                return Ok(EventPage::default());
            }
            asked = asked.bind(correlation);
        }
        let found = asked
            .bind(rows::limit(PAGE_BYTES))
            .fetch_all(&self.pool)
            .await;
        let found = rows::all(found.map_err(|error| self.failed(error))?, rows::placed)?;
        Ok(EventPage::of(found, query.limit))
    }

    async fn aggregate(&self, key: &AggregateKey) -> Result<Option<AggregateRow>, StoreError> {
        if !shape::is_aggregate(key) {
            return Ok(None);
        }
        let query = sqlx::query_as(AGGREGATE).bind(&key.kind).bind(&key.id);
        let found = query.fetch_optional(&self.pool).await;
        let found = found.map_err(|error| self.failed(error))?;
        found.map(rows::aggregate).transpose()
    }

    async fn history(
        &self,
        key: &AggregateKey,
        after: u64,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        if !shape::is_aggregate(key) {
            return Ok(EventPage::default());
        }
        let query = sqlx::query_as(HISTORY)
            .bind(&key.kind)
            .bind(&key.id)
            .bind(rows::signed(after))
            .bind(rows::limit(limit.saturating_add(1)))
            .bind(rows::limit(PAGE_BYTES));
        let found = query.fetch_all(&self.pool).await;
        let found = rows::all(found.map_err(|error| self.failed(error))?, rows::placed)?;
        Ok(EventPage::of(found, limit))
    }

    async fn snapshot(
        &self,
        key: &AggregateKey,
        revision_max: u64,
        at_max: Timestamp,
    ) -> Result<Option<AggregateSnapshot>, StoreError> {
        if !shape::is_aggregate(key) {
            return Ok(None);
        }
        let query = sqlx::query_as(SNAPSHOT)
            .bind(&key.kind)
            .bind(&key.id)
            .bind(rows::signed(revision_max))
            .bind(at_max.as_micros());
        let found = query.fetch_optional(&self.pool).await;
        let found = found.map_err(|error| self.failed(error))?;
        found.map(rows::aggregate_snapshot).transpose()
    }
}

fn position(number: i64) -> Result<Position, StoreError> {
    rows::number(number, || "the newest position of an event".to_owned()).map(Position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_settled_when_all_who_may_hold_earlier_ones_have_ended() {
        let horizon = Horizon::default();
        horizon.note(Position(7), 105);
        assert_eq!(horizon.ended(104), Position(0), "one is still at work");
        horizon.note(Position(9), 110);
        assert_eq!(horizon.ended(105), Position(7));
        assert_eq!(horizon.ended(109), Position(7));
        assert_eq!(horizon.ended(110), Position(9));
        assert_eq!(horizon.settled(), (Position(9), true));
        horizon.note(Position(9), 111);
        assert_eq!(horizon.settled(), (Position(9), true), "nothing new");
    }
}
