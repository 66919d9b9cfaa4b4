//! A deployment in progress: an older node beside one with newer definitions.

use std::time::Duration;

use serde_json::json;

use super::starts_tests::Stage;
use super::world::NODES;
use crate::error::code;
use crate::saga::Status;

const OLDER: &str = "
saga: order
version: 1
key: ${ input.id }
input: { type: object, required: [id], additionalProperties: false, properties: { id: {} } }
steps:
  - { step: a, reserve: p.r, confirm: p.c, compensate: p.x }
";
const NEWER: &str = "
saga: order
version: 2
key: ${ input.id }
input: { type: object, required: [id], additionalProperties: false, properties: { id: {}, note: {} } }
start: { conflict: restart }
steps:
  - { step: a, reserve: p.r, confirm: p.c, compensate: p.x }
  - { saga: present, run: gift, with: { id: '${ input.id }-gift' } }
---
saga: gift
version: 1
key: ${ input.id }
input: { type: object, required: [id] }
steps:
  - { step: wrap, reserve: p.r, confirm: p.c, compensate: p.x }
";

/// An older node, and after it a newer one, which has stored its definitions.
fn in_progress(seed: u64) -> Stage {
    let stage = Stage::new(seed, OLDER);
    stage.faults.heal();
    stage.start(NODES[0]);
    stage.run(Duration::from_secs(5));
    stage.start_with(NODES[1], NEWER);
    stage.run(Duration::from_secs(5));
    stage
}

fn place_some_of_each(stage: &Stage) {
    for number in 0..6 {
        let placed = |name: &str| format!("{name}-{number}");
        let gift = json!({ "id": placed("g") });
        stage.place_a("gift", Some(&placed("g")), &gift);
        let noted = json!({ "id": placed("n"), "note": "x" });
        stage.place_a("order", Some(&placed("n")), &noted);
    }
}

/// Six gifts that were asked for, six orders, and the gifts that those run.
fn all_completed(stage: &Stage) -> bool {
    let sagas = stage.sagas();
    let completed = sagas.iter().filter(|it| it.status == Status::Completed);
    completed.count() == 18 || !stage.letters().is_empty()
}

#[test]
fn what_only_newer_definitions_have_runs_whichever_node_it_comes_to() {
    for seed in 1..=4 {
        let stage = in_progress(seed);
        place_some_of_each(&stage);
        stage.until("all completed", all_completed);
        assert!(stage.letters().is_empty(), "{:?}", stage.letters());
        let sagas = stage.sagas();
        assert_eq!(sagas.len(), 18, "{sagas:?}");
    }
}

#[test]
fn the_older_node_alone_does_it_too() {
    let stage = in_progress(1);
    stage.scheduler.crash(NODES[1]);
    place_some_of_each(&stage);
    stage.until("all completed", all_completed);
    assert!(stage.letters().is_empty(), "{:?}", stage.letters());
    stage.place_a("order", Some("o"), &json!({ "id": "o" }));
    let sagas = stage.sagas();
    let last = sagas.iter().find(|it| it.key == "o").expect("it is there");
    assert_eq!(last.version, 2, "what it has learned, it starts");
}

#[test]
fn a_node_that_starts_later_with_older_files_rolls_back() {
    let stage = in_progress(1);
    for node in NODES {
        stage.scheduler.crash(node);
    }
    stage.start(NODES[0]);
    stage.run(Duration::from_secs(5));
    stage.place_a("order", Some("o"), &json!({ "id": "o" }));
    stage.place_a("gift", Some("g"), &json!({ "id": "g" }));
    stage.until("both handled", |stage| !stage.letters().is_empty());
    let codes: Vec<_> = stage.letters().iter().map(|it| it.code).collect();
    assert_eq!(codes, [code::SAGA_UNKNOWN]);
    let versions: Vec<u32> = stage.sagas().iter().map(|it| it.version).collect();
    assert_eq!(versions, [1]);
}
