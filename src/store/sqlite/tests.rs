//! The suite on files, and what only SQLite does.

use super::*;
use crate::store::conformance::{Complete, Fixture, sample};
use crate::store::{Commit, ListFilter, Outbox, Store, rows};

struct InFile {
    store: SqliteStore,
    directory: tempfile::TempDir,
}

impl InFile {
    async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("backstitch.db");
        let store = SqliteStore::open(path.to_str().unwrap()).await.unwrap();
        Self { store, directory }
    }

    async fn reopen(self) -> Self {
        self.store.close().await;
        let path = self.directory.path().join("backstitch.db");
        let url = format!("sqlite://{}", path.display());
        let store = SqliteStore::open(&url).await.unwrap();
        Self { store, ..self }
    }
}

#[async_trait::async_trait]
impl Fixture for InFile {
    fn store(&self) -> &dyn Complete {
        &self.store
    }

    async fn close(self) {
        self.store.close().await;
    }
}

crate::store_conformance!(InFile::open);

#[tokio::test]
async fn what_was_stored_is_there_after_reopening() {
    let file = InFile::open().await;
    let sagas = vec![sample::new_saga(1, "a", 2)];
    file.store.commit(sample::batch(sagas)).await.unwrap();
    let file = file.reopen().await;
    let found = file.store.load(&[sample::whole(1)]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().entries, sample::entries(1, 1, 2));
}

#[tokio::test]
async fn commits_are_durable_and_readers_do_not_wait_for_the_writer() {
    let file = InFile::open().await;
    let pragma = async |name: &'static str| -> String {
        let mut connection = file.store.writer.acquire().await.unwrap();
        let row = sqlx::query(name).fetch_one(&mut *connection).await.unwrap();
        sqlx::Row::try_get_unchecked(&row, 0).unwrap()
    };
    assert_eq!(pragma("PRAGMA journal_mode").await, "wal");
    assert_eq!(
        pragma("SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous").await,
        "2"
    );
    let writing = file.store.transaction().await.unwrap();
    assert_eq!(file.store.outbox_len().await.unwrap(), 0);
    drop(writing);
}

#[tokio::test]
async fn a_store_in_memory_keeps_what_it_is_given() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    let sagas = vec![sample::new_saga(1, "a", 2)];
    store.commit(sample::batch(sagas)).await.unwrap();
    assert!(store.load(&[sample::whole(1)]).await.unwrap()[0].is_some());
}

#[tokio::test]
async fn history_can_be_removed_by_retention_and_changed_by_no_one() {
    let file = InFile::open().await;
    let commit = Commit {
        sagas: vec![sample::new_saga(1, "a", 2)],
        dead_letters: vec![sample::dead_letter(1)],
        ..Commit::default()
    };
    file.store.commit(commit).await.unwrap();
    let run = async |sql: &'static str| sqlx::raw_sql(sql).execute(&file.store.writer).await;
    for (change, removal) in [
        ("UPDATE journal SET seq = 9", "DELETE FROM journal"),
        (
            "UPDATE dead_letters SET code = 9",
            "DELETE FROM dead_letters",
        ),
    ] {
        assert!(run(change).await.is_err(), "{change}");
        assert!(run(removal).await.is_err(), "{removal}");
        run("INSERT INTO retention VALUES (1)").await.unwrap();
        assert!(run(change).await.is_err(), "{change}");
        if removal.ends_with("dead_letters") {
            assert!(run(removal).await.is_err(), "it is open");
            run("UPDATE dead_letters SET status = 'discarded'")
                .await
                .unwrap();
        }
        run(removal).await.unwrap();
        run("DELETE FROM retention").await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told_at_opening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("text.db");
    std::fs::write(&path, "not a database, whatever its name says".repeat(99)).unwrap();
    for path in [path.as_path(), directory.path()] {
        let result = SqliteStore::open(path.to_str().unwrap()).await;
        assert!(matches!(result, Err(StoreError::Open(_))), "{result:?}");
    }
}

#[tokio::test]
async fn a_file_that_may_only_be_read_is_read_and_one_without_tables_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kept.db");
    let path = path.to_str().unwrap();
    let store = SqliteStore::open(path).await.unwrap();
    let batch = sample::batch(vec![sample::new_saga(1, "a", 2)]);
    store.commit(batch).await.unwrap();
    store.close().await;
    let read = SqliteStore::open_for(path, AccessMode::Read).await.unwrap();
    assert_eq!(
        read.list(&ListFilter {
            limit: 9,
            ..ListFilter::default()
        })
        .await
        .unwrap()
        .len(),
        1
    );
    let written = read
        .commit(sample::batch(vec![sample::new_saga(2, "b", 1)]))
        .await;
    assert!(written.is_err(), "it was opened to read");
    read.close().await;

    let empty = directory.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    for access in [AccessMode::Read, AccessMode::Write] {
        let refused = SqliteStore::open_for(empty.to_str().unwrap(), access).await;
        let missing = matches!(refused, Err(StoreError::Schema(SchemaError::Missing)));
        assert!(missing, "{access:?}: {refused:?}");
        let made = std::fs::metadata(&empty).unwrap().len();
        assert!(made == 0 || access != AccessMode::Read, "nothing is made");
    }
}

#[test]
fn a_busy_or_full_disk_passes_and_a_damaged_file_does_not() {
    for code in ["5", "261", "6", "10", "266", "13"] {
        assert!(is_passing(Some(code)), "{code}");
    }
    for code in ["11", "26", "2067", "1", "x"] {
        assert!(!is_passing(Some(code)), "{code}");
    }
    assert!(!is_passing(None));
}

#[tokio::test]
async fn a_file_of_an_older_version_keeps_its_sagas() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    let path = path.to_str().unwrap();
    let writer = pool(1)
        .connect_with(options(path).unwrap().unwrap())
        .await
        .unwrap();
    let older = MIGRATIONS.into_iter().filter(|(number, ..)| *number < 4);
    let migrator = Migrator::with_migrations(older.map(migration).collect());
    migrator.run(&writer).await.unwrap();
    let mut head = sample::new_saga(1, "a", 1).head;
    sqlx::query(
        "INSERT INTO sagas (
            id, name, version, key, input_hash, status, reason, revision, head_hash, started_at,
            updated_at, ended_at, wake_at
        ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(head.id.0)
    .bind(head.name.clone())
    .bind(i64::from(head.version))
    .bind(head.key.clone())
    .bind(head.input_hash.to_vec())
    .bind(head.status.as_str())
    .bind("why")
    .bind(rows::signed(head.revision))
    .bind(head.head_hash.to_vec())
    .bind(head.started_at.as_micros())
    .bind(head.updated_at.as_micros())
    .bind(None::<i64>)
    .bind(head.wake_at.map(crate::id::Timestamp::as_micros))
    .execute(&writer)
    .await
    .unwrap();
    writer.close().await;
    let store = SqliteStore::open(path).await.unwrap();
    head.reason = Some("why".to_owned());
    let found = store.load(&[sample::after(1, 1)]).await.unwrap().remove(0);
    assert_eq!(found.unwrap().head, head);
    let second = store.commit(sample::batch(vec![sample::new_saga(2, "a", 1)]));
    assert_eq!(second.await.unwrap().conflicts.len(), 1, "its key is held");
    store.close().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new.db");
    let store = SqliteStore::open(path.to_str().unwrap()).await.unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, FILE_MODE, "{}", file.path().display());
    }
    store.close().await;
}
