//! Schedules that change, go and come back, and nodes whose clocks are wrong.

use std::time::Duration;

use super::now::now;
use super::starts_tests::{HOUR, Stage, hours, scheduled};
use super::world::NODES;
use crate::id::Timestamp;
use crate::store::{Moved, Schedules};

const TWO_HOURS_MICROS: i64 = 7_200_000_000;
/// A definition without a schedule.
const OTHER: &str =
    "saga: other\nversion: 1\nkey: ${ input.id }\nsteps:\n  - { step: a, confirm: p.c }\n";

fn job(version: u32, schedule: &str, catch_up: &str) -> String {
    scheduled(&format!("catch_up: {catch_up}"))
        .replace("version: 1", &format!("version: {version}"))
        .replace("0 * * * *", schedule)
}

fn minutes(count: u64) -> Duration {
    Duration::from_mins(count)
}

fn healthy(source: &str) -> Stage {
    let stage = Stage::new(1, source);
    stage.faults.heal();
    stage
}

#[test]
fn a_changed_rhythm_counts_from_when_it_was_loaded() {
    let others = [
        job(2, "0 * * * *", "all"),
        job(2, "0 * * * *", "last"),
        job(2, "0 * * * *", "none"),
    ];
    for changed in others {
        let stage = healthy(&job(1, "0 0 1 1 *", "last"));
        stage.start(NODES[0]);
        stage.run(4 * HOUR + minutes(30));
        stage.scheduler.crash(NODES[0]);
        stage.start_with(NODES[0], &changed);
        stage.run(HOUR);
        assert_eq!(hours(&stage), [5], "{changed}");
    }
}

#[test]
fn what_is_caught_up_under_one_rule_is_not_done_under_another() {
    let stage = healthy(&job(1, "0 * * * *", "none"));
    stage.start(NODES[0]);
    stage.run(HOUR + minutes(30));
    stage.scheduler.crash(NODES[0]);
    stage.run(3 * HOUR);
    stage.start_with(NODES[0], &job(2, "0 * * * *", "all"));
    stage.run(HOUR);
    assert_eq!(hours(&stage), [1, 5]);
}

#[test]
fn a_schedule_that_nodes_ran_without_begins_anew_when_it_comes_back() {
    for without in [OTHER.to_owned(), job(2, "0 0 1 1 *", "all")] {
        let stage = healthy(&job(1, "0 * * * *", "all"));
        stage.start(NODES[0]);
        stage.run(HOUR + minutes(30));
        stage.scheduler.crash(NODES[0]);
        stage.start_with(NODES[0], &without);
        stage.run(3 * HOUR);
        stage.scheduler.crash(NODES[0]);
        stage.start(NODES[0]);
        stage.run(HOUR);
        assert_eq!(hours(&stage), [1, 5], "{without}");
    }
}

#[test]
fn a_deployment_disturbs_neither_the_old_schedule_nor_the_new_one() {
    let stage = healthy(&job(1, "0 * * * *", "last"));
    stage.start(NODES[0]);
    stage.run(minutes(10));
    stage.start_with(NODES[1], &job(2, "30 * * * *", "last"));
    stage.run(3 * HOUR);
    assert_eq!(hours(&stage), [0, 1, 1, 2, 2, 3]);
    // The older node is gone; put back later, its schedule begins then.
    stage.scheduler.crash(NODES[0]);
    stage.run(2 * HOUR);
    assert_eq!(hours(&stage), [0, 1, 1, 2, 2, 3, 3, 4]);
    stage.start(NODES[0]);
    stage.run(minutes(40));
    assert_eq!(hours(&stage), [0, 1, 1, 2, 2, 3, 3, 4, 5]);
}

#[test]
fn a_node_whose_clock_is_wrong_starts_no_tick_before_its_time() {
    for ahead in [TWO_HOURS_MICROS, -TWO_HOURS_MICROS] {
        let stage = healthy(&scheduled("catch_up: all"));
        stage.scheduler.set_clock(NODES[1], ahead);
        stage.start_all();
        stage.run(2 * HOUR + minutes(30));
        assert_eq!(hours(&stage), [1, 2], "{ahead}");
        for saga in stage.sagas() {
            let tick: Timestamp = saga.key.strip_prefix("job-").unwrap().parse().unwrap();
            assert!(saga.started_at >= tick, "{ahead}: {saga:?}");
            assert!(
                saga.started_at.since(tick) < minutes(2),
                "{ahead}: {saga:?}"
            );
        }
        // It leaves ticks to others; where there are none, they come when it is right again.
        stage.scheduler.crash(NODES[0]);
        stage.run(HOUR);
        assert_eq!(hours(&stage), [1, 2], "{ahead}");
        stage.scheduler.set_clock(NODES[1], 0);
        stage.run(minutes(5));
        assert_eq!(hours(&stage), [1, 2, 3], "{ahead}");
    }
}

#[test]
fn a_clock_that_jumps_while_its_node_runs_does_no_harm() {
    let stage = healthy(&scheduled("catch_up: all"));
    stage.start(NODES[0]);
    stage.run(minutes(90));
    stage.scheduler.set_clock(NODES[0], TWO_HOURS_MICROS);
    stage.run(Duration::from_secs(20));
    stage.scheduler.set_clock(NODES[0], 0);
    stage.run(HOUR);
    assert_eq!(hours(&stage), [1, 2]);
}

#[test]
fn a_position_that_a_person_sets_counts_soon_on_running_nodes() {
    let stage = healthy(&scheduled("catch_up: all"));
    stage.start_all();
    stage.run(2 * HOUR + minutes(30));
    let row = now(stage.store.schedules()).remove(0);
    let now_is = stage.scheduler.now();
    let moved = Moved {
        by: "ann".to_owned(),
        why: "a clock was wrong".to_owned(),
        at: now_is,
    };
    // As if a wrong clock had settled what is still to come: nothing ticks.
    let ahead = now_is.after(5 * HOUR);
    now(stage.store.move_schedule(&row.key, ahead, &moved));
    stage.run(HOUR);
    assert_eq!(hours(&stage), [1, 2]);
    now(stage.store.move_schedule(&row.key, now_is, &moved));
    stage.run(minutes(3));
    assert_eq!(hours(&stage), [1, 2, 3]);
}
