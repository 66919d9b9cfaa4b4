//! The store's suite on a real PostgreSQL, and what only PostgreSQL does.
//!
//! Each test has a database of its own on the server of `BACKSTITCH_TEST_POSTGRES`, and drops it
//! when it succeeds: what a failed one leaves behind can be looked at.

use backstitch::id::Timestamp;
use backstitch::store::conformance::{Complete, Fixture, sample};
use backstitch::store::participant::{ParticipantStore, ParticipantWrites, Write};
use backstitch::store::postgres::{PostgresOptions, PostgresStore, migrate};
use backstitch::store::{Commit, Conflict, Outbox, Store, StoreError};
use futures_util::future::{join, join_all};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

struct Database {
    store: PostgresStore,
    name: String,
    url: String,
}

impl Database {
    async fn open() -> Self {
        let server = server();
        let name = format!("backstitch_{}", Uuid::now_v7().simple());
        execute(
            &server,
            &format!("CREATE DATABASE {name} TEMPLATE template0"),
        )
        .await;
        let url = with_database(&server, &name);
        let options = PostgresOptions::default();
        let store = PostgresStore::open(&url, options).await.unwrap();
        Self { store, name, url }
    }

    /// Runs SQL beside the store.
    async fn run(&self, sql: &str) -> sqlx::Result<()> {
        let mut connection = PgConnection::connect(&self.url).await?;
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await?;
        connection.close().await
    }

    async fn number(&self, sql: &str) -> i64 {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let query = sqlx::query_scalar(AssertSqlSafe(sql));
        query.fetch_one(&mut connection).await.unwrap()
    }
}

#[async_trait::async_trait]
impl Fixture for Database {
    fn store(&self) -> &dyn Complete {
        &self.store
    }

    async fn close(self) {
        self.store.close().await;
        execute(
            &server(),
            &format!("DROP DATABASE {} WITH (FORCE)", self.name),
        )
        .await;
    }
}

fn server() -> String {
    std::env::var("BACKSTITCH_TEST_POSTGRES")
        .expect("BACKSTITCH_TEST_POSTGRES is not set: run ./test, which starts a PostgreSQL")
}

/// The server's URL with another database.
fn with_database(server: &str, name: &str) -> String {
    let (url, query) = server
        .split_once('?')
        .map_or((server, None), |(url, query)| (url, Some(query)));
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let authority = rest.split('/').next().unwrap_or_default();
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    format!("{scheme}://{authority}/{name}{query}")
}

async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let statement = sqlx::raw_sql(AssertSqlSafe(sql));
    statement.execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

backstitch::store_conformance!(Database::open);

#[tokio::test]
async fn history_can_be_removed_by_retention_and_changed_by_no_one() {
    let database = Database::open().await;
    let commit = Commit {
        sagas: vec![sample::new_saga(1, "a", 2)],
        dead_letters: vec![sample::dead_letter(1)],
        ..Commit::default()
    };
    database.store.commit(commit).await.unwrap();
    let retention = "SET backstitch.retention = 'on';";
    for table in ["journal", "dead_letters"] {
        for change in ["DELETE FROM", "TRUNCATE", "UPDATE"] {
            let set = if change == "UPDATE" { "SET at = 0" } else { "" };
            let sql = format!("{change} {table} {set}");
            assert!(database.run(&sql).await.is_err(), "{sql}");
        }
        let update = format!("{retention} UPDATE {table} SET at = 0");
        assert!(database.run(&update).await.is_err(), "{update}");
        let removal = format!("{retention} DELETE FROM {table}");
        if table == "dead_letters" {
            assert!(database.run(&removal).await.is_err(), "it is open");
            let discard = "UPDATE dead_letters SET status = 'discarded'";
            database.run(discard).await.unwrap();
        }
        database.run(&removal).await.unwrap();
    }
    database.close().await;
}

