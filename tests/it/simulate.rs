//! `backstitch simulate`, as it is called.

use std::process::{Command, Output};

use serde_json::Value;

const SAGA: &str = "sagas/place-order.yaml";

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_backstitch"))
        .arg("simulate")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_run_shows_what_was_made_up_its_timeline_and_its_end() {
    let run = simulate(&[SAGA, "--seed", "3"]);
    let out = text(&run.stdout);
    for part in [
        "made up for place-order: --input '{",
        "seed 3",
        "asked order to reserve",
        "sound: every saga ended",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    assert_eq!(run.status.code(), Some(0));
    assert_eq!(text(&run.stderr), "");
    assert_eq!(text(&simulate(&[SAGA, "--seed", "3"]).stdout), out);
}

#[test]
fn the_script_of_the_manual_works() {
    let manual = include_str!("../../docs/simulate.md");
    let script = manual
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("script.yaml");
    std::fs::write(&path, script).unwrap();
    let run = simulate(&[SAGA, "--json", "--script", path.to_str().unwrap()]);
    let shown: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(shown["ok"], true, "{shown:#}");
    assert_eq!(shown["sagas"][0]["saga"]["status"], "compensated");
    assert_eq!(
        shown["sagas"][0]["saga"]["reason"],
        "stock[1] rejected: sold out"
    );
    std::fs::write(
        &path,
        "answers:\n  - { to: inventory.steal, silent: true }\n",
    )
    .unwrap();
    let run = simulate(&[SAGA, "--script", path.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(2));
    let said = text(&run.stderr);
    assert!(
        said.contains("script.yaml:2:") && said.contains("inventory.steal"),
        "{said}"
    );
}

#[test]
fn a_search_finds_the_seed_that_breaks_it_and_says_how_to_repeat_it() {
    let found = simulate(&[SAGA, "--seeds", "3"]);
    assert_eq!(found.status.code(), Some(0), "{}", text(&found.stderr));
    assert!(text(&found.stdout).starts_with("3 seeds from 0: "));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stuck.yaml");
    let stuck = "answers:\n  - { to: orders.confirm, reject: never }\nevents:\n  - { start: place-order }\n";
    std::fs::write(&path, stuck).unwrap();
    let found = simulate(&[
        SAGA,
        "--seeds",
        "9",
        "--seed",
        "4",
        "--script",
        path.to_str().unwrap(),
    ]);
    assert_eq!(found.status.code(), Some(1));
    assert!(text(&found.stdout).contains("NOT SOUND: place-order"));
    let said = text(&found.stderr);
    assert!(
        said.contains("repeat with: backstitch simulate sagas/place-order.yaml --script"),
        "{said}"
    );
    assert!(said.contains("seed 4 breaks it"), "{said}");
}
