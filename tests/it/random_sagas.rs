//! Ten thousand random definitions: each is refused with located problems, or runs to an end with
//! participants that do what the seed says, and that end is all or nothing.

mod generator;

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use backstitch::definition::{Problems, parse_all};
use backstitch::saga::Status;
use backstitch::sim::network::FaultRates;
use backstitch::sim::stage::{Stage, invent};
use generator::{Language, definitions};

const DEFINITIONS: u64 = 10_000;
/// One in so many runs is played with a bad network and crashes.
const FAULTS_EVERY: u64 = 25;
/// Repeats one of them.
const SEED: &str = "BACKSTITCH_RANDOM_SAGA_SEED";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Refused,
    Completed,
    Compensated,
}

#[test]
fn a_random_definition_is_refused_or_runs_to_an_end() {
    let language = language();
    if let Ok(seed) = std::env::var(SEED) {
        let seed = seed.parse().expect("the seed is a number");
        let fate = check(seed, language, true).unwrap_or_else(|wrong| panic!("{wrong}"));
        println!("seed {seed}: {fate:?}");
        return;
    }
    let next = AtomicU64::new(0);
    let fates = Mutex::new(Vec::new());
    let failure = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failure.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= DEFINITIONS {
                        return;
                    }
                    match check(seed, language, false) {
                        Ok(fate) => fates.lock().unwrap().push(fate),
                        Err(wrong) => *failure.lock().unwrap() = Some(wrong),
                    }
                }
            });
        }
    });
    if let Some(wrong) = failure.into_inner().unwrap() {
        panic!("{wrong}");
    }
    let fates = fates.into_inner().unwrap();
    let count = |fate| fates.iter().filter(|it| **it == fate).count();
    let (refused, completed, compensated) = (
        count(Fate::Refused),
        count(Fate::Completed),
        count(Fate::Compensated),
    );
    println!("{refused} refused, {completed} completed, {compensated} compensated; {language:?}");
    assert_eq!(fates.len() as u64, DEFINITIONS);
    // One that refuses or accepts everything would prove nothing.
    for share in [refused, completed, compensated] {
        assert!(share > 1_000, "{refused} {completed} {compensated}");
    }
}

/// What this version runs of the language.
fn language() -> Language {
    let runs = |steps: &str| {
        let of = |name: &str, steps: &str| {
            format!("saga: {name}\nversion: 1\nkey: ${{ input.id }}\nsteps:\n  - {steps}\n")
        };
        let child = of("child", "{ step: a, confirm: p.f }");
        let play = Stage::of(&[of("parent", steps), child]).unwrap().play();
        play.refused.is_empty()
    };
    Language {
        waits: runs("{ wait: a, timeout: 1d }"),
        sub_sagas: runs("{ saga: a, run: child, with: { id: x } }"),
    }
}

/// Whether a definition is refused as it should, or ends as it should; in words, if not.
fn check(seed: u64, language: Language, shown: bool) -> Result<Fate, String> {
    let sources = definitions(seed, language);
    let files: Vec<(String, &String)> = sources
        .iter()
        .enumerate()
        .map(|(number, source)| (format!("{number}.yaml"), source))
        .collect();
    let wrong = |what: &str| {
        let sources = sources.join("---\n");
        format!("{what}\n\nrepeat with {SEED}={seed} ./test it random\n\n{sources}")
    };
    let definitions = match parse_all(&files) {
        Ok(definitions) => definitions,
        Err(refused) => {
            if shown {
                println!("{}", wrong(&format!("{refused:#?}")));
            }
            return located(&refused)
                .then_some(Fate::Refused)
                .ok_or_else(|| wrong(&format!("refused, but not located: {refused:?}")));
        }
    };
    let mut random = fastrand::Rng::with_seed(seed);
    let input = invent::input(&definitions[0], &mut random).map_err(|why| wrong(&why))?;
    let name = definitions[0].name.clone();
    let mut stage = Stage::with(definitions)
        .seed(seed)
        .improvise()
        .attended()
        .start(name, input);
    if seed.is_multiple_of(FAULTS_EVERY) {
        stage = stage.faults(FaultRates::default());
    }
    let play = stage.play();
    let found = play.wrong();
    if shown {
        println!("{}\n{}", wrong(""), play.timeline());
    }
    if !found.is_empty() || play.sagas.is_empty() {
        let timeline = play.timeline();
        return Err(wrong(&format!("{}\n\n{timeline}", found.join("\n"))));
    }
    Ok(match play.sagas[0].status {
        Status::Completed => Fate::Completed,
        _ => Fate::Compensated,
    })
}

/// All problems say where they are, and none is our own failure.
fn located(refused: &[Problems]) -> bool {
    let problems: Vec<_> = refused.iter().flat_map(|problems| &problems.0).collect();
    let located = problems.iter().all(|problem| {
        problem.line >= 1 && problem.column >= 1 && problem.code.as_str() != "internal"
    });
    located && !problems.is_empty()
}