#[tokio::test]
async fn nodes_that_start_together_migrate_once() {
    let server = server();
    let name = format!("backstitch_{}", Uuid::now_v7().simple());
    execute(
        &server,
        &format!("CREATE DATABASE {name} TEMPLATE template0"),
    )
    .await;
    let url = with_database(&server, &name);
    let open = || PostgresStore::open(&url, PostgresOptions::default());
    let (opened, migrated) = join(join_all((0..3).map(|_| open())), migrate(&url)).await;
    migrated.unwrap();
    for store in opened {
        store.unwrap().close().await;
    }
    execute(&server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

#[tokio::test]
async fn a_step_that_changes_no_status_stays_within_its_page() {
    let database = Database::open().await;
    let first = sample::new_saga(1, "a", 1);
    let second = sample::next(&first, 1);
    let third = sample::next(&second, 1);
    for write in [first, second, third] {
        database
            .store
            .commit(sample::batch(vec![write]))
            .await
            .unwrap();
    }
    // A session's statistics are there once it has ended.
    let hot = "
        SELECT count(*) FROM pg_stat_user_tables
        WHERE relname = 'sagas' AND n_tup_upd = 2 AND n_tup_hot_upd = 2";
    database.store.close().await;
    for _ in 0..1_000 {
        if database.number(hot).await == 1 {
            database.close().await;
            return;
        }
    }
    panic!("the updates were not HOT");
}

#[tokio::test]
async fn rows_inserted_by_two_transactions_at_once_are_a_conflict_for_the_second() {
    let database = Database::open().await;
    let stock = sample::stock("a", 1);
    let insert = || ParticipantWrites {
        aggregates: vec![Write::Insert(stock.clone())],
        ..ParticipantWrites::default()
    };
    let keys = [stock.key.clone()];
    let mut first = database.store.begin().await.unwrap();
    let mut second = database.store.begin().await.unwrap();
    for transaction in [&mut first, &mut second] {
        let loaded = transaction.load(&[], &keys).await.unwrap();
        assert_eq!(loaded.aggregates, []);
    }
    first.commit(insert()).await.unwrap();
    let result = second.commit(insert()).await;
    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    database.close().await;
}

#[tokio::test]
async fn a_deadlock_is_told_as_unavailable_and_the_batch_can_be_repeated() {
    let database = Database::open().await;
    let rows = ["a", "b"].map(|id| sample::stock(id, 1));
    let setup = ParticipantWrites {
        aggregates: rows.iter().cloned().map(Write::Insert).collect(),
        ..ParticipantWrites::default()
    };
    let transaction = database.store.begin().await.unwrap();
    transaction.commit(setup).await.unwrap();
    let [a, b] = rows.map(|row| [row.key]);
    let mut first = database.store.begin().await.unwrap();
    let mut second = database.store.begin().await.unwrap();
    first.load(&[], &a).await.unwrap();
    second.load(&[], &b).await.unwrap();
    let crossing =
        async |mut transaction: Box<dyn backstitch::store::participant::ParticipantTransaction>,
               keys| { transaction.load(&[], keys).await.map(drop) };
    let results = join(crossing(first, &b), crossing(second, &a)).await;
    let lost: Vec<_> = [results.0, results.1]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert!(matches!(lost[..], [StoreError::Unavailable(_)]), "{lost:?}");
    database.close().await;
}

#[tokio::test]
async fn plans_from_before_a_migration_cost_one_failure_and_not_the_node() {
    let database = Database::open().await;
    let first = sample::new_saga(1, "a", 1);
    database
        .store
        .commit(sample::batch(vec![first]))
        .await
        .unwrap();
    let load = || async { database.store.load(&[sample::whole(1)]).await };
    // Connections have the plan; the pool may have opened some that nobody has used yet.
    for loaded in join_all((0..10).map(|_| load())).await {
        loaded.unwrap();
    }
    let change = "ALTER TABLE sagas ALTER COLUMN name TYPE varchar(200)";
    database.run(change).await.unwrap();
    let loads = join_all((0..10).map(|_| load())).await;
    let failed: Vec<_> = loads.into_iter().filter_map(Result::err).collect();
    assert!(!failed.is_empty(), "no connection had the plan");
    for error in &failed {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
    for loaded in join_all((0..10).map(|_| load())).await {
        assert!(loaded.unwrap()[0].is_some());
    }
    database.close().await;
}

#[tokio::test]
async fn a_lost_connection_is_unavailable_and_the_next_call_has_a_new_one() {
    let database = Database::open().await;
    let mut transaction = database.store.begin().await.unwrap();
    transaction
        .load(&[], &[sample::article("a")])
        .await
        .unwrap();
    let kill = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = '{}' AND pid <> pg_backend_pid()",
        database.name
    );
    database.run(&kill).await.unwrap();
    let lost = transaction.commit(ParticipantWrites {
        aggregates: vec![Write::Insert(sample::stock("a", 1))],
        ..ParticipantWrites::default()
    });
    let lost = lost.await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    let write = sample::new_saga(1, "a", 1);
    let batch = || sample::batch(vec![write.clone()]);
    // Each connection that was killed while idle may cost a call its turn.
    let mut stored = database.store.commit(batch()).await;
    for _ in 0..10 {
        if matches!(stored, Err(StoreError::Unavailable(_))) {
            stored = database.store.commit(batch()).await;
        }
    }
    assert_eq!(stored.unwrap().conflicts, []);
    let again = database.store.commit(batch()).await.unwrap();
    assert_eq!(again.conflicts, [(write.head.id, Conflict::Revision)]);
    database.close().await;
}

#[tokio::test]
async fn a_pool_without_a_free_connection_is_unavailable() {
    let database = Database::open().await;
    let options = PostgresOptions {
        connections_max: 1,
        acquire_timeout: std::time::Duration::from_millis(50),
        ..PostgresOptions::default()
    };
    let store = PostgresStore::open(&database.url, options).await.unwrap();
    let held = store.begin().await.unwrap();
    let result = store.outbox_len().await;
    assert!(
        matches!(result, Err(StoreError::Unavailable(_))),
        "{result:?}"
    );
    drop(held);
    store.close().await;
    database.close().await;
}

#[tokio::test]
async fn what_is_locked_is_left_to_the_next_sweep_and_the_next_claim() {
    let database = Database::open().await;
    let commit = Commit {
        sagas: vec![sample::new_saga(1, "a", 1), sample::new_saga(2, "b", 1)],
        outbox: vec![sample::outbox(1), sample::outbox(2)],
        ..Commit::default()
    };
    database.store.commit(commit).await.unwrap();
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    let mut locking = other.begin().await.unwrap();
    for table in ["sagas", "outbox"] {
        let sql = format!("SELECT id FROM {table} ORDER BY id LIMIT 1 FOR UPDATE");
        let query = sqlx::raw_sql(AssertSqlSafe(sql));
        query.execute(&mut *locking).await.unwrap();
    }
    let end = Timestamp::from_micros(i64::MAX - 1);
    let claimed = database.store.claim_due(end, end, 9).await.unwrap();
    assert_eq!(claimed, [sample::saga(2)]);
    let swept = database.store.sweep_outbox(end, end, 9).await.unwrap();
    assert_eq!(swept.len(), 1);
    assert_eq!(swept[0].id, sample::uuid(2));
    drop(locking);
    drop(other);
    database.close().await;
}

#[tokio::test]
async fn an_url_that_leads_nowhere_is_told_at_opening() {
    let open = async |url: &str| PostgresStore::open(url, PostgresOptions::default()).await;
    let malformed = open("postgres://host:port/x").await;
    assert!(
        matches!(malformed, Err(StoreError::Open(_))),
        "{malformed:?}"
    );
    let missing = open(&with_database(&server(), "no_such_database")).await;
    assert!(matches!(missing, Err(StoreError::Open(_))), "{missing:?}");
    // Port 1 is never PostgreSQL's.
    let refused = open("postgres://localhost:1/x").await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_databases_clock_is_told_in_microseconds() {
    let database = Database::open().await;
    let first = database.store.clock().await.unwrap().unwrap();
    let own = Timestamp::from_micros(jiff::Timestamp::now().as_microsecond());
    let minute = std::time::Duration::from_mins(1);
    assert!(
        first.since(own).max(own.since(first)) < minute,
        "{first} {own}"
    );
    let second = database.store.clock().await.unwrap().unwrap();
    assert!(second >= first);
    database.close().await;
}

#[tokio::test]
async fn an_event_that_is_committed_late_is_not_skipped() {
    use backstitch::store::feed::{EventFeed, EventQuery, Position};
    use backstitch::store::participant::{ParticipantStore, ParticipantWrites};

    let database = Database::open().await;
    let store = &database.store;
    let append = async |id: &str| {
        let writes = ParticipantWrites {
            events: vec![sample::event(id, 1)],
            ..ParticipantWrites::default()
        };
        store.begin().await.unwrap().commit(writes).await.unwrap();
    };
    let read = async |after: Position| {
        let query = EventQuery {
            kinds: Vec::new(),
            correlation: None,
            after,
            upto: store.settled().await.unwrap(),
            limit: 100,
        };
        let events = store.events(&query).await.unwrap().events;
        let ids = events.iter().map(|placed| placed.event.key.id.clone());
        (ids.collect::<Vec<_>>(), query.upto)
    };
    append("first").await;
    // The row of another writer, whose position is drawn and whose commit is late.
    let mut late = PgConnection::connect(&database.url).await.unwrap();
    let begin = "SET search_path = backstitch; BEGIN;
        INSERT INTO aggregate_events (kind, id, seq, at, body) VALUES ('inventory', 'late', 1, 8, 'x')";
    sqlx::raw_sql(begin).execute(&mut late).await.unwrap();
    append("overtakes").await;
    let (before, upto) = read(Position::START).await;
    assert!(
        !before.contains(&"overtakes".to_owned()),
        "{before:?}: it would be skipped"
    );
    sqlx::raw_sql("COMMIT").execute(&mut late).await.unwrap();
    let (mut seen, mut after) = (before, upto);
    while seen.len() < 3 {
        let (more, upto) = read(after).await;
        seen.extend(more);
        after = upto;
    }
    assert_eq!(seen, ["first", "late", "overtakes"]);
    late.close().await.unwrap();
    database.close().await;
}
