//! Where work comes from: the queues (starts, replies, signals, domain events), the clock, and
//! commands that no queue took. Each is decoded here and handed to the worker that looks after its saga.

use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::children::decode_child;
use super::decode::{
    StartRequest, Undecodable, UnusableReply, decode_reply, decode_start, starter_of, unreadable,
};
use super::news::LOOK_HOLDS;
use super::relay::{Fate, Report};
use super::room::Space;
use super::signals::decode_signal;
use super::succession::decode_successor;
use super::work::{Job, Origin, Work};
use super::worker::Shared;
use crate::broker::{Acks, Delivery, Session};
use crate::error::code;
use crate::id::{SagaId, Timestamp};
use crate::message::child::ChildCommand;
use crate::message::correlation::Correlation;
use crate::message::{
    DOMAIN_EVENT_QUEUE, Destination, HEADER_ATTEMPT, Message, Outcome, REPLY_QUEUE, SIGNAL_QUEUE,
    START_QUEUE,
};
use crate::saga::{Input, PlantedBug, Reply, Returned};
use crate::store::dead_letters::Sighting;
use crate::store::{DeadLetter, OutboxMessage, StoreError};

/// Most sagas woken at once.
const DUE_MAX: usize = 500;

/// The workers' entrances. A saga always goes to the same one, so that one node's workers never
/// compete for it.
#[derive(Clone)]
pub(super) struct Workers(pub(super) Arc<[mpsc::Sender<Work>]>);

impl Workers {
    /// Waits while the worker is busy: this is what holds back the queues.
    pub(super) async fn give(&self, work: Work) {
        let worker = usize::try_from(work.job.lane() % self.0.len() as u64).unwrap_or(0);
        // Fails only when the worker is gone, at the very end; the broker gives the message back.
        let _ = self.0[worker].send(work).await;
    }
}

impl Shared {
    /// What a delivery asks for; `None` if the node stops before that is known.
    pub(super) async fn decode(
        &self,
        queue: &'static str,
        delivery: Delivery,
        session: &mut Session,
        acks: &Arc<dyn Acks>,
        space: Space,
    ) -> Option<Work> {
        let sighting = self.sighting(&delivery, session);
        let Delivery {
            tag,
            message,
            redelivered,
            ..
        } = delivery;
        let decoded = match queue {
            _ if message.properties.unreadable.is_some() => Err(unreadable(&message)),
            START_QUEUE => self.decode_start_or_look(&message).await?,
            SIGNAL_QUEUE => {
                decode_signal(&message, redelivered).map(|signal| Job::Signal(Arc::new(signal)))
            }
            _ => match decode_reply(&message, &self.secret) {
                Ok((saga, reply)) => Ok(Job::Tell {
                    saga,
                    input: Input::Reply(reply),
                }),
                Err(UnusableReply {
                    wrong,
                    answers: None,
                }) => Err(wrong),
                Err(UnusableReply {
                    wrong,
                    answers: Some(command),
                }) => {
                    let letter = self.letter(queue, message.clone(), sighting)();
                    Ok(failed_by(wrong, command, letter))
                }
            },
        };
        let letter = self.letter(queue, message, sighting);
        let job = decoded.unwrap_or_else(|Undecodable { code, reason }| {
            let letter = DeadLetter {
                code,
                reason,
                ..letter()
            };
            let is_asked = queue != REPLY_QUEUE && !ChildCommand::is_meant(&letter.message);
            let starter = is_asked.then(|| starter_of(&letter.message)).flatten();
            Job::Bury {
                letter: Box::new(letter),
                starter,
            }
        });
        Some(Work {
            job,
            origin: Origin::Delivery {
                acks: Arc::clone(acks),
                tag,
                letter,
                space,
            },
        })
    }

    /// Reads a message from the start queue. Before one is refused because of the definitions that
    /// this node knows, it looks whether another one has stored newer ones.
    async fn decode_start_or_look(&self, message: &Message) -> Option<Result<Job, Undecodable>> {
        let decoded = self.decode_start(message);
        let hangs_on_definitions = match &decoded {
            Ok(Job::Child(wanted)) => wanted.hangs_on_definitions(&self.catalogue),
            Ok(_) => false,
            Err(wrong) => wrong.hangs_on_definitions(),
        };
        if !hangs_on_definitions {
            return Some(decoded);
        }
        self.wait_for_news(LOOK_HOLDS).await?;
        let decoded = self.decode_start(message);
        let name = match &decoded {
            Ok(Job::Child(wanted)) if wanted.hangs_on_definitions(&self.catalogue) => {
                Some(wanted.name.as_str())
            }
            Err(wrong) if wrong.hangs_on_definitions() => message.properties.kind.as_deref(),
            _ => None,
        };
        let known = self.catalogue.known();
        let beyond = name.and_then(|name| known.beyond(Some(name)));
        let leave = |why: &str| {
            Ok(Job::Leave {
                about: "a start".to_owned(),
                why: why.to_owned(),
            })
        };
        Some(beyond.map_or(decoded, leave))
    }

