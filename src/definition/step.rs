//! One step: its commands, where they go, and how long and how often they are tried.

use std::time::Duration;

use super::block::Spot;
use super::draft::{Draft, Place};
use super::duration::format_duration;
use super::fields::{Fields, wrong_type};
use super::names::{check_exchange, check_name, check_queue, check_route, participant};
use super::problem::{Position, Rule};
use super::yaml::{Content, Yaml};
use super::{
    Call, Forward, NodeId, NodeKind, Retry, STEP_TIMEOUT_DEFAULT, STEP_TIMEOUT_RANGE,
    SUSPEND_AFTER_DEFAULT, Step,
};
use crate::message::Destination;

/// Fields of a step.
const STEP_FIELDS: [&str; 13] = [
    "step",
    "with",
    "to",
    "reserve",
    "confirm",
    "compensate",
    "action",
    "timeout",
    "retry",
    "when",
    "for_each",
    "suspend_after",
    "read_only",
];
/// Fields of `retry`.
const RETRY_FIELDS: [&str; 4] = ["attempts", "first", "factor", "max"];
/// Fields of `to`, when it is no queue's name.
const TO_FIELDS: [&str; 2] = ["exchange", "routing_key"];

/// Most attempts, and most of them before a person is asked.
const ATTEMPTS_MAX: u32 = 1_000;
/// Largest factor between two waits.
const FACTOR_MAX: f64 = 100.0;
/// Shortest and longest wait before another attempt.
const RETRY_WAIT_RANGE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_hours(24));

