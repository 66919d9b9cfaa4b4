//! Dead letters in SQLite.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::bulk::{self, Bulk};
use super::{SqliteStore, failed, messages};
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

/// A batch that is stored again after a lost answer brings the same rows, hence DO NOTHING.
static INSERT: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO dead_letters (
            id, at, queue, code, reason, properties, body, origin_exchange, origin_routing_key,
            origin_queue, death_reason, death_count, type, message_id, fingerprint, saga_id, step,
            replays, came_back_from, body_bytes, drain_key, ordinal
        )",
        22,
        "ON CONFLICT DO NOTHING",
    )
});

/// By primary key.
static UPDATE: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "UPDATE dead_letters SET
            version = new.column2, status = new.column3, replays = new.column4,
            edits = new.column5, outbox_id = new.column6, handled_at = new.column7
        FROM (",
        7,
        ") AS new WHERE dead_letters.id = new.column1",
    )
});

static INSERT_EDITS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO letter_edits (letter_id, number, at, by, why, properties, body)",
        7,
        "",
    )
});

static APPEND_AUDIT: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO letter_audit (seq, at, action, letter_id, hash, body)",
        6,
        "",
    )
});

/// By `dead_letters_by_key`.
const STORED_KEYS: &str = "
    SELECT drain_key, max(ordinal), count(*) FILTER (WHERE status = 'open') FROM dead_letters
    WHERE drain_key IN (SELECT unhex(value) FROM json_each(?1)) AND drain_key IS NOT NULL
    GROUP BY drain_key";

/// By `dead_letters_by_message`; the last one of a message comes last.
const REPLAYED: &str = "
    SELECT message_id, id, replays FROM dead_letters
    WHERE message_id IN (SELECT value FROM json_each(?1)) AND message_id IS NOT NULL
        AND status IN ('replaying', 'replayed')
    ORDER BY handled_at, id";

const AUDIT_HEAD: &str = "SELECT seq, hash FROM letter_audit_head";

const MOVE_AUDIT: &str = "UPDATE letter_audit_head SET seq = ?1, hash = ?2";

/// By primary key.
const CURRENT: &str = "
    SELECT id, version, status, replays, edits, outbox_id, handled_at FROM dead_letters
    WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

/// By `dead_letters_by_status`.
const SETTLE: &str = "
    UPDATE dead_letters SET status = 'replayed', version = version + 1, outbox_id = NULL
    WHERE status = 'replaying' AND NOT EXISTS (
        SELECT 1 FROM outbox WHERE outbox.id = dead_letters.outbox_id
    )";

/// By `dead_letters_by_status`.
const ON_THE_WAY: &str = "SELECT count(*) FROM dead_letters WHERE status = 'replaying'";

/// By `dead_letters_by_parent`.
const CAME_BACK: &str = "
    SELECT DISTINCT came_back_from FROM dead_letters
    WHERE came_back_from IN (SELECT unhex(value) FROM json_each(?1))
        AND came_back_from IS NOT NULL";

/// By `dead_letters_handled`.
const HANDLED: &str = "
    SELECT id FROM dead_letters
    WHERE handled_at < ?1 AND status IN ('replayed', 'discarded')
    ORDER BY handled_at, id LIMIT ?2";

/// In the order in which they must run: see the triggers.
const PURGE: [&str; 4] = [
    "INSERT OR IGNORE INTO retention (only_row) SELECT 1 WHERE ?1 IS NOT NULL",
    "DELETE FROM letter_edits WHERE letter_id IN (SELECT unhex(value) FROM json_each(?1))",
    "DELETE FROM dead_letters WHERE id IN (SELECT unhex(value) FROM json_each(?1))",
    "DELETE FROM retention WHERE ?1 IS NOT NULL",
];

/// By primary key, one range.
const EDITS: &str = "
    SELECT number, at, by, why, properties, body FROM letter_edits
    WHERE letter_id = ?1 ORDER BY number";

/// From `dead_letters_by_queue` alone.
const COUNTS: &str = "
    SELECT queue, status, count(*) FROM dead_letters GROUP BY queue, status
    ORDER BY queue, status";

/// By primary key.
const AUDIT: &str = "
    SELECT seq, at, action, letter_id, hash, body FROM letter_audit
    WHERE seq > ?1 ORDER BY seq LIMIT ?2";

/// By `letter_audit_by_letter`.
const AUDIT_OF_LETTER: &str = "
    SELECT seq, at, action, letter_id, hash, body FROM letter_audit
    WHERE letter_id = ?3 AND seq > ?1 ORDER BY seq LIMIT ?2";

/// By primary key.
const LOAD: &str = concat!(
    "SELECT ",
    letter_columns!(),
    ", dead_letters.properties, dead_letters.body, letter_edits.properties AS edited_properties,
        letter_edits.body AS edited_body
    FROM dead_letters
    LEFT JOIN letter_edits ON letter_edits.letter_id = dead_letters.id
        AND letter_edits.number = dead_letters.edits
    WHERE dead_letters.id IN (SELECT unhex(value) FROM json_each(?1))"
);

/// Inserts letters of any origin.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    letters: &[NewLetter<'_>],
) -> sqlx::Result<()> {
    INSERT
        .execute(connection, letters, |query, new| {
            let (letter, facts) = (new.letter, &new.facts);
            query
                .bind(letter.id)
                .bind(letter.at.as_micros())
                .bind(letter.queue.as_str())
                .bind(i32::from(letter.code.0))
                .bind(letter.reason.as_str())
                .bind(new.properties.as_str())
                .bind(&letter.message.body[..])
                .bind(facts.origin.exchange.as_deref())
                .bind(facts.origin.routing_key.as_deref())
                .bind(facts.origin.queue.as_deref())
                .bind(facts.origin.reason.as_deref())
                .bind(rows::signed(facts.origin.count))
                .bind(new.kind())
                .bind(new.message_id())
                .bind(facts.fingerprint.as_str())
                .bind(facts.saga.map(|saga| saga.0))
                .bind(facts.step.as_deref())
                .bind(i64::from(facts.replays))
                .bind(facts.came_back_from)
                .bind(new.body_bytes())
                .bind(new.key)
                .bind(new.ordinal)
        })
        .await
        .map(drop)
}

/// Puts entries at the end of the audit log. The writer is alone, so nothing is locked.
async fn append(
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
        letters: &[DrainedLetter],
    ) -> Result<usize, StoreError> {
        if letters.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.transaction().await?;
        let query =
            sqlx::query_as(STORED_KEYS).bind(bulk::ids(letters.iter().map(|drained| drained.key)));
        let found: Vec<(Uuid, i64, i64)> =
            query.fetch_all(&mut *transaction).await.map_err(failed)?;
        let stored = found
            .into_iter()
            .map(|(key, highest, open)| (key, (highest, open.unsigned_abs())))
            .collect();
        let message_id = |drained: &DrainedLetter| {
            let id = drained.letter.message.properties.message_id.as_deref();
            id.map(Value::from)
        };
        let ids = bulk::json(letters.iter().filter_map(message_id));
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
        append(&mut transaction, &actor, vec![entry]).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(new.len())
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
