//! The stand-ins: for every queue that a definition's steps name, a participant that keeps the
//! protocol to the letter and otherwise does what the script, or the seed, says.
//!
//! What they did outlives a crash of their process, as a database would; what they were about to
//! say does not. They share the barrier with the SDK, so duplicates and stragglers are met as a
//! participant of ours meets them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Call, Calls, Does, Response};
use super::improvise::Improviser;
use super::judge::is_behind_pivot;
use super::ledger::{Effect, EffectLedger};
use super::schema;
use crate::broker::{Binding, Broker, Outgoing, Queue, Topology};
use crate::definition::{BlockKind, Definition, Step};
use crate::environment::Environment;
use crate::id::{Phase, SagaId, StepPath, Timestamp};
use crate::message::{
    Destination, HEADER_OUTCOME, HEADER_REASON, HEADER_SAGA, HEADER_SAGA_KEY, Message, Outcome,
    Properties,
};
use crate::participant::barrier::{self, Answer, Asked, Barrier, Verdict};
use crate::participant::{Command, RESERVATION_FIELD, ReplyAddress, decode};

/// Most deliveries that a stand-in takes at once.
const BATCH_MAX: usize = 100;
const PREFETCH: u16 = 500;

/// All stand-ins of a play.
pub(super) struct Cast {
    definitions: Vec<Arc<Definition>>,
    rules: Vec<(Calls, Response)>,
    improviser: Option<Improviser>,
    /// How long an answer takes when nothing else is said.
    latency: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    barriers: BTreeMap<(SagaId, StepPath), Barrier>,
    heard: BTreeMap<(SagaId, StepPath, Phase), u32>,
    ledger: EffectLedger,
}

