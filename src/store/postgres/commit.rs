//! A batch of sagas as one transaction: lock, tell winners from losers, write the winners.
//!
//! The order is the same for every batch, and within each table by id or key, so that two nodes
//! wait for each other but never in a circle: lock changed sagas, insert new ones, the rest.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::connections::Session;
use super::{column, letters, messages};
use crate::id::Timestamp;
use crate::store::dead_letters::occurrence::NewLetter;
use crate::store::{
    Commit, CommitOutcome, Conflict, JournalEntry, SagaCause, SagaWrite, Snapshot, StoreError,
    labels, rows,
};

/// By primary key. Whoever holds a row decides on that saga just now, or stands still in the middle
/// of it: neither is worth waiting for with a whole batch.
const LOCK: &str = "
    SELECT id, revision FROM sagas WHERE id = ANY ($1) ORDER BY id FOR UPDATE SKIP LOCKED";

/// Leaves out rows whose id is there or whose (name, key) is held, and waits for those being inserted.
const INSERT_SAGAS: &str = "
    INSERT INTO sagas (
        id, name, version, key, input_hash, status, reason, revision, head_hash, started_at,
        updated_at, ended_at, wake_at, superseded, parent, awaits, cause, cause_step, cause_reason,
        cause_since
    )
    SELECT
        id, name, version, key, input_hash, status, reason, revision, head_hash, started_at,
        updated_at, ended_at, wake_at, superseded, parent, awaits, cause, cause_step, cause_reason,
        cause_since
    FROM unnest(
        $1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::bytea[], $6::text[], $7::text[],
        $8::bigint[], $9::bytea[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[],
        $14::boolean[], $15::uuid[], $16::text[], $17::text[], $18::text[], $19::text[],
        $20::bigint[]
    ) AS new (
        id, name, version, key, input_hash, status, reason, revision, head_hash, started_at,
        updated_at, ended_at, wake_at, superseded, parent, awaits, cause, cause_step, cause_reason,
        cause_since
    )
    ON CONFLICT DO NOTHING
    RETURNING id";

/// By primary key.
const SELECT_IDS: &str = "SELECT id FROM sagas WHERE id = ANY ($1)";

/// By primary key; within the page (HOT) unless `status`, `wake_at` or `superseded` changes.
const UPDATE_SAGAS: &str = "
    UPDATE sagas SET
        status = new.status, reason = new.reason, revision = new.revision,
        head_hash = new.head_hash, updated_at = new.updated_at, ended_at = new.ended_at,
        wake_at = new.wake_at, superseded = new.superseded, awaits = new.awaits,
        cause = new.cause, cause_step = new.cause_step, cause_reason = new.cause_reason,
        cause_since = new.cause_since
    FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::boolean[], $10::text[], $11::text[], $12::text[],
        $13::text[], $14::bigint[]
    ) AS new (
        id, status, reason, revision, head_hash, updated_at, ended_at, wake_at, superseded, awaits,
        cause, cause_step, cause_reason, cause_since
    )
    WHERE sagas.id = new.id";

const INSERT_LABELS: &str = "
    INSERT INTO saga_labels (saga_id, name, value)
    SELECT saga_id, name, value FROM unnest($1::uuid[], $2::text[], $3::text[])
        AS new (saga_id, name, value)";

const INSERT_JOURNAL: &str = "
    INSERT INTO journal (saga_id, seq, at, hash, body)
    SELECT saga_id, seq, at, hash, body
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[])
        AS new (saga_id, seq, at, hash, body)";

const UPSERT_SNAPSHOTS: &str = "
    INSERT INTO snapshots (saga_id, revision, body)
    SELECT saga_id, revision, body
    FROM unnest($1::uuid[], $2::bigint[], $3::bytea[]) AS new (saga_id, revision, body)
    ON CONFLICT (saga_id) DO UPDATE SET revision = excluded.revision, body = excluded.body";

/// A batch whose messages' properties are text already, so that no error of ours can occur
/// between the statements.
pub(super) struct PreparedCommit<'a> {
    commit: &'a Commit,
    /// Properties of each saga's outbox, in the order of `commit.sagas`.
    of_sagas: Vec<Vec<String>>,
    of_outbox: Vec<String>,
    letters: Vec<NewLetter<'a>>,
}

impl<'a> PreparedCommit<'a> {
    pub(super) fn new(commit: &'a Commit) -> Result<Self, StoreError> {
        let sagas = commit.sagas.iter();
        Ok(Self {
            commit,
            of_sagas: sagas
                .map(|write| rows::outbox_properties(&write.outbox))
                .collect::<Result<_, _>>()?,
            of_outbox: rows::outbox_properties(&commit.outbox)?,
            letters: NewLetter::all(&commit.dead_letters)?,
        })
    }

