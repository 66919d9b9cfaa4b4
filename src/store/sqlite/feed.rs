//! The feed of aggregate events in SQLite. There is one writer, so positions become visible in order
//! and whatever is visible is settled.

use async_trait::async_trait;

use super::bulk;
use super::{SqliteStore, failed};
use crate::id::Timestamp;
use crate::store::feed::{EventFeed, EventPage, EventQuery, PAGE_BYTES, Position};
use crate::store::participant::{AggregateKey, AggregateRow, AggregateSnapshot};
use crate::store::{StoreError, rows};

/// The row id's end.
const NEWEST: &str = "SELECT coalesce(max(position), 0) FROM aggregate_events";

/// In order of the row ids.
const EVENTS: &str = "
    WITH page AS (
        SELECT *, sum(length(body)) OVER (ORDER BY position) - length(body) AS before
        FROM aggregate_events
        WHERE position > ?1 AND position <= ?2
            AND (?3 = '[]' OR kind IN (SELECT value FROM json_each(?3)))
        ORDER BY position LIMIT ?4
    )
    SELECT
        kind, id, seq, at, body, position, valid_from, saga_id, saga_key, message_id, correlation
    FROM page WHERE before < ?5 ORDER BY position";

/// In order of `aggregate_events_by_correlation`.
const CORRELATED: &str = "
    WITH page AS (
        SELECT *, sum(length(body)) OVER (ORDER BY position) - length(body) AS before
        FROM aggregate_events
        WHERE position > ?1 AND position <= ?2
            AND (?3 = '[]' OR kind IN (SELECT value FROM json_each(?3)))
            AND correlation = ?5
        ORDER BY position LIMIT ?4
    )
    SELECT
        kind, id, seq, at, body, position, valid_from, saga_id, saga_key, message_id, correlation
    FROM page WHERE before < ?6 ORDER BY position";

/// By primary key.
const AGGREGATE: &str = "
    SELECT kind, id, revision, state FROM aggregates WHERE kind = ?1 AND id = ?2";

/// In order of the unique index.
const HISTORY: &str = "
    WITH page AS (
        SELECT *, sum(length(body)) OVER (ORDER BY seq) - length(body) AS before
        FROM aggregate_events
        WHERE kind = ?1 AND id = ?2 AND seq > ?3
        ORDER BY seq LIMIT ?4
    )
    SELECT
        kind, id, seq, at, body, position, valid_from, saga_id, saga_key, message_id, correlation
    FROM page WHERE before < ?5 ORDER BY seq";

/// Backwards in order of the primary key.
const SNAPSHOT: &str = "
    SELECT kind, id, revision, at, state FROM aggregate_snapshots
    WHERE kind = ?1 AND id = ?2 AND revision <= ?3 AND at <= ?4 ORDER BY revision DESC LIMIT 1";

#[async_trait]
impl EventFeed for SqliteStore {
    async fn settled(&self) -> Result<Position, StoreError> {
        let query = sqlx::query_scalar(NEWEST);
        let newest: i64 = query.fetch_one(&self.readers).await.map_err(failed)?;
        rows::number(newest, || "the newest position of an event".to_owned()).map(Position)
    }

    async fn events(&self, query: &EventQuery) -> Result<EventPage, StoreError> {
        let statement = match query.correlation {
            Some(_) => CORRELATED,
            None => EVENTS,
        };
        let kinds = query.kinds.iter().map(|kind| kind.as_str().into());
        let mut asked = sqlx::query_as(statement)
            .bind(rows::signed(query.after.0))
            .bind(rows::signed(query.upto.0))
            .bind(bulk::json(kinds))
            .bind(rows::limit(query.limit.saturating_add(1)));
        if let Some(correlation) = &query.correlation {
            asked = asked.bind(correlation.clone());
        }
        let asked = asked.bind(rows::limit(PAGE_BYTES));
        let found = asked.fetch_all(&self.readers).await.map_err(failed)?;
        Ok(EventPage::of(rows::all(found, rows::placed)?, query.limit))
    }

    async fn aggregate(&self, key: &AggregateKey) -> Result<Option<AggregateRow>, StoreError> {
        let query = sqlx::query_as(AGGREGATE).bind(&key.kind).bind(&key.id);
        let found = query.fetch_optional(&self.readers).await.map_err(failed)?;
        found.map(rows::aggregate).transpose()
    }

    async fn history(
        &self,
        key: &AggregateKey,
        after: u64,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        let query = sqlx::query_as(HISTORY)
            .bind(&key.kind)
            .bind(&key.id)
            .bind(rows::signed(after))
            .bind(rows::limit(limit.saturating_add(1)))
            .bind(rows::limit(PAGE_BYTES));
        let found = query.fetch_all(&self.readers).await.map_err(failed)?;
        Ok(EventPage::of(rows::all(found, rows::placed)?, limit))
    }

    async fn snapshot(
        &self,
        key: &AggregateKey,
        revision_max: u64,
        at_max: Timestamp,
    ) -> Result<Option<AggregateSnapshot>, StoreError> {
        let query = sqlx::query_as(SNAPSHOT)
            .bind(&key.kind)
            .bind(&key.id)
            .bind(rows::signed(revision_max))
            .bind(at_max.as_micros());
        let found = query.fetch_optional(&self.readers).await.map_err(failed)?;
        found.map(rows::aggregate_snapshot).transpose()
    }
}
