//! A database that is there and is not: silent connections, a server that takes no writes, rows
//! that somebody holds, statements that take too long. A node must get on as soon as it can, say
//! meanwhile that it does not, and end when it is told to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch::broker::memory::MemoryBroker;
use backstitch::broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use backstitch::broker::{Broker, Health, Outgoing, Published};
use backstitch::definition::parse;
use backstitch::engine::{Engine, EngineOptions, EngineParts, StartAnswer};
use backstitch::environment::TokioEnvironment;
use backstitch::message::{Destination, Message, Properties, START_QUEUE};
use backstitch::store::postgres::{PostgresOptions, PostgresStore};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::runtime::Runtime;

use crate::fixture::{
    Backends, Command, Database, Node, PATIENCE, SilentProxy, VirtualHost, eventually, get,
    repository,
};

/// Waits for a signal once begun, so that its sagas stand still.
const JOB: &str = "
saga: job
version: 1
key: ${ input.id }
input: { type: object, required: [id], properties: { id: { type: string } } }
timeout: 30d
steps:
  - wait: said
";

/// First progress after it has become possible.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// Longest pause of what is not concerned.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Longest time from SIGTERM to the end.
const END_MAX: Duration = Duration::from_secs(10);

/// A node in this process, on a database by way of a proxy.
struct Bundle {
    engine: Arc<Engine>,
    broker: MemoryBroker,
    proxy: SilentProxy,
    database: Database,
    runtime: Runtime,
}

impl Bundle {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let database = Database::create();
        let proxy = SilentProxy::start(&database.url);
        let broker = MemoryBroker::new();
        let engine = runtime.block_on(async {
            let options = PostgresOptions::default();
            let store = PostgresStore::open(&proxy.url, options).await.unwrap();
            let definition = parse(JOB, "job.yaml").unwrap_or_else(|why| panic!("{why}"));
            let parts = EngineParts {
                environment: Arc::new(TokioEnvironment),
                store: Arc::new(store),
                broker: Arc::new(broker.clone()),
                definitions: vec![definition.into()],
                options: EngineOptions::default(),
            };
            Engine::start(parts).await.unwrap()
        });
        Self {
            engine,
            broker,
            proxy,
            database,
            runtime,
        }
    }

    /// Starts a saga by HTTP's way.
    fn starts(&self, id: &str) -> bool {
        let starting = self.engine.start_saga("job", json!({ "id": id }));
        let answer = self.runtime.block_on(starting);
        matches!(
            answer,
            Ok(StartAnswer::Started(_) | StartAnswer::Existing(..))
        )
    }

    /// Has sagas started by messages.
    fn send_starts(&self, ids: impl Iterator<Item = String>) {
        let starts = ids.map(|id| Outgoing {
            destination: Destination::queue(START_QUEUE),
            message: Message {
                properties: Properties {
                    kind: Some("job".to_owned()),
                    message_id: Some(id.clone()),
                    ..Properties::default()
                },
                body: json!({ "id": id }).to_string().into(),
            },
            mandatory: true,
        });
        let published = self.runtime.block_on(self.broker.publish(starts.collect()));
        assert!(published.iter().all(|word| *word == Published::Confirmed));
    }

    fn stored(&self, prefix: &str) -> i64 {
        self.database.query(async |connection| {
            sqlx::query_scalar("SELECT count(*) FROM backstitch.sagas WHERE key LIKE $1 || '%'")
                .bind(prefix)
                .fetch_one(connection)
                .await
        })
    }

    fn is_in_trouble(&self) -> bool {
        !self.engine.hindrances().is_empty()
    }

    /// Takes a lock, or does anything else, in a transaction that stays open.
    fn hold(&self, sql: &str) -> PgConnection {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.database.url).await.unwrap();
            let sql = format!("BEGIN; {sql}");
            let begun = sqlx::raw_sql(AssertSqlSafe(sql));
            begun.execute(&mut connection).await.unwrap();
            connection
        })
    }

    fn stop(self) {
        self.runtime.block_on(self.engine.stop());
    }
}

#[track_caller]
fn within(what: &str, most: Duration, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    eventually(what, PATIENCE, || done().then_some(()));
    let took = began.elapsed();
    assert!(took <= most, "{what}: after {took:?}, not within {most:?}");
}

#[test]
fn connections_that_fell_silent_are_replaced() {
    let node = Bundle::start();
    assert!(node.starts("before"));
    node.proxy.forget();
    node.send_starts((0..20).map(|n| format!("message-{n}")));
    within("a start is answered", RECOVERY_MAX, || node.starts("after"));
    within("so are messages", RECOVERY_MAX, || {
        node.stored("message-") == 20
    });
    within("it is well", RECOVERY_MAX, || !node.is_in_trouble());
    node.stop();
}

#[test]
fn a_node_that_has_lost_its_database_gives_its_messages_back_once_and_takes_them_again() {
    let node = Bundle::start();
    node.send_starts(std::iter::once("before".to_owned()));
    eventually("it has begun", PATIENCE, || {
        (node.stored("before") == 1).then_some(())
    });
    node.proxy.fall_silent();
    node.send_starts((0..20).map(|n| format!("message-{n}")));
    let broker = &node.broker;
    eventually("it has taken the messages", PATIENCE, || {
        (broker.unacked(START_QUEUE) == 20).then_some(())
    });
    let soon = Duration::from_secs(10);
    within("it gives them back", soon, || {
        broker.queue_len(START_QUEUE) == 20 && broker.unacked(START_QUEUE) == 0
    });
    assert!(node.is_in_trouble());
    assert!(!node.starts("during"), "there is no database");
    assert_eq!(broker.queue_len(START_QUEUE), 20, "they were taken again");
    node.proxy.speak();
    within("messages are handled", RECOVERY_MAX, || {
        node.stored("message-") == 20
    });
    within("it is well", RECOVERY_MAX, || !node.is_in_trouble());
    node.stop();
}

