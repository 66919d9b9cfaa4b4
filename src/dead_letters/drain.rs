//! Queue → letters, in batches: taken, committed, then acknowledged.
//!
//! A crash between commit and acknowledgement brings deliveries back. What such a delivery has in
//! common with its letter, and when it is a new one all the same, is said in
//! [`occurrence`](crate::store::dead_letters::occurrence).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use super::desk::{CHUNK_BYTES_MAX, DELIVERIES_MIN, DeadLetterError};
use crate::broker::pace::Pace;
use crate::broker::{self, Broker, Consumer, Delivery, DeliveryTag, Outgoing, Published};
use crate::environment::{Environment, Shutdown};
use crate::error::{Class, code};
use crate::message::{
    DEAD_LETTER_QUEUE, Destination, HEADER_OUTCOME, HEADER_REASON, Message, Properties, REPLY_QUEUE,
};
use crate::store::dead_letters::occurrence::content_key;
use crate::store::dead_letters::{DeadLetterStore, Earlier, Sighting, Teller, Trail};
use crate::store::{DeadLetter, StoreError};

/// Most letters stored in one transaction.
const BATCH_MAX: usize = 256;
/// Messages held at once of a queue that gives them up after few deliveries: a crash costs each of
/// them one.
const CAREFUL_PREFETCH: u16 = 16;
/// How long a queue must have been quiet before it is asked whether it is empty.
const QUIET: Duration = Duration::from_millis(300);
/// How long letters may fail to be stored before the messages are given back.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(5);
/// Longest part of a consumer's own error text that goes into the reason, in characters.
const ERROR_CHARS_MAX: usize = 300;

/// Headers in which consumers' libraries leave what went wrong.
const ERROR_HEADERS: [&str; 9] = [
    "x-exception-message",
    "x-error",
    "x-error-message",
    "error",
    "exception",
    "reason",
    "MT-Fault-Message",
    "NServiceBus.ExceptionInfo.Message",
    "rbs2-error-details",
];

/// What a drain works with.
#[derive(Clone)]
pub struct Drain {
    /// Clock and ids.
    pub environment: Arc<dyn Environment>,
    /// The queues.
    pub broker: Arc<dyn Broker>,
    /// Where letters go.
    pub letters: Arc<dyn DeadLetterStore>,
    /// Unacknowledged messages that a queue gives at most. All may be in memory at once.
    pub prefetch: u16,
}

/// What was drained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Drained {
    /// Messages taken from the queue.
    pub taken: u64,
    /// Letters that they became; the others were stored before.
    pub new: u64,
    /// Messages that the database refuses. They stay in the queue.
    pub refused: u64,
}

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainUntil {
    /// When asked to.
    Stopped,
    /// Or as soon as the queue is empty.
    Empty,
}

