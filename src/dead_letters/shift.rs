//! Moving messages from one queue to another on the broker alone.
//!
//! A message is acknowledged in the old queue only after the broker has confirmed it for the new
//! one, so a crash can double it (its `message_id` stays), but not lose it. No more messages are
//! looked at than there were at the start, and those that this run has moved are left alone, so
//! that it ends even when what it moves comes back.
//!
//! Looking must not consume. Messages that are not wanted are held until the end, or the broker would
//! deliver them again and again: hence the limit on how many there may be. Then the consumer ends
//! *before* they are given back, so that each counts one delivery and no more. One that its queue would
//! give up for that is published to the end of its queue anew instead; and a queue that allows only a
//! few deliveries and has no dead-letter exchange is not looked at unless that is asked for.

mod held;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use self::held::{Held, delivery_count};
use super::desk::{DELIVERIES_MIN, DeadLetterError};
use super::rate;
use super::replay::prepare::note;
use super::route::{Dead, Route, Routes, Wish};
use crate::broker::{
    Broker, BrokerError, Consumer, Delivery, DeliveryTag, Outgoing, Published, QueueFacts,
};
use crate::definition::expression::{EvaluationScope, Expression};
use crate::environment::{Environment, Shutdown};
use crate::message::{Destination, Message};
use crate::store::dead_letters::Trail;

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
    /// There.
    pub to: Destination,
    /// Only messages of which this is true; `input` is the message.
    pub condition: Option<Expression>,
    /// Only look.
    pub dry_run: bool,
    /// Also where messages could be lost.
    pub anyway: bool,
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
    /// Messages moved, or, of a dry run, that would be.
    pub moved: u64,
    /// Messages that are in the old queue as before.
    pub left: u64,
    /// Of these, messages published there anew, at the end: the queue would have given them up.
    pub renewed: u64,
    /// Messages that the queue gave up although they were given back.
    pub lost: u64,
    /// Messages that were wanted and are left all the same, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Messages of those at the start that did not come: somebody else took them, or the broker
    /// can't deliver them to us.
    pub missing: u64,
    /// Messages that were not looked at: so many can't be held.
    pub unseen: u64,
}

/// Moves messages. `warn` hears what one should know.
pub async fn shift(
    environment: &Arc<dyn Environment>,
    broker: &Arc<dyn Broker>,
    shift: &Shift,
    stop: &Shutdown,
    mut warn: impl FnMut(&str) + Send,
) -> Result<Shifted, DeadLetterError> {
    let from = look(broker, shift, &mut warn).await?;
    let waiting = from.waiting;
    let prefetch = match (&shift.condition, shift.dry_run) {
        (None, false) => waiting
            .min(shift.most.unwrap_or(u64::MAX))
            .min(2 * BATCH_MAX as u64),
        _ => waiting,
    };
    let prefetch = u16::try_from(prefetch).unwrap_or(HELD_MAX).max(1);
    let consumer = broker.look(&shift.from, prefetch).await?;
    let mut run = Run {
        broker,
        shift,
        mark: environment.new_id().to_string(),
        routes: Routes::new(Some(Arc::clone(broker))),
        held: Held::new(from.delivery_limit()),
        acked: 0,
        acked_late: Vec::new(),
        // More acknowledgements than this would have the broker deliver what nobody looks at.
        ack_max: waiting
            .min(shift.most.unwrap_or(u64::MAX))
            .saturating_sub(u64::from(prefetch)),
        shifted: Shifted {
            seen_at_start: waiting,
            ..Shifted::default()
        },
    };
    let Consumer {
        mut deliveries,
        acks,
    } = consumer;
    let (mut looked_at, mut quiet) = (0, false);
    let started = environment.now();
    let most = shift.most.unwrap_or(u64::MAX);
    while looked_at < waiting && run.shifted.moved < most && !stop.is_requested() {
        let room = (waiting - looked_at).min(most - run.shifted.moved);
        let room = usize::try_from(room)
            .unwrap_or(BATCH_MAX)
            .min(rate::step(shift.rate, BATCH_MAX));
        let batch = tokio::select! {
            biased;
            () = stop.requested() => break,
            batch = deliveries.next_batch(room) => batch,
            () = environment.sleep(QUIET), if !quiet => {
                // What is on its way to us, a large message perhaps, is waited for.
                deliveries.stop();
                quiet = true;
                continue;
            }
        };
        if batch.is_empty() {
            let rest = waiting - looked_at;
            if run.held.len() >= usize::from(prefetch) {
                run.shifted.unseen = rest;
            } else {
                run.shifted.missing = rest;
            }
            break;
        }
        looked_at += batch.len() as u64;
        let now = run.take(batch, &mut warn).await?;
        acks.ack(&now);
        rate::pace(environment, shift.rate, started, run.shifted.moved, stop).await;
    }
    let renewed = run.held.renew(broker, &shift.from).await;
    run.shifted.renewed = renewed.len() as u64;
    acks.ack(&renewed);
    acks.ack(&run.acked_late);
    deliveries.close().await;
    run.shifted.lost = run.held.lost(environment, broker, &shift.from).await?;
    let held = run.held.len() as u64;
    run.shifted.left = (held + run.shifted.renewed).saturating_sub(run.shifted.lost);
    Ok(run.shifted)
}

