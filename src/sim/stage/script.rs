//! A script for the stage, as a file: what stand-ins answer, and what comes from outside.
//!
//! The same words as the methods of [`Stage`], in YAML; described in `docs/simulate.md`. Read and
//! checked whole: names of sagas and commands must be those of the definitions, because a rule
//! that never fits would only look like one that is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::{DefaultMessageFormatter, Location, MessageFormatter, Spanned};

use super::answer::{Calls, Does, Response};
use super::cue::{Cue, Entrance};
use super::invent;
use super::setup::Stage;
use crate::definition::{BlockKind, Definition, Forward, parse_duration};
use crate::id::Phase;
use crate::saga::OperatorKind;

/// Largest script, in bytes.
pub const SCRIPT_BYTES_MAX: usize = 1024 * 1024;

/// A script that was read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// What is left to chance is drawn from this.
    pub seed: Option<u64>,
    #[serde(default)]
    improvise: bool,
    run_for: Option<Spanned<String>>,
    #[serde(default)]
    answers: Vec<Spanned<AnswerRule>>,
    #[serde(default)]
    events: Vec<Spanned<EventRule>>,
}

/// What is answered to which calls.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerRule {
    to: Option<Spanned<String>>,
    step: Option<Spanned<String>>,
    phase: Option<Phase>,
    key: Option<String>,
    item: Option<u32>,
    call: Option<u32>,
    first: Option<u32>,
    succeed: Option<Value>,
    reject: Option<String>,
    fail: Option<String>,
    #[serde(default)]
    silent: bool,
    after: Option<Spanned<String>>,
    #[serde(default)]
    lost: bool,
}

/// What comes from outside, and when.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventRule {
    at: Option<Spanned<String>>,
    start: Option<Spanned<String>>,
    input: Option<Value>,
    signal: Option<String>,
    publish: Option<String>,
    exchange: Option<String>,
    operate: Option<Spanned<String>>,
    step: Option<Spanned<String>>,
    saga: Option<Spanned<String>>,
    key: Option<String>,
    body: Option<Value>,
}

/// What is wrong with a script, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    /// From 1; 0 if it is about the whole.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// What to do about it.
    pub message: String,
}

impl std::error::Error for ScriptError {}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

