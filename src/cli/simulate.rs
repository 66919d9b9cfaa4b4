//! `backstitch simulate`: see a definition run, and search for runs that go wrong.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::definitions::sources;
use super::exit::{Exit, Failure};
use super::output;
use crate::definition::{BlockKind, Definition};
use crate::file;
use crate::limits::BODY;
use crate::sim::network::FaultRates;
use crate::sim::stage::script::{SCRIPT_BYTES_MAX, Script};
use crate::sim::stage::{Play, Stage, invent};

/// Most seeds of one search.
const SEEDS_MAX: u64 = 1_000_000;

/// What to simulate.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Definitions: files, or directories whose *.yaml belong together.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The saga to start; without it those that no other one runs.
    #[arg(long)]
    saga: Option<String>,
    /// Its input: JSON, or @FILE. Without it one is made up from the definition.
    #[arg(long, value_name = "JSON|@FILE")]
    input: Option<String>,
    /// What participants answer and what comes from outside: see docs/simulate.md.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// What is left to chance is drawn from this.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Search so many seeds, with crashes and a bad network, for a run that breaks
    /// all-or-nothing or never ends.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX))]
    seeds: Option<u64>,
    /// Let processes crash and messages get lost in a single run too.
    #[arg(long)]
    faults: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let sources = sources(&arguments.files)?;
    if sources.is_empty() {
        return Err(Failure::problems(
            "there is no definition (*.yaml) to simulate",
        ));
    }
    let definitions: Vec<Arc<Definition>> = sources.parse()?.into_iter().map(Arc::new).collect();
    let plan = Simulation::new(arguments, definitions)?;
    match arguments.seeds {
        Some(seeds) => plan.search(seeds, arguments),
        None => plan.show(arguments),
    }
}

/// All that makes a run but its seed.
struct Simulation {
    definitions: Vec<Arc<Definition>>,
    script: Option<(String, String)>,
    /// Sagas to start, with the input if it was given.
    starts: Vec<(String, Option<Value>)>,
    seed: u64,
}

/// A run, and what of it was made up.
struct Run {
    play: Play,
    made_up: Vec<(String, Value)>,
}

impl Simulation {
    fn new(arguments: &Arguments, definitions: Vec<Arc<Definition>>) -> Result<Self, Failure> {
        let script = arguments.script.as_deref().map(read_script).transpose()?;
        let starts_itself = match &script {
            Some((file, source)) => parsed(file, source)?.starts_sagas(),
            None => false,
        };
        let input = arguments.input.as_deref().map(read_input).transpose()?;
        let starts = match &arguments.saga {
            _ if starts_itself => Vec::new(),
            Some(name) if definitions.iter().any(|it| it.name == *name) => vec![name.clone()],
            Some(name) => {
                let why = format!("no definition is called `{name}`");
                return Err(Failure::problems(why));
            }
            None => not_run_by_others(&definitions),
        };
        if let Some(input) = &input {
            let [name] = &starts[..] else {
                let why = if starts_itself {
                    "the script starts sagas itself; give the input there"
                } else {
                    "there are several sagas to start; say with --saga whose input it is"
                };
                return Err(Failure::problems(why));
            };
            check_input(&definitions, name, input)?;
        }
        let starts = starts.into_iter().map(|name| (name, input.clone()));
        let mut plan = Self {
            definitions,
            script,
            starts: starts.collect(),
            seed: 0,
        };
        // Told now, not once for each seed; the script's own seed counts unless another is given.
        let in_script = plan.stage(0)?.0.seed_drawn_from();
        plan.seed = arguments.seed.unwrap_or(in_script);
        Ok(plan)
    }

    /// The stage for one seed, and the inputs that were made up for it.
    fn stage(&self, seed: u64) -> Result<(Stage, Vec<(String, Value)>), Failure> {
        let mut stage = Stage::sharing(self.definitions.clone()).seed(seed);
        let mut made_up = Vec::new();
        for (name, given) in &self.starts {
            let input = match given {
                Some(input) => input.clone(),
                None => self.make_up(name, seed)?,
            };
            if given.is_none() {
                made_up.push((name.clone(), input.clone()));
            }
            stage = stage.start(name, input);
        }
        let Some((file, source)) = &self.script else {
            return Ok((stage.improvise(), made_up));
        };
        let directed = parsed(file, source)?.direct(stage).map_err(|wrong| {
            let wrong: Vec<String> = wrong.iter().map(|it| format!("{file}:{it}")).collect();
            refused(file, &wrong)
        })?;
        Ok((directed, made_up))
    }