impl Drain {
    /// Drains a queue. `progress` hears of each batch.
    pub async fn run(
        &self,
        queue: &str,
        until: DrainUntil,
        stop: &Shutdown,
        mut progress: impl FnMut(&Drained) + Send,
    ) -> Result<Drained, DeadLetterError> {
        if !self.store_is_ready(queue, stop).await? {
            return Ok(Drained::default());
        }
        let prefetch = self.careful_prefetch(queue).await?;
        let consumer = self.broker.consume(queue, prefetch).await?;
        let Consumer {
            mut deliveries,
            acks,
        } = consumer;
        let mut session = Session::default();
        let mut drained = Drained::default();
        let mut looked_empty = false;
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.requested() => break,
                batch = deliveries.next_batch(BATCH_MAX) => batch,
                () = self.environment.sleep(QUIET), if until == DrainUntil::Empty && !looked_empty => {
                    if self.broker.queue_len(queue).await?.unwrap_or(0) == 0 {
                        // What is on its way to us, a large message perhaps, no longer waits there.
                        deliveries.stop();
                        looked_empty = true;
                    }
                    continue;
                }
            };
            if batch.is_empty() && looked_empty {
                break;
            }
            if batch.is_empty() {
                tracing::error!(queue, "the queue can't be consumed any more");
                break;
            }
            for part in parts(batch) {
                let letters = part
                    .iter()
                    .map(|delivery| self.letter(queue, delivery, &mut session));
                let letters: Vec<_> = letters.collect();
                let tags: Vec<DeliveryTag> = part.iter().map(|delivery| delivery.tag).collect();
                let Some(stored) = self.store(queue, &letters, stop).await? else {
                    return Ok(drained);
                };
                let kept = tags
                    .iter()
                    .zip(&stored.refused)
                    .filter(|(_, refused)| !**refused);
                let kept: Vec<DeliveryTag> = kept.map(|(tag, _)| *tag).collect();
                self.tell_who_asked(queue, &letters).await;
                acks.ack(&kept);
                drained.taken += tags.len() as u64;
                drained.new += stored.new;
                drained.refused += (tags.len() - kept.len()) as u64;
            }
            progress(&drained);
        }
        Ok(drained)
    }

    /// A command of ours that a participant's queue has given up is answered, in its place: its saga
    /// need not wait for an answer that will not come. If that can't be said, it waits, as for silence.
    async fn tell_who_asked(&self, queue: &str, letters: &[DeadLetter]) {
        if queue != DEAD_LETTER_QUEUE {
            return;
        }
        let answers: Vec<Outgoing> = letters.iter().filter_map(answer_for).collect();
        if answers.is_empty() {
            return;
        }
        for published in self.broker.publish(answers).await {
            if published != Published::Confirmed {
                tracing::warn!(
                    ?published,
                    "can't tell a saga that its command was dead-lettered"
                );
            }
        }
    }

    /// Waits until the database takes changes of letters; `false` when asked to stop. What can't be
    /// stored is not taken: should this program end meanwhile, each message that it holds would count
    /// one delivery more, and a queue may allow but a few.
    async fn store_is_ready(&self, queue: &str, stop: &Shutdown) -> Result<bool, StoreError> {
        let mut pace = Pace::new();
        while !stop.is_requested() {
            // It has to be done anyway, and writes where letters are written.
            match self.letters.settle_replays().await {
                Ok(_) => return Ok(true),
                Err(error) if error.class() == Class::Retry => {
                    tracing::warn!(%error, queue, "no dead letters can be stored yet; trying again");
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                biased;
                () = stop.requested() => {}
                () = self.environment.sleep(pace.next_delay()) => {}
            }
        }
        Ok(false)
    }

    /// How many messages to hold at once: few, if the queue gives them up after few deliveries.
    async fn careful_prefetch(&self, queue: &str) -> Result<u16, DeadLetterError> {
        // Ours is declared without a limit, so there is nothing to ask.
        if queue == DEAD_LETTER_QUEUE {
            return Ok(self.prefetch);
        }
        let facts = self.broker.queue_facts(queue).await?.unwrap_or_default();
        let Some(arguments) = &facts.arguments else {
            return Ok(self.prefetch);
        };
        let limit = arguments
            .delivery_limit
            .filter(|limit| *limit < DELIVERIES_MIN);
        match limit {
            Some(limit) if arguments.dead_letter_exchange.is_none() => {
                tracing::warn!(
                    queue,
                    limit,
                    "this queue gives a message up after so many deliveries, and nothing takes it then; taking few at a time"
                );
                Ok(self.prefetch.min(CAREFUL_PREFETCH))
            }
            _ => Ok(self.prefetch),
        }
    }

    /// Stores until the database takes it; `None` when asked to stop. A batch that is refused is
    /// stored letter by letter, to find the one.
    async fn store(
        &self,
        queue: &str,
        letters: &[DeadLetter],
        stop: &Shutdown,
    ) -> Result<Option<Stored>, DeadLetterError> {
        match self.store_batch(queue, letters, stop).await {
            Ok(None) => Ok(None),
            Ok(Some(new)) => Ok(Some(Stored {
                new,
                refused: vec![false; letters.len()],
            })),
            Err(error) if error.class() == Class::Retry => Err(error.into()),
            Err(_) if letters.len() > 1 => {
                let mut stored = Stored::default();
                for letter in letters {
                    match self
                        .store_batch(queue, std::slice::from_ref(letter), stop)
                        .await
                    {
                        Ok(None) => return Ok(None),
                        Ok(Some(new)) => {
                            stored.new += new;
                            stored.refused.push(false);
                        }
                        Err(error) if error.class() == Class::Retry => return Err(error.into()),
                        Err(error) => stored.refuse(queue, letter, &error),
                    }
                }
                Ok(Some(stored))
            }
            Err(error) => {
                let mut stored = Stored::default();
                for letter in letters {
                    stored.refuse(queue, letter, &error);
                }
                Ok(Some(stored))
            }
        }
    }

    async fn store_batch(
        &self,
        queue: &str,
        letters: &[DeadLetter],
        stop: &Shutdown,
    ) -> Result<Option<u64>, StoreError> {
        let mut pace = Pace::new();
        let began = self.environment.now();
        loop {
            let now = self.environment.now();
            match self.letters.store_drained(queue, now, letters).await {
                Ok(new) => return Ok(Some(new as u64)),
                Err(error) if error.class() == Class::Retry => {
                    tracing::warn!(%error, queue, "can't store dead letters; trying again");
                    if now.since(began) >= GIVE_BACK_AFTER {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(None),
                () = self.environment.sleep(pace.next_delay()) => {}
            }
        }
    }

    fn letter(&self, queue: &str, delivery: &Delivery, session: &mut Session) -> DeadLetter {
        let message = &delivery.message;
        DeadLetter {
            id: self.environment.new_id(),
            at: self.environment.now(),
            queue: queue.to_owned(),
            code: code::DEAD_LETTERED,
            reason: reason(queue, message),
            message: message.clone(),
            sighting: session.sighting(queue, delivery, || self.environment.new_id()),
        }
    }
}

#[derive(Debug, Default)]
struct Stored {
    new: u64,
    /// For each letter, whether the database refuses it.
    refused: Vec<bool>,
}

impl Stored {
    fn refuse(&mut self, queue: &str, letter: &DeadLetter, error: &StoreError) {
        let id = letter.message.properties.message_id.as_deref();
        tracing::error!(%error, queue, message.id = id, "the database refuses this dead letter; it stays in its queue");
        self.refused.push(true);
    }
}

/// What a consumer remembers to tell deliveries apart.
#[derive(Debug, Default)]
struct Session {
    connection: broker::Session,
    epoch: u64,
    /// Content taken on the connection before.
    before: HashSet<Uuid>,
    /// Content taken on this connection.
    now: HashSet<Uuid>,
}

/// Content remembered of one connection.
const REMEMBERED_MAX: usize = 1_000_000;

impl Session {
    fn sighting(
        &mut self,
        queue: &str,
        delivery: &Delivery,
        new_id: impl FnOnce() -> Uuid,
    ) -> Sighting {
        let mut sighting = delivery.sighting(self.connection.of(delivery, new_id));
        if delivery.tag.epoch != self.epoch {
            self.epoch = delivery.tag.epoch;
            self.before = std::mem::take(&mut self.now);
        }
        let key = content_key(queue, &delivery.message);
        // A broker that was killed may not know any more what it had delivered; we do.
        if sighting.earlier == Earlier::Never && self.before.contains(&key) {
            sighting.earlier = Earlier::Perhaps;
        }
        if self.now.len() < REMEMBERED_MAX {
            self.now.insert(key);
        }
        sighting
    }
}

/// Cuts a batch where its bodies get too large for one transaction.
fn parts(batch: Vec<Delivery>) -> Vec<Vec<Delivery>> {
    let mut parts: Vec<Vec<Delivery>> = Vec::new();
    let mut bytes = 0;
    for delivery in batch {
        bytes += delivery.message.size() as u64;
        match parts.last_mut() {
            Some(part) if bytes <= CHUNK_BYTES_MAX => part.push(delivery),
            _ => {
                bytes = delivery.message.size() as u64;
                parts.push(vec![delivery]);
            }
        }
    }
    parts
}

/// The answer of a participant that has given up a command, if the letter is one.
fn answer_for(letter: &DeadLetter) -> Option<Outgoing> {
    let properties = &letter.message.properties;
    let asked = properties.reply_to.as_deref() == Some(REPLY_QUEUE);
    let correlation_id = properties.correlation_id.clone().filter(|_| asked)?;
    let reason = format!(
        "the command was dead-lettered: {}; it is dead letter {}",
        letter.reason, letter.id
    );
    let headers = [(HEADER_OUTCOME, "failed"), (HEADER_REASON, &reason)];
    let headers = headers.map(|(name, value)| (name.to_owned(), Value::from(value)));
    Some(Outgoing {
        destination: Destination::queue(REPLY_QUEUE),
        message: Message {
            properties: Properties {
                correlation_id: Some(correlation_id),
                headers: headers.into(),
                ..Properties::default()
            },
            body: Bytes::new(),
        },
        mandatory: true,
    })
}

/// Why a message is in a dead-letter queue, as far as the broker and the consumer tell.
fn reason(queue: &str, message: &Message) -> String {
    let header = |name: &str| message.header(name).filter(|text| !text.trim().is_empty());
    let trail = Trail::of(message, queue);
    let place = trail.queue.as_deref().unwrap_or("?");
    let mut text = match trail.reason.as_deref() {
        Some("rejected") => format!("rejected by a consumer of queue `{place}`"),
        Some("expired") => format!("expired in queue `{place}`"),
        Some("maxlen") => format!("queue `{place}` was full"),
        Some("delivery_limit") => format!("delivered too often from queue `{place}`"),
        Some(other) => format!("{other} in queue `{place}`"),
        None if trail.teller == Teller::Library && trail.queue.is_some() => {
            format!("given up by a consumer of queue `{place}`")
        }
        None => format!("found in queue `{queue}`; the broker does not say why"),
    };
    let error = ERROR_HEADERS.iter().find_map(|name| header(name));
    if let Some(error) = error {
        let error: String = error.trim().chars().take(ERROR_CHARS_MAX).collect();
        text.push_str(": ");
        text.push_str(&error);
    }
    text
}

#[cfg(test)]
mod import_tests;
#[cfg(test)]
mod returned_tests;
#[cfg(test)]
mod tests;
