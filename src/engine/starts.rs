//! Starts in a batch: a new saga, the same start again, or two inputs for one key.

use std::fmt::Display;
use std::sync::Arc;

use serde_json::json;

use super::batch::Batch;
use super::cache::Open;
use super::decode::{StartRequest, Undecodable};
use super::encode::start_answer;
use super::found::Found;
use super::rejection::Rejection;
use super::work::{Origin, StartAnswer, StartError, Work};
use crate::definition::ConflictRule;
use crate::error::{Code, code};
use crate::id::SagaId;
use crate::saga::journal::GENESIS;
use crate::saga::{Input, Saga, Starter, Status, end_of};
use crate::store::{DeadLetter, KeyMatch, OutboxMessage, SagaHead, SagaKey};

impl Batch<'_> {
    pub(super) fn decide_start(&mut self, work: Work, request: StartRequest, key_taken: bool) {
        if request.succeeds.as_ref().is_some_and(|it| it.stored) {
            crate::metric::ignored();
            self.done(work, None, None);
            return;
        }
        let key = request.saga_key();
        if key_taken && let Some(known) = self.keys.get(&key).cloned().flatten() {
            self.start_again(work, &request, &known);
            return;
        }
        // Two starts of one key in one batch: the second one waits until the first is stored.
        if self.starting.contains_key(&key) {
            self.again.push(work);
            return;
        }
        let id = match &request.succeeds {
            Some(succession) => succession.saga,
            None => SagaId(self.node.environment.new_id()),
        };
        self.starting.insert(key.clone(), id);
        let definition = Arc::clone(&request.definition);
        let line = request.line();
        let saga = Saga::new(id, &definition.name, &request.key, self.now);
        let head = SagaHead {
            id,
            name: definition.name.clone(),
            version: definition.version,
            key: request.key.clone(),
            input_hash: request.input_hash,
            status: Status::Running,
            reason: None,
            revision: 0,
            head_hash: GENESIS,
            started_at: self.now,
            updated_at: self.now,
            ended_at: None,
            wake_at: None,
            parent: None,
            awaits: None,
            cause: None,
            superseded: false,
        };
        self.found.insert(
            id,
            Found::Open(Box::new(Open {
                saga,
                head,
                definition,
                tail: 0,
                format: 1,
                fresh: true,
            })),
        );
        let (input, starter) = (Arc::clone(&request.input), request.starter.clone());
        let input = match line {
            None => Input::Start { input, starter },
            Some(line) => Input::StartInLine {
                input,
                starter,
                line,
            },
        };
        match self.turn(id, input) {
            Ok(()) => self.done(work, Some(id), Some(Ok(StartAnswer::Started(id)))),
            Err(Rejection::Wrong(wrong)) => {
                self.unbegin(id, &key);
                self.refuse(work, &request, wrong);
            }
            // Not of a start; but no work is ever just dropped.
            Err(Rejection::Nothing | Rejection::Stale) => self.look_closer(work),
        }
    }

    /// Takes back a saga that was to begin, and can't.
    pub(super) fn unbegin(&mut self, id: SagaId, key: &SagaKey) {
        self.changed.remove(&id);
        self.found.remove(&id);
        self.starting.remove(key);
    }

    /// A saga with this key exists: the same start again, or one that the definition judges.
    fn start_again(&mut self, work: Work, request: &StartRequest, known: &KeyMatch) {
        let same = known.input_hash == request.input_hash;
        match request.definition.start.conflict {
            _ if request.succeeds.is_some() && !same => self.too_late(work, request, known),
            _ if request.succeeds.is_some() => self.existing(work, request, known),
            ConflictRule::Restart => self.restart(work, request, known),
            ConflictRule::Reject if same && self.is_another(request, known) => {
                self.conflict(work, request, StartError::KeyHeld { saga: known.id });
            }
            ConflictRule::Existing | ConflictRule::Reject if same => {
                self.existing(work, request, known);
            }
            ConflictRule::Existing | ConflictRule::Reject => {
                self.conflict(work, request, StartError::KeyConflict { saga: known.id });
            }
        }
    }

    /// The same start again: answered with the saga that it began, and with how that ends.
    pub(super) fn existing(&mut self, work: Work, request: &StartRequest, known: &KeyMatch) {
        let Some(starter) = &request.starter else {
            let answer = StartAnswer::Existing(known.id, known.status);
            return self.done(work, None, Some(Ok(answer)));
        };
        let mut status = known.status;
        let mut end = None;
        let listen = Input::Listen(starter.clone());
        match self.saga(known.id).map(|saga| end_of(saga, self.now)) {
            None => {}
            Some(Some(ended)) => end = Some(ended),
            Some(None) => match self.turn(known.id, listen) {
                Ok(()) | Err(Rejection::Nothing) => {}
                Err(Rejection::Stale) => return self.look_closer(work),
                Err(Rejection::Wrong(wrong)) => {
                    tracing::warn!(saga.id = %known.id, reason = %wrong, "a starter will not hear the end");
                }
            },
        }
        if let Some(saga) = self.saga(known.id) {
            status = saga.status();
        }
        let body = json!({
            "saga_id": known.id,
            "saga": request.definition.name,
            "key": request.key,
            "status": status,
            "existing": true,
        });
        let row = self.answer_row(starter, "accepted", None, &body);
        self.add_message(known.id, row);
        if let Some((kind, reason, body)) = end {
            let row = self.answer_row(starter, kind, reason.as_deref(), &body);
            self.add_message(known.id, row);
        }
        let answer = StartAnswer::Existing(known.id, status);
        self.done(work, Some(known.id), Some(Ok(answer)));
    }

    fn conflict(&mut self, work: Work, request: &StartRequest, error: StartError) {
        self.bury_start(&work, request, code::KEY_CONFLICT, &error);
        self.done(work, None, Some(Err(error)));
    }

    /// A start can't be decided, because what it is about can't be read.
    pub(super) fn refuse(&mut self, work: Work, request: &StartRequest, wrong: Undecodable) {
        self.bury_start(&work, request, wrong.code, &wrong);
        self.done(work, None, Some(Err(StartError::Refused(wrong))));
    }

    fn bury_start(&mut self, work: &Work, request: &StartRequest, code: Code, error: &dyn Display) {
        if let Origin::Delivery { letter, .. } = &work.origin {
            let letter = DeadLetter {
                code,
                reason: format!("key `{}`: {error}", request.key),
                ..letter()
            };
            self.bury(letter, request.starter.as_ref());
        }
    }

    pub(super) fn answer(
        &mut self,
        starter: &Starter,
        kind: &str,
        reason: Option<&str>,
        body: &serde_json::Value,
    ) {
        let row = self.answer_row(starter, kind, reason, body);
        self.outbox.push(row);
    }

    pub(super) fn answer_row(
        &self,
        starter: &Starter,
        kind: &str,
        reason: Option<&str>,
        body: &serde_json::Value,
    ) -> OutboxMessage {
        let id = self.node.environment.new_id();
        let (destination, message) = start_answer(starter, id, kind, reason, body, self.now);
        self.node.outbox_row(destination, message, self.now)
    }
}
