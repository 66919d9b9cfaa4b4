//! Who may do what with the tables: those who only read, those who only write rows, and programs
//! that are a release older than the tables.

use backstitch::store::conformance::sample;
use backstitch::store::postgres::{PostgresOptions, PostgresStore, migrate};
use backstitch::store::schema::SchemaError;
use backstitch::store::{AccessMode, Store, StoreError};
use serde_json::Value;
use uuid::Uuid;

use crate::fixture::{Backends, Command, Database, blocking, finish, repository, told};

/// A role of this server, dropped with this value.
struct Role<'d> {
    name: String,
    database: &'d Database,
}

impl<'d> Role<'d> {
    fn create(database: &'d Database) -> Self {
        let name = format!("looker_{}", Uuid::now_v7().simple());
        database.run(&format!(
            "CREATE ROLE {name} LOGIN PASSWORD 'looker';
             ALTER ROLE {name} SET default_transaction_read_only = on"
        ));
        Self { name, database }
    }

    fn grant(&self, rights: &str) {
        let name = &self.name;
        self.database.run(&format!(
            "GRANT USAGE ON SCHEMA backstitch TO {name};
             GRANT {rights} ON ALL TABLES IN SCHEMA backstitch TO {name}"
        ));
    }

    /// The database's URL with this role in it.
    fn url(&self) -> String {
        let (scheme, rest) = self.database.url.split_once("://").unwrap();
        let (_, host) = rest.split_once('@').unwrap();
        format!("{scheme}://{}:looker@{host}", self.name)
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let name = &self.name;
        let sql = format!("DROP OWNED BY {name}; DROP ROLE {name}");
        self.database.run(&sql);
    }
}

/// Every command that reads.
const READING: &[&[&str]] = &[
    &["list"],
    &["show", "place-order", "demo-0"],
    &["verify"],
    &["dead-letters", "list"],
    &["dead-letters", "groups"],
    &["dead-letters", "stats"],
    &["dead-letters", "export", "--all"],
    &["dead-letters", "audit", "--list"],
    &["dead-letters", "replay", "--queue", "q", "--dry-run"],
];

#[test]
fn reading_takes_no_more_than_select_and_changes_nothing() {
    let backends = Backends::create();
    let database = &backends.database;
    let role = Role::create(database);
    let as_role = |arguments: &[&str]| {
        let command = Command::backstitch(arguments.iter().copied()).database(role.url());
        finish(&command)
    };

    for arguments in READING {
        let output = as_role(arguments);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.contains("BST-0084"), "{arguments:?}: {told}");
        assert!(told.contains("backstitch migrate"), "{arguments:?}: {told}");
        assert!(!told.contains("Check DATABASE_URL"), "{told}");
    }
    let plan = || Command::backstitch(["plan"]).with(repository("sagas"));
    let output = finish(&plan().database(role.url()));
    assert!(output.status.success(), "{}", told(&output));
    assert!(
        told(&output).contains("nothing is stored in"),
        "{}",
        told(&output)
    );
    assert_eq!(
        database.count("pg_namespace WHERE nspname = 'backstitch'"),
        0,
        "looking at an empty database makes nothing"
    );

    let demo = Command::backstitch(["demo", "--orders", "20", "--no-faults", "--json"]);
    assert!(finish(&demo.on(&backends)).status.success());
    let output = as_role(&["list"]);
    let refused = told(&output);
    assert!(refused.contains("lacks a right"), "{refused}");
    role.grant("SELECT");
    let key = database.text("SELECT max(key) FROM sagas WHERE name = 'place-order'");
    for arguments in READING {
        let mut arguments = arguments.to_vec();
        if arguments[0] == "show" {
            arguments[2] = &key;
        }
        let output = as_role(&arguments);
        let told = told(&output);
        assert!(output.status.success(), "{arguments:?}: {told}");
    }
    let output = finish(&plan().database(role.url()));
    assert!(output.status.success(), "{}", told(&output));
    assert!(
        !told(&output).contains("nothing is stored in"),
        "{}",
        told(&output)
    );
    let output = as_role(&[
        "dead-letters",
        "purge",
        "--before",
        "2020-01-01",
        "--why",
        "x",
    ]);
    assert!(!output.status.success(), "it writes: {}", told(&output));
}

