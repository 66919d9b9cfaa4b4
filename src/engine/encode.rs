//! Decisions to messages: addressed, signed, ready for the outbox.

use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use crate::id::{MessageId, SagaId, Timestamp};
use crate::message::child::ChildCommand;
use crate::message::correlation::{Correlation, Secret};
use crate::message::mask;
use crate::message::{
    CONTENT_TYPE_JSON, Destination, HEADER_ATTEMPT, HEADER_CHILD_DEPTH, HEADER_CHILD_SEAL,
    HEADER_CORRELATION, HEADER_DEADLINE, HEADER_OUTCOME, HEADER_PHASE, HEADER_REASON,
    HEADER_REPLACES, HEADER_SAGA, HEADER_SAGA_KEY, HEADER_TRACEPARENT, Headers, Message,
    Properties, REPLY_QUEUE, START_QUEUE,
};
use crate::saga::{ChildAnswer, Emission, Parent, Saga, Starter};

/// What all messages of one decision share.
pub struct Encoder<'a> {
    /// Signs correlation ids.
    pub secret: &'a Secret,
    /// The saga that speaks.
    pub saga: &'a Saga,
    /// What it belongs to, if its definition says so.
    pub correlation: Option<String>,
    /// The journal entry that says so.
    pub seq: u64,
    /// When.
    pub now: Timestamp,
}

impl Encoder<'_> {
    /// The message and where it goes.
    pub fn encode(&self, send: Emission) -> (Destination, Message) {
        match send {
            Emission::Command {
                step,
                phase,
                attempt,
                command,
                to,
                body,
                deadline,
                ..
            } => {
                let id = MessageId::of_command(self.saga.id, &step, phase);
                let correlation = Correlation {
                    saga: self.saga.id,
                    step,
                    phase,
                };
                let trace = traceparent(self.saga.id, id);
                let mut headers = Headers::from([
                    (HEADER_SAGA.to_owned(), Value::from(self.saga.name.as_str())),
                    (
                        HEADER_SAGA_KEY.to_owned(),
                        Value::from(self.saga.facts.key.as_str()),
                    ),
                    (HEADER_ATTEMPT.to_owned(), Value::from(attempt)),
                    (
                        HEADER_DEADLINE.to_owned(),
                        Value::from(deadline.to_string()),
                    ),
                    (HEADER_TRACEPARENT.to_owned(), Value::from(trace)),
                ]);
                headers.extend(self.belongs_to());
                // Definitions can't name the start queue, so this is for a sub-saga.
                if to == Destination::queue(START_QUEUE) {
                    headers.extend(self.child_headers(&command, &correlation));
                }
                let properties = Properties {
                    correlation_id: Some(correlation.sign(self.secret)),
                    reply_to: Some(REPLY_QUEUE.to_owned()),
                    headers,
                    ..self.properties(id, &command)
                };
                (to, message(properties, &body))
            }
            Emission::Notice { change, body } => {
                let id =
                    MessageId::of_notice(self.saga.id, &format!("event/{change}/{}", self.seq));
                let properties = self.properties(id, &format!("{}.{change}", self.saga.name));
                let routing_key = format!("{}.{change}", self.saga.name);
                (Destination::event(routing_key), public(properties, &body))
            }
            Emission::Successor(successor) => {
                let name = format!("successor/{}", successor.saga);
                let id = MessageId::of_notice(self.saga.id, &name);
                let replaces = Value::from(self.saga.id.to_string());
                let starter = successor.starter;
                let (reply_to, correlation_id) = starter.map_or((None, None), |starter| {
                    (Some(starter.reply_to), starter.correlation_id)
                });
                let properties = Properties {
                    reply_to,
                    correlation_id,
                    headers: Headers::from([(HEADER_REPLACES.to_owned(), replaces)]),
                    ..self.properties(id, &self.saga.name)
                };
                let start = message(properties, &successor.input);
                (Destination::queue(START_QUEUE), start)
            }
            Emission::Answer {
                starter,
                kind,
                outcome,
                reason,
                body,
            } => {
                // All but a refusal, which goes to one after the other, come once a saga and starter.
                let began = self.saga.starter.as_ref() == Some(&starter);
                let name = match kind {
                    "refused" => format!("answer/{kind}/{}", self.seq),
                    _ if began => format!("answer/{kind}"),
                    _ => {
                        let correlation = starter.correlation_id.as_deref().unwrap_or_default();
                        format!("answer/{kind}/{}/{correlation}", starter.reply_to)
                    }
                };
                let id = MessageId::of_notice(self.saga.id, &name);
                let mut headers = Headers::new();
                headers.insert(HEADER_OUTCOME.to_owned(), Value::from(outcome.as_str()));
                if let Some(reason) = reason {
                    headers.insert(HEADER_REASON.to_owned(), Value::from(reason));
                }
                let properties = Properties {
                    headers,
                    ..self.properties(id, kind)
                };
                answer(&starter, properties, &body)
            }
            Emission::ToParent { parent, answer } => {
                child_reply(self.secret, self.saga.id, &parent, answer, self.now)
            }
        }
    }

    /// What a command belongs to.
    fn belongs_to(&self) -> Option<(String, Value)> {
        let correlation = self.correlation.as_deref()?;
        Some((HEADER_CORRELATION.to_owned(), correlation.into()))
    }

    /// What tells a command to a sub-saga from a start.
    fn child_headers(&self, name: &str, correlation: &Correlation) -> Headers {
        let depth = self.saga.family.as_ref().map_or(0, |it| it.parent.depth) + 1;
        let command = ChildCommand {
            name: name.to_owned(),
            depth,
            correlation: correlation.clone(),
        };
        Headers::from([
            (
                HEADER_PHASE.to_owned(),
                Value::from(correlation.phase.as_str()),
            ),
            (HEADER_CHILD_DEPTH.to_owned(), Value::from(depth)),
            (
                HEADER_CHILD_SEAL.to_owned(),
                Value::from(command.seal(self.secret)),
            ),
        ])
    }

    fn properties(&self, id: MessageId, kind: &str) -> Properties {
        Properties {
            message_id: Some(id.to_string()),
            kind: Some(kind.to_owned()),
            content_type: Some(CONTENT_TYPE_JSON.to_owned()),
            timestamp: Some(self.now),
            ..Properties::default()
        }
    }
}

