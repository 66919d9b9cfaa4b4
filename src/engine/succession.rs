//! Starts whose key is held under `conflict: reject` or `restart`, and the starts of successors.
//!
//! Whether a start replaces the saga that holds its key is that saga's decision, taken by the core
//! and kept in its journal. When it has ended, its own message to the start queue names it
//! (`replaces`), and what is started then is read from its journal, not from the message: whoever
//! makes such a message up can at most hasten what was to happen anyway. The successor's id was
//! fixed beforehand, so however often the message comes, it starts once.

use std::sync::Arc;

use serde_json::json;

use super::batch::Batch;
use super::cache::Open;
use super::decode::{StartRequest, Undecodable, start_of, startable};
use super::found::Found;
use super::rejection::Rejection;
use super::work::{Job, Origin, StartAnswer, StartError, Work};
use crate::definition::ConflictRule;
use crate::error::code;
use crate::id::SagaId;
use crate::message::{HEADER_REPLACES, Message};
use crate::saga::{Input, Line, Saga, Successor, holdup};
use crate::store::{DeadLetter, KeyMatch, SagaKey};

/// A start that continues a line: fixed when the saga before it gave way.
#[derive(Debug, Clone, PartialEq)]
pub struct Succession {
    /// The id that its saga will have.
    pub saga: SagaId,
    /// Its place.
    pub line: Line,
    /// Whether a saga with this id was found to be stored: it has started before.
    pub stored: bool,
}

/// The saga that a start message says it replaces; `None` for a start of its own.
pub(super) fn decode_successor(message: &Message) -> Option<Result<SagaId, Undecodable>> {
    let replaces = message.properties.headers.get(HEADER_REPLACES)?;
    let id = replaces.as_str().and_then(|text| text.parse().ok());
    Some(id.ok_or_else(|| Undecodable {
        code: code::SUCCESSION_UNKNOWN,
        reason: "the `replaces` header is not a saga's id; only Backstitch itself sends it, a new start goes without".to_owned(),
    }))
}

impl StartRequest {
    /// What its saga is known by.
    pub(super) fn saga_key(&self) -> SagaKey {
        SagaKey {
            name: self.definition.name.clone(),
            key: self.key.clone(),
        }
    }

    /// Its place among the sagas of its key, if that must be kept.
    pub(super) fn line(&self) -> Option<Line> {
        if let Some(succession) = &self.succeeds {
            return Some(succession.line.clone());
        }
        let kept = self.id.as_ref().filter(|_| self.asks_the_holder())?;
        Some(Line {
            starts: vec![kept.clone()],
            ..Line::default()
        })
    }

    /// Whether the saga that holds the key must be there: to decide, or to be told who wants to hear
    /// how it ends.
    pub(super) fn is_about_the_holder(&self) -> bool {
        self.asks_the_holder() || self.starter.is_some()
    }

    /// Whether the saga that holds the key must be seen to decide.
    pub(super) fn asks_the_holder(&self) -> bool {
        self.definition.start.conflict != ConflictRule::Existing
    }
}

