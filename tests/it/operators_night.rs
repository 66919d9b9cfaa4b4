//! An operator's night: what is stuck is found by its cause, the fault is mended, and one job brings all
//! of it home at a rate, from the prompt alone, though the node that works on it is killed.

use serde_json::{Value, json};

use crate::fixture::{
    Backends, Bank, Command, Node, PATIENCE, define_charge, eventually, finish, get_json,
    get_stuck, suspended, told,
};

const SAGAS: usize = 300;

fn run<S: AsRef<str>>(arguments: &[S], node: &Node) -> Value {
    let arguments = arguments.iter().map(AsRef::as_ref);
    let arguments: Vec<&str> = arguments.collect();
    let command = Command::backstitch(
        arguments
            .iter()
            .copied()
            .chain(["--json", "--url", &node.url]),
    );
    let output = finish(&command);
    assert!(output.status.success(), "{arguments:?}: {}", told(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn what_is_stuck_is_found_by_its_cause_and_brought_home_though_the_node_is_killed() {
    let backends = Backends::create();
    let sagas = tempfile::tempdir().unwrap();
    define_charge(sagas.path());
    let bank = Bank::open(&backends.virtual_host.url, "the vault is locked");
    let mut node = Node::serve(&backends, sagas.path());
    get_stuck(&backends, &node, SAGAS);

    // What is it?
    let groups = finish(&Command::backstitch(["groups", "--json"]).on(&backends));
    let groups: Value = serde_json::from_slice(&groups.stdout).unwrap();
    let group = &groups["groups"][0];
    assert_eq!(group["count"]["sagas"], json!(SAGAS), "{groups}");
    assert!(
        group["reason"]
            .as_str()
            .unwrap()
            .contains("the vault is locked")
    );
    let cause = group["cause"].as_str().unwrap();
    let one = [
        "list",
        "--label",
        "customer=p-3",
        "--cause",
        cause,
        "--json",
    ];
    let one = finish(&Command::backstitch(one).on(&backends));
    let one: Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(one["sagas"].as_array().unwrap().len(), SAGAS / 10);

    // Does trying again help? Not yet: the first few say so, and the others are left alone.
    let why = ["--by", "ann", "--why", "is the vault open?"];
    let start = |more: &[&str]| {
        let common = ["job", "start", "retry", "--cause", cause];
        let all = common.iter().chain(more).chain(&why);
        all.map(ToString::to_string).collect::<Vec<_>>()
    };
    let dry = run(&start(&["--dry-run"]), &node);
    assert_eq!(dry["total"]["sagas"], json!(SAGAS));
    assert_eq!(dry["sample"].as_array().unwrap().len(), 10);
    let job = run(&start(&["--canary", "5"]), &node);
    let id = job["id"].as_str().unwrap().to_owned();
    let paused = eventually("the job waits for a person", PATIENCE * 2, || {
        let job = run(&["job", "show", &id], &node);
        (job["state"] == "paused").then_some(job)
    });
    assert_eq!(
        (&paused["done"], &paused["refused"]),
        (&json!(5), &json!(0)),
        "{paused}"
    );
    assert!(paused["note"].as_str().unwrap().contains("came first"));
    assert_eq!(suspended(&backends), i64::try_from(SAGAS).unwrap());
    run(
        &[
            "job",
            "abort",
            &id,
            "--by",
            "ann",
            "--why",
            "the vault first",
        ],
        &node,
    );

    // It is mended, and all of them go home: slowly, and though the node is killed on the way.
    bank.mend();
    let job = run(&start(&["--rate", "50/s", "--canary", "5"]), &node);
    let id = job["id"].as_str().unwrap().to_owned();
    eventually("the job is on its way", PATIENCE, || {
        let job = run(&["job", "show", &id], &node);
        (job["done"].as_u64().unwrap() >= 30).then_some(())
    });
    node.kill9();
    let left = suspended(&backends);
    assert!(left > 0, "the rate is kept: {left} are left");
    let mut node = Node::serve(&backends, sagas.path());
    let watched = ["job", "show", &id, "--watch", "--url", &node.url];
    let watched = finish(&Command::backstitch(watched));
    assert!(watched.status.success(), "{}", told(&watched));
    assert!(
        told(&watched).contains("state    done"),
        "{}",
        told(&watched)
    );
    eventually("all are home", PATIENCE, || {
        (backends.database.ended_sagas() == SAGAS).then_some(())
    });
    let results = run(&["job", "results", &id], &node);
    assert_eq!(results["results"].as_array().unwrap().len(), SAGAS);
    let refused = run(&["job", "results", &id, "--refused"], &node);
    assert_eq!(refused["results"], json!([]));
    let audit = get_json(&format!("{}/v1/dead-letters/audit", node.url));
    for action in ["job-create", "job-abort"] {
        assert!(audit.to_string().contains(action), "{audit}");
    }
    let verified = finish(&Command::backstitch(["verify"]).on(&backends));
    assert!(verified.status.success(), "{}", told(&verified));
    assert!(node.terminate().success(), "{}", node.log());
}
