use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use serde_json::json;

use super::backends::{Database, DatabaseArguments, OpenBroker};
use super::*;
use crate::aggregates::{participants_reading, projections};
use crate::broker::Queue;
use crate::definition::parse_all;
use crate::id::Phase;
use crate::message::Outcome;
use crate::projection::ReadModel;
use crate::saga::Status;
use crate::store::memory::MemoryStore;
use crate::view::tests::Bundle;

/// How a saga looks that is being rolled back.
const SHOWN: &str = include_str!("../../tests/golden/show.txt");

fn parsed(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["backstitch"], arguments].concat())
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn usual_command_lines_are_understood() {
    for line in [
        "serve",
        "serve --sagas s --listen 0.0.0.0:1 --workers 4 --prefetch 9 --cache-mib 64 --with-participants",
        "serve --database-url postgres://h/d --amqp-url amqp://h/%2f --log debug --log-format json",
        "dev --ephemeral",
        "dev --file x.db --stock a=1 --stock b=2 --balance c=3",
        "dev --credit alice=100000 --quota acme=10/3/1000",
        "participants",
        "participants inventory payments --stock a=b=1",
        "check",
        "check sagas other.yaml --json",
        "plan",
        "plan sagas other.yaml --json",
        "start order",
        "start order --input {} --wait --timeout 1m --json --url http://h:1",
        "list --status suspended --name n --key k --limit 7 --before 019a9b2e-0000-7000-8000-000000000000",
        "show 019a9b2e-0000-7000-8000-000000000000",
        "show order o-1 --json",
        "resume 019a9b2e-0000-7000-8000-000000000000 --by ann --why x",
        "signal 019a9b2e-0000-7000-8000-000000000000 paid",
        "signal order o-1 paid --body @file --id s-1 --json --url http://h:1",
        "dead-letters",
        "dead-letters list --json --limit 3",
        "migrate --json",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        parsed(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn wrong_command_lines_are_refused_with_exit_code_2() {
    for line in [
        "",
        "serv",
        "serve --workers 0",
        "serve --prefetch 0",
        "dev --ephemeral --file x",
        "dev --stock lamp",
        "dev --stock =1",
        "dev --balance alice=-1",
        "dev --quota acme=10/3",
        "dev --quota acme=10/x/1000",
        "start",
        "start order --timeout 3s",
        "start order --wait --timeout soon",
        "list --status asleep",
        "list --limit 0",
        "list --limit 1001",
        "list --before 7",
        "resume x",
        "signal x",
        "signal order o-1 paid twice",
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let error = parsed(&words).err().unwrap_or_else(|| panic!("{line}"));
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn the_database_is_what_the_url_says() {
    let file = |path: &str| Ok(Database::Sqlite(path.into()));
    for (url, expected) in [
        (None, file("backstitch.db")),
        (Some(""), file("backstitch.db")),
        (Some("sagas.db"), file("sagas.db")),
        (Some("./a b.db"), file("./a b.db")),
        (Some("sqlite:sagas.db"), file("sagas.db")),
        (Some("sqlite://sagas.db?mode=rwc"), file("sagas.db")),
        (Some("sqlite:///var/sagas.db"), file("/var/sagas.db")),
        (
            Some("postgres://h/d"),
            Ok(Database::Postgres("postgres://h/d".into())),
        ),
        (
            Some("postgresql://h/d"),
            Ok(Database::Postgres("postgresql://h/d".into())),
        ),
        (Some("sqlite::memory:"), Err("names no file")),
        (Some("sqlite:"), Err("names no file")),
        (Some("mysql://u:secret@h/d"), Err("begins with `mysql:`")),
        (Some("postgres://u:se#secret@h/d"), Err("%23")),
        (Some("postgres://u:1?secret@h/d"), Err("%3F")),
        (Some("host=h password=secret"), Err("neither a URL")),
        (Some("u:secret@h/d"), Err("neither a URL")),
        (Some("//u:secret@h/d"), Err("neither a URL")),
    ] {
        let found = DatabaseArguments::of(url).database();
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{url:?}"),
            (Err(found), Err(expected)) => {
                assert!(
                    found.message.contains(expected),
                    "{url:?}: {}",
                    found.message
                );
                assert!(!found.message.contains("secret"));
                assert_eq!(found.exit, Exit::Problems);
            }
            (found, _) => panic!("{url:?}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn what_can_not_be_opened_is_said_without_its_password() {
    let url = "postgres://u:secret@127.0.0.1:1/d";
    let database = DatabaseArguments::of(Some(url)).database().unwrap();
    let error = database.migrate().await.unwrap_err();
    assert!(error.message.contains("postgres://u:***@127.0.0.1:1/d"));
    assert!(!error.message.contains("secret"), "{}", error.message);
}

#[tokio::test]
async fn looking_at_a_database_does_not_create_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("none.db");
    let database = Database::Sqlite(file.clone());
    let error = database.open_to_read().await.err().unwrap();
    assert!(error.message.contains("there is no database at"));
    assert!(!file.exists());
}

#[tokio::test]
async fn a_database_is_migrated_once() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::Sqlite(directory.path().join("b.db"));
    assert_eq!(database.migrate().await.unwrap()[0], "0001 foundation");
    assert!(database.migrate().await.unwrap().is_empty());
}

#[tokio::test]
async fn without_a_url_the_broker_is_in_this_process() {
    let broker = OpenBroker::open(None, "test").await.unwrap();
    let topology = crate::broker::Topology {
        queues: vec![Queue {
            name: "q".to_owned(),
            dead_letter_to: None,
        }],
        ..crate::broker::Topology::default()
    };
    broker.handle().declare(&topology).await.unwrap();
    assert!(broker.handle().consume("q", 1).await.is_ok());
}

#[test]
fn seeds_are_names_and_numbers() {
    let seed: seeds::Seed = "a=b=12".parse().unwrap();
    assert_eq!((seed.id.as_str(), seed.amount), ("a=b", 12));
    for wrong in [
        "",
        "a",
        "=1",
        "a=",
        "a=1.5",
        "a=-1",
        "a=99999999999999999999",
    ] {
        assert!(wrong.parse::<seeds::Seed>().is_err(), "{wrong}");
    }
}

#[test]
fn participants_are_chosen_by_name() {
    let names = |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        let chosen = participants::chosen(&wanted, crate::aggregates::participants())
            .map_err(|error| error.message)?;
        Ok::<_, String>(
            chosen
                .iter()
                .map(|one| one.name().to_owned())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(names(&[]).unwrap().len(), 7);
    assert_eq!(names(&["mailer"]).unwrap(), ["mailer"]);
    assert!(names(&["mailer", "bank"]).unwrap_err().contains("`bank`"));
}

#[test]
fn all_shipped_participants_are_named_where_people_look_for_them() {
    let environment = Arc::new(crate::environment::TokioEnvironment);
    let store = Arc::new(MemoryStore::new());
    let model = ReadModel::new(environment, store, projections());
    let command = Cli::command();
    let help = command
        .find_subcommand("participants")
        .expect("it is there")
        .clone()
        .render_long_help()
        .to_string();
    for participant in participants_reading(model) {
        let name = participant.name();
        let inside = |text: &str| {
            let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '-');
            words.into_iter().any(|word| word == name)
        };
        assert!(inside(&help), "{name} in {help}");
        for text in [
            include_str!("../../docker-compose.yml"),
            include_str!("../../sagas/README.md"),
        ] {
            assert!(inside(text), "{name}");
        }
    }
}

#[test]
fn the_exit_code_tells_how_a_saga_ended() {
    for (status, expected) in [
        (Status::Running, None),
        (Status::Confirming, None),
        (Status::Compensating, None),
        (Status::Completed, Some(0)),
        (Status::Compensated, Some(3)),
        (Status::Suspended, Some(4)),
    ] {
        assert_eq!(start::ended(status).map(Exit::code), expected);
    }
}

#[test]
fn waiting_times_are_written_as_durations() {
    assert_eq!(start::duration("30s"), Ok(Duration::from_secs(30)));
    assert_eq!(start::duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(start::duration("1m 30s"), Ok(Duration::from_secs(90)));
    assert!(start::duration("30").is_err());
    assert!(start::duration("-3s").is_err());
}

#[test]
fn text_from_outside_can_not_steer_the_terminal() {
    assert_eq!(output::printable("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb c");
    assert_eq!(output::shortened("abcdef", 3), "abc…");
    let rows = [["a", "bb", "c"], ["aaa", "b", ""]].map(|row| row.map(str::to_owned).to_vec());
    assert_eq!(output::table(&rows), "a    bb  c\naaa  b\n");
}

#[test]
fn a_signal_goes_to_a_saga_by_its_id_or_its_name_and_key() {
    let id = "019a9b2e-0000-7000-8000-000000000000";
    for (place, expected) in [
        (vec![id, "paid"], Some(format!("/sagas/{id}/signals/paid"))),
        (
            vec!["order", "o/1", "paid"],
            Some("/sagas/order/keys/o%2F1/signals/paid".to_owned()),
        ),
        (vec!["order", "paid"], None),
    ] {
        let place: Vec<String> = place.into_iter().map(str::to_owned).collect();
        assert_eq!(signal::path(&place).ok(), expected, "{place:?}");
    }
}

#[test]
fn paths_are_escaped() {
    assert_eq!(client::segment("a/b c?ä"), "a%2Fb%20c%3F%C3%A4");
}

#[test]
fn times_are_told_from_the_start() {
    assert_eq!(show::offset(0), "+0.000s");
    assert_eq!(show::offset(1_234_567), "+1.234s");
    assert_eq!(show::offset(125_000_000), "+2m 5s");
}

#[test]
fn check_says_what_is_right() {
    let (file, source) = definitions::SHIPPED;
    let text = check::as_text(1, &parse_all(&[(file, source)]));
    assert_eq!(text, "ok: place-order version 1, 4 steps\n");
}

#[test]
fn check_shows_each_problem_with_its_place() {
    let source = "saga: order\nversion: 1\nkey: k\nsteps:\n  - step: a\n    reserve: b.c\n    confrim: b.d\n";
    let text = check::as_text(1, &parse_all(&[("order.yaml", source)]));
    assert!(text.contains("order.yaml:7:5: "), "{text}");
    assert!(text.contains("7 |     confrim: b.d\n  |     ^\n"), "{text}");
    assert!(text.ends_with("in 1 of 1 files\n"), "{text}");
}

#[test]
fn definitions_are_found_in_directories_in_order() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["b.yml", "a.yaml", "notes.md"] {
        std::fs::write(directory.path().join(name), "x").unwrap();
    }
    let found = definitions::sources(&[directory.path().to_owned()]).unwrap();
    assert_eq!(found.len(), 2);
    let refused = found.check().unwrap_err();
    let names: Vec<_> = refused.iter().map(|it| file_name(&it.0[0].file)).collect();
    assert_eq!(names, ["a.yaml", "b.yml"]);
    let empty = directory.path().join("none");
    let error = definitions::load(&empty).unwrap_err();
    assert_eq!(error.exit, Exit::Problems);
}

fn file_name(path: &str) -> &str {
    Path::new(path).file_name().unwrap().to_str().unwrap()
}

#[test]
fn what_can_not_be_read_is_a_problem_of_its_file_among_all_others() {
    let sound = "saga: good\nversion: 1\nkey: ${ input.id }\nsteps: [ { saga: a, run: other } ]\n";
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    };
    write("broken.yaml", b"saga: [");
    write("good.yaml", sound.as_bytes());
    write(
        "large.yaml",
        &vec![b'#'; crate::definition::SOURCE_BYTES_MAX + 1],
    );
    write("latin.yaml", b"saga: s\ndescription: \"f\xfcr\"\n");
    std::os::unix::fs::symlink("nowhere", directory.path().join("lost.yaml")).unwrap();
    let found = definitions::sources(&[directory.path().to_owned()]).unwrap();
    assert_eq!(found.len(), 5);
    let refused = found.check().unwrap_err();
    let mut places: Vec<String> = refused
        .iter()
        .flat_map(|it| &it.0)
        .map(|it| {
            format!(
                "{}:{}:{} {}",
                file_name(&it.file),
                it.line,
                it.column,
                it.code
            )
        })
        .collect();
    places.sort();
    // The saga that `good.yaml` runs may be in any of them, so it is not said to be missing.
    let expected = [
        "broken.yaml:1:7 syntax",
        "large.yaml:1:1 too-large",
        "latin.yaml:2:16 unreadable",
        "lost.yaml:1:1 unreadable",
    ];
    assert_eq!(places, expected);
    assert_eq!(found.sound()[0].name, "good");
    assert_eq!(
        definitions::load(directory.path()).unwrap_err().exit,
        Exit::Problems
    );
}

#[test]
fn wrong_usage_is_found_before_a_node_is_asked() {
    for line in [
        "cancel nope --by a --why b",
        "skip nope --step s --by a --why b",
        "signal order o-1 paid --body {x",
        "start order --input {x",
        "start order --input @/nowhere/at-all",
        "simulate sagas/place-order.yaml --input {}",
    ] {
        let cli = parsed(&line.split(' ').collect::<Vec<_>>()).unwrap();
        let exit = run(cli).map_err(|failure| failure.exit);
        assert_eq!(exit.err(), Some(Exit::Problems), "{line}");
    }
}

#[test]
fn a_restart_waits_for_the_saga_before_it_or_is_told_that_another_took_its_place() {
    let before = |next: &str| client::Answer {
        status: 200,
        body: json!({ "replaced_by": { "saga_id": next, "waiting": "it is rolled back first" } }),
    };
    let waiting = start::pending_for(&before("n-1"), "n-1").unwrap();
    assert_eq!(waiting, "it is rolled back first");
    let failure = start::pending_for(&before("n-2"), "n-1").unwrap_err();
    assert_eq!(failure.exit, Exit::Failed);
    assert!(
        failure.message.contains("as saga n-2"),
        "{}",
        failure.message
    );
}

#[test]
fn a_script_of_answers_alone_is_about_the_saga_that_is_simulated() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script.yaml");
    std::fs::write(
        &script,
        "answers: [ { to: mailer.send-receipt, after: 1s } ]\n",
    )
    .unwrap();
    let line = [
        "simulate",
        "sagas/place-order.yaml",
        "--script",
        script.to_str().unwrap(),
    ];
    let exit = run(parsed(&line).unwrap()).map_err(|failure| failure.message);
    assert_eq!(exit, Ok(Exit::Done));
}

#[test]
fn a_refused_start_lists_what_is_wrong() {
    let answer = client::Answer {
        status: 422,
        body: json!({ "code": "BST-0014", "reason": "the input is wrong", "problems": ["/a: x", "/b: y"] }),
    };
    let message = start::refused(&answer).message;
    let expected = "the input does not fit the saga's schema (BST-0014)\n  /a: x\n  /b: y";
    assert_eq!(message, expected);
}

#[test]
fn what_a_saga_waits_for_and_which_signals_it_keeps_is_shown() {
    let text = show::as_text(&Bundle::waiting().view());
    for line in [
        "waits for signal `paid` until 2023-11-17T22:13:20Z",
        "Signals kept for a wait to come\n  parcel  {\"at\":\"door\"}  s-1  came 2023-",
        "signal `parcel` came",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn a_prepared_sub_saga_is_shown_to_wait_for_the_saga_that_runs_it() {
    let mut bundle = Bundle::prepared();
    let text = show::as_text(&bundle.view());
    let first = text.lines().next().unwrap();
    assert_eq!(
        first,
        "order o-1  RUNNING: prepared, waits for saga 00000000-0000-0000-0000-000000000009"
    );
    assert!(!text.contains("  deadline "), "it counts no more: {text}");
    bundle.confirm();
    let text = show::as_text(&bundle.view());
    assert_eq!(text.lines().next(), Some("order o-1  CONFIRMING"));
}

#[test]
fn a_saga_is_shown_with_what_is_to_come_and_what_happened() {
    let mut bundle = Bundle::order();
    bundle.reply("order", Phase::Reserve, Outcome::Succeeded);
    bundle.reply("stock[0]", Phase::Reserve, Outcome::Failed);
    bundle.reply("stock[1]", Phase::Reserve, Outcome::Rejected);
    let text = show::as_text(&bundle.view());
    // The hash is not what this is about.
    let shown = text.rsplit_once(" head ").unwrap().0;
    assert_eq!(shown.trim_end(), SHOWN.trim_end(), "{text}");
}
