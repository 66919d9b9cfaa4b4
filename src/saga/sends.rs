//! What a decision says to the world: commands to participants, notices to all, answers to
//! the starter.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::decide::Turn;
use super::event::{Event, Send};
use crate::definition::{Call, Forward, Step};
use crate::id::{Phase, StepPath, Timestamp};
use crate::message::Outcome;

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
        if call_of(step, phase).is_none() {
            return;
        }
        let due = self.now.after(step.timeout);
        self.emit(Event::Asked {
            step: path.clone(),
            phase,
            attempt,
            with,
            due,
        });
        self.command(path, phase, attempt, due);
    }

    /// The command alone; [`Self::ask`] also notes that it is waited for.
    pub(super) fn command(&mut self, path: &StepPath, phase: Phase, attempt: u32, due: Timestamp) {
        let Some(step) = self.definition.step(&path.name) else {
            return;
        };
        let Some(call) = call_of(step, phase) else {
            return;
        };
        let body = self.payload(path, step, phase);
        self.sends.push(Send::Command {
            step: path.clone(),
            phase,
            attempt,
            command: call.command.clone(),
            to: call.to.clone(),
            body,
            deadline: due,
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
        self.sends.push(Send::Notice { change, body });
    }

    /// A notice to all, and an answer to the starter.
    pub(super) fn tell(&mut self, change: &'static str, kind: &'static str, outcome: Outcome) {
        let body = self.summary();
        if let Some(starter) = self.saga.starter.clone() {
            let reason = match change {
                "completed" if self.saga.output_error.is_some() => self.saga.status_reason(),
                _ => self.saga.reason.clone(),
            };
            self.sends.push(Send::Answer {
                starter,
                kind,
                outcome,
                reason,
                body: body.clone(),
            });
        }
        self.sends.push(Send::Notice { change, body });
    }

    fn summary(&self) -> Value {
        let saga = &*self.saga;
        let mut summary = json!({
            "saga_id": saga.facts.id,
            "saga": saga.name,
            "key": saga.facts.key,
            "status": saga.status(),
            "at": self.now.to_string(),
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
}

fn call_of(step: &Step, phase: Phase) -> Option<&Call> {
    match phase {
        Phase::Reserve | Phase::Action => step.forward.as_ref().map(Forward::call),
        Phase::Confirm => step.confirm.as_ref(),
        Phase::Compensate => step.compensate.as_ref(),
    }
}
