//! A signal in a batch: its saga is found, told, and the sender hears of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::{Addressee, Correlated, SignalAnswer, SignalError, SignalRequest, What, code_of};
use crate::definition::{BlockKind, Definition};
use crate::engine::batch::{Batch, Decided};
use crate::engine::decode::Undecodable;
use crate::engine::encode::start_answer;
use crate::engine::found::Found;
use crate::engine::rejection::Rejection;
use crate::engine::work::{Origin, Work};
use crate::error::code;
use crate::id::SagaId;
use crate::saga::{Input, Refusal, Saga, Signal, Starter};
use crate::store::{DeadLetter, OutboxMessage};

/// Why a signal did not get to a saga.
enum Undelivered {
    /// An event about no live saga: others' events pass by all day.
    Ignored,
    /// Not certain; decide again on what is stored.
    Stale,
    /// It can't be, and that is final.
    Refused(Undecodable),
}

impl Batch<'_> {
    pub(in crate::engine) fn decide_signal(&mut self, work: Work, request: &SignalRequest) {
        let (saga, outcome) = match self.deliver(request) {
            Ok((saga, answer, signal)) => {
                if let (Some(sender), What::Sent(_)) = (&request.sender, &request.what) {
                    self.acknowledge_signal(saga, sender, &signal, answer);
                }
                (Some(saga), Some(Ok(answer)))
            }
            Err(Undelivered::Ignored) => {
                crate::metric::event_ignored("no_saga");
                (self.provisional(request), None)
            }
            // About a saga that may turn out not to be: nothing is final yet.
            Err(Undelivered::Refused(_)) if self.provisional(request).is_some() => {
                self.again.push(work);
                return;
            }
            Err(Undelivered::Stale) => {
                self.look_closer(work);
                return;
            }
            Err(Undelivered::Refused(wrong)) => {
                if let Origin::Delivery { letter, .. } = &work.origin {
                    let letter = DeadLetter {
                        code: wrong.code,
                        reason: wrong.reason.clone(),
                        ..letter()
                    };
                    self.bury(letter, request.sender.as_ref());
                }
                (None, Some(Err(wrong.into())))
            }
        };
        self.done_signal(work, saga, outcome);
    }

    /// Tells a saga; says which, and what to answer.
    fn deliver(
        &mut self,
        request: &SignalRequest,
    ) -> Result<(SagaId, SignalAnswer, Signal), Undelivered> {
        let id = self.addressed(request)?;
        let heir = match &request.to {
            Addressee::Key(_) => self.saga(id).and_then(Saga::heir),
            Addressee::Saga(_) => None,
        };
        let signal = match &request.what {
            What::Sent(signal) => signal.clone(),
            What::Event(correlated) => self.signal_of(id, heir.is_some(), correlated)?,
        };
        let signal = self.told_apart(id, request, signal);
        let told = signal.clone();
        let input = match heir {
            None => Input::Signal(signal),
            Some(_) if !self.heir_waits(id, &signal.name) => {
                let refusal = Refusal::NoSuchSignal(signal.name);
                let wrong = Undecodable::new(code_of(&refusal), refusal.to_string());
                return Err(Undelivered::Refused(wrong));
            }
            Some(_) => Input::SignalForSuccessor(signal),
        };
        let reached = heir.unwrap_or(id);
        match self.turn(id, input) {
            Ok(()) => Ok((id, SignalAnswer::Accepted(reached), told)),
            Err(Rejection::Nothing) => Ok((id, SignalAnswer::Duplicate(reached), told)),
            Err(Rejection::Stale) => Err(Undelivered::Stale),
            // It ended between the look for its key and now, or is on its way back.
            Err(Rejection::Wrong(wrong))
                if matches!(
                    wrong.code,
                    code::SIGNAL_TOO_LATE | code::SIGNAL_ROLLING_BACK
                ) && matches!(request.what, What::Event(_)) =>
            {
                Err(Undelivered::Ignored)
            }
            Err(Rejection::Wrong(wrong)) => Err(Undelivered::Refused(wrong)),
        }
    }

    /// A signal without an id is another one than an equal one that the saga has had, and gets an
    /// id of its own; one that may be that very signal once more is taken for it, but not silently.
    fn told_apart(&self, id: SagaId, request: &SignalRequest, mut signal: Signal) -> Signal {
        let Some(saga) = self.saga(id).filter(|_| request.by_content) else {
            return signal;
        };
        let had = |id: &str| saga.has_seen(id) || saga.line.kept.iter().any(|it| it.id == id);
        if !had(&signal.id) {
            return signal;
        }
        if request.uncertain.load(Ordering::Relaxed) {
            tracing::warn!(
                saga.id = %id, signal = %signal.name, id = %signal.id,
                "an equal signal without an id came before, and this one may be it once more: not taken in"
            );
            return signal;
        }
        let mut ids = (2..).map(|number| format!("{}#{number}", signal.id));
        // A saga remembers so many ids and no more, so one of these is free.
        if let Some(free) = ids.find(|id| !had(id)) {
            signal.id = free;
        }
        signal
    }

    /// The saga that a signal is for: one that a work before it starts, or a stored one.
    fn addressed(&self, request: &SignalRequest) -> Result<SagaId, Undelivered> {
        let nobody = |who: String| {
            let why = format!(
                "there is no saga {who}: it was not started yet, or was deleted; a signal may come early, but not before its saga"
            );
            let wrong = Undecodable::new(code::SIGNAL_FOR_NO_SAGA, why);
            Undelivered::Refused(wrong)
        };
        let by_event = matches!(request.what, What::Event(_));
        match &request.to {
            Addressee::Saga(id) if self.is_missing(*id) => Err(nobody(id.to_string())),
            Addressee::Saga(id) => Ok(*id),
            Addressee::Key(key) => {
                if let Some(id) = self.starting.get(key) {
                    return Ok(*id);
                }
                match self.keys.get(key).and_then(Option::as_ref) {
                    Some(known) if by_event && known.status.is_ended() => Err(Undelivered::Ignored),
                    Some(known) if !self.is_missing(known.id) => Ok(known.id),
                    _ if by_event => Err(Undelivered::Ignored),
                    _ => Err(nobody(format!("`{}` with key `{}`", key.name, key.key))),
                }
            }
        }
    }

    /// The saga that this batch starts and takes a signal to be for. If its key turns out to be
    /// another saga's, the signal is for that one.
    fn provisional(&self, request: &SignalRequest) -> Option<SagaId> {
        let Addressee::Key(key) = &request.to else {
            return None;
        };
        let id = self.starting.get(key).copied();
        id.filter(|id| self.is_provisional(*id))
    }

    /// An event as the signal that a `wait` of this saga is for. The rule counts only for sagas
    /// that keep its version of the definition.
    fn signal_of(
        &self,
        id: SagaId,
        for_heir: bool,
        correlated: &Correlated,
    ) -> Result<Signal, Undelivered> {
        let definition = &correlated.definition;
        let version = if for_heir {
            self.newest(&definition.name).map(|newest| newest.version)
        } else {
            self.version_of(id)
        };
        if let Some(version) = version
            && version != definition.version
        {
            return Err(Undelivered::Ignored);
        }
        let BlockKind::Wait(wait) = &definition.block(correlated.block).kind else {
            return Err(Undelivered::Ignored);
        };
        let payload = match &wait.on {
            Some(rule) => rule.content_of(&correlated.event),
            None => return Err(Undelivered::Ignored),
        };
        let payload = payload.map_err(|error| {
            let why = format!(
                "saga {id} (`{}`) waits for this event as `{}`, but its `with` fails: {error}",
                definition.name, wait.name
            );
            Undelivered::Refused(Undecodable::new(code::EVENT_UNUSABLE, why))
        })?;
        Ok(Signal {
            name: wait.signal.clone(),
            // One event may be several signals to a saga.
            id: format!("{}@{}", wait.signal, correlated.id),
            body: Arc::new(payload),
            at: None,
        })
    }

    /// What a successor will run, if it started now.
    fn newest(&self, name: &str) -> Option<Arc<Definition>> {
        self.node.catalogue.newest(name)
    }

    /// Whether the saga that is to replace this one may wait for such a signal.
    fn heir_waits(&self, id: SagaId, signal: &str) -> bool {
        let newest = self.saga(id).and_then(|saga| self.newest(&saga.name));
        newest.is_none_or(|newest| {
            newest
                .blocks
                .iter()
                .any(|node| matches!(&node.kind, BlockKind::Wait(wait) if wait.signal == signal))
        })
    }

    /// Whether there is no such saga.
    fn is_missing(&self, id: SagaId) -> bool {
        let found = self.found.get(&id);
        !self.changed.contains_key(&id) && found.is_none_or(|found| matches!(found, Found::Missing))
    }

    /// The version of its definition that a saga keeps, if the saga can be read.
    fn version_of(&self, id: SagaId) -> Option<u32> {
        match (self.changed.get(&id), self.found.get(&id)) {
            (Some(changed), _) => Some(changed.open.head.version),
            (None, Some(Found::Open(open))) => Some(open.head.version),
            _ => None,
        }
    }

    /// A message that is to be sent only if what was decided about the saga is stored.
    fn send_with(&mut self, id: SagaId, row: OutboxMessage) {
        match self.changed.get_mut(&id).filter(|changed| changed.dirty) {
            Some(changed) => changed.outbox.push(row),
            None => self.outbox.push(row),
        }
    }

    fn done_signal(
        &mut self,
        work: Work,
        saga: Option<SagaId>,
        signalled: Option<Result<SignalAnswer, SignalError>>,
    ) {
        self.decided.push(Decided {
            work,
            saga,
            answer: None,
            told: Ok(()),
            signalled,
        });
    }

    /// Tells the sender of a signal, together with the saga's own messages.
    fn acknowledge_signal(
        &mut self,
        told: SagaId,
        sender: &Starter,
        signal: &Signal,
        answer: SignalAnswer,
    ) {
        let (saga, duplicate) = match answer {
            SignalAnswer::Accepted(saga) => (saga, false),
            SignalAnswer::Duplicate(saga) => (saga, true),
        };
        let body = json!({
            "saga_id": saga, "signal": signal.name, "id": signal.id, "duplicate": duplicate,
        });
        let id = self.node.environment.new_id();
        let (to, message) = start_answer(sender, id, "accepted", None, &body, self.now);
        let row = self.node.outbox_row(to, message, self.now);
        self.send_with(told, row);
    }
}
