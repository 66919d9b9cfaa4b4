//! Schedules, restarts and plans with the whole program: two nodes on PostgreSQL and RabbitMQ.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::{Backends, Command, Node, PATIENCE, eventually, finish, get_json, post, told};

/// A saga a minute, without participants.
const EVERY_MINUTE: &str = "saga: minutely
version: 1
key: minutely-${ input.tick }
start: { every: \"* * * * *\", catch_up: all }
steps:
  - { sleep: nap, for: 1s }
";

/// A job that another start of the same key replaces.
const JOB: &str = "saga: job
version: 1
key: ${ input.id }
start: { conflict: restart }
timeout: 1h
steps:
  - { sleep: nap, for: \"${ input.seconds }\" }
output: { seconds: \"${ input.seconds }\" }
";

#[test]
fn two_nodes_start_each_tick_once_and_go_on_where_they_were() {
    let backends = Backends::create();
    let sagas = sagas(&[("minutely.yaml", EVERY_MINUTE)]);
    let nodes = [serve(&backends, &sagas), serve(&backends, &sagas)];
    // As if they had begun ten minutes ago: so the test need not wait for ticks to come.
    eventually("the schedule is known", PATIENCE, || {
        (backends.database.count("schedules") == 1).then_some(())
    });
    drop(nodes);
    backends.database.query(async |connection| {
        sqlx::query("UPDATE schedules SET settled = settled - 600000000")
            .execute(connection)
            .await
    });
    let mut nodes = [serve(&backends, &sagas), serve(&backends, &sagas)];
    eventually("ten ticks have run", PATIENCE, || {
        (backends.database.ended_sagas() >= 10).then_some(())
    });
    // Each minute once: as many keys as sagas, and as many as there are minutes in between.
    let (sagas, minutes): (i64, i64) = backends.database.query(async |connection| {
        sqlx::query_as(
            "SELECT count(*), max(minute) - min(minute) + 1 FROM (
                SELECT extract(epoch FROM substr(key, 10)::timestamptz)::bigint / 60 AS minute
                FROM sagas) AS ticks",
        )
        .fetch_one(connection)
        .await
    });
    assert_eq!(sagas, minutes);
    assert!(sagas <= 13, "{sagas} sagas: more than have been ticks");
    assert_eq!(backends.database.dead_letter_codes(), [0; 0]);
    for node in &mut nodes {
        assert!(node.terminate().success(), "{}", node.log());
    }
}

#[test]
fn a_restart_replaces_the_live_saga_whichever_node_is_asked() {
    let backends = Backends::create();
    let sagas = sagas(&[("job.yaml", JOB)]);
    let nodes = [serve(&backends, &sagas), serve(&backends, &sagas)];
    let start = |node: &Node, seconds: u64| {
        let input = json!({ "id": "j-1", "seconds": seconds });
        post(&format!("{}/sagas/job", node.url), &input).unwrap()
    };
    let (status, first) = start(&nodes[0], 3_000);
    assert_eq!(status, 201, "{first}");
    let (status, again) = start(&nodes[1], 3_000);
    assert_eq!((status, &again["saga_id"]), (200, &first["saga_id"]));
    let (status, second) = start(&nodes[1], 1);
    assert_eq!(
        (status, &second["status"]),
        (202, &json!("restarting")),
        "{second}"
    );
    assert_eq!(second["replaces"], first["saga_id"]);

    let saga = |node: &Node, id: &Value| {
        let id = id.as_str().unwrap();
        get_json(&format!("{}/sagas/{id}", node.url))
    };
    let old = eventually("the first one is rolled back", PATIENCE, || {
        let old = saga(&nodes[0], &first["saga_id"]);
        (old["status"] == "compensated").then_some(old)
    });
    assert_eq!(old["replaced_by"]["saga_id"], second["saga_id"]);
    assert_eq!(old["superseded"], true);
    eventually("the second one completes", PATIENCE, || {
        (backends.database.ended_sagas() == 2).then_some(())
    });
    let new = saga(&nodes[0], &second["saga_id"]);
    assert_eq!(new["status"], "completed");
    assert_eq!(new["replaces"], first["saga_id"]);
    assert_eq!(new["output"], json!({ "seconds": 1 }));
    let listed = get_json(&format!("{}/sagas?name=job&key=j-1", nodes[0].url));
    assert_eq!(listed["sagas"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["sagas"][0]["saga_id"], second["saga_id"]);
}

#[test]
fn a_plan_says_what_nodes_would_make_of_definitions() {
    let backends = Backends::create();
    let running = sagas(&[("job.yaml", JOB)]);
    let plan = |directory: &TempDir| {
        let command = Command::backstitch(["plan", "--json"]).with(directory.path());
        let output = finish(&command.on(&backends));
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", told(&output));
        });
        (output.status.code(), plan)
    };
    // A plan only reads: it makes no tables.
    let migrated = finish(&Command::backstitch(["migrate"]).on(&backends));
    assert!(migrated.status.success(), "{}", told(&migrated));
    let (code, fresh) = plan(&running);
    assert_eq!((code, &fresh["accepted"]), (Some(0), &json!(true)));
    assert_eq!(fresh["definitions"][0]["change"], "new");

    let node = serve(&backends, &running);
    let input = json!({ "id": "j-1", "seconds": 3_000 });
    let started = post(&format!("{}/sagas/job", node.url), &input).unwrap();
    assert_eq!(started.0, 201);
    let (code, same) = plan(&running);
    assert_eq!(
        (code, &same["definitions"][0]["change"]),
        (Some(0), &json!("unchanged"))
    );

    let edited = sagas(&[("job.yaml", &JOB.replace("timeout: 1h", "timeout: 2h"))]);
    let (code, refused) = plan(&edited);
    assert_eq!(code, Some(2));
    let why = refused["definitions"][0]["refused"].as_str().unwrap();
    assert!(why.contains("first differing line 5"), "{why}");

    let newer = sagas(&[
        ("job.yaml", &JOB.replace("version: 1", "version: 2")),
        ("broken.yaml", "saga: broken\n"),
    ]);
    let (code, mixed) = plan(&newer);
    assert_eq!((code, &mixed["accepted"]), (Some(2), &json!(false)));
    assert_eq!(mixed["definitions"][0]["change"], "new_version");
    assert_eq!(
        mixed["definitions"][0]["live"],
        json!([{ "version": 1, "sagas": 1 }])
    );
    assert_eq!(mixed["kept"][0]["startable"], true);
    assert!(!mixed["problems"].as_array().unwrap().is_empty());
}

// ---------------------------------------------------------------- fixture

fn sagas(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, source) in files {
        std::fs::write(directory.path().join(name), source).unwrap();
    }
    directory
}

fn serve(backends: &Backends, sagas: &TempDir) -> Node {
    Node::serve(backends, Path::new(sagas.path()))
}