/// Looks at both ends before anything is taken, and refuses what would do harm.
async fn look(
    broker: &Arc<dyn Broker>,
    shift: &Shift,
    warn: &mut (impl FnMut(&str) + Send),
) -> Result<QueueFacts, DeadLetterError> {
    let no_queue = |name: &str| BrokerError::NoQueue(name.to_owned());
    let from = broker.queue_facts(&shift.from).await?;
    let from = from.ok_or_else(|| no_queue(&shift.from))?;
    let to = &shift.to;
    if !to.exchange.is_empty() {
        if !broker.exchange_exists(&to.exchange).await {
            let why = format!("there is no exchange `{}`", to.exchange);
            return Err(BrokerError::Refused(why).into());
        }
    } else if broker.queue_len(&to.routing_key).await?.is_none() {
        return Err(no_queue(&to.routing_key).into());
    }
    if shift.condition.is_none() && !shift.dry_run {
        return Ok(from);
    }
    let queue = &shift.from;
    match (&from.arguments, from.delivery_limit()) {
        (None, _) => warn(&format!(
            "what queue `{queue}` was declared with can't be seen (that takes the right to configure it): if it allows a number of deliveries, looking at its messages counts as one"
        )),
        (Some(_), None) => {}
        (Some(arguments), Some(limit)) => {
            let gone = arguments.dead_letter_exchange.is_none();
            let few = arguments.delivery_limit.is_some() && limit < DELIVERIES_MIN;
            if gone && few && !shift.anyway {
                return Err(DeadLetterError::Danger(format!(
                    "BST-0057: looking at a message counts as a delivery, queue `{queue}` allows each message {limit} of them after the first, and nothing takes what is past that (no dead-letter exchange): nothing was looked at. `dead-letters drain` takes its messages into a database, where looking costs nothing; `--anyway` looks all the same"
                )));
            }
            warn(&format!(
                "looking counts as one delivery of each message of queue `{queue}`, which {} {limit} after the first",
                if arguments.delivery_limit.is_some() {
                    "allows"
                } else {
                    "may allow no more than"
                },
            ));
        }
    }
    Ok(from)
}

/// A run under way.
struct Run<'a> {
    broker: &'a Arc<dyn Broker>,
    shift: &'a Shift,
    /// Marks what it has moved.
    mark: String,
    routes: Routes,
    held: Held,
    acked: u64,
    /// Moved, and acknowledged when the consumer ends.
    acked_late: Vec<DeliveryTag>,
    ack_max: u64,
    shifted: Shifted,
}

impl Run<'_> {
    /// Moves what is wanted of a batch, holds the rest; returns what to acknowledge now.
    async fn take(
        &mut self,
        batch: Vec<Delivery>,
        warn: &mut (impl FnMut(&str) + Send),
    ) -> Result<Vec<DeliveryTag>, DeadLetterError> {
        let mut tags = Vec::new();
        let mut outgoing = Vec::new();
        for delivery in batch {
            if !is_wanted(self.shift, &self.mark, &delivery.message) {
                self.held.add(delivery);
                continue;
            }
            let trail = Trail::of(&delivery.message, &self.shift.from);
            match self.route(&trail, warn).await? {
                Err(why) => {
                    self.refuse(why);
                    self.held.add(delivery);
                }
                Ok(_) if self.shift.dry_run => {
                    self.shifted.moved += 1;
                    self.held.add(delivery);
                }
                Ok(route) => {
                    tags.push((delivery.tag, delivery_count(&delivery.message)));
                    outgoing.push(self.moved(delivery.message, &trail, route));
                }
            }
        }
        let mut now = Vec::new();
        let words = self.broker.publish(outgoing).await;
        for ((tag, count), word) in tags.into_iter().zip(words) {
            let why = match word {
                Published::Confirmed => {
                    self.shifted.moved += 1;
                    if self.shift.condition.is_some() || self.acked < self.ack_max {
                        self.acked += 1;
                        now.push(tag);
                    } else {
                        self.acked_late.push(tag);
                    }
                    continue;
                }
                Published::Unroutable => format!("no queue takes it: {}", self.shift.to),
                Published::Refused(why) | Published::NotYet(why) | Published::Failed(why) => why,
            };
            self.refuse(why);
            self.held.add_tag(tag, count);
        }
        Ok(now)
    }

    async fn route(
        &mut self,
        trail: &Trail,
        warn: &mut (impl FnMut(&str) + Send),
    ) -> Result<Result<Route, String>, DeadLetterError> {
        let dead = Dead {
            trail,
            taken_from: &self.shift.from,
            ours: false,
            imported: false,
        };
        let wish = Wish {
            to: Some(self.shift.to.clone()),
            as_published: false,
            anyway: self.shift.anyway,
            within: None,
        };
        let route = self.routes.choose(&dead, &wish).await?;
        let route = route.map_err(|why| why.to_string());
        if let Ok(Route {
            caution: Some(caution),
            ..
        }) = &route
            && self.routes.is_news(caution)
        {
            warn(caution);
        }
        Ok(route)
    }

    fn refuse(&mut self, why: String) {
        *self.shifted.refused.entry(why).or_insert(0) += 1;
    }

    fn moved(&self, mut message: Message, trail: &Trail, route: Route) -> Outgoing {
        // The broker's own books stay behind when it publishes; see its client.
        let headers = &mut message.properties.headers;
        headers.insert(HEADER_MOVE.to_owned(), Value::from(self.mark.as_str()));
        note(headers, trail, &route.destination, &route.copies);
        Outgoing {
            destination: route.destination,
            message,
            mandatory: true,
        }
    }
}

fn is_wanted(shift: &Shift, run: &str, message: &Message) -> bool {
    if message.header(HEADER_MOVE) == Some(run) {
        return false;
    }
    let Some(condition) = &shift.condition else {
        return true;
    };
    let input = facts(message);
    let scope = EvaluationScope {
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
