//! A thousand runs of the simulator, and the proof that it notices known bugs.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use backstitch::sim::{Bug, FailedRun, RunReport, Scenario, run};

/// Runs of the gate.
const SEEDS: u64 = 1_000;
/// Runs with sub-sagas; each takes three times as long.
const BUNDLE_SEEDS: u64 = 200;
/// Runs with reservations that lapse.
const LAPSE_SEEDS: u64 = 200;
/// Runs with dead letters; each takes about as long.
const LETTER_SEEDS: u64 = 200;
/// Runs with nodes of several releases.
const RELEASE_SEEDS: u64 = 200;
/// A known bug must show up within this many runs.
const SEEDS_TO_NOTICE: u64 = 200;

/// Runs seeds on all cores until one fails.
fn search(
    seeds: std::ops::Range<u64>,
    scenario: impl Fn(u64) -> Scenario + Sync,
) -> (Vec<RunReport>, Option<FailedRun>) {
    let next = AtomicU64::new(seeds.start);
    let reports = Mutex::new(Vec::new());
    let failure = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failure.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match run(&scenario(seed)) {
                        Ok(report) => reports.lock().unwrap().push(report),
                        Err(found) => *failure.lock().unwrap() = Some(found),
                    }
                }
            });
        }
    });
    (reports.into_inner().unwrap(), failure.into_inner().unwrap())
}

/// The environment variable with the one seed to run.
const SEED: &str = "BACKSTITCH_SIM_SEED";

/// Runs the one seed that somebody asked for, if one was.
fn repeated(scenario: fn(u64) -> Scenario) -> bool {
    let Ok(seed) = std::env::var(SEED) else {
        return false;
    };
    let seed = seed.parse().expect("the seed is a number");
    let report = run(&scenario(seed)).unwrap_or_else(|failure| panic!("{failure}"));
    println!("seed {seed}: {report:?}");
    true
}

#[test]
fn every_saga_ends_all_or_nothing_whatever_breaks() {
    if repeated(Scenario::new) {
        return;
    }
    let (reports, failure) = search(0..SEEDS, Scenario::new);
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    // A world in which nothing goes wrong, or nothing goes right, would prove nothing.
    let completed: u64 = reports.iter().map(|report| report.completed).sum();
    let compensated: u64 = reports.iter().map(|report| report.compensated).sum();
    let crashes: u64 = reports.iter().map(|report| report.crashes).sum();
    println!("{SEEDS} seeds: {completed} completed, {compensated} compensated, {crashes} crashes");
    assert_eq!(reports.len() as u64, SEEDS);
    assert!(completed > SEEDS && compensated > SEEDS && crashes > SEEDS);
}

#[test]
fn a_saga_and_all_that_it_runs_end_alike_whatever_breaks() {
    if repeated(Scenario::bundles) {
        return;
    }
    let (reports, failure) = search(0..BUNDLE_SEEDS, Scenario::bundles);
    if let Some(failure) = failure {
        panic!("bundles: {failure}");
    }
    let completed: u64 = reports.iter().map(|report| report.completed).sum();
    let compensated: u64 = reports.iter().map(|report| report.compensated).sum();
    println!("{BUNDLE_SEEDS} seeds: {completed} bundles completed, {compensated} compensated");
    assert_eq!(reports.len() as u64, BUNDLE_SEEDS);
    assert!(completed > BUNDLE_SEEDS / 4 && compensated > BUNDLE_SEEDS / 4);
}

#[test]
fn nothing_that_was_acknowledged_is_gone_whatever_breaks() {
    if repeated(Scenario::letters) {
        return;
    }
    let (reports, failure) = search(0..LETTER_SEEDS, Scenario::letters);
    if let Some(failure) = failure {
        panic!("letters: {failure}");
    }
    let letters: u64 = reports.iter().map(|report| report.letters).sum();
    let ended: u64 = reports
        .iter()
        .map(|report| report.completed + report.compensated)
        .sum();
    println!("{LETTER_SEEDS} seeds with {letters} dead letters: {ended} sagas ended");
    assert_eq!(reports.len() as u64, LETTER_SEEDS);
    assert!(letters > 10 * LETTER_SEEDS && ended > 2 * LETTER_SEEDS);
}