impl Cast {
    pub(super) fn new(
        definitions: Vec<Arc<Definition>>,
        rules: Vec<(Calls, Response)>,
        improviser: Option<Improviser>,
        latency: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            definitions,
            rules,
            improviser,
            latency,
            state: Mutex::default(),
        })
    }

    /// What they did so far.
    pub(super) fn ledger(&self) -> EffectLedger {
        self.state().ledger.clone()
    }

    /// Where the definitions' commands go, but for the queues that others serve.
    pub(super) fn destinations(&self, others: &BTreeSet<String>) -> BTreeSet<Destination> {
        let steps = self.definitions.iter().flat_map(|it| steps(it));
        let calls = steps.flat_map(|step| {
            let forward = step.forward.as_ref().map(crate::definition::Forward::call);
            forward
                .into_iter()
                .chain(&step.confirm)
                .chain(&step.compensate)
        });
        calls
            .map(|call| call.to.clone())
            .filter(|to| !(to.exchange.is_empty() && others.contains(&to.routing_key)))
            .collect()
    }

    /// Serves one destination until the process crashes.
    pub(super) async fn play(
        self: Arc<Self>,
        environment: Arc<dyn Environment>,
        broker: Arc<dyn Broker>,
        queue: String,
    ) {
        let Ok(mut consumer) = broker.consume(&queue, PREFETCH).await else {
            return;
        };
        loop {
            let batch = consumer.deliveries.next_batch(BATCH_MAX).await;
            if batch.is_empty() {
                return;
            }
            for delivery in batch {
                if let Some((reply, after)) = self.hear(&delivery.message, environment.now()) {
                    let (broker, waiting) = (Arc::clone(&broker), environment.sleep(after));
                    let say = async move {
                        waiting.await;
                        broker.publish(vec![reply]).await;
                    };
                    environment.spawn("answer", Box::pin(say));
                }
                consumer.acks.ack(&[delivery.tag]);
            }
        }
    }

    /// One delivery: what is done, and what is said when.
    fn hear(&self, message: &Message, now: Timestamp) -> Option<(Outgoing, Duration)> {
        let command = match decode(message, |_| true) {
            Ok(command) => command,
            Err(unusable) => {
                self.state().ledger.wrong.push(unusable.reason);
                return None;
            }
        };
        let address = command.reply_address.clone()?;
        let key = message.header(HEADER_SAGA_KEY).unwrap_or_default();
        let definition = message.header(HEADER_SAGA);
        let place = self.definitions.iter().find_map(|it| {
            let ours = definition == Some(it.name.as_str());
            Some((&**it, it.step(&command.step.name).filter(|_| ours)?))
        });
        let response = self.response(&command, key, place);
        let answer = self.carry_out(&command, &response, place, now)?;
        if response.lost {
            return None;
        }
        let reply = Outgoing {
            destination: Destination::queue(&address.reply_to),
            message: reply(address, &answer, now),
            mandatory: true,
        };
        Some((reply, response.after.max(self.latency)))
    }

    fn response(
        &self,
        command: &Command,
        key: &str,
        place: Option<(&Definition, &Step)>,
    ) -> Response {
        let number = {
            let mut state = self.state();
            let of = (command.saga, command.step.clone(), command.phase);
            let heard = state.heard.entry(of).or_default();
            *heard += 1;
            *heard
        };
        let call = Call {
            command: &command.name,
            step: &command.step,
            phase: command.phase,
            key,
            number,
        };
        let rule = self.rules.iter().find(|(calls, _)| calls.include(&call));
        match (rule, &self.improviser) {
            (Some((_, response)), _) => response.clone(),
            (None, Some(improviser)) => {
                let is_final =
                    place.is_some_and(|(definition, step)| is_behind_pivot(definition, step));
                improviser.respond(&call, place.map(|(_, step)| step), is_final)
            }
            (None, None) => Response::of(Does::Succeed(None)),
        }
    }

    /// Does what is asked unless the barrier says that it was done, or the response that it isn't.
    fn carry_out(
        &self,
        command: &Command,
        response: &Response,
        place: Option<(&Definition, &Step)>,
        now: Timestamp,
    ) -> Option<Answer> {
        let asked = Asked {
            phase: command.phase,
            fingerprint: command.fingerprint,
            standalone: place.is_some_and(|(_, step)| step.forward.is_none()),
        };
        let mut state = self.state();
        let key = (command.saga, command.step.clone());
        let before = state.barriers.get(&key).cloned();
        let wrong = |why: &str| format!("{} of {}: {why}", command.name, command.step);
        let answer = match barrier::judge(before.as_ref(), &asked) {
            Verdict::Execute => match &response.does {
                Does::Nothing => return None,
                Does::Fail(reason) => return Some(Answer::failed(reason)),
                Does::Reject(reason) => Answer::rejected(reason),
                Does::Succeed(body) => {
                    let echo = || self.echo(&command.payload, place);
                    Answer::succeeded(body.clone().unwrap_or_else(echo))
                }
            },
            Verdict::Settle(answer) => answer,
            Verdict::Repeat(answer) => {
                let silent = response.does == Does::Nothing;
                return (!silent).then_some(answer);
            }
            Verdict::Contradiction(_, answer) => {
                let why = answer.reason.as_deref().unwrap_or_default();
                state.ledger.wrong.push(wrong(why));
                return Some(answer);
            }
            Verdict::PayloadChanged(why) => {
                state.ledger.wrong.push(wrong(&why));
                return None;
            }
        };
        if let Some(settled) = barrier::settle(before.as_ref(), &asked, &answer) {
            state.barriers.insert(key, settled);
        }
        if answer.outcome == Outcome::Succeeded {
            state.ledger.effects.push(Effect {
                saga: command.saga,
                step: command.step.clone(),
                phase: command.phase,
                command: command.name.clone(),
                at: now,
            });
        }
        Some(answer)
    }

    /// The payload as an answer, so that `steps.payment.amount` is there without a script.
    fn echo(&self, payload: &Value, place: Option<(&Definition, &Step)>) -> Value {
        let mut body = match payload {
            Value::Object(fields) => {
                let mut fields = fields.clone();
                fields.remove(RESERVATION_FIELD);
                Value::Object(fields)
            }
            _ => json!({}),
        };
        if let Some(schema) = place.and_then(|(_, step)| step.reply.schema.as_ref()) {
            schema::fit(&mut body, schema, &mut fastrand::Rng::with_seed(0));
        }
        if let (Some(improviser), Some((definition, step))) = (&self.improviser, place) {
            improviser.embellish(&mut body, definition, &step.name);
        }
        body
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue that stands for a destination: the named one, or one that is bound to the exchange.
pub(super) fn queue_of(destination: &Destination) -> String {
    if destination.exchange.is_empty() {
        destination.routing_key.clone()
    } else {
        format!("{}/{}", destination.exchange, destination.routing_key)
    }
}

/// What must exist before the destinations can be served.
pub(super) fn topology(destinations: &BTreeSet<Destination>) -> Topology {
    let queues = destinations.iter().map(|to| Queue {
        name: queue_of(to),
        dead_letter_to: None,
    });
    let routed = || destinations.iter().filter(|to| !to.exchange.is_empty());
    let exchanges: BTreeSet<String> = routed().map(|to| to.exchange.clone()).collect();
    let bindings = routed().map(|to| Binding {
        exchange: to.exchange.clone(),
        queue: queue_of(to),
        routing_key: to.routing_key.clone(),
    });
    Topology {
        queues: queues.collect(),
        topic_exchanges: exchanges.into_iter().collect(),
        bindings: bindings.collect(),
        ..Topology::default()
    }
}

fn steps(definition: &Definition) -> impl Iterator<Item = &Step> {
    definition
        .blocks
        .iter()
        .filter_map(|node| match &node.kind {
            BlockKind::Step(step) => Some(step),
            _ => None,
        })
}

fn reply(address: ReplyAddress, answer: &Answer, now: Timestamp) -> Message {
    let mut headers = crate::message::Headers::new();
    headers.insert(HEADER_OUTCOME.to_owned(), answer.outcome.as_str().into());
    if let Some(reason) = &answer.reason {
        headers.insert(HEADER_REASON.to_owned(), reason.as_str().into());
    }
    Message {
        properties: Properties {
            correlation_id: Some(address.correlation_id),
            timestamp: Some(now),
            headers,
            ..Properties::default()
        },
        body: Bytes::from(answer.body.to_string()),
    }
}
