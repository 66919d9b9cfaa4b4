//! Cases: jobs are held by one node, stopped by people, and remember each saga.

use futures_util::future::join_all;

use super::sample::{at, saga, uuid};
use super::{Complete, until_stored};
use crate::store::dead_letters::Actor;
use crate::store::search::BoundedCount;
use crate::store::{JobCommand, JobResult, JobRow, JobState, Progress};

fn job(number: u128) -> JobRow {
    JobRow {
        id: uuid(number),
        made_at: at(1),
        by: "ann".to_owned(),
        why: "the printer is mended".to_owned(),
        filter: "status=suspended".to_owned(),
        action: "{\"action\":\"retry\"}".to_owned(),
        per_minute: Some(1_200),
        canary: 5,
        total: BoundedCount {
            sagas: 7,
            or_more: true,
        },
        state: JobState::Running,
        note: None,
        cursor: None,
        done: 0,
        refused: 0,
        canary_seen: false,
        version: 0,
        held_until: at(0),
        updated_at: at(1),
    }
}

fn ann(micros: i64) -> Actor {
    Actor {
        by: "ann".to_owned(),
        why: "night shift".to_owned(),
        at: at(micros),
    }
}

fn result(number: u128, refusal: Option<&str>) -> JobResult {
    JobResult {
        saga: saga(number),
        refusal: refusal.map(str::to_owned),
        at: at(9),
    }
}

fn actions(entries: &[crate::store::dead_letters::AuditEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.action.as_str()).collect()
}

/// Until its time is over; then by the next one.
pub async fn a_job_is_held_by_one_node_at_a_time(store: &dyn Complete) {
    for number in [1, 2] {
        store.put_job(&job(number)).await.unwrap();
    }
    assert_eq!(store.job(uuid(1)).await.unwrap(), Some(job(1)));
    assert_eq!(store.job(uuid(3)).await.unwrap(), None);
    let nodes = (0..4).map(|_| until_stored(|| store.hold_job(at(10), at(50))));
    let mut held: Vec<JobRow> = join_all(nodes).await.into_iter().flatten().collect();
    // A node may have skipped what another was just taking.
    for _ in 0..2 {
        held.extend(store.hold_job(at(10), at(50)).await.unwrap());
    }
    held.sort_by_key(|job| job.id);
    let ids: Vec<_> = held.iter().map(|job| (job.id, job.version)).collect();
    assert_eq!(ids, [(uuid(1), 1), (uuid(2), 1)]);
    assert_eq!(store.hold_job(at(49), at(90)).await.unwrap(), None);
    let again = store.hold_job(at(50), at(90)).await.unwrap().unwrap();
    assert_eq!((again.version, again.held_until), (2, at(90)));
    let listed = store.jobs(None, 9).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|job| job.id).collect();
    assert_eq!(listed, [uuid(2), uuid(1)]);
    let older = store.jobs(Some(uuid(2)), 9).await.unwrap();
    assert_eq!(older.len(), 1);
}

/// Its hold has passed to another, or a person has said something.
pub async fn what_a_node_writes_about_a_job_that_changed_is_refused(store: &dyn Complete) {
    store.put_job(&job(1)).await.unwrap();
    let first = store.hold_job(at(10), at(20)).await.unwrap().unwrap();
    let second = store.hold_job(at(20), at(30)).await.unwrap().unwrap();
    let progress = |number| Progress {
        results: vec![result(number, None)],
        held_until: at(40),
        ..Progress::default()
    };
    let (one, three) = (progress(1), progress(3));
    let late = store.advance_job(first.id, first.version, at(21), &one);
    assert_eq!(late.await.unwrap(), None);
    let advanced = store
        .advance_job(second.id, second.version, at(22), &progress(2))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((advanced.done, advanced.cursor), (1, Some(saga(2))));
    assert_eq!(store.job(uuid(1)).await.unwrap().as_ref(), Some(&advanced));
    let paused = store
        .command_job(uuid(1), JobCommand::Pause, &ann(23))
        .await;
    assert_eq!(paused.unwrap().unwrap().state, JobState::Paused);
    let late = store.advance_job(advanced.id, advanced.version, at(24), &three);
    assert_eq!(late.await.unwrap(), None);
    let results = store.job_results(uuid(1), false, None, 9).await.unwrap();
    assert_eq!(results, [result(2, None)]);
}

/// What has ended stays so; who said what is in the audit log.
pub async fn a_person_stops_a_job_and_lets_it_go_on(store: &dyn Complete) {
    store.put_job(&job(1)).await.unwrap();
    let say = async |command, micros| {
        let job = store.command_job(uuid(1), command, &ann(micros)).await;
        job.unwrap().unwrap()
    };
    assert_eq!(say(JobCommand::Resume, 2).await.state, JobState::Running);
    let paused = say(JobCommand::Pause, 3).await;
    assert_eq!(paused.note.as_deref(), Some("paused by ann: night shift"));
    assert_eq!(store.hold_job(at(10), at(20)).await.unwrap(), None);
    let running = say(JobCommand::Resume, 4).await;
    assert!(running.canary_seen, "whoever lets it go on has looked");
    let held = store.hold_job(at(10), at(20)).await.unwrap().unwrap();
    let done = Progress {
        state: Some((JobState::Done, Some("nothing is left".to_owned()))),
        ..Progress::default()
    };
    let done = store
        .advance_job(held.id, held.version, at(11), &done)
        .await;
    assert_eq!(done.unwrap().unwrap().state, JobState::Done);
    assert_eq!(say(JobCommand::Abort, 12).await.state, JobState::Done);
    let missing = store
        .command_job(uuid(2), JobCommand::Abort, &ann(13))
        .await;
    assert_eq!(missing.unwrap(), None);
    let entries = store.letter_audit(None, 0, 10).await.unwrap();
    assert_eq!(actions(&entries), ["job-create", "job-pause", "job-resume"]);
    assert!(entries[0].body.contains("the printer is mended"));
}

/// Also when a node writes it again.
pub async fn what_became_of_each_saga_is_kept_once(store: &dyn Complete) {
    store.put_job(&job(1)).await.unwrap();
    let mut held = store.hold_job(at(10), at(20)).await.unwrap().unwrap();
    for results in [
        vec![result(1, None), result(2, Some("it has ended"))],
        vec![result(2, None), result(3, None)],
    ] {
        let progress = Progress {
            results,
            held_until: at(30),
            ..Progress::default()
        };
        let advanced = store.advance_job(held.id, held.version, at(11), &progress);
        held = advanced.await.unwrap().unwrap();
    }
    let read = async |only_refused, after, limit| {
        let results = store.job_results(uuid(1), only_refused, after, limit).await;
        results.unwrap()
    };
    let all = [
        result(1, None),
        result(2, Some("it has ended")),
        result(3, None),
    ];
    assert_eq!(read(false, None, 9).await, all);
    assert_eq!(read(true, None, 9).await, all[1..2]);
    assert_eq!(read(false, Some(saga(1)), 1).await, all[1..2]);
    assert_eq!((held.cursor, held.refused), (Some(saga(3)), 1));
}
