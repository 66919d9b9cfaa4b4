//! `backstitch verify` against somebody who may do anything in the database.

use serde_json::Value;

use crate::fixture::{Backends, Command, finish, told};

#[test]
fn what_an_administrator_changes_or_deletes_is_found() {
    let backends = Backends::create();
    let demo = Command::backstitch(["demo", "--orders", "60", "--no-faults", "--json"]);
    assert!(finish(&demo.on(&backends)).status.success());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sagas.checkpoint");
    let file = file.to_str().unwrap();

    let (exit, sealed) = verify(&backends, &["--checkpoint", file]);
    assert_eq!((exit, &sealed["sagas"]), (0, &60.into()), "{sealed}");
    let root = sealed["root"].as_str().unwrap().to_owned();
    let same = ["--against", file, "--root", &root];
    let (exit, summary) = verify(&backends, &same);
    assert_eq!((exit, &summary["root"]), (0, &sealed["root"]), "{summary}");
    let (exit, _) = verify(&backends, &["--against", file, "--root", "00"]);
    assert_eq!(exit, 1, "another file than the one whose root was noted");

    // One saga goes without a trace; of another, what a reply said is changed.
    tamper(
        &backends,
        &[
            "ALTER TABLE journal DISABLE TRIGGER ALL",
            "DELETE FROM journal WHERE saga_id = (SELECT min(id::text)::uuid FROM sagas)",
            "DELETE FROM sagas WHERE id = (SELECT min(id::text)::uuid FROM sagas)",
        ],
    );
    let (exit, summary) = verify(&backends, &[]);
    assert_eq!(
        (exit, &summary["flawed"]),
        (0, &0.into()),
        "a chain cannot show it"
    );
    let (exit, summary) = verify(&backends, &same);
    assert_eq!((exit, &summary["flawed"]), (1, &1.into()), "{summary}");
    let flaw = summary["findings"][0]["flaw"].as_str().unwrap();
    assert!(flaw.starts_with("it is gone"), "{flaw}");

    tamper(
        &backends,
        &[
            "UPDATE journal SET body = convert_to(replace(convert_from(body, 'UTF8'), 'started', 'Started'), 'UTF8')
             WHERE seq = 1 AND saga_id = (SELECT max(id::text)::uuid FROM sagas)",
        ],
    );
    let (exit, summary) = verify(&backends, &[]);
    assert_eq!((exit, &summary["flawed"]), (1, &1.into()), "{summary}");
    let flaw = summary["findings"][0]["flaw"].as_str().unwrap();
    assert!(
        flaw.starts_with("journal: entry 1 is not what was written"),
        "{flaw}"
    );
}

fn verify(backends: &Backends, arguments: &[&str]) -> (i32, Value) {
    let mut command = Command::backstitch(["verify", "--json"]).on(backends);
    for argument in arguments {
        command = command.with(argument);
    }
    let output = finish(&command);
    let exit = output.status.code().unwrap();
    let summary = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| told(&output).into());
    (exit, summary)
}

fn tamper(backends: &Backends, statements: &'static [&'static str]) {
    backends.database.query(async |connection| {
        for statement in statements {
            sqlx::query(*statement).execute(&mut *connection).await?;
        }
        Ok(())
    });
}
