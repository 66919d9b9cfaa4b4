//! One batch of commands in one transaction: load → judge → handle → write.
//!
//! Separate from the loop around it because a batch may be tried several times (conflicts, lost
//! connections) and must then start from nothing but the commands. Nothing is acknowledged or
//! published here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use uuid::Uuid;

use super::barrier::{self, Answer, Asked, Barrier, Verdict};
use super::command::{Command, ReplyAddress, UnusableCommand, decode, printable};
use super::follow_up;
use super::open::Closed;
use super::refusal::{CommandRefusal, Rejection};
use super::service::Participant;
use super::unit::UnitOfWork;
use crate::broker::{Delivery, Session};
use crate::environment::Environment;
use crate::error::Code;
use crate::id::Timestamp;
use crate::limits::BODY;
use crate::message::{
    CONTENT_TYPE_JSON, Destination, HEADER_OUTCOME, HEADER_REASON, HEADER_TRACEPARENT, Message,
    Outcome, Properties, REPLY_QUEUE,
};
use crate::store::dead_letters::Sighting;
use crate::store::participant::{
    AggregateKey, BarrierKey, BarrierRow, ParticipantStore, ParticipantWrites, Write,
};
use crate::store::{DeadLetter, OutboxMessage, StoreError};

/// A delivered message, read once however often its batch is tried.
pub(super) struct Intake {
    /// As it came, for the dead letter it may become.
    message: Message,
    /// The dead letter's id: the same at each try.
    letter: Uuid,
    /// What tells this delivery from others.
    sighting: Sighting,
    read: Result<Command, UnusableCommand>,
    aggregate: Result<Option<AggregateKey>, Rejection>,
    /// Why what its handler answered can't be sent, once that is known.
    unanswerable: OnceLock<String>,
}

/// What a batch is tried with.
pub(super) struct BatchOptions {
    /// When any instance may publish a reply that its writer did not.
    pub replies_due_at: Timestamp,
    /// See [`super::ParticipantOptions::reply_exchange`].
    pub reply_exchange: bool,
    /// See [`ParticipantOptions::dedupe`](super::ParticipantOptions::dedupe).
    pub dedupe: bool,
}

/// Reads what was delivered.
pub(super) fn read(
    participant: &Participant,
    environment: &dyn Environment,
    session: &mut Session,
    deliveries: &[Delivery],
) -> Vec<Intake> {
    deliveries
        .iter()
        .map(|delivery| {
            let read = decode(&delivery.message, |name| participant.handles(name));
            let aggregate = match &read {
                Ok(command) => participant.aggregate_of(command),
                Err(_) => Ok(None),
            };
            Intake {
                message: delivery.message.clone(),
                letter: environment.new_id(),
                sighting: delivery.sighting(session.of(delivery, || environment.new_id())),
                read,
                aggregate,
                unanswerable: OnceLock::new(),
            }
        })
        .collect()
}

/// Tries a batch once: commits its effects, its answers and the removal of `sent`, and returns
/// the replies to publish.
pub(super) async fn attempt(
    participant: &Participant,
    environment: &dyn Environment,
    store: &dyn ParticipantStore,
    intakes: &[Intake],
    sent: &[Uuid],
    options: &BatchOptions,
) -> Result<Vec<OutboxMessage>, StoreError> {
    // Each time round one command more is known to be unanswerable.
    loop {
        let replies =
            attempt_answerable(participant, environment, store, intakes, sent, options).await?;
        if let Some(replies) = replies {
            return Ok(replies);
        }
    }
}

/// `None` if a handler has answered what can't be sent: nothing is committed then, and the next
/// time that handler is not asked.
async fn attempt_answerable(
    participant: &Participant,
    environment: &dyn Environment,
    store: &dyn ParticipantStore,
    intakes: &[Intake],
    sent: &[Uuid],
    options: &BatchOptions,
) -> Result<Option<Vec<OutboxMessage>>, StoreError> {
    let barriers: BTreeSet<BarrierKey> = intakes
        .iter()
        .filter_map(|intake| intake.read.as_ref().ok())
        .map(|command| command.barrier_key(participant.name()))
        .collect();
    let aggregates: BTreeSet<AggregateKey> = intakes
        .iter()
        .filter_map(|intake| intake.aggregate.clone().ok().flatten())
        .collect();
    let (barriers, aggregates) = (Vec::from_iter(barriers), Vec::from_iter(aggregates));

    let mut transaction = store.begin().await?;
    let loaded = transaction.load(&barriers, &aggregates).await?;
    let now = environment.now();
    let mut batch = CommandBatch {
        participant,
        environment,
        options,
        now,
        barriers: loaded.barriers.into_iter().map(Tracked::stored).collect(),
        unit: UnitOfWork::new(now, &aggregates, loaded.aggregates),
        outbox: Vec::with_capacity(intakes.len()),
        later: Vec::new(),
        dead_letters: Vec::new(),
    };
    for intake in intakes {
        let was_known = intake.unanswerable.get().is_some();
        batch.take(intake).await;
        if intake.unanswerable.get().is_some() && !was_known {
            return Ok(None);
        }
    }
    // Follow-ups wait in the outbox until their time.
    let replies = batch.outbox.clone();
    let writes = batch.close(sent)?;
    transaction.commit(writes).await?;
    Ok(Some(replies))
}

