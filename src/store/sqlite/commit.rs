//! A batch of sagas as one transaction: write heads whose revision fits, then what the winners
//! bring. The writer is alone, so nothing needs to be locked first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::bulk::{self, Binding, Bulk};
use super::{letters, messages};
use crate::id::{SagaId, Timestamp};
use crate::saga::StepPhase;
use crate::store::dead_letters::occurrence::NewLetter;
use crate::store::{
    Commit, CommitOutcome, Conflict, JournalEntry, OutboxMessage, SagaWrite, Snapshot, StoreError,
    labels, rows,
};

/// Leaves out rows whose id is there or whose (name, key) is held.
static INSERT_SAGAS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO sagas (
            id, name, version, key, input_hash, status, reason, revision, head_hash, started_at,
            updated_at, ended_at, wake_at, superseded, parent, awaits, cause, cause_step,
            cause_reason, cause_since
        )",
        20,
        "ON CONFLICT DO NOTHING RETURNING id",
    )
});

/// By primary key.
static UPDATE_SAGAS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "UPDATE sagas SET
            status = new.column3, reason = new.column4, revision = new.column5,
            head_hash = new.column6, updated_at = new.column7, ended_at = new.column8,
            wake_at = new.column9, superseded = new.column10, awaits = new.column11,
            cause = new.column12, cause_step = new.column13, cause_reason = new.column14,
            cause_since = new.column15
        FROM (",
        15,
        ") AS new
        WHERE sagas.id = new.column1 AND sagas.revision = new.column2
        RETURNING sagas.id",
    )
});

static INSERT_LABELS: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new("INSERT INTO saga_labels (saga_id, name, value)", 3, ""));

static INSERT_JOURNAL: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new("INSERT INTO journal (saga_id, seq, at, hash, body)", 5, ""));

static UPSERT_SNAPSHOTS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO snapshots (saga_id, revision, body)",
        3,
        "ON CONFLICT (saga_id) DO UPDATE SET revision = excluded.revision, body = excluded.body",
    )
});

/// By primary key.
const SELECT_IDS: &str = "
    SELECT id FROM sagas WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