    /// Whether there is nothing to store but the removal of sent rows.
    pub(super) fn is_only_sent(&self) -> bool {
        let commit = self.commit;
        commit.sagas.is_empty() && commit.outbox.is_empty() && commit.dead_letters.is_empty()
    }

    /// Writes the batch, but does not commit it.
    pub(super) async fn write(self, connection: &mut Session) -> sqlx::Result<CommitOutcome> {
        let conflicts = store_heads(connection, &self.commit.sagas).await?;
        let mut winners = Vec::new();
        let mut outbox = Vec::new();
        let mut properties = self.of_outbox;
        outbox.extend(&self.commit.outbox);
        for (write, of_saga) in self.commit.sagas.iter().zip(self.of_sagas) {
            if !conflicts.contains_key(&write.head.id.0) {
                winners.push(write);
                outbox.extend(&write.outbox);
                properties.extend(of_saga);
            }
        }
        insert_labels(connection, &winners).await?;
        insert_journal(connection, &winners).await?;
        upsert_snapshots(connection, &winners).await?;
        messages::insert_outbox(connection, &outbox, &properties).await?;
        let letters = letters::keep(connection, self.letters).await?;
        messages::delete_outbox(connection, &self.commit.sent).await?;
        let in_order = self.commit.sagas.iter().map(|write| write.head.id);
        Ok(CommitOutcome {
            conflicts: in_order
                .filter_map(|id| Some((id, *conflicts.get(&id.0)?)))
                .collect(),
            known_letters: letters.known,
        })
    }
}

/// Writes the sagas' rows and returns those that lost.
async fn store_heads(
    connection: &mut Session,
    writes: &[SagaWrite],
) -> sqlx::Result<BTreeMap<Uuid, Conflict>> {
    let (mut new, changed): (Vec<_>, Vec<_>) = writes.iter().partition(|write| write.expected == 0);
    let locked = lock(connection, &changed).await?;
    let (winners, losers): (Vec<_>, Vec<_>) = changed
        .into_iter()
        .partition(|write| locked.get(&write.head.id.0) == Some(&rows::signed(write.expected)));
    new.sort_by(|a, b| (&a.head.name, &a.head.key).cmp(&(&b.head.name, &b.head.key)));
    let mut conflicts = insert_sagas(connection, &new).await?;
    update_sagas(connection, &winners).await?;
    conflicts.extend(losers.iter().map(|write| {
        let id = write.head.id.0;
        let seen = locked.contains_key(&id);
        (
            id,
            if seen {
                Conflict::Revision
            } else {
                Conflict::Locked
            },
        )
    }));
    Ok(conflicts)
}

async fn lock(
    connection: &mut Session,
    writes: &[&SagaWrite],
) -> sqlx::Result<BTreeMap<Uuid, i64>> {
    if writes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let query = sqlx::query_as(LOCK).bind(column(writes, |write| write.head.id.0));
    let found: Vec<(Uuid, i64)> = query.fetch_all(connection).await?;
    Ok(found.into_iter().collect())
}

async fn insert_sagas(
    connection: &mut Session,
    writes: &[&SagaWrite],
) -> sqlx::Result<BTreeMap<Uuid, Conflict>> {
    if writes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let micros = |at: Option<Timestamp>| at.map(Timestamp::as_micros);
    let inserted: Vec<Uuid> = sqlx::query_scalar(INSERT_SAGAS)
        .bind(column(writes, |write| write.head.id.0))
        .bind(column(writes, |write| write.head.name.as_str()))
        .bind(column(writes, |write| i64::from(write.head.version)))
        .bind(column(writes, |write| write.head.key.as_str()))
        .bind(column(writes, |write| &write.head.input_hash[..]))
        .bind(column(writes, |write| write.head.status.as_str()))
        .bind(column(writes, |write| reason(write)))
        .bind(column(writes, |write| rows::signed(write.head.revision)))
        .bind(column(writes, |write| &write.head.head_hash[..]))
        .bind(column(writes, |write| write.head.started_at.as_micros()))
        .bind(column(writes, |write| write.head.updated_at.as_micros()))
        .bind(column(writes, |write| micros(write.head.ended_at)))
        .bind(column(writes, |write| micros(write.head.wake_at)))
        .bind(column(writes, |write| write.head.superseded))
        .bind(column(writes, |write| {
            write.head.parent.map(|parent| parent.0)
        }))
        .bind(column(writes, |write| awaits(write)))
        .bind(column(writes, |write| {
            cause(write).map(|it| it.id.as_str())
        }))
        .bind(column(writes, |write| cause_step(write)))
        .bind(column(writes, |write| {
            cause(write).map(|it| it.reason.as_str())
        }))
        .bind(column(writes, |write| {
            cause(write).map(|it| it.since.as_micros())
        }))
        .fetch_all(&mut *connection)
        .await?;
    let inserted: BTreeSet<Uuid> = inserted.into_iter().collect();
    let ids = writes.iter().map(|write| write.head.id.0);
    let missing: Vec<Uuid> = ids.filter(|id| !inserted.contains(id)).collect();
    tell_conflicts(connection, missing).await
}

