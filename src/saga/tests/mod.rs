//! What the core does, told as stories: inputs in, commands out.

mod answers;
mod awaits;
mod blocks;
mod children;
mod expressions;
mod forced;
mod late;
mod loops;
mod numbers;
mod operators;
mod parents;
mod passes;
mod portions;
mod returned;
mod signals;
mod succession;
mod suspension;
mod transitions;
mod trouble;
mod unsent;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::definition::{Definition, parse};
use crate::id::{SagaId, StepPath, Timestamp};
use crate::message::Outcome;

const ORDER: &str = "
saga: order
version: 1
key: ${ input.id }
timeout: 10m
steps:
  - step: order
    with: { id: '${ input.id }' }
    reserve: orders.open
    confirm: orders.confirm
    compensate: orders.cancel
  - parallel:
      - step: stock
        for_each: ${ input.items }
        with: { sku: '${ item }' }
        reserve: inventory.reserve
        confirm: inventory.confirm
        compensate: inventory.release
        timeout: 10s
        retry: { attempts: 2, first: 1s, factor: 2, max: 4s }
      - step: payment
        reserve: payments.reserve
        confirm: payments.capture
        compensate: payments.release
        timeout: 10s
        suspend_after: 2
  - step: receipt
    confirm: mailer.send
output: { paid: '${ steps.payment.amount }' }
";

/// A saga under test. Every step of a story also checks that folding the journal gives the state.
struct Story {
    definition: Definition,
    saga: Saga,
    journal: Vec<Event>,
    now: Timestamp,
    notices: Vec<&'static str>,
    /// What the saga that runs this one was told.
    told: Vec<ChildAnswer>,
}

impl Story {
    fn unstarted(yaml: &str) -> Self {
        let definition = parse(yaml, "test.yaml").unwrap_or_else(|problems| panic!("{problems}"));
        let now = Timestamp::from_micros(1_000_000);
        Self {
            saga: Saga::new(SagaId(Uuid::from_u128(1)), &definition.name, "k", now),
            definition,
            journal: Vec::new(),
            now,
            notices: Vec::new(),
            told: Vec::new(),
        }
    }

    fn begin(yaml: &str, input: Value) -> (Self, Vec<String>) {
        let mut story = Self::unstarted(yaml);
        let sent = story
            .tell(Input::Start {
                input: Arc::new(input),
                starter: None,
            })
            .unwrap();
        (story, sent)
    }

    fn order(items: &[&str]) -> Self {
        Self::begin(ORDER, json!({ "id": "o1", "items": items })).0
    }

    /// Commands sent, as `step phase#attempt`.
    fn tell(&mut self, input: Input) -> Result<Vec<String>, Refusal> {
        let before = self.saga.clone();
        let decision = match decide(&self.definition, &mut self.saga, input, self.now) {
            Ok(decision) => decision,
            Err(refusal) => {
                assert_eq!(
                    self.saga, before,
                    "a refused input must not change the saga"
                );
                return Err(refusal);
            }
        };
        assert!(!decision.events.is_empty());
        assert_eq!(decision.wake_at, self.saga.wake_at());
        self.journal.extend(decision.events);
        self.check_fold();
        let mut sent = Vec::new();
        for send in decision.emissions {
            match send {
                Emission::Command {
                    step,
                    phase,
                    attempt,
                    ..
                } => {
                    sent.push(format!("{step} {phase}#{attempt}"));
                }
                Emission::Notice { change, .. } => self.notices.push(change),
                Emission::Answer { .. } | Emission::Successor(_) => {}
                Emission::ToParent { answer, .. } => self.told.push(answer),
            }
        }
        Ok(sent)
    }

    fn check_fold(&self) {
        let (id, key) = (self.saga.id, &self.saga.facts.key);
        let mut folded = Saga::new(id, &self.saga.name, key, self.saga.facts.started_at);
        for event in &self.journal {
            let json = serde_json::to_string(event).unwrap();
            apply(&mut folded, &serde_json::from_str(&json).unwrap()).unwrap();
        }
        assert_eq!(folded, self.saga, "fold(journal) must be the state");
        let snapshot = serde_json::to_string(&self.saga).unwrap();
        assert_eq!(serde_json::from_str::<Saga>(&snapshot).unwrap(), self.saga);
    }

    fn answer(&mut self, command: &str, outcome: Outcome) -> Result<Vec<String>, Refusal> {
        self.answer_with(command, outcome, json!({ "amount": 7 }))
    }

    fn answer_with(
        &mut self,
        command: &str,
        outcome: Outcome,
        body: Value,
    ) -> Result<Vec<String>, Refusal> {
        let (step, phase) = command.split_once(' ').unwrap();
        let reason = (outcome != Outcome::Succeeded).then(|| "because".to_owned());
        self.tell(Input::Reply(Reply {
            step: step.parse().unwrap(),
            phase: phase.parse().unwrap(),
            outcome,
            stated: true,
            body: Arc::new(body),
            reason,
        }))
    }

    fn yes(&mut self, command: &str) -> Vec<String> {
        self.answer(command, Outcome::Succeeded).unwrap()
    }

    fn no(&mut self, command: &str) -> Vec<String> {
        self.answer(command, Outcome::Rejected).unwrap()
    }

    fn fail(&mut self, command: &str) -> Vec<String> {
        self.answer(command, Outcome::Failed).unwrap()
    }

    /// Lets time pass until the saga wants to be woken.
    fn wake(&mut self) -> Vec<String> {
        self.now = self.saga.wake_at().expect("nothing is due");
        self.tell(Input::Wake).unwrap()
    }

    fn step(&self, path: &str) -> StepStatus {
        self.saga.steps[&path.parse::<StepPath>().unwrap()].status
    }

    fn reason(&self) -> String {
        self.saga.status_reason().unwrap_or_default()
    }
}

/// What a person decides.
fn operator(id: &str, kind: OperatorKind) -> Input {
    Input::Operator(OperatorAction {
        id: id.into(),
        by: "ann".into(),
        why: "I looked".into(),
        kind,
    })
}