/// A batch whose messages' properties are text already, so that no error of ours can occur
/// between the statements.
pub(super) struct PreparedCommit<'a> {
    commit: &'a Commit,
    /// Messages with their properties and, if it must win first, the saga they belong to.
    outbox: Vec<(Option<SagaId>, (&'a OutboxMessage, String))>,
    letters: Vec<NewLetter<'a>>,
}

impl<'a> PreparedCommit<'a> {
    pub(super) fn new(commit: &'a Commit) -> Result<Self, StoreError> {
        let of_sagas = commit.sagas.iter().flat_map(|write| {
            let id = Some(write.head.id);
            write.outbox.iter().map(move |row| (id, row))
        });
        let outbox = commit.outbox.iter().map(|row| (None, row)).chain(of_sagas);
        let with_text = |(saga, row): (_, &'a OutboxMessage)| {
            Ok((saga, (row, rows::properties(&row.message)?)))
        };
        Ok(Self {
            commit,
            outbox: outbox.map(with_text).collect::<Result<_, StoreError>>()?,
            letters: NewLetter::all(&commit.dead_letters)?,
        })
    }

    /// Writes the batch, but does not commit it.
    pub(super) async fn write(
        self,
        connection: &mut SqliteConnection,
    ) -> sqlx::Result<CommitOutcome> {
        let conflicts = store_heads(connection, &self.commit.sagas).await?;
        let lost = |id: &SagaId| conflicts.contains_key(&id.0);
        let writes = self.commit.sagas.iter();
        let winners: Vec<_> = writes.filter(|write| !lost(&write.head.id)).collect();
        let outbox = self.outbox.into_iter();
        let outbox: Vec<_> = outbox
            .filter(|(saga, _)| !saga.as_ref().is_some_and(lost))
            .map(|(_, row)| row)
            .collect();
        insert_labels(connection, &winners).await?;
        insert_journal(connection, &winners).await?;
        upsert_snapshots(connection, &winners).await?;
        messages::insert_outbox(connection, &outbox).await?;
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
    connection: &mut SqliteConnection,
    writes: &[SagaWrite],
) -> sqlx::Result<BTreeMap<Uuid, Conflict>> {
    let (new, changed): (Vec<_>, Vec<_>) = writes.iter().partition(|write| write.expected == 0);
    let updated = UPDATE_SAGAS
        .fetch_ids(connection, &changed, |query, write| {
            bind_update(query, write)
        })
        .await?;
    let inserted = INSERT_SAGAS
        .fetch_ids(connection, &new, |query, write| bind_insert(query, write))
        .await?;
    let won: BTreeSet<Uuid> = updated.into_iter().chain(inserted).collect();
    let ids = |writes: &[&SagaWrite]| -> Vec<Uuid> {
        let ids = writes.iter().map(|write| write.head.id.0);
        ids.filter(|id| !won.contains(id)).collect()
    };
    let mut conflicts = tell_conflicts(connection, ids(&new)).await?;
    let behind = ids(&changed).into_iter();
    conflicts.extend(behind.map(|id| (id, Conflict::Revision)));
    Ok(conflicts)
}

fn bind_update(query: Binding, write: &SagaWrite) -> Binding {
    let head = &write.head;
    let cause = head.cause.as_ref();
    query
        .bind(head.id.0)
        .bind(rows::signed(write.expected))
        .bind(head.status.as_str())
        .bind(head.reason.as_deref())
        .bind(rows::signed(head.revision))
        .bind(&head.head_hash[..])
        .bind(head.updated_at.as_micros())
        .bind(head.ended_at.map(Timestamp::as_micros))
        .bind(head.wake_at.map(Timestamp::as_micros))
        .bind(head.superseded)
        .bind(text_of(head.awaits.as_ref()))
        .bind(cause.map(|cause| cause.id.as_str()))
        .bind(text_of(cause.and_then(|cause| cause.spot.as_ref())))
        .bind(cause.map(|cause| cause.reason.as_str()))
        .bind(cause.map(|cause| cause.since.as_micros()))
}

fn bind_insert(query: Binding, write: &SagaWrite) -> Binding {
    let head = &write.head;
    let cause = head.cause.as_ref();
    query
        .bind(head.id.0)
        .bind(head.name.as_str())
        .bind(i64::from(head.version))
        .bind(head.key.as_str())
        .bind(&head.input_hash[..])
        .bind(head.status.as_str())
        .bind(head.reason.as_deref())
        .bind(rows::signed(head.revision))
        .bind(&head.head_hash[..])
        .bind(head.started_at.as_micros())
        .bind(head.updated_at.as_micros())
        .bind(head.ended_at.map(Timestamp::as_micros))
        .bind(head.wake_at.map(Timestamp::as_micros))
        .bind(head.superseded)
        .bind(head.parent.map(|parent| parent.0))
        .bind(text_of(head.awaits.as_ref()))
        .bind(cause.map(|cause| cause.id.as_str()))
        .bind(text_of(cause.and_then(|cause| cause.spot.as_ref())))
        .bind(cause.map(|cause| cause.reason.as_str()))
        .bind(cause.map(|cause| cause.since.as_micros()))
}

fn text_of(spot: Option<&StepPhase>) -> Option<String> {
    spot.map(ToString::to_string)
}

/// Which of new sagas that could not be inserted have a taken id, and which a taken key.
async fn tell_conflicts(
    connection: &mut SqliteConnection,
    missing: Vec<Uuid>,
) -> sqlx::Result<BTreeMap<Uuid, Conflict>> {
    if missing.is_empty() {
        return Ok(BTreeMap::new());
    }
    let query = sqlx::query_scalar(SELECT_IDS).bind(bulk::ids(missing.iter().copied()));
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

async fn insert_labels(
    connection: &mut SqliteConnection,
    writes: &[&SagaWrite],
) -> sqlx::Result<()> {
    let mut rows: Vec<(Uuid, &str, String)> = Vec::new();
    for write in writes {
        let columns = labels::columns(&write.labels);
        rows.extend(columns.map(|(name, value)| (write.head.id.0, name, value)));
    }
    INSERT_LABELS
        .execute(connection, &rows, |query, (saga, name, value)| {
            query.bind(*saga).bind(*name).bind(value.as_str())
        })
        .await
        .map(drop)
}

async fn insert_journal(
    connection: &mut SqliteConnection,
    writes: &[&SagaWrite],
) -> sqlx::Result<()> {
    let mut entries: Vec<(Uuid, &JournalEntry)> = Vec::with_capacity(writes.len());
    for write in writes {
        entries.extend(write.entries.iter().map(|entry| (write.head.id.0, entry)));
    }
    INSERT_JOURNAL
        .execute(connection, &entries, |query, (saga, entry)| {
            query
                .bind(*saga)
                .bind(rows::signed(entry.seq))
                .bind(entry.at.as_micros())
                .bind(&entry.hash[..])
                .bind(&entry.body[..])
        })
        .await
        .map(drop)
}

async fn upsert_snapshots(
    connection: &mut SqliteConnection,
    writes: &[&SagaWrite],
) -> sqlx::Result<()> {
    let snapshots: Vec<(Uuid, &Snapshot)> = writes
        .iter()
        .filter_map(|write| Some((write.head.id.0, write.snapshot.as_ref()?)))
        .collect();
    UPSERT_SNAPSHOTS
        .execute(connection, &snapshots, |query, (saga, snapshot)| {
            query
                .bind(*saga)
                .bind(rows::signed(snapshot.revision))
                .bind(&snapshot.body[..])
        })
        .await
        .map(drop)
}
