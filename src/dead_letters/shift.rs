//! Moving messages from one queue to another on the broker alone.
//!
//! A message is acknowledged in the old queue only after the broker has confirmed it for the new
//! one, so a crash can double it (its `message_id` stays), but not lose it. No more messages are
//! looked at than there were at the start, and those that this run has moved are left alone, so
//! that it ends even when what it moves comes back.
//!
//! Messages that are not wanted are held until the end and then given back, or the broker would
//! deliver them again and again: hence the limit on how many there may be.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{DeadLetterError, rate};
use crate::broker::{Broker, BrokerError, Consumer, Delivery, DeliveryTag, Outgoing, Published};
use crate::definition::expression::{Expression, Scope};
use crate::environment::{Environment, Shutdown};
use crate::message::{Destination, Message};

/// Header that marks what a run has moved.
pub const HEADER_MOVE: &str = "backstitch-move";
/// Messages moved in one batch.
const BATCH_MAX: usize = 100;
/// Messages held at most: those that are not wanted, and one batch.
const HELD_MAX: u16 = u16::MAX;
/// How long a queue may be quiet before the rest is taken to be gone.
const QUIET: Duration = Duration::from_secs(2);

/// What to move.
#[derive(Debug)]
pub struct Shift {
    /// Out of this queue.
    pub from: String,
    /// Into this one.
    pub to: String,
    /// Only messages of which this is true; `input` is the message.
    pub condition: Option<Expression>,
    /// Most messages a second.
    pub rate: Option<u32>,
    /// Most messages.
    pub most: Option<u64>,
}

/// What was moved.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Shifted {
    /// Messages in the queue at the start.
    pub seen_at_start: u64,
    /// Messages moved.
    pub moved: u64,
    /// Messages left where they were.
    pub left: u64,
    /// Messages of those at the start that did not come: somebody else took them, or the broker
    /// can't deliver them to us.
    pub missing: u64,
}

/// Moves messages.
pub async fn shift(
    environment: &Arc<dyn Environment>,
    broker: &Arc<dyn Broker>,
    shift: &Shift,
    stop: &Shutdown,
) -> Result<Shifted, DeadLetterError> {
    let no_queue = |name: &str| BrokerError::NoQueue(name.to_owned());
    let waiting = broker.queue_len(&shift.from).await?;
    let waiting = waiting.ok_or_else(|| no_queue(&shift.from))?;
    if broker.queue_len(&shift.to).await?.is_none() {
        return Err(no_queue(&shift.to).into());
    }
    let run = environment.new_id().to_string();
    let prefetch = match &shift.condition {
        None => u16::try_from(2 * BATCH_MAX).unwrap_or(HELD_MAX),
        Some(_) => u16::try_from(waiting).unwrap_or(HELD_MAX).max(1),
    };
    let Consumer {
        mut deliveries,
        acks,
    } = broker.consume(&shift.from, prefetch).await?;
    let mut shifted = Shifted {
        seen_at_start: waiting,
        ..Shifted::default()
    };
    let mut held: Vec<DeliveryTag> = Vec::new();
    let mut looked_at = 0;
    let started = environment.now();
    let most = shift.most.unwrap_or(u64::MAX);
    while looked_at < waiting && shifted.moved < most && !stop.is_requested() {
        let room = (waiting - looked_at).min(most - shifted.moved);
        let room = usize::try_from(room)
            .unwrap_or(BATCH_MAX)
            .min(rate::step(shift.rate, BATCH_MAX));
        let batch = tokio::select! {
            biased;
            () = stop.requested() => break,
            batch = deliveries.next_batch(room) => batch,
            () = environment.sleep(QUIET) => Vec::new(),
        };
        if batch.is_empty() {
            shifted.missing = waiting - looked_at;
            break;
        }
        looked_at += batch.len() as u64;
        let (wanted, others): (Vec<Delivery>, Vec<Delivery>) = batch
            .into_iter()
            .partition(|delivery| is_wanted(shift, &run, &delivery.message));
        held.extend(others.iter().map(|delivery| delivery.tag));
        let tags: Vec<DeliveryTag> = wanted.iter().map(|delivery| delivery.tag).collect();
        let outgoing = wanted
            .into_iter()
            .map(|delivery| moved(shift, &run, delivery.message));
        let words = broker.publish(outgoing.collect()).await;
        for (tag, word) in tags.into_iter().zip(words) {
            match word {
                Published::Confirmed => {
                    acks.ack(&[tag]);
                    shifted.moved += 1;
                }
                Published::Unroutable
                | Published::Refused(_)
                | Published::NotYet(_)
                | Published::Failed(_) => {
                    held.push(tag);
                }
            }
        }
        rate::pace(environment, shift.rate, started, shifted.moved, stop).await;
    }
    shifted.left = held.len() as u64;
    held.sort_unstable();
    acks.requeue(&held);
    Ok(shifted)
}

fn is_wanted(shift: &Shift, run: &str, message: &Message) -> bool {
    if message.header(HEADER_MOVE) == Some(run) {
        return false;
    }
    let Some(condition) = &shift.condition else {
        return true;
    };
    let input = facts(message);
    let scope = Scope {
        input: &input,
        steps: &(),
        item: None,
        given: None,
        saga: None,
    };
    // What can't be computed of a message (it lacks the header, say) is not true of it.
    matches!(condition.evaluate(&scope), Ok(Value::Bool(true)))
}

/// What a condition sees of a message.
fn facts(message: &Message) -> Value {
    let properties = &message.properties;
    let body = match serde_json::from_slice(&message.body) {
        Ok(json) => json,
        Err(_) => String::from_utf8(message.body.to_vec()).map_or(Value::Null, Value::from),
    };
    json!({
        "type": properties.kind, "message_id": properties.message_id,
        "correlation_id": properties.correlation_id, "content_type": properties.content_type,
        "app_id": properties.app_id, "headers": properties.headers, "body": body,
        "bytes": message.body.len(),
    })
}

fn moved(shift: &Shift, run: &str, mut message: Message) -> Outgoing {
    // The broker's own books stay behind when it publishes; see its client.
    let headers = &mut message.properties.headers;
    headers.insert(HEADER_MOVE.to_owned(), Value::from(run));
    Outgoing {
        destination: Destination::queue(&shift.to),
        message,
        mandatory: true,
    }
}
