//! Dead letters in SQLite.

mod keep;
mod statements;

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

pub(super) use self::keep::keep;
use self::statements::{
    APPEND_AUDIT, AUDIT, AUDIT_HEAD, AUDIT_OF_LETTER, CAME_BACK, COUNTS, CURRENT, EDITS, HANDLED,
    IMPORTED, INSERT_EDITS, LOAD, MOVE_AUDIT, ON_THE_WAY, PURGE, SETTLE, UPDATE,
};
use super::bulk;
use super::{SqliteStore, failed, messages};
use crate::id::Timestamp;
use crate::store::dead_letters::audit::{self, AuditHead, Unlinked};
use crate::store::dead_letters::occurrence::NewLetter;
use crate::store::dead_letters::plan::{self, Current};
use crate::store::dead_letters::row::{self, LetterRow, letter_columns};
use crate::store::dead_letters::{
    Actor, AuditEntry, DeadLetterStore, GROUPS_MAX, LETTER_ROWS_MAX, Letter, LetterChange,
    LetterCount, LetterEdit, LetterFilter, LetterGroup, LetterHead, LetterPage, PublishedReplays,
};
use crate::store::{DeadLetter, LIST_ROWS_MAX, StoreError, rows};

/// Puts entries at the end of the audit log. The writer is alone, so nothing is locked.
pub(super) async fn append(
    connection: &mut SqliteConnection,
    actor: &Actor,
    entries: Vec<Unlinked>,
) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let query = sqlx::query_as(AUDIT_HEAD);
    let (seq, bytes): (i64, Vec<u8>) = query.fetch_one(&mut *connection).await.map_err(failed)?;
    let mut head = audit_head(seq, &bytes)?;
    let entries = audit::link(&mut head, actor, entries);
    let appended = APPEND_AUDIT.execute(connection, &entries, |query, entry| {
        query
            .bind(rows::signed(entry.seq))
            .bind(entry.at.as_micros())
            .bind(entry.action.as_str())
            .bind(entry.letter)
            .bind(&entry.hash[..])
            .bind(entry.body.as_bytes())
    });
    appended.await.map_err(failed)?;
    let query = sqlx::query(MOVE_AUDIT)
        .bind(rows::signed(head.seq))
        .bind(&head.hash[..]);
    query.execute(connection).await.map_err(failed)?;
    Ok(())
}

fn audit_head(seq: i64, bytes: &[u8]) -> Result<AuditHead, StoreError> {
    let what = || "head of the audit log".to_owned();
    Ok(AuditHead {
        seq: rows::number(seq, what)?,
        hash: rows::hash(bytes, what)?,
    })
}

#[async_trait]
impl DeadLetterStore for SqliteStore {
    async fn store_drained(
        &self,
        queue: &str,
        at: Timestamp,
        letters: &[DeadLetter],
    ) -> Result<usize, StoreError> {
        if letters.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.transaction().await?;
        let new = NewLetter::all(letters)?;
        let settled = keep(&mut transaction, new).await.map_err(failed)?;
        let entry = plan::drain_entry(queue, &settled);
        let actor = plan::drainer(at);
        append(&mut transaction, &actor, vec![entry]).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(settled.new.len())
    }

    async fn store_imported(
        &self,
        actor: &Actor,
        letters: &[DeadLetter],
    ) -> Result<usize, StoreError> {
        let mut transaction = self.transaction().await?;
        let new = NewLetter::all(letters)?;
        let settled = keep(&mut transaction, new).await.map_err(failed)?;
        append(&mut transaction, actor, plan::import_entries(&settled)).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(settled.new.len())
    }

    async fn imported(&self, letters: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let query = sqlx::query_scalar(IMPORTED)
            .bind(bulk::ids(letters.iter().copied()))
            .bind(plan::IMPORT);
        let found = query.fetch_all(&self.readers).await;
        found.map_err(failed)
    }