#[test]
fn a_server_that_takes_no_writes_is_noticed_and_forgiven_once_it_takes_them() {
    let node = Bundle::start();
    assert!(node.starts("before"));
    let name = node.database.name().to_owned();
    let set = |value: &str| {
        let setting = "default_transaction_read_only";
        node.database
            .execute_beside(&format!("ALTER DATABASE {name} SET {setting} = {value}"));
    };
    set("on");
    node.database.execute_beside(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    ));
    within("it says so", RECOVERY_MAX, || node.is_in_trouble());
    assert!(!node.starts("during"));
    // Sessions that began read-only stay so: only new ones are better.
    set("off");
    within("a start is answered", RECOVERY_MAX, || node.starts("after"));
    within("it is well", RECOVERY_MAX, || !node.is_in_trouble());
    node.stop();
}

#[test]
fn what_somebody_holds_is_waited_for_alone() {
    let node = Bundle::start();
    assert!(node.starts("held"));
    let holds = node.hold("SELECT id FROM backstitch.sagas WHERE key = 'held' FOR UPDATE");
    let inserts = node.hold(
        "INSERT INTO backstitch.sagas (id, name, version, key, input_hash, status, revision, head_hash,
             started_at, updated_at, superseded)
         SELECT gen_random_uuid(), name, version, 'taken', input_hash, status, revision, head_hash,
             started_at, updated_at, superseded FROM backstitch.sagas WHERE key = 'held'",
    );
    let engine = Arc::clone(&node.engine);
    let signalled = node.runtime.spawn(async move {
        let key = backstitch::store::SagaKey {
            name: "job".to_owned(),
            key: "held".to_owned(),
        };
        let to = backstitch::engine::Addressee::Key(key);
        let id = "said-1".to_owned();
        engine.signal(to, "said", id, json!({})).await
    });
    let mut ids: Vec<String> = (0..200).map(|n| format!("free-{n}")).collect();
    ids.insert(100, "taken".to_owned());
    node.send_starts(ids.into_iter());
    within("the others go on", PAUSE_MAX, || {
        node.stored("free-") == 200
    });
    for n in 0..5 {
        within("starts are answered", PAUSE_MAX, || {
            node.starts(&format!("late-{n}"))
        });
    }
    assert!(!signalled.is_finished(), "its saga is held");
    drop((holds, inserts));
    let heard = node.runtime.block_on(signalled).unwrap();
    assert!(heard.is_ok(), "{heard:?}");
    within("the key is free again", PAUSE_MAX, || {
        node.stored("taken") == 1
    });
    node.stop();
}

#[test]
fn a_message_over_which_the_database_takes_too_long_is_set_aside_alone() {
    let node = Bundle::start();
    let name = node.database.name();
    node.database.execute(&format!(
        "ALTER DATABASE {name} SET statement_timeout = '400ms';
         CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM count(*) FROM generate_series(1, 1000000000); RETURN NEW; END $$;
         CREATE TRIGGER dawdles BEFORE INSERT ON backstitch.sagas
             FOR EACH ROW WHEN (NEW.key = 'slow') EXECUTE FUNCTION dawdle()"
    ));
    // For connections that know of the limit.
    node.proxy.forget();
    within("a start is answered", RECOVERY_MAX, || node.starts("x"));
    let mut ids: Vec<String> = (0..100).map(|n| format!("free-{n}")).collect();
    ids.insert(50, "slow".to_owned());
    node.send_starts(ids.into_iter());
    eventually("all others are done", PATIENCE, || {
        (node.stored("free-") == 100).then_some(())
    });
    eventually("the one is a letter", PATIENCE, || {
        (node.database.dead_letter_codes() == [91]).then_some(())
    });
    assert_eq!(node.stored("slow"), 0);
    node.stop();
}

#[test]
fn a_broker_that_was_silent_is_back_at_once_although_attempts_wait_for_its_answer() {
    let host = VirtualHost::create();
    let proxy = SilentProxy::start(&host.url);
    let runtime = Runtime::new().expect("a runtime starts");
    let url = format!("{}?heartbeat=1", proxy.url);
    let options = RabbitMqOptions::default();
    let connecting = RabbitMqBroker::connect(&url, options);
    let broker = runtime.block_on(connecting).unwrap();
    proxy.fall_silent();
    eventually("an attempt waits for an answer", PATIENCE, || {
        let is_down = matches!(broker.health(), Health::Down(_));
        (is_down && proxy.dead_ends() >= 2).then_some(())
    });
    proxy.speak();
    within("it is back", RECOVERY_MAX, || broker.health() == Health::Up);
    runtime.block_on(broker.close());
}

#[test]
fn a_process_whose_database_is_silent_says_so_and_ends_when_told_to() {
    let backends = Backends::create();
    let proxy = SilentProxy::start(&backends.database.url);
    let address = crate::fixture::free_address();
    let command = Command::backstitch(["serve", "--listen", &address, "--sagas"])
        .with(repository("sagas"))
        .on(&backends)
        .with("--database-url")
        .with(&proxy.url);
    let mut node = Node::start(&command);
    let ready = format!("http://{address}/readyz");
    let says = |status: u16| matches!(get(&ready), Ok((said, _)) if said == status);
    eventually("it is ready", PATIENCE, || says(200).then_some(()));
    proxy.fall_silent();
    within("it is not ready", RECOVERY_MAX, || says(503));
    let told = Instant::now();
    node.terminate();
    let took = told.elapsed();
    assert!(took <= END_MAX, "it ended after {took:?}");
}