#[test]
fn dead_letters_that_share_an_id_are_noticed() {
    notices_in(Scenario::letters, Bug::LetterIdsReused);
}

#[test]
fn dead_letters_that_are_acknowledged_and_not_kept_are_noticed() {
    notices_in(Scenario::letters, Bug::LettersLost);
}

#[test]
fn a_sub_saga_that_does_not_wait_for_its_parent_is_noticed() {
    notices_in(Scenario::bundles, Bug::ChildrenRush);
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(run(&Scenario::new(7)), run(&Scenario::new(7)));
}

#[test]
fn an_acknowledgement_before_the_commit_is_noticed() {
    notices(Bug::AckBeforeCommit);
}

#[test]
fn participants_that_do_not_dedupe_are_noticed() {
    notices(Bug::NoDedupe);
}

#[test]
fn an_unknown_outcome_that_is_not_compensated_is_noticed() {
    notices(Bug::UnknownNotCompensated);
}

#[test]
fn nothing_is_confirmed_that_has_lapsed_however_long_no_node_runs() {
    if repeated(Scenario::lapses) {
        return;
    }
    let (reports, failure) = search(0..LAPSE_SEEDS, Scenario::lapses);
    if let Some(failure) = failure {
        panic!("lapses: {failure}");
    }
    let completed: u64 = reports.iter().map(|report| report.completed).sum();
    let compensated: u64 = reports.iter().map(|report| report.compensated).sum();
    println!("{LAPSE_SEEDS} seeds: {completed} completed, {compensated} compensated");
    assert_eq!(reports.len() as u64, LAPSE_SEEDS);
    assert!(completed > LAPSE_SEEDS && compensated > LAPSE_SEEDS);
}

#[test]
fn a_lapsed_reservation_that_is_confirmed_is_noticed() {
    notices_in(Scenario::lapses, Bug::LapsedConfirmed);
}

#[test]
fn nobodys_sagas_suffer_from_a_wrong_clock() {
    if repeated(Scenario::wrong_clocks) {
        return;
    }
    let (reports, failure) = search(0..LAPSE_SEEDS, Scenario::wrong_clocks);
    if let Some(failure) = failure {
        panic!("wrong clocks: {failure}");
    }
    assert_eq!(reports.len() as u64, LAPSE_SEEDS);
}

#[test]
fn a_node_that_believes_its_own_clock_is_noticed() {
    notices_in(Scenario::wrong_clocks, Bug::OwnClock);
}

#[test]
fn nodes_of_several_releases_lose_nothing_of_each_others() {
    if repeated(Scenario::upgrades) {
        return;
    }
    let (reports, failure) = search(0..RELEASE_SEEDS, Scenario::upgrades);
    if let Some(failure) = failure {
        panic!("upgrades: {failure}");
    }
    let completed: u64 = reports.iter().map(|report| report.completed).sum();
    let compensated: u64 = reports.iter().map(|report| report.compensated).sum();
    println!("{RELEASE_SEEDS} seeds: {completed} completed, {compensated} compensated");
    assert_eq!(reports.len() as u64, RELEASE_SEEDS);
    assert!(completed > RELEASE_SEEDS && compensated > RELEASE_SEEDS);
}

#[test]
fn a_node_that_ignores_what_a_newer_one_has_marked_is_noticed() {
    notices_in(Scenario::upgrades, Bug::FormatsIgnored);
}

#[test]
fn a_node_that_waits_for_ever_is_noticed() {
    notices(Bug::WaitsForEver);
}

fn notices(bug: Bug) {
    notices_in(Scenario::new, bug);
}

fn notices_in(scenario: fn(u64) -> Scenario, bug: Bug) {
    if std::env::var(SEED).is_ok() {
        return; // one run without a bug is asked for
    }
    let with_bug = |seed| Scenario {
        bug: Some(bug),
        ..scenario(seed)
    };
    let (_, failure) = search(0..SEEDS_TO_NOTICE, with_bug);
    let failure =
        failure.unwrap_or_else(|| panic!("{SEEDS_TO_NOTICE} runs did not notice {bug:?}"));
    println!("{bug:?} noticed: {failure}");
}