    fn make_up(&self, name: &str, seed: u64) -> Result<Value, Failure> {
        let definition = newest(&self.definitions, name)?;
        let mut random = fastrand::Rng::with_seed(seed);
        invent::input(definition, &mut random)
            .map_err(|why| Failure::problems(format!("{name}: {why}")))
    }

    fn run(&self, seed: u64, faults: bool) -> Result<Run, Failure> {
        let (stage, made_up) = self.stage(seed)?;
        let stage = stage.seed(seed);
        let stage = if faults {
            stage.faults(FaultRates::default())
        } else {
            stage
        };
        Ok(Run {
            play: stage.play(),
            made_up,
        })
    }

    /// One run, shown.
    fn show(&self, arguments: &Arguments) -> Result<Exit, Failure> {
        let run = self.run(self.seed, arguments.faults)?;
        let wrong = complaints(&run.play);
        if arguments.json {
            output::print_json(&as_json(&run, &wrong))?;
        } else {
            output::print(&as_text(&run, &wrong))?;
        }
        verdict(wrong.is_empty())
    }

    /// Many runs, of which the first bad one is shown.
    fn search(&self, seeds: u64, arguments: &Arguments) -> Result<Exit, Failure> {
        let first = self.seed;
        let names = self.definitions.iter().map(|it| (it.name.as_str(), (0, 0)));
        let mut ends: BTreeMap<&str, (u64, u64)> = names.collect();
        let mut crashes = 0_u64;
        for seed in first..first.saturating_add(seeds) {
            let run = self.run(seed, true)?;
            let wrong = complaints(&run.play);
            if !wrong.is_empty() {
                if arguments.json {
                    output::print_json(&as_json(&run, &wrong))?;
                } else {
                    output::print(&as_text(&run, &wrong))?;
                    output::remark(format_args!("repeat with: {}", again(arguments, seed)));
                }
                return Err(Failure::new(format!(
                    "seed {seed} breaks it, the first of {} that were tried",
                    seed - first + 1
                )));
            }
            crashes += run.play.crashes;
            for saga in &run.play.sagas {
                if let Some((completed, compensated)) = ends.get_mut(saga.name.as_str()) {
                    match saga.status {
                        crate::saga::Status::Completed => *completed += 1,
                        _ => *compensated += 1,
                    }
                }
            }
        }
        let (completed, compensated) = ends
            .values()
            .fold((0, 0), |sum, seen| (sum.0 + seen.0, sum.1 + seen.1));
        let unseen = unseen(&ends);
        for remark in &unseen {
            output::remark(format_args!(
                "warning: {remark}, in {seeds} seeds; what was found says nothing of that"
            ));
        }
        if arguments.json {
            output::print_json(&json!({
                "ok": true, "first_seed": first, "seeds": seeds,
                "completed": completed, "compensated": compensated, "crashes": crashes,
                "warnings": unseen,
            }))?;
        } else {
            output::print(&format!(
                "{seeds} seeds from {first}: {completed} sagas completed, {compensated} compensated, through {crashes} crashes; every one ended, all or nothing\n"
            ))?;
        }
        Ok(Exit::Done)
    }
}

fn newest<'d>(definitions: &'d [Arc<Definition>], name: &str) -> Result<&'d Definition, Failure> {
    let named = definitions.iter().filter(|it| it.name == name);
    let newest = named.max_by_key(|it| it.version).map(|it| &**it);
    newest.ok_or_else(|| Failure::problems(format!("no definition is called `{name}`")))
}

/// Refuses an input that no saga could be started with.
fn check_input(definitions: &[Arc<Definition>], name: &str, input: &Value) -> Result<(), Failure> {
    let definition = newest(definitions, name)?;
    definition.check_input(input).map_err(|wrong| {
        let wrong = wrong.join("\n  ");
        Failure::problems(format!("the input does not fit `{name}`\n  {wrong}"))
    })?;
    let key = definition.key_of(input);
    key.map(drop)
        .map_err(|error| Failure::problems(format!("the input does not fit `{name}`: {error}")))
}

fn parsed(file: &str, source: &str) -> Result<Script, Failure> {
    Script::parse(source).map_err(|wrong| refused(file, &[format!("{file}:{wrong}")]))
}

fn refused(file: &str, wrong: &[String]) -> Failure {
    output::remark(format_args!("{}", wrong.join("\n")));
    Failure::problems(format!("{} problems in {file}", wrong.len()))
}

/// Says of which definitions a search has not seen the one end or the other: what it proves is
/// about the runs that there were.
fn unseen(ends: &BTreeMap<&str, (u64, u64)>) -> Vec<String> {
    let remarks = ends.iter().map(|(name, seen)| match seen {
        (0, 0) => Some(format!("no `{name}` was ever started")),
        (0, _) => Some(format!("no `{name}` ever completed")),
        (_, 0) => Some(format!("no `{name}` was ever compensated")),
        _ => None,
    });
    remarks.flatten().collect()
}