impl Draft<'_> {
    /// Reads a step and adds it.
    pub fn step(&mut self, yaml: &Yaml, spot: Spot) -> Option<NodeId> {
        let fields = Fields::of(yaml, "a step", &STEP_FIELDS, &mut self.findings)?;
        let placeholder = NodeKind::Sequence(Vec::new());
        let id = self.add(&fields, spot, placeholder)?;
        let name = self.step_name(&fields, id);
        let to = fields.get("to").and_then(|to| self.destination(to));
        let reserve = self.command(&fields, "reserve", to.as_ref());
        let action = self.command(&fields, "action", to.as_ref());
        let confirm = self.command(&fields, "confirm", to.as_ref());
        let compensate = self.command(&fields, "compensate", to.as_ref());
        self.check_commands(&fields);
        let with = fields
            .get("with")
            .map(|with| self.template(with, Place::With(id)));
        let forward = reserve
            .map(Forward::Reserve)
            .or(action.map(Forward::Action));
        let timeout = fields.duration("timeout", STEP_TIMEOUT_RANGE, &mut self.findings);
        let attempts = 1..=ATTEMPTS_MAX;
        let suspend_after = fields.whole("suspend_after", attempts, &mut self.findings);
        let step = Step {
            on_reject: super::OnReject::default(),
            name,
            with,
            forward,
            confirm,
            compensate,
            timeout: timeout.unwrap_or(STEP_TIMEOUT_DEFAULT),
            retry: self.retry(&fields),
            suspend_after: suspend_after.unwrap_or(SUSPEND_AFTER_DEFAULT),
        };
        if let (Some(timeout), Some(entry)) = (timeout, fields.get("timeout")) {
            self.check_against_saga(entry.at, timeout);
        }
        self.nodes[usize::from(id.0)].kind = NodeKind::Step(step);
        Some(id)
    }

    fn step_name(&mut self, fields: &Fields<'_>, id: NodeId) -> String {
        let Some(name) = fields.text("step", &mut self.findings) else {
            return String::new();
        };
        let at = fields.get("step").map_or(fields.at, |yaml| yaml.at);
        if let Err(why) = check_name(name) {
            self.findings.add(at, Rule::BadName, why);
        } else if let Some(other) = self.steps.get(name) {
            let line = self.nodes[usize::from(other.0)].line;
            self.findings.add(
                at,
                Rule::DuplicateStep,
                format!("step `{name}` already exists in line {line}; choose another name"),
            );
        } else {
            self.steps.insert(name.to_owned(), id);
        }
        name.to_owned()
    }

    fn command(
        &mut self,
        fields: &Fields<'_>,
        phase: &str,
        to: Option<&Destination>,
    ) -> Option<Call> {
        let command = fields.text(phase, &mut self.findings)?;
        let at = fields.get(phase).map_or(fields.at, |yaml| yaml.at);
        let queue = match participant(command) {
            Ok(queue) => queue,
            Err(why) => {
                self.findings.add(at, Rule::BadName, why);
                return None;
            }
        };
        if to.is_none()
            && let Err(why) = check_queue(queue)
        {
            self.findings.add(at, Rule::BadName, why);
            return None;
        }
        Some(Call {
            command: command.to_owned(),
            to: to.cloned().unwrap_or_else(|| Destination::queue(queue)),
        })
    }

    /// Which commands go together. Looks at what is written, not at what could be read, so that a
    /// misspelt command is not also called missing.
    fn check_commands(&mut self, fields: &Fields<'_>) {
        let has = |name: &str| fields.get(name).is_some();
        let read_only = fields.flag("read_only", &mut self.findings) == Some(true);
        let forward = if has("reserve") { "reserve" } else { "action" };
        let at = |name: &str| fields.entry(name).map_or(fields.at, |entry| entry.at);
        if has("reserve") && has("action") {
            let message = "a step has `reserve` (and later `confirm`) or `action`, not both";
            self.findings
                .add(at("action"), Rule::Contradiction, message);
        }
        if has("reserve") || has("action") {
            if !has("compensate") && !read_only {
                let message = format!(
                    "`{forward}` has no `compensate`, so it could not be undone; add the command that undoes it, or `read_only: true` if there is nothing to undo"
                );
                self.findings.add(at(forward), Rule::NotUndoable, message);
            }
            if has("compensate") && read_only {
                let message = "`read_only` says there is nothing to undo, so it excludes `compensate`; drop one";
                self.findings
                    .add(at("read_only"), Rule::Contradiction, message);
            }
            if has("confirm") && !has("reserve") {
                let message = "an `action` is final when it succeeds; use `reserve` if there is something to `confirm`";
                self.findings
                    .add(at("confirm"), Rule::Contradiction, message);
            }
            return;
        }
        if has("compensate") {
            let message = "`compensate` has nothing to undo; add `reserve` or `action`";
            self.findings
                .add(at("compensate"), Rule::Contradiction, message);
        }
        if read_only {
            let message = "`read_only` is for a `reserve` or `action`, and this step has neither";
            self.findings
                .add(at("read_only"), Rule::Contradiction, message);
        }
        if !has("confirm") {
            let message = "a step needs a command: `reserve`, `action` or `confirm`, as in `reserve: inventory.reserve`";
            self.findings.add(fields.at, Rule::MissingField, message);
        }
    }

    /// `to`: a queue's name, or an exchange and a routing key.
    fn destination(&mut self, yaml: &Yaml) -> Option<Destination> {
        if let Some(queue) = yaml.text() {
            if let Err(why) = check_queue(queue) {
                self.findings.add(yaml.at, Rule::BadName, why);
                return None;
            }
            return Some(Destination::queue(queue));
        }
        if !matches!(yaml.content, Content::Map(_)) {
            let expected = "a queue's name or `{ exchange: …, routing_key: … }`";
            wrong_type(yaml, "to", expected, &mut self.findings);
            return None;
        }
        let fields = Fields::of(yaml, "`to`", &TO_FIELDS, &mut self.findings)?;
        let example = "to: { exchange: billing, routing_key: invoices }";
        let exchange = fields.require("exchange", example, &mut self.findings);
        let routing_key = fields.require("routing_key", example, &mut self.findings);
        exchange.and(routing_key)?;
        let exchange = fields.text("exchange", &mut self.findings)?;
        let routing_key = fields.text("routing_key", &mut self.findings)?;
        let checked = check_exchange(exchange).and_then(|()| {
            if exchange.is_empty() {
                check_queue(routing_key)
            } else {
                check_route("a routing key", routing_key)
            }
        });
        if let Err(why) = checked {
            self.findings.add(yaml.at, Rule::BadName, why);
            return None;
        }
        Some(Destination {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
        })
    }

    fn retry(&mut self, fields: &Fields<'_>) -> Retry {
        let default = Retry::default();
        let Some(yaml) = fields.get("retry") else {
            return default;
        };
        let Some(fields) = Fields::of(yaml, "`retry`", &RETRY_FIELDS, &mut self.findings) else {
            return default;
        };
        let attempts = fields.whole("attempts", 1..=ATTEMPTS_MAX, &mut self.findings);
        let factor = fields.number("factor", 1.0..=FACTOR_MAX, &mut self.findings);
        let given_first = fields.duration("first", RETRY_WAIT_RANGE, &mut self.findings);
        let given_max = fields.duration("max", RETRY_WAIT_RANGE, &mut self.findings);
        // Where one is not given, it makes room for the other.
        let (first, max) = match (given_first, given_max) {
            (Some(first), Some(max)) => (first, max),
            (Some(first), None) => (first, default.max.max(first)),
            (None, Some(max)) => (default.first.min(max), max),
            (None, None) => (default.first, default.max),
        };
        if first > max {
            let at = fields.get("max").map_or(fields.at, |yaml| yaml.at);
            let message = format!(
                "`max` is the longest wait, so it can't be shorter than `first` ({})",
                format_duration(first)
            );
            self.findings.add(at, Rule::Contradiction, message);
        }
        if let (Some(first), Some(yaml)) = (given_first, fields.get("first")) {
            self.check_against_saga(yaml.at, first);
        }
        Retry {
            attempts: attempts.unwrap_or(default.attempts),
            first,
            factor: factor.unwrap_or(default.factor),
            max,
        }
    }

    /// A wait inside a saga can't be longer than the saga.
    fn check_against_saga(&mut self, at: Position, wait: Duration) {
        let Some(saga) = self.saga_timeout.filter(|saga| wait > *saga) else {
            return;
        };
        let message = format!(
            "{} is longer than the saga's own timeout of {}; shorten it or give the saga more time",
            format_duration(wait),
            format_duration(saga)
        );
        self.findings.add(at, Rule::OutOfRange, message);
    }
}