    async fn letters(
        &self,
        filter: &LetterFilter,
        page: &LetterPage,
    ) -> Result<Vec<LetterHead>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(concat!(
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
        let found: Result<Vec<LetterRow>, _> =
            query.build_query_as().fetch_all(&self.readers).await;
        rows::all(found.map_err(failed)?, row::head)
    }

    async fn load_letters(&self, ids: &[Uuid]) -> Result<Vec<Letter>, StoreError> {
        let found = sqlx::query_as(LOAD)
            .bind(bulk::ids(ids.iter().copied()))
            .fetch_all(&self.readers)
            .await;
        let letters = rows::all(found.map_err(failed)?, row::whole)?;
        Ok(row::in_order(ids, letters))
    }

    async fn letter_groups(
        &self,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<Vec<LetterGroup>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(
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
            " FROM causes JOIN dead_letters ON dead_letters.id = (
                SELECT newest.id FROM dead_letters AS newest
                WHERE newest.fingerprint = causes.cause
                ORDER BY newest.at DESC, newest.id DESC LIMIT 1
            )
            ORDER BY causes.letters DESC, causes.cause"
        ));
        let found = query.build_query_as().fetch_all(&self.readers).await;
        rows::all(found.map_err(failed)?, row::group)
    }

    async fn letter_counts(&self) -> Result<Vec<LetterCount>, StoreError> {
        let found = sqlx::query_as(COUNTS).fetch_all(&self.readers).await;
        rows::all(found.map_err(failed)?, row::count)
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
        let mut transaction = self.transaction().await?;
        let connection = &mut *transaction;
        let query = sqlx::query_as(CURRENT).bind(bulk::ids(plan::touched(changes, published)));
        let found = query.fetch_all(&mut *connection).await.map_err(failed)?;
        let letters: BTreeMap<_, _> = rows::all(found, row::current)?.into_iter().collect();
        let plan = plan::plan(letters, actor, changes, published);
        let outbox: Vec<_> = plan
            .outbox
            .iter()
            .map(|row| Ok((*row, rows::properties(&row.message)?)))
            .collect::<Result<_, StoreError>>()?;
        let edits: Vec<_> = plan
            .edits
            .iter()
            .map(|edit| Ok((edit, rows::properties(edit.2)?)))
            .collect::<Result<_, StoreError>>()?;
        messages::delete_outbox(connection, &plan.remove)
            .await
            .map_err(failed)?;
        messages::insert_outbox(connection, &outbox)
            .await
            .map_err(failed)?;
        update(connection, &plan.updates.into_iter().collect::<Vec<_>>())
            .await
            .map_err(failed)?;
        let inserted = INSERT_EDITS.execute(connection, &edits, |query, (edit, properties)| {
            let (letter, number, message) = edit;
            query
                .bind(*letter)
                .bind(i64::from(*number))
                .bind(actor.at.as_micros())
                .bind(actor.by.as_str())
                .bind(actor.why.as_str())
                .bind(properties.as_str())
                .bind(&message.body[..])
        });
        inserted.await.map_err(failed)?;
        append(connection, actor, plan.entries).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(plan.lost)
    }

    async fn settle_replays(&self) -> Result<u64, StoreError> {
        let mut transaction = self.transaction().await?;
        let settled = sqlx::query(SETTLE).execute(&mut *transaction).await;
        settled.map_err(failed)?;
        let left = sqlx::query_scalar(ON_THE_WAY)
            .fetch_one(&mut *transaction)
            .await;
        let left: i64 = left.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(left.unsigned_abs())
    }

    async fn came_back(&self, letters: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let query = sqlx::query_scalar(CAME_BACK).bind(bulk::ids(letters.iter().copied()));
        let found = query.fetch_all(&self.readers).await;
        found.map_err(failed)
    }

    async fn purge_letters(
        &self,
        actor: &Actor,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let mut transaction = self.transaction().await?;
        let query = sqlx::query_scalar(HANDLED)
            .bind(before.as_micros())
            .bind(rows::limit(limit));
        let ids: Vec<Uuid> = query.fetch_all(&mut *transaction).await.map_err(failed)?;
        if ids.is_empty() {
            return Ok(0);
        }
        let names = bulk::ids(ids.iter().copied());
        for statement in PURGE {
            let query = sqlx::query(statement).bind(&names);
            query.execute(&mut *transaction).await.map_err(failed)?;
        }
        append(
            &mut transaction,
            actor,
            vec![plan::purge_entry(before, &ids)],
        )
        .await?;
        transaction.commit().await.map_err(failed)?;
        Ok(ids.len() as u64)
    }

    async fn letter_edits(&self, letter: Uuid) -> Result<Vec<LetterEdit>, StoreError> {
        let found = sqlx::query_as(EDITS)
            .bind(letter)
            .fetch_all(&self.readers)
            .await;
        let found = found.map_err(failed)?;
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
        let found = query.fetch_all(&self.readers).await;
        rows::all(found.map_err(failed)?, row::audit)
    }

    async fn audit_head(&self) -> Result<AuditHead, StoreError> {
        let found = sqlx::query_as(AUDIT_HEAD).fetch_one(&self.readers).await;
        let (seq, bytes): (i64, Vec<u8>) = found.map_err(failed)?;
        audit_head(seq, &bytes)
    }
}

async fn update(
    connection: &mut SqliteConnection,
    letters: &[(Uuid, Current)],
) -> sqlx::Result<()> {
    UPDATE
        .execute(connection, letters, |query, (id, new)| {
            query
                .bind(*id)
                .bind(rows::signed(new.version))
                .bind(new.status.as_str())
                .bind(i64::from(new.replays))
                .bind(i64::from(new.edits))
                .bind(new.outbox)
                .bind(new.handled_at.map(Timestamp::as_micros))
        })
        .await
        .map(drop)
}

/// Only the conditions that are asked for, so that each has the plan it deserves.
fn push_filter(query: &mut QueryBuilder<Sqlite>, filter: &LetterFilter) {
    if let Some(queue) = &filter.queue {
        let queue = queue.clone();
        query.push(" AND (queue = ").push_bind(queue.clone());
        query.push(" OR origin_queue = ").push_bind(queue).push(")");
    }
    for (condition, text) in [
        (" AND type = ", &filter.kind),
        (" AND message_id = ", &filter.message_id),
        (" AND fingerprint = ", &filter.fingerprint),
    ] {
        if let Some(text) = text {
            query.push(condition).push_bind(text.clone());
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
        query.push(" AND instr(reason, ").push_bind(reason.clone());
        query.push(") > 0");
    }
    if let Some(body) = &filter.body {
        query
            .push(" AND instr(body, ")
            .push_bind(body.clone().into_bytes());
        query.push(") > 0");
    }
}