fn verdict(is_sound: bool) -> Result<Exit, Failure> {
    if is_sound {
        Ok(Exit::Done)
    } else {
        Err(Failure::new("the run is not sound; see above"))
    }
}

/// The names of the sagas that no other one of these runs.
fn not_run_by_others(definitions: &[Arc<Definition>]) -> Vec<String> {
    let nodes = || definitions.iter().flat_map(|it| &it.blocks);
    let mut names: Vec<String> = definitions
        .iter()
        .map(|definition| definition.name.clone())
        .filter(|name| {
            !nodes().any(|node| matches!(&node.kind, BlockKind::Saga(run) if run.saga == *name))
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn read_script(path: &Path) -> Result<(String, String), Failure> {
    let name = path.display().to_string();
    let wrong =
        |why: &dyn std::fmt::Display| Failure::problems(format!("can't read {name}: {why}"));
    let source = file::read_text(path, SCRIPT_BYTES_MAX).map_err(|why| wrong(&why))?;
    Ok((name, source))
}

fn read_input(text: &str) -> Result<Value, Failure> {
    let text = match text.strip_prefix('@') {
        Some(path) => file::read_text(path.as_ref(), BODY.bytes)
            .map_err(|why| Failure::problems(format!("can't read {path}: {why}")))?,
        None => text.to_owned(),
    };
    serde_json::from_str(&text)
        .map_err(|error| Failure::problems(format!("the input is not JSON: {error}")))
}

/// What is wrong with a run; that nothing ran at all is wrong too.
fn complaints(play: &Play) -> Vec<String> {
    let mut wrong = play.wrong();
    if play.sagas.is_empty() {
        wrong.push("no saga was started".to_owned());
    }
    wrong
}

fn again(arguments: &Arguments, seed: u64) -> String {
    let mut command = "backstitch simulate".to_owned();
    // Writing to a String can't fail.
    for file in &arguments.files {
        let _ = write!(command, " {}", file.display());
    }
    if let Some(script) = &arguments.script {
        let _ = write!(command, " --script {}", script.display());
    }
    if let Some(saga) = &arguments.saga {
        let _ = write!(command, " --saga {saga}");
    }
    if let Some(input) = &arguments.input {
        let _ = write!(command, " --input '{input}'");
    }
    let _ = write!(command, " --faults --seed {seed}");
    command
}

fn as_text(run: &Run, wrong: &[String]) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    for (saga, input) in &run.made_up {
        let _ = writeln!(text, "made up for {saga}: --input '{input}'");
    }
    let Play {
        seed,
        crashes,
        lasted,
        ..
    } = &run.play;
    let _ = writeln!(text, "seed {seed}\n\n{}", run.play.timeline());
    if *crashes > 0 {
        let _ = writeln!(text, "through {crashes} crashes");
    }
    let lasted: Duration = *lasted;
    let _ = writeln!(text, "lasted {}", crate::view::spoken(lasted));
    if wrong.is_empty() {
        text.push_str("sound: every saga ended, all or nothing\n");
    }
    for wrong in wrong {
        let _ = writeln!(text, "NOT SOUND: {wrong}");
    }
    text
}

fn as_json(run: &Run, wrong: &[String]) -> Value {
    let play = &run.play;
    let sagas: Vec<Value> = play
        .sagas
        .iter()
        .map(|saga| {
            let effects: Vec<Value> = saga
                .effects()
                .iter()
                .map(|effect| {
                    json!({
                        "step": effect.step, "phase": effect.phase, "command": effect.command,
                        "at": effect.at.to_string(),
                    })
                })
                .collect();
            json!({ "saga": saga.view(), "effects": effects })
        })
        .collect();
    let letters: Vec<Value> = play
        .letters
        .iter()
        .map(|letter| json!({ "queue": letter.queue, "code": letter.code.to_string(), "reason": letter.reason }))
        .collect();
    let made_up: serde_json::Map<String, Value> = run.made_up.iter().cloned().collect();
    json!({
        "ok": wrong.is_empty(), "seed": play.seed, "made_up": made_up, "sagas": sagas,
        "refused": play.refused, "dead_letters": letters, "crashes": play.crashes, "wrong": wrong,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_that_were_never_seen_are_remarked() {
        let ends = BTreeMap::from([("a", (0, 3)), ("b", (2, 0)), ("c", (1, 1)), ("d", (0, 0))]);
        let expected = [
            "no `a` ever completed",
            "no `b` was ever compensated",
            "no `d` was ever started",
        ];
        assert_eq!(unseen(&ends), expected);
    }
}