struct CommandBatch<'a> {
    participant: &'a Participant,
    environment: &'a dyn Environment,
    options: &'a BatchOptions,
    now: Timestamp,
    barriers: BTreeMap<BarrierKey, Tracked>,
    unit: UnitOfWork,
    outbox: Vec<OutboxMessage>,
    /// What is to be published, but not now.
    later: Vec<OutboxMessage>,
    dead_letters: Vec<DeadLetter>,
}

/// A barrier row as the batch sees it.
struct Tracked {
    is_stored: bool,
    is_changed: bool,
    /// Or why the stored one can't be read.
    barrier: Result<Barrier, String>,
}

impl Tracked {
    fn stored(row: BarrierRow) -> (BarrierKey, Self) {
        let tracked = Self {
            is_stored: true,
            is_changed: false,
            barrier: Barrier::decode(&row.body).map_err(|error| error.to_string()),
        };
        (row.key, tracked)
    }
}

impl CommandBatch<'_> {
    /// Handles one message. Whatever it is, it leaves an answer, a dead letter or both.
    async fn take(&mut self, intake: &Intake) {
        let command = match &intake.read {
            Ok(command) => command,
            Err(unusable) => {
                self.bury(intake, unusable.code, &unusable.reason);
                if let Some(address) = &unusable.reply_address {
                    self.answer(address, &Answer::rejected(&unusable.reason));
                }
                return;
            }
        };
        let not_before = follow_up::not_before(&intake.message);
        if let Some(at) = not_before.filter(|at| command.reply_address.is_none() && *at > self.now)
        {
            // Whoever published it has a faster clock.
            self.put_off(intake, at);
            return;
        }
        if let Some(answer) = self.answer_to(intake, command).await {
            tracing::debug!(
                participant = self.participant.name(),
                command = %command.name,
                saga.id = %command.saga,
                step = %command.step,
                phase = %command.phase,
                outcome = answer.outcome.as_str(),
                reason = answer.reason.as_deref(),
                "handled"
            );
            match &command.reply_address {
                Some(address) => self.answer(address, &answer),
                None if answer.outcome == Outcome::Failed => {
                    self.put_off(intake, self.now.after(follow_up::RETRY_AFTER));
                }
                None => {}
            }
        }
    }

    /// Has a follow-up come again later.
    fn put_off(&mut self, intake: &Intake, due_at: Timestamp) {
        self.later.push(OutboxMessage {
            id: self.environment.new_id(),
            destination: Destination::queue(self.participant.name()),
            message: intake.message.clone(),
            due_at,
        });
    }

    async fn answer_to(&mut self, intake: &Intake, command: &Command) -> Option<Answer> {
        if !self.options.dedupe {
            return Some(self.execute(intake, command).await);
        }
        let key = command.barrier_key(self.participant.name());
        let barrier = match self.barriers.get(&key).map(|tracked| &tracked.barrier) {
            None => None,
            Some(Ok(barrier)) => Some(barrier.clone()),
            Some(Err(error)) => {
                tracing::error!(saga.id = %key.saga, step = %key.step, %error, "stored barrier can't be read");
                return Some(Answer::failed(format!(
                    "what was answered for this step before can't be read: {error}"
                )));
            }
        };
        let asked = Asked {
            phase: command.phase,
            fingerprint: command.fingerprint,
            standalone: self.participant.is_standalone(&command.name),
        };
        let answer = match barrier::judge(barrier.as_ref(), &asked) {
            Verdict::Execute => self.execute(intake, command).await,
            Verdict::Settle(answer) => answer,
            Verdict::Repeat(answer) => return Some(answer),
            Verdict::Contradiction(code, answer) => {
                self.bury(intake, code, answer.reason.as_deref().unwrap_or_default());
                return Some(answer);
            }
            Verdict::PayloadChanged(reason) => {
                self.bury(intake, crate::error::code::PAYLOAD_CHANGED, &reason);
                return None;
            }
        };
        if let Some(settled) = barrier::settle(barrier.as_ref(), &asked, &answer) {
            self.barriers
                .entry(key)
                .and_modify(|tracked| {
                    tracked.is_changed = true;
                    tracked.barrier = Ok(settled.clone());
                })
                .or_insert(Tracked {
                    is_stored: false,
                    is_changed: true,
                    barrier: Ok(settled),
                });
        }
        Some(answer)
    }

    async fn execute(&mut self, intake: &Intake, command: &Command) -> Answer {
        if let Some(why) = intake.unanswerable.get() {
            return Answer::rejected(why);
        }
        let result = match &intake.aggregate {
            Err(rejection) => Err(CommandRefusal::Rejected(rejection.clone())),
            Ok(_) => {
                self.unit.begin(command);
                self.participant.handle(command, &mut self.unit).await
            }
        };
        match result {
            Ok(body) => {
                if let Err(excess) = BODY.check_value(&body) {
                    let why = format!("the reply would be too large: {excess}");
                    drop(intake.unanswerable.set(why));
                }
                Answer::succeeded(body)
            }
            Err(CommandRefusal::Rejected(Rejection(reason))) => {
                Answer::rejected(printable(&reason))
            }
            Err(CommandRefusal::Failed(reason)) => Answer::failed(printable(&reason)),
        }
    }

    fn bury(&mut self, intake: &Intake, code: Code, reason: &str) {
        tracing::warn!(participant = self.participant.name(), %code, reason, "dead letter");
        self.dead_letters.push(DeadLetter {
            id: intake.letter,
            at: self.now,
            queue: self.participant.name().to_owned(),
            code,
            reason: printable(reason),
            message: intake.message.clone(),
            sighting: intake.sighting,
        });
    }

    fn answer(&mut self, address: &ReplyAddress, answer: &Answer) {
        let id = self.environment.new_id();
        self.outbox.push(OutboxMessage {
            id,
            destination: self.way_to(&address.reply_to),
            message: reply(id, self.now, address, answer),
            due_at: self.options.replies_due_at,
        });
    }

    fn way_to(&self, reply_to: &str) -> Destination {
        let mut way = Destination::queue(reply_to);
        if self.options.reply_exchange && reply_to == REPLY_QUEUE {
            REPLY_QUEUE.clone_into(&mut way.exchange);
        }
        way
    }

    fn close(self, sent: &[Uuid]) -> Result<ParticipantWrites, StoreError> {
        let Closed {
            aggregates,
            events,
            snapshots,
            follow_ups,
        } = self.unit.close()?;
        let mut outbox = self.outbox;
        outbox.extend(self.later);
        let name = self.participant.name();
        let rows = follow_ups.into_iter();
        outbox.extend(rows.map(|asked| follow_up::row(self.environment.new_id(), name, asked)));
        let mut barriers = Vec::new();
        for (key, tracked) in self.barriers {
            let (true, Ok(barrier)) = (tracked.is_changed, &tracked.barrier) else {
                continue;
            };
            let body = barrier.encode().map_err(|error| StoreError::Corrupt {
                what: format!("barrier of {} {}", key.saga, key.step),
                why: error.to_string(),
            })?;
            let row = BarrierRow {
                key,
                status: barrier.status().as_number(),
                body,
                at: self.now,
            };
            barriers.push(if tracked.is_stored {
                Write::Update(row)
            } else {
                Write::Insert(row)
            });
        }
        Ok(ParticipantWrites {
            barriers,
            aggregates,
            events,
            snapshots,
            outbox,
            sent: sent.to_vec(),
            dead_letters: self.dead_letters,
        })
    }
}

/// A reply as the wire protocol wants it. Its message id is its outbox row's: the same however
/// often the row is published, another for each answer.
fn reply(id: Uuid, at: Timestamp, address: &ReplyAddress, answer: &Answer) -> Message {
    let mut headers = crate::message::Headers::new();
    headers.insert(HEADER_OUTCOME.to_owned(), answer.outcome.as_str().into());
    if let Some(reason) = &answer.reason {
        headers.insert(HEADER_REASON.to_owned(), reason.as_str().into());
    }
    if let Some(traceparent) = &address.traceparent {
        headers.insert(HEADER_TRACEPARENT.to_owned(), traceparent.clone());
    }
    Message {
        properties: Properties {
            message_id: Some(id.to_string()),
            correlation_id: Some(address.correlation_id.clone()),
            content_type: Some(CONTENT_TYPE_JSON.to_owned()),
            timestamp: Some(at),
            headers,
            ..Properties::default()
        },
        body: answer.body.to_string().into(),
    }
}