impl Batch<'_> {
    /// Whether the saga knows this start to be another than its own, by the ids of both.
    pub(super) fn is_another(&self, request: &StartRequest, known: &KeyMatch) -> bool {
        let (Some(id), Some(saga)) = (&request.id, self.saga(known.id)) else {
            return false;
        };
        !saga.line.starts.is_empty() && !saga.line.knows(id)
    }

    /// A saga that was loaded for this batch, as it now stands.
    pub(super) fn saga(&self, id: SagaId) -> Option<&Saga> {
        self.open(id).map(|open| &open.saga)
    }

    fn open(&self, id: SagaId) -> Option<&Open> {
        let changed = self.changed_open(id);
        changed.or_else(|| match self.found.get(&id) {
            Some(Found::Open(open)) => Some(&**open),
            _ => None,
        })
    }

    /// Asks the saga that holds the key to give way.
    pub(super) fn restart(&mut self, mut work: Work, request: &StartRequest, known: &KeyMatch) {
        let successor = Successor {
            saga: SagaId(self.node.environment.new_id()),
            start: request.id.clone(),
            input: Arc::clone(&request.input),
            starter: request.starter.clone(),
            at: self.now,
        };
        match self.turn(known.id, Input::Supersede(successor)) {
            Ok(()) => self.restarting(work, request, known),
            Err(Rejection::Nothing) => {
                let pending = self.saga(known.id).and_then(|saga| {
                    let successor = saga.line.successor.as_ref()?;
                    Some(successor.input == request.input)
                });
                if pending == Some(true) {
                    self.restarting(work, request, known);
                } else {
                    self.existing(work, request, known);
                }
            }
            Err(Rejection::Stale) => self.look_closer(work),
            // It has given up its key since it was looked up.
            Err(Rejection::Wrong(wrong)) if wrong.code == code::NOT_POSSIBLE => {
                if let Job::Start { key_taken, .. } = &mut work.job {
                    *key_taken = false;
                }
                self.again.push(work);
            }
            Err(Rejection::Wrong(wrong)) => self.refuse(work, request, wrong),
        }
    }

    /// The start waits until the saga before it has ended: says so.
    fn restarting(&mut self, work: Work, request: &StartRequest, known: &KeyMatch) {
        let Some((successor, status)) = self.saga(known.id).and_then(|saga| {
            let successor = saga.line.successor.as_ref()?;
            Some((successor.saga, saga.status()))
        }) else {
            return self.existing(work, request, known);
        };
        if let Some(starter) = &request.starter {
            let body = json!({
                "saga_id": successor,
                "saga": request.definition.name,
                "key": request.key,
                "status": "restarting",
                "replaces": known.id,
                "waiting": holdup(status),
            });
            // With the holder: if that conflicts, this is decided again, and the id is another.
            let row = self.answer_row(starter, "restarting", None, &body);
            self.add_message(known.id, row);
        }
        let answer = StartAnswer::Restarting {
            saga: successor,
            replaces: known.id,
            status,
        };
        self.done(work, Some(known.id), Some(Ok(answer)));
    }

    /// A saga has given up its key: starts the one that it names.
    pub(super) fn decide_succession(&mut self, mut work: Work, replaces: SagaId) {
        let behind = |open: &Open| !open.fresh && !open.saga.is_superseded();
        if self.open(replaces).is_some_and(behind) {
            // Another node has brought it to its end; our copy does not know yet.
            self.node.be_wary();
            self.again.push(work);
            return;
        }
        let request = match self.successor_of(replaces) {
            Ok(request) => request,
            Err((wrong, starter)) => {
                if let Origin::Delivery { letter, .. } = &work.origin {
                    let letter = DeadLetter {
                        code: wrong.code,
                        reason: wrong.reason.clone(),
                        ..letter()
                    };
                    self.bury(letter, starter.as_ref());
                }
                self.done(work, None, Some(Err(StartError::Refused(wrong))));
                return;
            }
        };
        work.job = Job::Start {
            request: request.clone(),
            key_taken: false,
        };
        self.decide_start(work, request, false);
    }

    fn successor_of(
        &self,
        replaces: SagaId,
    ) -> Result<StartRequest, (Undecodable, Option<crate::saga::Starter>)> {
        let unknown = |reason: String| {
            let code = code::SUCCESSION_UNKNOWN;
            (Undecodable { code, reason }, None)
        };
        let saga = self.saga(replaces).ok_or_else(|| {
            unknown(format!(
                "there is no saga {replaces} that can be read, so nothing can replace it"
            ))
        })?;
        let successor = saga.line.successor.as_ref();
        let successor = successor
            .filter(|_| saga.is_superseded())
            .ok_or_else(|| unknown(format!("saga {replaces} has not given up its key")))?;
        let starter = successor.starter.clone();
        let input = Arc::clone(&successor.input);
        let request = startable(&self.node.catalogue, &saga.name).and_then(|newest| {
            // Another version may compute it otherwise; the line keeps the one it is about.
            let key = Some(saga.facts.key.clone());
            start_of(&newest, input, key, starter.clone())
        });
        let request = request.map_err(|wrong| (wrong, starter))?;
        let succession = Succession {
            saga: successor.saga,
            line: saga.line.next(replaces),
            stored: false,
        };
        Ok(StartRequest {
            id: successor.start.clone(),
            succeeds: Some(Box::new(succession)),
            ..request
        })
    }

    /// A successor came too late: another start has taken the key. Its starter must hear so.
    pub(super) fn too_late(&mut self, work: Work, request: &StartRequest, known: &KeyMatch) {
        let error = StartError::KeyConflict { saga: known.id };
        tracing::info!(saga.id = %known.id, key = %request.key, "a successor found its key taken");
        if let Some(starter) = &request.starter {
            let reason = error.to_string();
            let body = json!({ "code": code::KEY_CONFLICT.to_string(), "reason": reason });
            self.answer(starter, "refused", Some(&reason), &body);
        }
        self.done(work, None, Some(Err(error)));
    }
}

#[cfg(test)]
mod tests;