    fn decode_start(&self, message: &Message) -> Result<Job, Undecodable> {
        if let Some(replaces) = decode_successor(message) {
            let replaces = replaces?;
            return Ok(Job::Succeed { replaces });
        }
        if ChildCommand::is_meant(message) {
            let wanted = decode_child(message, &self.secret, &self.catalogue)?;
            return Ok(Job::Child(Box::new(wanted)));
        }
        let request: StartRequest = decode_start(message, &self.catalogue)?;
        Ok(Job::Start {
            request,
            key_taken: false,
        })
    }

    /// What tells this delivery from others.
    pub(super) fn sighting(&self, delivery: &Delivery, session: &mut Session) -> Sighting {
        delivery.sighting(session.of(delivery, || self.environment.new_id()))
    }

    /// How this delivery becomes a dead letter, should it come to that. It has one id, however often
    /// its batch is tried; another delivery has another one.
    pub(super) fn letter(
        &self,
        queue: &'static str,
        message: Message,
        sighting: Sighting,
    ) -> Arc<dyn Fn() -> DeadLetter + Send + Sync> {
        let environment = Arc::clone(&self.environment);
        let reused = self.options.sabotage.has(PlantedBug::ReuseLetterIds);
        let id = OnceLock::new();
        Arc::new(move || DeadLetter {
            id: *id.get_or_init(|| {
                let reused = reused.then(|| reused_id(queue, &message)).flatten();
                reused.unwrap_or_else(|| environment.new_id())
            }),
            at: environment.now(),
            queue: queue.to_owned(),
            code: code::STORE_REFUSED,
            reason: String::new(),
            message: message.clone(),
            sighting,
        })
    }

    /// Wakes sagas whose time has come. While the database is lost, tries to regain it.
    pub(super) async fn watch_the_clock(self: Arc<Self>, workers: Workers) {
        loop {
            if self.presence.is_lost() {
                tokio::select! {
                    biased;
                    () = self.stop.requested() => return,
                    () = self.try_to_regain() => continue,
                }
            }
            let mut full = false;
            let hears = self.hears().await;
            match self.within(self.claim_due(hears)).await {
                Ok(due) => {
                    self.presence.succeeded();
                    full = due.len() == DUE_MAX;
                    for saga in due {
                        let job = Job::Tell {
                            saga,
                            input: Input::Wake,
                        };
                        workers
                            .give(Work {
                                job,
                                origin: Origin::Timer,
                            })
                            .await;
                    }
                    self.presence.looked_at_the_clock(self.environment.now());
                }
                Err(error) => {
                    tracing::warn!(%error, "can't ask which sagas are due; trying again");
                    self.presence.failed(self.environment.now(), &error);
                }
            }
            if full && !self.stop.is_requested() {
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.requested() => return,
                () = self.environment.pause(self.options.look_every) => {}
            }
        }
    }

    /// Whether this node has heard what was answered.
    async fn hears(&self) -> bool {
        let losses = self.presence.losses();
        self.hearing.has_caught_up(&*self.environment, losses).await
    }

    /// Sagas whose time has come; none while this node's clock is wrong, and others see to them, or
    /// while answers wait that it has not heard.
    async fn claim_due(&self, hears: bool) -> Result<Vec<SagaId>, StoreError> {
        if !self.clock.is_right(&*self.store).await? {
            return Ok(Vec::new());
        }
        if !hears {
            // That the database can be used must be known all the same.
            self.store.check_writable().await?;
            return Ok(Vec::new());
        }
        let now = self.environment.now();
        let until = now.after(self.options.claim);
        self.store.claim_due(now, until, DUE_MAX).await
    }

    async fn try_to_regain(&self) {
        self.environment.sleep(self.presence.hold_off()).await;
        match self.within(self.store.check_writable()).await {
            Ok(()) => self.presence.regain(self.environment.now()),
            Err(error) => {
                tracing::debug!(%error, "the database is still lost");
                self.presence.failed(self.environment.now(), &error);
            }
        }
    }

