//! Dead letters in PostgreSQL.

mod statements;

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use self::statements::{
    APPEND_AUDIT, AUDIT, AUDIT_HEAD, AUDIT_OF_LETTER, CAME_BACK, COUNTS, EDITS, HANDLED, INSERT,
    INSERT_EDITS, LOAD, LOCK, LOCK_AUDIT, MOVE_AUDIT, ON_THE_WAY, REPLAYED, SETTLE, STORED_KEYS,
    UPDATE,
};
use super::connections::Session;
use super::{PostgresStore, column, messages};
use crate::id::Timestamp;
use crate::store::dead_letters::audit::{self, AuditHead, Unlinked};
use crate::store::dead_letters::plan::{self, Current};
use crate::store::dead_letters::row::{self, LetterRow, NewLetter, letter_columns};
use crate::store::dead_letters::{
    Actor, AuditEntry, DeadLetterStore, DrainedLetter, GROUPS_MAX, LETTER_ROWS_MAX, Letter,
    LetterChange, LetterCount, LetterEdit, LetterFilter, LetterGroup, LetterHead, LetterPage,
    PublishedReplays,
};
use crate::store::{LIST_ROWS_MAX, StoreError, rows};

/// Inserts letters of any origin.
pub(super) async fn insert(
    connection: &mut Session,
    letters: &[NewLetter<'_>],
) -> sqlx::Result<()> {
    if letters.is_empty() {
        return Ok(());
    }
    let text = |text: Option<&str>| text.map(rows::readable);
    sqlx::query(INSERT)
        .bind(column(letters, |new| new.letter.id))
        .bind(column(letters, |new| new.letter.at.as_micros()))
        .bind(column(letters, |new| rows::readable(&new.letter.queue)))
        .bind(column(letters, |new| i32::from(new.letter.code.0)))
        .bind(column(letters, |new| rows::readable(&new.letter.reason)))
        .bind(column(letters, |new| new.properties.as_str()))
        .bind(column(letters, |new| &new.letter.message.body[..]))
        .bind(column(letters, |new| {
            text(new.facts.origin.exchange.as_deref())
        }))
        .bind(column(letters, |new| {
            text(new.facts.origin.routing_key.as_deref())
        }))
        .bind(column(letters, |new| {
            text(new.facts.origin.queue.as_deref())
        }))
        .bind(column(letters, |new| {
            text(new.facts.origin.reason.as_deref())
        }))
        .bind(column(letters, |new| rows::signed(new.facts.origin.count)))
        .bind(column(letters, |new| text(new.kind())))
        .bind(column(letters, |new| text(new.message_id())))
        .bind(column(letters, |new| new.facts.fingerprint.as_str()))
        .bind(column(letters, |new| new.facts.saga.map(|saga| saga.0)))
        .bind(column(letters, |new| text(new.facts.step.as_deref())))
        .bind(column(letters, |new| i64::from(new.facts.replays)))
        .bind(column(letters, |new| new.facts.came_back_from))
        .bind(column(letters, NewLetter::body_bytes))
        .bind(column(letters, |new| new.key))
        .bind(column(letters, |new| new.ordinal))
        .execute(connection)
        .await?;
    Ok(())
}

/// Puts entries at the end of the audit log, which stays locked until the transaction ends.
async fn append(
    connection: &mut Session,
    actor: &Actor,
    entries: Vec<Unlinked>,
) -> Result<(), AppendError> {
    if entries.is_empty() {
        return Ok(());
    }
    let (seq, bytes): (i64, Vec<u8>) = sqlx::query_as(LOCK_AUDIT)
        .fetch_one(&mut *connection)
        .await?;
    let mut head = audit_head(seq, &bytes)?;
    let entries = audit::link(&mut head, actor, entries);
    sqlx::query(APPEND_AUDIT)
        .bind(column(&entries, |entry| rows::signed(entry.seq)))
        .bind(column(&entries, |entry| entry.at.as_micros()))
        .bind(column(&entries, |entry| entry.action.as_str()))
        .bind(column(&entries, |entry| entry.letter))
        .bind(column(&entries, |entry| &entry.hash[..]))
        .bind(column(&entries, |entry| entry.body.as_bytes()))
        .execute(&mut *connection)
        .await?;
    sqlx::query(MOVE_AUDIT)
        .bind(rows::signed(head.seq))
        .bind(&head.hash[..])
        .execute(connection)
        .await?;
    Ok(())
}

fn audit_head(seq: i64, bytes: &[u8]) -> Result<AuditHead, StoreError> {
    let what = || "head of the audit log".to_owned();
    Ok(AuditHead {
        seq: rows::number(seq, what)?,
        hash: rows::hash(bytes, what)?,
    })
}

/// Either of two layers.
enum AppendError {
    Sql(sqlx::Error),
    Store(StoreError),
}

impl From<sqlx::Error> for AppendError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for AppendError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl PostgresStore {
    fn append_failed(&self, error: AppendError) -> StoreError {
        match error {
            AppendError::Sql(error) => self.failed(error),
            AppendError::Store(error) => error,
        }
    }
}

#[async_trait]
impl DeadLetterStore for PostgresStore {
    async fn store_drained(
        &self,
        queue: &str,
        at: Timestamp,
        letters: &[DrainedLetter],
    ) -> Result<usize, StoreError> {
        if letters.is_empty() {
            return Ok(0);
        }
        let failed = |error| self.failed(error);
        let mut transaction = self.transaction().await?;
        // Whoever drains holds the log's end, so nobody else gives out the same ordinals.
        let locked = sqlx::query(LOCK_AUDIT).execute(&mut *transaction).await;
        locked.map_err(failed)?;
        let query = sqlx::query_as(STORED_KEYS).bind(column(letters, |drained| drained.key));
        let found: Vec<(Uuid, i64, i64)> =
            query.fetch_all(&mut *transaction).await.map_err(failed)?;
        let stored = found
            .into_iter()
            .map(|(key, highest, open)| (key, (highest, open.unsigned_abs())))
            .collect();
        let message_id = |drained: &DrainedLetter| {
            let id = drained.letter.message.properties.message_id.as_deref();
            id.map(rows::readable)
        };
        let ids: Vec<String> = letters.iter().filter_map(message_id).collect();
        let query = sqlx::query_as(REPLAYED).bind(ids);
        let found: Vec<(String, Uuid, i64)> =
            query.fetch_all(&mut *transaction).await.map_err(failed)?;
        let replayed: BTreeMap<_, _> = found
            .into_iter()
            .map(|(message, id, replays)| (message, (id, u32::try_from(replays).unwrap_or(0))))
            .collect();
        let placed = plan::place(stored, &replayed, letters);
        let entry = plan::drain_entry(queue, &placed, letters.len());
        let new = NewLetter::drained(placed)?;
        insert(&mut transaction, &new).await.map_err(failed)?;
        let actor = plan::drainer(at);
        append(&mut transaction, &actor, vec![entry])
            .await
            .map_err(|error| self.append_failed(error))?;
        transaction.commit().await.map_err(failed)?;
        Ok(new.len())
    }

    async fn letters(
        &self,
        filter: &LetterFilter,
        page: &LetterPage,
    ) -> Result<Vec<LetterHead>, StoreError> {
        let mut query = QueryBuilder::<Postgres>::new(concat!(
            "SELECT ",
            letter_columns!(),
            " FROM dead_letters WHERE true"
        ));
        push_filter(&mut query, filter);
        let (beyond, order) = if page.oldest_first {
            (" AND (at, id) > (", " ORDER BY at, id LIMIT ")
        } else {
            (" AND (at, id) < (", " ORDER BY at DESC, id DESC LIMIT ")
        };
        if let Some((at, id)) = page.after {
            query.push(beyond).push_bind(at.as_micros());
            query.push(", ").push_bind(id).push(")");
        }
        let limit = rows::limit(page.limit.min(LETTER_ROWS_MAX));
        query.push(order).push_bind(limit);
        let found: Result<Vec<LetterRow>, _> = query.build_query_as().fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, row::head)
    }

    async fn load_letters(&self, ids: &[Uuid]) -> Result<Vec<Letter>, StoreError> {
        let found = sqlx::query_as(LOAD).bind(ids).fetch_all(&self.pool).await;
        let letters = rows::all(found.map_err(|error| self.failed(error))?, row::whole)?;
        Ok(row::in_order(ids, letters))
    }

    async fn letter_groups(
        &self,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<Vec<LetterGroup>, StoreError> {
        let mut query = QueryBuilder::<Postgres>::new(
            "WITH causes AS (
                SELECT
                    fingerprint AS cause, count(*) AS letters,
                    count(*) FILTER (WHERE status = 'open') AS open, min(at) AS first_at,
                    max(at) AS last_at
                FROM dead_letters WHERE true",
        );
        push_filter(&mut query, filter);
        query.push(" GROUP BY fingerprint ORDER BY count(*) DESC, fingerprint LIMIT ");
        query.push_bind(rows::limit(limit.min(GROUPS_MAX)));
        // The newest of each, by `dead_letters_by_cause`.
        query.push(concat!(
            ") SELECT causes.letters, causes.open, causes.first_at, causes.last_at, ",
            letter_columns!(),
            " FROM causes CROSS JOIN LATERAL (
                SELECT dead_letters.id FROM dead_letters WHERE fingerprint = causes.cause
                ORDER BY at DESC, id DESC LIMIT 1
            ) AS newest
            JOIN dead_letters ON dead_letters.id = newest.id
            ORDER BY causes.letters DESC, causes.cause"
        ));
        let found = query.build_query_as().fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, row::group)
    }

    async fn letter_counts(&self) -> Result<Vec<LetterCount>, StoreError> {
        let found = sqlx::query_as(COUNTS).fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, row::count)
    }

    async fn change_letters(
        &self,
        actor: &Actor,
        changes: &[LetterChange],
        published: &PublishedReplays,
    ) -> Result<Vec<Uuid>, StoreError> {
        if changes.is_empty() && published.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |error| self.failed(error);
        let mut transaction = self.transaction().await?;
        let connection = &mut *transaction;
        let query = sqlx::query_as(LOCK).bind(plan::touched(changes, published));
        let found = query.fetch_all(&mut *connection).await.map_err(failed)?;
        let letters: BTreeMap<_, _> = rows::all(found, row::current)?.into_iter().collect();
        let plan = plan::plan(letters, actor, changes, published);
        let of_outbox = plan.outbox.iter().map(|row| rows::properties(&row.message));
        let of_outbox: Vec<String> = of_outbox.collect::<Result<_, _>>()?;
        let of_edits = plan
            .edits
            .iter()
            .map(|(.., message)| rows::properties(message));
        let of_edits: Vec<String> = of_edits.collect::<Result<_, _>>()?;
        messages::delete_outbox(connection, &plan.remove)
            .await
            .map_err(failed)?;
        messages::insert_outbox(connection, &plan.outbox, &of_outbox)
            .await
            .map_err(failed)?;
        update(connection, &plan.updates.into_iter().collect::<Vec<_>>())
            .await
            .map_err(failed)?;
        if !plan.edits.is_empty() {
            sqlx::query(INSERT_EDITS)
                .bind(column(&plan.edits, |(letter, ..)| *letter))
                .bind(column(&plan.edits, |(_, number, _)| i64::from(*number)))
                .bind(actor.at.as_micros())
                .bind(rows::readable(&actor.by))
                .bind(rows::readable(&actor.why))
                .bind(of_edits)
                .bind(column(&plan.edits, |(.., message)| &message.body[..]))
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
        }
        append(connection, actor, plan.entries)
            .await
            .map_err(|error| self.append_failed(error))?;
        transaction.commit().await.map_err(failed)?;
        Ok(plan.lost)
    }

    async fn settle_replays(&self) -> Result<u64, StoreError> {
        let failed = |error| self.failed(error);
        let settled = sqlx::query(SETTLE).execute(&self.pool).await;
        settled.map_err(failed)?;
        let left = sqlx::query_scalar(ON_THE_WAY).fetch_one(&self.pool).await;
        let left: i64 = left.map_err(failed)?;
        Ok(left.unsigned_abs())
    }

    async fn came_back(&self, letters: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let query = sqlx::query_scalar(CAME_BACK).bind(letters);
        let found = query.fetch_all(&self.pool).await;
        found.map_err(|error| self.failed(error))
    }

    async fn purge_letters(
        &self,
        actor: &Actor,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let failed = |error| self.failed(error);
        let mut transaction = self.transaction().await?;
        let query = sqlx::query_scalar(HANDLED)
            .bind(before.as_micros())
            .bind(rows::limit(limit));
        let ids: Vec<Uuid> = query.fetch_all(&mut *transaction).await.map_err(failed)?;
        if ids.is_empty() {
            return Ok(0);
        }
        let allowed = sqlx::query("SET LOCAL backstitch.retention = 'on'");
        allowed.execute(&mut *transaction).await.map_err(failed)?;
        for statement in [
            "DELETE FROM letter_edits WHERE letter_id = ANY ($1)",
            "DELETE FROM dead_letters WHERE id = ANY ($1)",
        ] {
            let deleted = sqlx::query(statement)
                .bind(&ids)
                .execute(&mut *transaction)
                .await;
            deleted.map_err(failed)?;
        }
        append(
            &mut transaction,
            actor,
            vec![plan::purge_entry(before, &ids)],
        )
        .await
        .map_err(|error| self.append_failed(error))?;
        transaction.commit().await.map_err(failed)?;
        Ok(ids.len() as u64)
    }

    async fn letter_edits(&self, letter: Uuid) -> Result<Vec<LetterEdit>, StoreError> {
        let found = sqlx::query_as(EDITS)
            .bind(letter)
            .fetch_all(&self.pool)
            .await;
        let found = found.map_err(|error| self.failed(error))?;
        rows::all(found, |edit| row::edit(letter, edit))
    }

    async fn letter_audit(
        &self,
        letter: Option<Uuid>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let statement = if letter.is_some() {
            AUDIT_OF_LETTER
        } else {
            AUDIT
        };
        let mut query = sqlx::query_as(statement)
            .bind(rows::signed(after))
            .bind(rows::limit(limit.min(LIST_ROWS_MAX)));
        if let Some(letter) = letter {
            query = query.bind(letter);
        }
        let found = query.fetch_all(&self.pool).await;
        rows::all(found.map_err(|error| self.failed(error))?, row::audit)
    }

    async fn audit_head(&self) -> Result<AuditHead, StoreError> {
        let found = sqlx::query_as(AUDIT_HEAD).fetch_one(&self.pool).await;
        let (seq, bytes): (i64, Vec<u8>) = found.map_err(|error| self.failed(error))?;
        audit_head(seq, &bytes)
    }
}