fn wrong(at: Location, message: impl Into<String>) -> ScriptError {
    ScriptError {
        line: at.line(),
        column: at.column(),
        message: message.into(),
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(source: &str) -> Result<Self, ScriptError> {
        if source.len() > SCRIPT_BYTES_MAX {
            let message = format!("a script has at most {SCRIPT_BYTES_MAX} bytes");
            return Err(wrong(Location::UNKNOWN, message));
        }
        serde_saphyr::from_str(source).map_err(|error| {
            let error = error.without_snippet();
            let at = error.location().unwrap_or(Location::UNKNOWN);
            wrong(at, DefaultMessageFormatter.format_message(error))
        })
    }

    /// Whether something in it starts sagas, or leaves the time for schedules to do so.
    pub fn starts_sagas(&self) -> bool {
        let starts = |event: &EventRule| event.start.is_some() || event.publish.is_some();
        self.run_for.is_some() || self.events.iter().any(|event| starts(&event.value))
    }

    /// Adds all that it says to a stage with the definitions it is about.
    ///
    /// # Errors
    /// All things that are wrong with it.
    pub fn direct(self, mut stage: Stage) -> Result<Stage, Vec<ScriptError>> {
        let mut found = Vec::new();
        let names = Names::of(&stage);
        if let Some(seed) = self.seed {
            stage.seed = seed;
        }
        stage.improvise |= self.improvise;
        if let Some(text) = self.run_for {
            match duration(&text) {
                Ok(duration) => stage.run_for = Some(duration),
                Err(error) => found.push(error),
            }
        }
        for rule in self.answers {
            match answer(rule, &names) {
                Ok(rule) => stage.rules.push(rule),
                Err(error) => found.push(error),
            }
        }
        for rule in self.events {
            match event(rule, &names, &stage) {
                Ok(entrance) => stage.entrances.push(entrance),
                Err(error) => found.push(error),
            }
        }
        if found.is_empty() {
            Ok(stage)
        } else {
            Err(found)
        }
    }
}

/// What a script may name.
struct Names {
    sagas: BTreeSet<String>,
    steps: BTreeSet<String>,
    commands: BTreeSet<String>,
}

impl Names {
    fn of(stage: &Stage) -> Self {
        let mut names = Self {
            sagas: BTreeSet::new(),
            steps: BTreeSet::new(),
            commands: BTreeSet::new(),
        };
        for definition in &stage.definitions {
            names.sagas.insert(definition.name.clone());
            names.add(definition);
        }
        names
    }

    fn add(&mut self, definition: &Definition) {
        for node in &definition.blocks {
            let BlockKind::Step(step) = &node.kind else {
                continue;
            };
            self.steps.insert(step.name.clone());
            let forward = step.forward.as_ref().map(Forward::call);
            let calls = forward
                .into_iter()
                .chain(&step.confirm)
                .chain(&step.compensate);
            self.commands.extend(calls.map(|call| call.command.clone()));
        }
    }
}

/// Whether a name is one of those that there are.
fn known(name: &Spanned<String>, names: &BTreeSet<String>, what: &str) -> Result<(), ScriptError> {
    if names.contains(&name.value) {
        return Ok(());
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let message = format!(
        "no {what} is called `{}`; there are: {}",
        name.value,
        all.join(", ")
    );
    Err(wrong(name.referenced, message))
}

fn duration(text: &Spanned<String>) -> Result<Duration, ScriptError> {
    parse_duration(&text.value).map_err(|why| wrong(text.referenced, why))
}

fn answer(rule: Spanned<AnswerRule>, names: &Names) -> Result<(Calls, Response), ScriptError> {
    let (at, rule) = (rule.referenced, rule.value);
    if rule.to.is_none() && rule.step.is_none() {
        return Err(wrong(
            at,
            "say which calls are meant: `to:` a command, or `step:`",
        ));
    }
    if let Some(command) = &rule.to {
        known(command, &names.commands, "command")?;
    }
    if let Some(step) = &rule.step {
        known(step, &names.steps, "step")?;
    }
    if rule.call.is_some() && rule.first.is_some() {
        return Err(wrong(
            at,
            "`call` is one call, `first` are several; drop one",
        ));
    }
    let kinds = [
        rule.succeed.clone().map(|body| Does::Succeed(Some(body))),
        rule.reject.clone().map(Does::Reject),
        rule.fail.clone().map(Does::Fail),
        rule.silent.then_some(Does::Nothing),
    ];
    let mut kinds = kinds.into_iter().flatten();
    let does = kinds.next();
    if kinds.next().is_some() {
        let message = "a call is answered in one way: `succeed`, `reject`, `fail` or `silent`";
        return Err(wrong(at, message));
    }
    if does.is_none() && rule.after.is_none() && !rule.lost {
        let message = "say what is answered: `succeed: {…}`, `reject: why`, `fail: why`, `silent: true`, or `after: 5s` or `lost: true` for a yes";
        return Err(wrong(at, message));
    }
    let mut response = Response::of(does.unwrap_or(Does::Succeed(None)));
    if let Some(after) = &rule.after {
        response = response.after(duration(after)?);
    }
    if rule.lost {
        response = response.lost();
    }
    let calls = Calls {
        command: rule.to.map(|command| command.value),
        step: rule.step.map(|step| step.value),
        phase: rule.phase,
        key: rule.key,
        item: rule.item,
        from: rule.call,
        until: rule.call.or(rule.first),
    };
    Ok((calls, response))
}

fn event(rule: Spanned<EventRule>, names: &Names, stage: &Stage) -> Result<Entrance, ScriptError> {
    let (place, rule) = (rule.referenced, rule.value);
    let at = rule.at.as_ref().map(duration).transpose()?;
    let at = at.unwrap_or_default();
    for saga in rule.start.iter().chain(&rule.saga) {
        known(saga, &names.sagas, "saga")?;
    }
    let kinds = [
        rule.start.is_some(),
        rule.signal.is_some(),
        rule.publish.is_some(),
        rule.operate.is_some(),
    ];
    if kinds.into_iter().filter(|is| *is).count() != 1 {
        let message = "an event is one of `start: SAGA`, `signal: NAME`, `publish: ROUTING-KEY`, `operate: ACTION`";
        return Err(wrong(place, message));
    }
    let body = rule
        .body
        .clone()
        .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    if let Some(saga) = rule.start {
        let input = match rule.input {
            Some(input) => input,
            None => made_up(&saga, stage)?,
        };
        let saga = saga.value;
        return Ok(Entrance {
            at,
            cue: Cue::Start { saga, input },
        });
    }
    if let Some(routing_key) = rule.publish {
        let Some(exchange) = rule.exchange else {
            return Err(wrong(place, "`publish` needs the `exchange`"));
        };
        return Ok(Entrance {
            at,
            cue: Cue::Event {
                exchange,
                routing_key,
                body,
            },
        });
    }
    let (Some(saga), Some(key)) = (rule.saga, rule.key) else {
        return Err(wrong(
            place,
            "say which saga is meant: `saga:` its name and `key:` its key",
        ));
    };
    let saga = saga.value;
    let cue = match (rule.signal, rule.operate) {
        (Some(signal), _) => Cue::Signal {
            saga,
            key,
            signal,
            body,
        },
        (None, Some(action)) => Cue::Operate {
            saga,
            key,
            action: operator_kind(&action, rule.step.as_ref())?,
        },
        (None, None) => return Err(wrong(place, "nothing happens in this event")),
    };
    Ok(Entrance { at, cue })
}

/// An input for a start that gives none.
fn made_up(saga: &Spanned<String>, stage: &Stage) -> Result<Value, ScriptError> {
    let newest = stage.definitions.iter().filter(|it| it.name == saga.value);
    let Some(definition) = newest.max_by_key(|it| it.version) else {
        return Err(wrong(saga.referenced, "there is no such saga"));
    };
    let mut random = fastrand::Rng::with_seed(stage.seed);
    invent::input(definition, &mut random).map_err(|why| wrong(saga.referenced, why))
}

fn operator_kind(
    action: &Spanned<String>,
    step: Option<&Spanned<String>>,
) -> Result<OperatorKind, ScriptError> {
    let path = step
        .map(|step| {
            let path = step.value.parse();
            path.map_err(|error| wrong(step.referenced, format!("{error}")))
        })
        .transpose()?;
    let mut fields = BTreeMap::from([("action", Value::String(action.value.clone()))]);
    if let Some(path) = &path {
        let path: &crate::id::StepPath = path;
        fields.insert("step", Value::String(path.to_string()));
    }
    let value = serde_json::to_value(fields).unwrap_or_default();
    serde_json::from_value(value).map_err(|error| {
        let message = format!(
            "`{}` is not what a person can do here ({error}): cancel, retry, skip (with `step`), pause, resume, force-complete, force-compensated",
            action.value
        );
        wrong(action.referenced, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAGA: &str = "
saga: order
version: 1
key: ${ input.id }
input: { type: object, required: [id], properties: { id: { type: string } } }
steps:
  - { step: pay, reserve: bank.reserve, confirm: bank.take, compensate: bank.free }
";

    fn directed(script: &str) -> Result<Stage, Vec<ScriptError>> {
        let stage = Stage::of(&[SAGA]).unwrap_or_else(|_| panic!("the definition is right"));
        Script::parse(script)
            .map_err(|error| vec![error])?
            .direct(stage)
    }

    #[test]
    fn a_script_is_played() {
        let script = "
answers:
  - { to: bank.reserve, key: b, reject: no money }
  - { step: pay, phase: reserve, first: 2, fail: busy }
events:
  - { start: order, input: { id: a } }
  - { at: 1h, start: order, input: { id: b } }
  - { at: 2h, start: order }
";
        let play = directed(script)
            .unwrap_or_else(|wrong| panic!("{wrong:?}"))
            .play();
        play.assert_sound();
        assert_eq!(play.saga("a").ended_as(), "completed");
        assert_eq!(
            play.saga("b").ended_as(),
            "compensated: pay rejected: no money"
        );
        assert_eq!(play.sagas.len(), 3);
    }

    #[test]
    fn what_is_wrong_with_a_script_is_said_with_its_place() {
        let cases = [
            (
                "answers:\n  - { to: bank.rob, silent: true }",
                "2:",
                "there are: bank.free",
            ),
            ("answers:\n  - { step: pai, silent: true }", "2:", "no step"),
            ("answers:\n  - { silent: true }", "2:5", "which calls"),
            (
                "answers:\n  - { to: bank.reserve }",
                "2:5",
                "what is answered",
            ),
            (
                "answers:\n  - { to: bank.reserve, fail: a, reject: b }",
                "2:5",
                "one way",
            ),
            (
                "answers:\n  - { to: bank.reserve, after: soon }",
                "2:",
                "not a duration",
            ),
            (
                "answers:\n  - { to: bank.reserve, fails: a }",
                "2:",
                "fails",
            ),
            ("events:\n  - { at: 1h }", "2:5", "an event is one of"),
            ("events:\n  - { start: ordre }", "2:", "no saga"),
            ("events:\n  - { signal: go }", "2:5", "which saga"),
            ("events:\n  - { publish: a.b }", "2:5", "exchange"),
            (
                "events:\n  - { operate: sing, saga: order, key: a }",
                "2:",
                "cancel, retry",
            ),
            (
                "events:\n  - { operate: skip, saga: order, key: a }",
                "2:",
                "step",
            ),
            ("run_for: 1 year", "1:", "not a duration"),
            ("- a", "1:", ""),
        ];
        for (script, place, message) in cases {
            let Err(found) = directed(script) else {
                panic!("accepted: {script}");
            };
            let shown = found[0].to_string();
            assert!(
                shown.starts_with(place) && shown.contains(message),
                "{script}: {shown}"
            );
        }
    }
}
