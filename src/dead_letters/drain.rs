//! Queue → letters, in batches: taken, committed, then acknowledged.
//!
//! A crash between commit and acknowledgement brings deliveries back. They carry nothing that
//! tells one from another but their content, and the same content may rightly come twice (a
//! message without an id; a replay that was buried again). So a delivery that comes for the first
//! time is a new letter, always; one that may have come before is new only if there are not
//! enough open letters with its content. What remains is this: of several deliveries that are equal
//! to the last byte, one that was never stored may, after a crash, be taken for an equal one that
//! was. An open letter with its content is there in any case.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{CHUNK_BYTES_MAX, DELIVERIES_MIN, DeadLetterError};
use crate::broker::pace::Pace;
use crate::broker::{Broker, Consumer, Delivery, DeliveryTag, Outgoing, Published};
use crate::environment::{Environment, Shutdown};
use crate::error::{Class, code};
use crate::message::{
    DEAD_LETTER_QUEUE, Destination, HEADER_OUTCOME, HEADER_REASON, Message, Properties, REPLY_QUEUE,
};
use crate::store::dead_letters::{DeadLetterStore, DrainedLetter, Teller, Trail};
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

/// Headers that the broker changes from one delivery to the next.
const COUNTERS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];

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
pub enum Until {
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
        until: Until,
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
                () = self.environment.sleep(QUIET), if until == Until::Empty && !looked_empty => {
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
    async fn tell_who_asked(&self, queue: &str, letters: &[DrainedLetter]) {
        if queue != DEAD_LETTER_QUEUE {
            return;
        }
        let letters = letters.iter().map(|drained| &drained.letter);
        let answers: Vec<Outgoing> = letters.filter_map(answer_for).collect();
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
        letters: &[DrainedLetter],
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
        letters: &[DrainedLetter],
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

    fn letter(&self, queue: &str, delivery: &Delivery, session: &mut Session) -> DrainedLetter {
        let message = &delivery.message;
        let key = key(queue, message);
        DrainedLetter {
            letter: DeadLetter {
                id: self.environment.new_id(),
                at: self.environment.now(),
                queue: queue.to_owned(),
                code: code::DEAD_LETTERED,
                reason: reason(queue, message),
                message: message.clone(),
            },
            seen: session.seen(delivery, key),
            key,
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
    fn refuse(&mut self, queue: &str, letter: &DrainedLetter, error: &StoreError) {
        let id = letter.letter.message.properties.message_id.as_deref();
        tracing::error!(%error, queue, message.id = id, "the database refuses this dead letter; it stays in its queue");
        self.refused.push(true);
    }
}

/// What a consumer remembers to tell deliveries apart.
#[derive(Debug, Default)]
struct Session {
    epoch: u64,
    /// Deliveries of this connection that may have come before, by content.
    again: HashMap<Uuid, u32>,
    /// Content taken on the connection before.
    before: HashMap<Uuid, u32>,
    /// Content taken on this connection.
    now: HashMap<Uuid, u32>,
}

/// Content remembered of one connection; past it, all is taken for possibly seen.
const REMEMBERED_MAX: usize = 1_000_000;

impl Session {
    fn seen(&mut self, delivery: &Delivery, key: Uuid) -> Option<u32> {
        if delivery.tag.epoch != self.epoch {
            self.epoch = delivery.tag.epoch;
            self.again.clear();
            self.before = std::mem::take(&mut self.now);
        }
        if self.now.len() < REMEMBERED_MAX {
            *self.now.entry(key).or_insert(0) += 1;
        }
        // A broker that was killed may not know any more what it had delivered; we do.
        if !delivery.redelivered && !self.before.contains_key(&key) {
            return None;
        }
        let count = self.again.entry(key).or_insert(0);
        let before = *count;
        *count += 1;
        Some(before)
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

/// The same for deliveries that can't be told apart.
fn key(queue: &str, message: &Message) -> Uuid {
    let mut properties = message.properties.clone();
    for counter in COUNTERS {
        properties.headers.remove(counter);
        properties.exact.remove(counter);
    }
    let mut hasher = Sha256::new();
    hasher.update(queue.as_bytes());
    hasher.update([0]);
    // Text keys and plain values: this can't fail, and if it did, the body still counts.
    hasher.update(serde_json::to_vec(&properties).unwrap_or_default());
    hasher.update([0]);
    hasher.update(&message.body);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &hasher.finalize())
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
mod returned_tests;
#[cfg(test)]
mod tests;