async fn update(connection: &mut Session, letters: &[(Uuid, Current)]) -> sqlx::Result<()> {
    if letters.is_empty() {
        return Ok(());
    }
    sqlx::query(UPDATE)
        .bind(column(letters, |(id, _)| *id))
        .bind(column(letters, |(_, new)| rows::signed(new.version)))
        .bind(column(letters, |(_, new)| new.status.as_str()))
        .bind(column(letters, |(_, new)| i64::from(new.replays)))
        .bind(column(letters, |(_, new)| i64::from(new.edits)))
        .bind(column(letters, |(_, new)| new.outbox))
        .bind(column(letters, |(_, new)| {
            new.handled_at.map(Timestamp::as_micros)
        }))
        .execute(connection)
        .await?;
    Ok(())
}

/// Only the conditions that are asked for, so that each has the plan it deserves.
fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &LetterFilter) {
    if let Some(queue) = &filter.queue {
        let queue = rows::readable(queue);
        query.push(" AND (queue = ").push_bind(queue.clone());
        query.push(" OR origin_queue = ").push_bind(queue).push(")");
    }
    for (condition, text) in [
        (" AND type = ", &filter.kind),
        (" AND message_id = ", &filter.message_id),
        (" AND fingerprint = ", &filter.fingerprint),
    ] {
        if let Some(text) = text {
            query.push(condition).push_bind(rows::readable(text));
        }
    }
    if let Some(saga) = filter.saga {
        query.push(" AND saga_id = ").push_bind(saga.0);
    }
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(since) = filter.since {
        query.push(" AND at >= ").push_bind(since.as_micros());
    }
    if let Some(until) = filter.until {
        query.push(" AND at < ").push_bind(until.as_micros());
    }
    if let Some(reason) = &filter.reason {
        query
            .push(" AND strpos(reason, ")
            .push_bind(rows::readable(reason));
        query.push(") > 0");
    }
    if let Some(body) = &filter.body {
        query
            .push(" AND position(")
            .push_bind(body.clone().into_bytes());
        query.push("::bytea IN body) > 0");
    }
}