    /// Tells sagas of commands that no queue took, that the broker refused, or that were sent late.
    pub(super) async fn hear_of_commands(
        self: Arc<Self>,
        mut reports: mpsc::Receiver<Report>,
        workers: Workers,
    ) {
        loop {
            let report = tokio::select! {
                biased;
                () = self.stop.requested() => return,
                report = reports.recv() => report,
            };
            let Some(Report { row, fate }) = report else {
                return;
            };
            let is_ours = |queue: &&str| row.destination == Destination::queue(*queue);
            if matches!(fate, Fate::NoQueue { .. }) && QUEUES.iter().any(is_ours) {
                // Somebody has deleted our queue. The row stays and is swept again.
                tracing::error!(to = %row.destination, "a queue of ours is missing; the message is kept");
                continue;
            }
            let correlation = row
                .message
                .properties
                .correlation_id
                .as_deref()
                .and_then(|text| Correlation::verify(text, &self.secret).ok());
            let Some(Correlation { saga, step, phase }) = correlation else {
                self.have_no_saga_hear(row, fate, &workers).await;
                continue;
            };
            let headers = &row.message.properties.headers;
            let attempt = headers.get(HEADER_ATTEMPT).and_then(Value::as_u64);
            let attempt = attempt.and_then(|it| u32::try_from(it).ok()).unwrap_or(1);
            let input = match fate {
                Fate::Late => Input::Sent {
                    step,
                    phase,
                    attempt,
                },
                Fate::NoQueue { once } => Input::Returned(Returned {
                    step,
                    phase,
                    attempt,
                    to: row.destination.clone(),
                    certain: once,
                }),
                Fate::Refused(why) => Input::Reply(Reply {
                    step,
                    phase,
                    outcome: Outcome::Failed,
                    stated: true,
                    body: Arc::new(Value::Null),
                    reason: Some(format!("the broker will not take the command: {why}")),
                }),
            };
            let job = Job::Tell { saga, input };
            workers
                .give(Work {
                    job,
                    origin: Origin::Outbox(row.id),
                })
                .await;
        }
    }

    /// What became of a message that is no command of a saga.
    async fn have_no_saga_hear(&self, row: OutboxMessage, fate: Fate, workers: &Workers) {
        match fate {
            Fate::Refused(why) => {
                let letter = refused_for_good(row, why, self.environment.now());
                return workers.give(letter).await;
            }
            // An answer to a starter that is gone: nobody waits for it.
            Fate::NoQueue { .. } => {
                tracing::info!(to = %row.destination, "no queue takes this answer; dropped");
            }
            Fate::Late => {}
        }
        self.relay.give_back(vec![row.id]);
    }
}

/// Sets a message aside that the broker will never take, and that no saga waits for.
fn refused_for_good(row: OutboxMessage, why: String, at: Timestamp) -> Work {
    let OutboxMessage {
        id,
        destination,
        message,
        ..
    } = row;
    let letter = DeadLetter {
        id,
        at,
        queue: destination.routing_key.clone(),
        code: code::BROKER_REFUSED,
        reason: format!("the broker will not take the message to {destination}: {why}"),
        message,
        sighting: Sighting::default(),
    };
    Work {
        job: Job::Bury {
            letter: Box::new(letter),
            starter: None,
        },
        origin: Origin::Outbox(id),
    }
}

/// A reply that nothing can be made of is a failed attempt, whatever it was meant to say. The letter
/// says which saga it is about, and the saga which letter.
fn failed_by(wrong: Undecodable, command: Correlation, letter: DeadLetter) -> Job {
    let Undecodable { code, reason } = wrong;
    let Correlation { saga, step, phase } = command;
    let letter = DeadLetter {
        code,
        reason: format!("saga {saga}, {step} {phase}: {reason}"),
        ..letter
    };
    let reply = Reply {
        step,
        phase,
        outcome: Outcome::Failed,
        stated: true,
        body: Arc::new(Value::Null),
        reason: Some(format!(
            "{code}: the reply is unusable: {reason}; it is dead letter {}",
            letter.id
        )),
    };
    Job::TellAndBury {
        saga,
        input: Input::Reply(reply),
        letter: Box::new(letter),
    }
}

/// The bug of [`PlantedBug::ReuseLetterIds`].
fn reused_id(queue: &str, message: &Message) -> Option<Uuid> {
    let id = message.properties.message_id.as_deref()?;
    let name = [queue.as_bytes(), id.as_bytes(), &message.body].join(&0);
    Some(Uuid::new_v5(&Uuid::NAMESPACE_OID, &name))
}

/// The queues that are received from.
pub(super) const QUEUES: [&str; 4] = [START_QUEUE, REPLY_QUEUE, SIGNAL_QUEUE, DOMAIN_EVENT_QUEUE];
