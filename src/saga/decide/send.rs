//! What a decision says to the world: commands to participants, notices to all, answers to
//! the starter.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::turn::Turn;
use crate::definition::{Call, Forward, Step};
use crate::id::{Phase, StepPath, Timestamp};
use crate::limits::Extent;
use crate::message::Outcome;
use crate::saga::emission::Emission;
use crate::saga::event::Event;
use crate::saga::incoming::Starter;
use crate::saga::pass::Pass;
use crate::saga::state::Saga;

impl Turn<'_> {
    /// Sends a step's command. `with` is its payload if it was computed just now.
    pub(super) fn ask(
        &mut self,
        path: &StepPath,
        phase: Phase,
        attempt: u32,
        with: Option<Arc<Value>>,
    ) {
        let Some(step) = self.definition.step(&path.name) else {
            return;
        };
        let due = self.now.after(step.timeout);
        self.ask_until(path, phase, attempt, with, due);
    }

    /// The same, with an answer due at a time that was set before.
    pub(super) fn ask_until(
        &mut self,
        path: &StepPath,
        phase: Phase,
        attempt: u32,
        with: Option<Arc<Value>>,
        due: Timestamp,
    ) {
        let step = self.definition.step(&path.name);
        if step.is_none_or(|step| call_of(step, phase).is_none()) {
            return;
        }
        let written = with.as_deref().map_or(0, |with| Extent::of(with).bytes);
        self.spent.add_bytes(written);
        self.emit(Event::Asked {
            step: path.clone(),
            phase,
            attempt,
            with,
            due,
        });
        let row = self.saga.row_of(path);
        self.command(path, phase, attempt, due, row);
    }

    /// The command alone; [`Self::ask`] also notes that it is waited for.
    pub(super) fn command(
        &mut self,
        path: &StepPath,
        phase: Phase,
        attempt: u32,
        due: Timestamp,
        row: Option<Uuid>,
    ) {
        let Some(step) = self.definition.step(&path.name) else {
            return;
        };
        let Some(call) = call_of(step, phase) else {
            return;
        };
        let body = self.payload(path, step, phase);
        self.spent.add_command(Extent::of(&body).bytes);
        self.emissions.push(Emission::Command {
            step: path.clone(),
            phase,
            attempt,
            command: call.command.clone(),
            to: call.to.clone(),
            body,
            deadline: due,
            row,
        });
    }

    fn payload(&self, path: &StepPath, step: &Step, phase: Phase) -> Value {
        let Some(state) = self.saga.steps.get(path) else {
            return Value::Null;
        };
        let with = state
            .with
            .as_deref()
            .cloned()
            .unwrap_or_else(|| Value::Object(Map::new()));
        let follows_up = matches!(phase, Phase::Confirm | Phase::Compensate);
        if follows_up && self.definition.sub_saga(&path.name).is_some() {
            // It knows what it was started with, and what it answered.
            return Value::Null;
        }
        if !follows_up || step.forward.is_none() {
            return with;
        }
        let reservation = state.reply.as_deref().cloned().unwrap_or_default();
        match with {
            Value::Object(mut fields) => {
                fields.insert("reservation".to_owned(), reservation);
                Value::Object(fields)
            }
            other => json!({ "with": other, "reservation": reservation }),
        }
    }

    pub(super) fn notice(&mut self, change: &'static str) {
        let body = self.summary();
        self.emissions.push(Emission::Notice { change, body });
    }

    /// A notice to all, and an answer to the starter and whoever listens.
    pub(super) fn tell(&mut self, change: &'static str, kind: &'static str, outcome: Outcome) {
        let body = self.summary();
        let listeners = self.saga.listeners.iter();
        let told: Vec<Starter> = self.saga.starter.iter().chain(listeners).cloned().collect();
        for starter in told {
            let reason = match change {
                "completed" if self.saga.output_error.is_some() => self.saga.status_reason(),
                _ => self.saga.reason.clone(),
            };
            self.emissions.push(Emission::Answer {
                starter,
                kind,
                outcome,
                reason,
                body: body.clone(),
            });
        }
        self.emissions.push(Emission::Notice { change, body });
    }

    fn summary(&self) -> Value {
        summary(self.saga, self.now)
    }
}

/// How a saga has ended, for whoever asks later: the kind of the answer, the reason and the body.
pub fn end_of(saga: &Saga, now: Timestamp) -> Option<(&'static str, Option<String>, Value)> {
    let (kind, reason) = match saga.pass {
        Pass::Completed => ("completed", None),
        Pass::Compensated => {
            let reason = saga.reason.clone();
            ("compensated", Some(reason.unwrap_or_default()))
        }
        _ => return None,
    };
    Some((kind, reason, summary(saga, saga.ended_at.unwrap_or(now))))
}

fn summary(saga: &Saga, at: Timestamp) -> Value {
    let mut summary = json!({
        "saga_id": saga.facts.id,
        "saga": saga.name,
        "key": saga.facts.key,
        "status": saga.status(),
        "at": at.to_string(),
    });
    if let Some(reason) = saga.status_reason() {
        summary["reason"] = Value::String(reason);
    }
    if let Some(output) = &saga.output {
        summary["output"] = output.as_ref().clone();
    }
    if let Some(error) = &saga.output_error {
        summary["output_error"] = Value::String(error.clone());
    }
    summary
}

fn call_of(step: &Step, phase: Phase) -> Option<&Call> {
    match phase {
        Phase::Reserve | Phase::Action => step.forward.as_ref().map(Forward::call),
        Phase::Confirm => step.confirm.as_ref(),
        Phase::Compensate => step.compensate.as_ref(),
    }
}