#[test]
fn nodes_need_not_own_the_tables() {
    let backends = Backends::create();
    let database = &backends.database;
    let role = Role::create(database);
    database.run(&format!("ALTER ROLE {} RESET ALL", role.name));
    let open = || blocking(async || PostgresStore::open(&role.url(), options()).await);
    let refused = open().err().map(|error| error.to_string());
    assert!(
        refused
            .as_ref()
            .is_some_and(|it| it.contains("backstitch migrate")),
        "{refused:?}"
    );
    blocking(async || migrate(&database.url).await).unwrap();
    role.grant("SELECT, INSERT, UPDATE, DELETE");
    blocking(async || {
        let store = PostgresStore::open(&role.url(), options()).await?;
        let batch = sample::batch(vec![sample::new_saga(1, "a", 2)]);
        store.commit(batch).await?;
        store.close().await;
        Ok::<_, StoreError>(())
    })
    .unwrap();
}

#[test]
fn what_a_newer_release_has_added_is_lived_with_and_what_it_has_changed_is_refused() {
    let backends = Backends::create();
    let database = &backends.database;
    blocking(async || migrate(&database.url).await).unwrap();
    database.run(
        "ALTER TABLE sagas ADD COLUMN later text NOT NULL DEFAULT '';
         CREATE TABLE later (id bigint);
         INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9000, 'later', true, '\\x00', 0)",
    );
    // Each store lives and ends in one runtime.
    let write_with = |access, batch| {
        let options = PostgresOptions {
            access,
            ..options()
        };
        blocking(async || {
            let store = PostgresStore::open(&database.url, options).await?;
            if let Some(batch) = batch {
                store.commit(batch).await?;
            }
            store.close().await;
            Ok::<(), StoreError>(())
        })
    };
    let open = |access| write_with(access, None);
    let all = [AccessMode::Migrate, AccessMode::Write, AccessMode::Read];
    for (access, number) in all.into_iter().zip(1..) {
        let saga = sample::new_saga(number, &number.to_string(), 2);
        let batch = (access != AccessMode::Read).then(|| sample::batch(vec![saga]));
        write_with(access, batch).unwrap();
    }
    assert_eq!(
        blocking(async || migrate(&database.url).await)
            .unwrap()
            .len(),
        0
    );

    database.run("UPDATE compatibility SET oldest = 9000");
    for access in all {
        let refused = open(access).err();
        let too_new = matches!(
            refused,
            Some(StoreError::Schema(SchemaError::TooNew { oldest: 9000, .. }))
        );
        assert!(too_new, "{access:?}: {refused:?}");
    }
}

#[test]
fn the_database_may_be_another_programs_too() {
    let backends = Backends::create();
    let database = &backends.database;
    database.run(
        "CREATE TABLE public._sqlx_migrations (version bigint, of_another text);
         INSERT INTO public._sqlx_migrations VALUES (1, 'program');
         CREATE TABLE public.sagas (id bigint, mine text);
         CREATE TABLE public.outbox (id bigint, mine text)",
    );
    let demo = Command::backstitch(["demo", "--orders", "20", "--no-faults", "--json"]);
    let output = finish(&demo.on(&backends));
    assert!(output.status.success(), "{}", told(&output));
    let ours = "pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = 'public' AND relkind = 'r'";
    assert_eq!(database.count(ours), 3, "nothing of ours among theirs");
    assert_eq!(database.count("public._sqlx_migrations"), 1);
    assert!(database.count("backstitch.sagas") > 0);
}

fn options() -> PostgresOptions {
    PostgresOptions::default()
}

#[test]
fn a_plan_on_a_file_that_is_not_there_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sagas.db");
    let plan = Command::backstitch(["plan", "--json"]).with(repository("sagas"));
    let output = finish(&plan.database(format!("sqlite:{}", file.display())));
    assert!(output.status.success(), "{}", told(&output));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let definitions = plan["definitions"].as_array().unwrap();
    assert!(
        definitions.len() > 10 && definitions.iter().all(|it| it["change"] == "new"),
        "{plan}"
    );
    assert!(!file.exists());
}
