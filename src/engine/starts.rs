//! Starts in a batch: a new saga, the same start again, or two inputs for one key.

use std::sync::Arc;

use serde_json::json;

use super::batch::{Batch, Found};
use super::cache::Open;
use super::decode::StartRequest;
use super::encode::start_answer;
use super::work::{Origin, StartAnswer, StartError, Work};
use crate::error::code;
use crate::id::SagaId;
use crate::saga::journal::GENESIS;
use crate::saga::{Input, Saga, Starter, Status};
use crate::store::{DeadLetter, KeyMatch, SagaHead, SagaKey};

impl Batch<'_> {
    pub(super) fn decide_start(&mut self, work: Work, request: StartRequest, key_taken: bool) {
        let key = SagaKey {
            name: request.definition.name.clone(),
            key: request.key.clone(),
        };
        if key_taken && let Some(known) = self.keys.get(&key).cloned().flatten() {
            self.start_again(work, &request, &known);
            return;
        }
        // Two starts of one key in one batch: the second one waits until the first is stored.
        if !self.starting.insert(key) {
            self.again.push(work);
            return;
        }
        let id = SagaId(self.node.environment.new_id());
        let definition = Arc::clone(&request.definition);
        let saga = Saga::new(id, &definition.name, &request.key, self.now);
        let head = SagaHead {
            id,
            name: definition.name.clone(),
            version: definition.version,
            key: request.key,
            input_hash: request.input_hash,
            status: Status::Running,
            reason: None,
            revision: 0,
            head_hash: GENESIS,
            started_at: self.now,
            updated_at: self.now,
            ended_at: None,
            wake_at: None,
            superseded: false,
        };
        self.found.insert(
            id,
            Found::Open(Box::new(Open {
                saga,
                head,
                definition,
                tail: 0,
                fresh: true,
            })),
        );
        let input = Input::Start {
            input: request.input,
            starter: request.starter,
        };
        if self.turn(id, input).is_ok() {
            self.done(work, Some(id), Some(Ok(StartAnswer::Started(id))));
        }
    }

    /// A saga with this key exists: the same start again, or somebody's mistake.
    fn start_again(&mut self, work: Work, request: &StartRequest, known: &KeyMatch) {
        if known.input_hash == request.input_hash {
            if let Some(starter) = &request.starter {
                let body = json!({
                    "saga_id": known.id,
                    "saga": request.definition.name,
                    "key": request.key,
                    "status": known.status,
                    "existing": true,
                });
                self.answer(starter, "accepted", None, &body);
            }
            let answer = StartAnswer::Existing(known.id, known.status);
            self.done(work, None, Some(Ok(answer)));
            return;
        }
        let error = StartError::KeyConflict { saga: known.id };
        if let Origin::Delivery { letter, .. } = &work.origin {
            let letter = DeadLetter {
                code: code::KEY_CONFLICT,
                reason: format!("key `{}`: {error}", request.key),
                ..letter()
            };
            self.bury(letter, request.starter.as_ref());
        }
        self.done(work, None, Some(Err(error)));
    }

    pub(super) fn answer(
        &mut self,
        starter: &Starter,
        kind: &str,
        reason: Option<&str>,
        body: &serde_json::Value,
    ) {
        let id = self.node.environment.new_id();
        let (destination, message) = start_answer(starter, id, kind, reason, body, self.now);
        self.outbox
            .push(self.node.outbox_row(destination, message, self.now));
    }
}
