//! `backstitch verify` against somebody who may do anything in the database: rows without a saga, and
//! dead letters that the audit log knows otherwise.

use std::fs;
use std::str::FromStr;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::fixture::{Backends, Command, blocking, finish, told};

/// Either database, with six letters that were imported, of which one is discarded and one edited.
enum Shop {
    Postgres(Box<Backends>),
    Sqlite(TempDir),
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number)
}

impl Shop {
    fn open(shop: Self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("letters.jsonl");
        let lines: Vec<String> = (1..=6)
            .map(|number| {
                json!({
                    "id": id(number), "at": "2026-01-01T00:00:00Z", "queue": "dlq", "code": 50,
                    "reason": "rejected", "properties": { "message_id": number.to_string() },
                    "body": "e30=",
                })
                .to_string()
            })
            .collect();
        fs::write(&file, lines.join("\n")).unwrap();
        let file = file.to_str().unwrap();
        let patch = r#"[{"op":"replace","path":"/body","value":{"mended":1}}]"#;
        let (one, two) = (id(1).to_string(), id(2).to_string());
        for words in [
            vec!["import", file, "--why", "a test"],
            vec!["discard", &one, "--why", "a test"],
            vec!["edit", &two, "--patch", patch, "--why", "a test"],
        ] {
            let output = finish(&shop.command("dead-letters", &words));
            assert!(output.status.success(), "{}", told(&output));
        }
        shop
    }

    fn command(&self, name: &str, words: &[&str]) -> Command {
        let command = Command::backstitch([name].iter().chain(words).copied());
        command.database(match self {
            Self::Postgres(backends) => backends.database.url.clone(),
            Self::Sqlite(folder) => self::file(folder),
        })
    }

    fn verify(&self) -> (i32, Value) {
        let output = finish(&self.command("verify", &["--json"]));
        let summary = serde_json::from_slice(&output.stdout);
        let summary = summary.unwrap_or_else(|_| told(&output).into());
        (output.status.code().unwrap(), summary)
    }

    /// Runs a statement as if there were no triggers. `{N}` is letter N.
    fn tamper(&self, statement: &str) {
        let mut statement = statement.to_owned();
        for number in 1..=9 {
            let simple = id(number).simple();
            let name = match self {
                Self::Postgres(_) => format!("'{simple}'::uuid"),
                Self::Sqlite(_) => format!("x'{simple}'"),
            };
            statement = statement.replace(&format!("{{{number}}}"), &name);
        }
        let (bytes, off) = match self {
            Self::Postgres(_) => (r"'\x00'::bytea", "SET session_replication_role = replica; "),
            Self::Sqlite(_) => (
                "x'00'",
                "DROP TRIGGER IF EXISTS dead_letters_update; DROP TRIGGER IF EXISTS dead_letters_delete; ",
            ),
        };
        let statement = format!("{off}{}", statement.replace("{bytes}", bytes));
        match self {
            Self::Postgres(backends) => blocking(async || {
                let mut connection = PgConnection::connect(&backends.database.url).await?;
                sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
                    .execute(&mut connection)
                    .await
            })
            .map(drop),
            Self::Sqlite(folder) => blocking(async || {
                let options = SqliteConnectOptions::from_str(&self::file(folder))?;
                let mut connection = options.connect().await?;
                sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
                    .execute(&mut connection)
                    .await
            })
            .map(drop),
        }
        .unwrap();
    }
}

fn file(folder: &TempDir) -> String {
    format!("sqlite:{}", folder.path().join("letters.db").display())
}

/// Each change is found, says which letter it is and in what it differs; they add up.
fn is_found(shop: &Shop) {
    let (exit, summary) = shop.verify();
    assert_eq!(exit, 0, "{summary}");
    let expected = json!({ "letters": 6, "flawed": 0, "findings": [] });
    assert_eq!(summary["dead_letters"], expected);
    let copy = "INSERT INTO dead_letters (id, at, queue, code, reason, properties, body, fingerprint, body_bytes)
        SELECT {7}, at, queue, code, reason, properties, body, fingerprint, body_bytes
        FROM dead_letters WHERE id = {6}";
    let changes = [
        (
            "UPDATE dead_letters SET status = 'open' WHERE id = {1}",
            id(1),
            "its row says open, the audit log says discarded",
        ),
        (
            "UPDATE dead_letters SET edits = 0 WHERE id = {2}",
            id(2),
            "the audit log says 1 edits",
        ),
        (
            "UPDATE dead_letters SET body = {bytes} WHERE id = {3}",
            id(3),
            "its message is not the one",
        ),
        (
            "DELETE FROM dead_letters WHERE id = {4}",
            id(4),
            "it is gone",
        ),
        (
            "UPDATE dead_letters SET properties = 'no' WHERE id = {5}",
            id(5),
            "it can't be read",
        ),
        (copy, id(7), "no entry of the audit log says when"),
    ];
    for (done, (statement, ..)) in changes.iter().enumerate() {
        shop.tamper(statement);
        let (exit, summary) = shop.verify();
        assert_eq!(exit, 1, "{statement}: {summary}");
        let letters = &summary["dead_letters"];
        assert_eq!(letters["flawed"], done + 1, "{statement}: {letters}");
        for (statement, letter, flaw) in &changes[..=done] {
            let findings = letters["findings"].as_array().unwrap();
            let finding = findings.iter().find(|it| it["letter"] == json!(letter));
            let told = finding.unwrap_or_else(|| panic!("{statement}: {letters}"))["flaw"].as_str();
            assert!(told.unwrap().contains(flaw), "{statement}: {told:?}");
        }
        assert_eq!(summary["flawed"], 0, "sagas are another matter");
    }
    let lost =
        "INSERT INTO journal (saga_id, seq, at, hash, body) VALUES ({8}, 1, 1, {bytes}, {bytes});
        INSERT INTO snapshots (saga_id, revision, body) VALUES ({9}, 1, {bytes})";
    shop.tamper(lost);
    let (exit, summary) = shop.verify();
    assert_eq!((exit, &summary["flawed"]), (1, &json!(2)), "{summary}");
    for (number, table) in [(8, "journal"), (9, "snapshots")] {
        let findings = summary["findings"].as_array().unwrap();
        let finding = findings
            .iter()
            .find(|it| it["saga_id"] == json!(id(number)));
        let expected = format!("it has rows in `{table}`, and none in `sagas`");
        assert_eq!(finding.unwrap()["flaw"], expected);
    }
    let told = told(&finish(&shop.command("verify", &[])));
    for part in [
        "6 dead letters: 6 are not as the audit log says",
        "BROKEN  dead letter",
        "0 sagas, 0 journal entries: 2 with flaws",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn what_is_changed_behind_the_audit_logs_back_is_found_in_postgresql() {
    is_found(&Shop::open(Shop::Postgres(Box::new(Backends::create()))));
}

#[test]
fn what_is_changed_behind_the_audit_logs_back_is_found_in_sqlite() {
    is_found(&Shop::open(Shop::Sqlite(tempfile::tempdir().unwrap())));
}