/// Which of new sagas that could not be inserted have a taken id, and which a taken key.
async fn tell_conflicts(
    connection: &mut Session,
    missing: Vec<Uuid>,
) -> sqlx::Result<BTreeMap<Uuid, Conflict>> {
    if missing.is_empty() {
        return Ok(BTreeMap::new());
    }
    let query = sqlx::query_scalar(SELECT_IDS).bind(&missing);
    let existing: Vec<Uuid> = query.fetch_all(connection).await?;
    let conflict = |id| {
        if existing.contains(&id) {
            (id, Conflict::Revision)
        } else {
            (id, Conflict::KeyTaken)
        }
    };
    Ok(missing.into_iter().map(conflict).collect())
}

async fn update_sagas(connection: &mut Session, writes: &[&SagaWrite]) -> sqlx::Result<()> {
    if writes.is_empty() {
        return Ok(());
    }
    let micros = |at: Option<Timestamp>| at.map(Timestamp::as_micros);
    sqlx::query(UPDATE_SAGAS)
        .bind(column(writes, |write| write.head.id.0))
        .bind(column(writes, |write| write.head.status.as_str()))
        .bind(column(writes, |write| reason(write)))
        .bind(column(writes, |write| rows::signed(write.head.revision)))
        .bind(column(writes, |write| &write.head.head_hash[..]))
        .bind(column(writes, |write| write.head.updated_at.as_micros()))
        .bind(column(writes, |write| micros(write.head.ended_at)))
        .bind(column(writes, |write| micros(write.head.wake_at)))
        .bind(column(writes, |write| write.head.superseded))
        .bind(column(writes, |write| awaits(write)))
        .bind(column(writes, |write| {
            cause(write).map(|it| it.id.as_str())
        }))
        .bind(column(writes, |write| cause_step(write)))
        .bind(column(writes, |write| {
            cause(write).map(|it| it.reason.as_str())
        }))
        .bind(column(writes, |write| {
            cause(write).map(|it| it.since.as_micros())
        }))
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_labels(connection: &mut Session, writes: &[&SagaWrite]) -> sqlx::Result<()> {
    let of_saga = |write: &&SagaWrite| {
        let id = write.head.id.0;
        let columns = labels::columns(&write.labels);
        let columns = columns.map(move |(name, value)| (id, name.to_owned(), value));
        columns.collect::<Vec<_>>()
    };
    let rows: Vec<_> = writes.iter().flat_map(of_saga).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT_LABELS)
        .bind(column(&rows, |(saga, ..)| *saga))
        .bind(column(&rows, |(_, name, _)| name.as_str()))
        .bind(column(&rows, |(.., value)| value.as_str()))
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_journal(connection: &mut Session, writes: &[&SagaWrite]) -> sqlx::Result<()> {
    let of_saga = |write: &&'_ SagaWrite| -> Vec<(Uuid, JournalEntry)> {
        let entries = write.entries.iter();
        entries
            .map(|entry| (write.head.id.0, entry.clone()))
            .collect()
    };
    let entries: Vec<_> = writes.iter().flat_map(of_saga).collect();
    if entries.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT_JOURNAL)
        .bind(column(&entries, |(saga, _)| *saga))
        .bind(column(&entries, |(_, entry)| rows::signed(entry.seq)))
        .bind(column(&entries, |(_, entry)| entry.at.as_micros()))
        .bind(column(&entries, |(_, entry)| &entry.hash[..]))
        .bind(column(&entries, |(_, entry)| &entry.body[..]))
        .execute(connection)
        .await?;
    Ok(())
}

async fn upsert_snapshots(connection: &mut Session, writes: &[&SagaWrite]) -> sqlx::Result<()> {
    let snapshots: Vec<(Uuid, &Snapshot)> = writes
        .iter()
        .filter_map(|write| Some((write.head.id.0, write.snapshot.as_ref()?)))
        .collect();
    if snapshots.is_empty() {
        return Ok(());
    }
    sqlx::query(UPSERT_SNAPSHOTS)
        .bind(column(&snapshots, |(saga, _)| *saga))
        .bind(column(&snapshots, |(_, row)| rows::signed(row.revision)))
        .bind(column(&snapshots, |(_, row)| &row.body[..]))
        .execute(connection)
        .await?;
    Ok(())
}

fn awaits(write: &SagaWrite) -> Option<String> {
    write.head.awaits.as_ref().map(ToString::to_string)
}

fn cause(write: &SagaWrite) -> Option<&SagaCause> {
    write.head.cause.as_ref()
}

fn cause_step(write: &SagaWrite) -> Option<String> {
    cause(write)?.spot.as_ref().map(ToString::to_string)
}

fn reason(write: &SagaWrite) -> Option<String> {
    write.head.reason.as_deref().map(rows::readable)
}
