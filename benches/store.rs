//! How many transitions a second each store commits.
//!
//! A transition is what one reply causes: a saga's row updated, a journal entry and an outbox row
//! inserted, an outbox row of an earlier one deleted. Run with `cargo bench --bench store`, and
//! `-- sqlite` or `-- postgres` for one of them; PostgreSQL is measured if
//! `BACKSTITCH_TEST_POSTGRES` names a server (in the database of that URL, which should be an
//! empty one). CPU time is this process's own, without PostgreSQL's.

use std::time::{Duration, Instant};

use backstitch::store::conformance::sample;
use backstitch::store::postgres::{PostgresOptions, PostgresStore};
use backstitch::store::sqlite::SqliteStore;
use backstitch::store::{Commit, SagaWrite, Store};
use bytes::Bytes;
use futures_util::future::join_all;
use uuid::Uuid;

/// Open sagas of each writer.
const SAGAS: usize = 2_000;
/// How long each shape is measured.
const MEASURED: Duration = Duration::from_secs(4);
/// A journal entry's or message's body, in bytes.
const BODY_BYTES: usize = 300;

#[tokio::main]
async fn main() {
    let only = |name: &str| std::env::args().any(|argument| argument == name);
    if !only("postgres") {
        measure_sqlite().await;
    }
    if !only("sqlite") {
        measure_postgres().await;
    }
}

async fn measure_sqlite() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("bench.db");
    let sqlite = SqliteStore::open(path.to_str().expect("a UTF-8 path"));
    let sqlite = sqlite.await.expect("SQLite opens");
    for batch in [1, 50, 200, 1_000] {
        measure("SQLite", &sqlite, 1, batch).await;
    }
}

async fn measure_postgres() {
    let Ok(url) = std::env::var("BACKSTITCH_TEST_POSTGRES") else {
        eprintln!("BACKSTITCH_TEST_POSTGRES is not set: PostgreSQL is not measured");
        return;
    };
    let postgres = PostgresStore::open(&url, PostgresOptions::default());
    let postgres = postgres.await.expect("PostgreSQL opens");
    for (writers, batch) in [(1, 1), (1, 50), (2, 50), (1, 200), (2, 200), (2, 1_000)] {
        measure("PostgreSQL", &postgres, writers, batch).await;
    }
}

async fn measure(name: &str, store: &dyn Store, writers: usize, batch: usize) {
    let loads = (0..writers).map(|_| Load::start(store, batch));
    let mut loads = join_all(loads).await;
    let (start, cpu_start) = (Instant::now(), cpu_micros());
    let counts = join_all(loads.iter_mut().map(|load| load.run(store, start))).await;
    let count: u32 = counts.iter().sum();
    let per_second = f64::from(count) / start.elapsed().as_secs_f64();
    let cpu = (cpu_micros() - cpu_start) / f64::from(count);
    println!(
        "{name:10}  writers {writers}  batch {batch:5}  {per_second:9.0} transitions/s  \
        {cpu:6.1} us CPU each"
    );
}

/// CPU time of this process so far; 0 where there is no `/proc`.
fn cpu_micros() -> f64 {
    const MICROS_PER_TICK: f64 = 10_000.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|text| text.parse::<f64>().ok())
        .sum::<f64>()
        * MICROS_PER_TICK
}

/// One writer's sagas, each as it was last written.
struct Load {
    sagas: Vec<SagaWrite>,
    sent: Vec<Uuid>,
    batch: usize,
}

impl Load {
    async fn start(store: &dyn Store, batch: usize) -> Self {
        let sagas: Vec<_> = (0..SAGAS.max(batch))
            .map(|_| {
                let mut write = sample::new_saga(0, &Uuid::now_v7().to_string(), 1);
                write.head.id.0 = Uuid::now_v7();
                write
            })
            .collect();
        let outcome = store.commit(sample::batch(sagas.clone())).await;
        assert!(outcome.expect("sagas start").conflicts.is_empty());
        Self {
            sagas,
            sent: Vec::new(),
            batch,
        }
    }

    async fn run(&mut self, store: &dyn Store, start: Instant) -> u32 {
        let mut count = 0;
        let mut position = 0;
        while start.elapsed() < MEASURED {
            let mut commit = Commit {
                sent: std::mem::take(&mut self.sent),
                ..Commit::default()
            };
            for _ in 0..self.batch {
                let saga = &mut self.sagas[position];
                *saga = transition(saga);
                self.sent.extend(saga.outbox.iter().map(|row| row.id));
                commit.sagas.push(saga.clone());
                position = (position + 1) % self.sagas.len();
                count += 1;
            }
            let outcome = store.commit(commit).await.expect("a batch is stored");
            assert!(outcome.conflicts.is_empty());
        }
        count
    }
}

fn transition(saga: &SagaWrite) -> SagaWrite {
    let mut next = sample::next(saga, 1);
    next.entries[0].body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let mut message = sample::outbox(0);
    message.id = Uuid::now_v7();
    message.message.body = Bytes::from(vec![b'x'; BODY_BYTES]);
    next.outbox = vec![message];
    next
}