/// An answer to a start that made no saga: refused, or there is one already.
pub fn start_answer(
    starter: &Starter,
    id: Uuid,
    kind: &str,
    reason: Option<&str>,
    body: &Value,
    now: Timestamp,
) -> (Destination, Message) {
    let outcome = if reason.is_some() {
        "rejected"
    } else {
        "succeeded"
    };
    let mut headers = Headers::new();
    headers.insert(HEADER_OUTCOME.to_owned(), Value::from(outcome));
    if let Some(reason) = reason {
        headers.insert(HEADER_REASON.to_owned(), Value::from(reason));
    }
    let properties = Properties {
        message_id: Some(id.to_string()),
        kind: Some(kind.to_owned()),
        content_type: Some(CONTENT_TYPE_JSON.to_owned()),
        timestamp: Some(now),
        headers,
        ..Properties::default()
    };
    answer(starter, properties, body)
}

/// What a sub-saga tells the saga that runs it: the reply of a participant.
pub fn child_reply(
    secret: &Secret,
    child: SagaId,
    parent: &Parent,
    answer: ChildAnswer,
    now: Timestamp,
) -> (Destination, Message) {
    let ChildAnswer {
        phase,
        outcome,
        reason,
        body,
    } = answer;
    let correlation = Correlation {
        saga: parent.saga,
        step: parent.step.clone(),
        phase,
    };
    let outcome = outcome.as_str();
    let id = MessageId::of_notice(child, &format!("parent/{phase}/{outcome}"));
    let mut headers = Headers::from([(HEADER_OUTCOME.to_owned(), Value::from(outcome))]);
    if let Some(reason) = reason {
        headers.insert(HEADER_REASON.to_owned(), Value::from(reason));
    }
    let properties = Properties {
        message_id: Some(id.to_string()),
        kind: Some(phase.to_string()),
        content_type: Some(CONTENT_TYPE_JSON.to_owned()),
        timestamp: Some(now),
        correlation_id: Some(correlation.sign(secret)),
        headers,
        ..Properties::default()
    };
    (Destination::queue(REPLY_QUEUE), message(properties, &body))
}

fn answer(starter: &Starter, properties: Properties, body: &Value) -> (Destination, Message) {
    let correlation_id = starter.correlation_id.clone();
    let properties = Properties {
        correlation_id,
        ..properties
    };
    (
        Destination::queue(&starter.reply_to),
        message(properties, body),
    )
}

fn message(properties: Properties, body: &Value) -> Message {
    Message {
        properties,
        body: Bytes::from(body.to_string()),
    }
}

/// What everybody may read.
fn public(properties: Properties, body: &Value) -> Message {
    mask::message(&message(properties, body))
}

/// W3C Trace Context: one trace a saga, one span a command, both derived so that every attempt
/// and every node says the same.
fn traceparent(saga: SagaId, message: MessageId) -> String {
    let span = message.0.as_u64_pair().0;
    format!("00-{}-{span:016x}-01", saga.0.as_simple())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::id::Phase;

    #[test]
    fn what_all_may_read_signs_nothing() {
        let secret = Secret::new([7; 32]);
        let saga = Saga::new(SagaId(Uuid::from_u128(42)), "s", "k", Timestamp::default());
        let encoder = Encoder {
            secret: &secret,
            saga: &saga,
            correlation: None,
            seq: 1,
            now: Timestamp::default(),
        };
        let id = Correlation {
            saga: saga.id,
            step: "stock[2]".parse().unwrap(),
            phase: Phase::Reserve,
        }
        .sign(&secret);
        let (plain, mac) = id.rsplit_once('/').unwrap();
        let body = json!({ "output": { "echo": id } });
        let change = "completed";
        let (_, message) = encoder.encode(Emission::Notice { change, body });
        let told = String::from_utf8(message.body.to_vec()).unwrap();
        assert!(told.contains(plain) && !told.contains(mac), "{told}");
    }
}
