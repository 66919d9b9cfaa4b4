//! Publishing one set of messages on a lane's channel, and finding the one that the channel is
//! closed over, if it is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, MaybeDone, join_all, maybe_done};
use futures_util::{FutureExt, poll};
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, ErrorKind};
use tokio::time::{Instant, timeout};

use super::{Lane, SET_MESSAGES_MAX};
use crate::broker::rabbitmq::convert::{self, Prepared};
use crate::broker::rabbitmq::link::REQUEST_TIME_MAX;
use crate::broker::rabbitmq::topology::{ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED};
use crate::broker::rabbitmq::verdict::{self, Answer};
use crate::broker::{Outgoing, Published};

/// Longest time that the broker may take to confirm a set of messages.
pub const CONFIRM_TIME_MAX: Duration = Duration::from_secs(30);

/// How often the rest of a set is published again because an exchange was missing: each time, at
/// least one more is known to be.
const EXCHANGES_MISSED_MAX: usize = 8;

/// Codes with which the server ends a connection over what it was sent, or because it stumbled over it:
/// frame error, syntax error, invalid command, unexpected frame, not implemented, internal error. Not
/// among them is that it was told to (320).
const FATAL: [u16; 6] = [501, 502, 503, 505, 540, 541];

impl Lane {
    /// Publishes set after set; the answers are in the order of the messages.
    pub(super) async fn publish(&mut self, messages: Vec<Outgoing>) -> Vec<Published> {
        let mut published = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter();
        loop {
            let set: Vec<Outgoing> = messages.by_ref().take(SET_MESSAGES_MAX).collect();
            if set.is_empty() {
                return published;
            }
            self.publish_set(set, &mut published).await;
        }
    }

    async fn publish_set(&mut self, set: Vec<Outgoing>, published: &mut Vec<Published>) {
        let missing = self.missing_exchanges(set.iter().map(exchange_of)).await;
        let now = Instant::now();
        let prepared = set.into_iter().map(|outgoing| {
            let awaited = self.exchanges.is_anew(exchange_of(&outgoing), now);
            prepare(outgoing, &missing, awaited)
        });
        let set: Vec<Result<Prepared, Published>> = prepared.collect();
        let sendable: Vec<&Prepared> = set.iter().flatten().collect();
        let words = self.send_and_find_the_culprit(&sendable).await;
        let mut words = words.into_iter();
        published.extend(set.iter().map(|prepared| {
            match prepared {
                Ok(_) => words
                    .next()
                    .unwrap_or_else(|| Published::Failed("the channel is lost".to_owned())),
                Err(word) => word.clone(),
            }
        }));
    }

    /// The broker's words on a set. If it closes the channel over one message, the others are
    /// published again: they are not lost with it, and don't wait.
    async fn send_and_find_the_culprit(&mut self, sendable: &[&Prepared]) -> Vec<Published> {
        let (mut words, mut closed) = self.send_set(sendable).await;
        for _ in 0..EXCHANGES_MISSED_MAX {
            if closed != Closed::NoExchange {
                break;
            }
            closed = self.send_the_rest(sendable, &mut words).await;
        }
        match closed {
            Closed::OneMessage if sendable.len() > 1 => {
                self.send_one_by_one(sendable, &mut words).await;
            }
            Closed::Connection => self.send_alone(sendable, &mut words).await,
            _ => {}
        }
        words
    }

    /// Publishes again what was not confirmed, but for what goes to a missing exchange.
    async fn send_the_rest(&mut self, sendable: &[&Prepared], words: &mut [Published]) -> Closed {
        let open = |word: &Published| matches!(word, Published::Failed(_));
        let left = sendable.iter().zip(&*words).filter(|(_, word)| open(word));
        let exchanges = left.map(|(prepared, _)| prepared.exchange.as_str());
        let missing = self.missing_exchanges(exchanges).await;
        let mut rest = Vec::new();
        for (index, prepared) in sendable.iter().enumerate() {
            if !open(&words[index]) {
                continue;
            }
            // An event that was prepared before its exchange was made anew would be dropped there.
            let exchange = prepared.exchange.as_str();
            let must_arrive = prepared.mandatory && !prepared.is_awaited;
            let is_early = !prepared.mandatory && self.exchanges.is_anew(exchange, Instant::now());
            if is_early || missing.contains(exchange) {
                words[index] = no_exchange(exchange, must_arrive);
            } else {
                rest.push(index);
            }
        }
        let deadline = Instant::now() + REQUEST_TIME_MAX;
        if rest.is_empty() || self.ensure_channel(deadline).await.is_err() {
            return Closed::No;
        }
        let again: Vec<&Prepared> = rest.iter().map(|index| sendable[*index]).collect();
        let (said, closed) = self.send_set(&again).await;
        for (index, word) in rest.into_iter().zip(said) {
            words[index] = word;
        }
        closed
    }

    /// The broker's words on a set, and over what it closed the channel, if so.
    async fn send_set(&mut self, sendable: &[&Prepared]) -> (Vec<Published>, Closed) {
        let turn = Arc::clone(&self.turn);
        let _beside_others = turn.read().await;
        self.send_now(sendable).await
    }

    async fn send_now(&mut self, sendable: &[&Prepared]) -> (Vec<Published>, Closed) {
        let answers = match &self.open {
            Some((_, channel)) => exchange(channel, sendable).await,
            None => Vec::new(),
        };
        let broken = answers.len() < sendable.len()
            || answers
                .iter()
                .any(|answer| !matches!(answer, Answer::Ack(_) | Answer::Nack(_)));
        if broken {
            // Whatever is still on its way belongs to a channel that is no longer used.
            self.open = None;
            self.exchanges.forget();
        }
        self.note_missing(sendable, &answers);
        let closed = answers
            .iter()
            .fold(Closed::No, |closed, answer| match answer {
                Answer::NoExchange(_) => Closed::NoExchange,
                Answer::Refused(_) | Answer::Forbidden(_) => Closed::OneMessage,
                Answer::Fatal(_) => Closed::Connection,
                _ => closed,
            });
        (verdict::judge(sendable, &answers), closed)
    }

    /// Takes note of the exchange that the broker misses, before anybody can make it anew unseen.
    fn note_missing(&self, sendable: &[&Prepared], answers: &[Answer]) {
        let said = answers.iter().find_map(|answer| match answer {
            Answer::NoExchange(why) => Some(why),
            _ => None,
        });
        let Some(why) = said else { return };
        for prepared in sendable {
            let exchange = prepared.exchange.as_str();
            if !exchange.is_empty() && why.contains(&format!("'{exchange}'")) {
                self.exchanges.missing(exchange, Instant::now());
                self.keeper.miss();
            }
        }
    }

    /// Publishes alone, and in their order, those of a set that the broker has not confirmed; up
    /// to the first that fails for another reason than itself.
    async fn send_one_by_one(&mut self, sendable: &[&Prepared], words: &mut [Published]) {
        for (prepared, word) in sendable.iter().zip(words) {
            if !matches!(word, Published::Failed(_)) {
                continue;
            }
            let deadline = Instant::now() + REQUEST_TIME_MAX;
            if self.ensure_channel(deadline).await.is_err() {
                return;
            }
            let (mut alone, closed) = self.send_set(&[*prepared]).await;
            if let Some(said) = alone.pop() {
                *word = said;
            }
            if matches!(word, Published::Failed(_)) && closed != Closed::OneMessage {
                return;
            }
        }
    }

    /// Publishes those of a set that the broker has not confirmed while no other lane publishes. It has
    /// closed the whole connection over something; if it does so again, it is over the one message,
    /// which would cost the connection for ever.
    async fn send_alone(&mut self, sendable: &[&Prepared], words: &mut [Published]) {
        let turn = Arc::clone(&self.turn);
        for (prepared, word) in sendable.iter().zip(words) {
            if !matches!(word, Published::Failed(_)) {
                continue;
            }
            let _alone = turn.write().await;
            let deadline = Instant::now() + REQUEST_TIME_MAX;
            if self.ensure_channel(deadline).await.is_err() {
                return;
            }
            let (mut alone, closed) = self.send_now(&[*prepared]).await;
            match (alone.pop(), closed) {
                (Some(Published::Failed(why)), Closed::Connection) => {
                    tracing::error!(exchange = %prepared.exchange, routing_key = %prepared.routing_key, why, "the broker breaks the connection over a message; it is refused");
                    *word = Published::Refused(why);
                }
                (Some(said), _) => *word = said,
                (None, _) => return,
            }
        }
    }

    /// The exchanges of a set that don't exist. Publishing to one would close the channel.
    async fn missing_exchanges<'a>(
        &self,
        exchanges: impl Iterator<Item = &'a str>,
    ) -> HashSet<String> {
        let mut missing = HashSet::new();
        for exchange in exchanges {
            if exchange.is_empty() || missing.contains(exchange) {
                continue;
            }
            if !self.exists(exchange).await {
                missing.insert(exchange.to_owned());
            }
        }
        missing
    }

    async fn exists(&self, exchange: &str) -> bool {
        if let Some(known) = self.exchanges.known(exchange, Instant::now()) {
            return known;
        }
        let exists = self.keeper.exchange_exists(exchange).await;
        if exists {
            self.exchanges.found(exchange, Instant::now());
        } else {
            if self.exchanges.missing(exchange, Instant::now()) {
                tracing::warn!(exchange, "an exchange is missing; what goes to it waits");
            }
            self.keeper.miss();
        }
        exists
    }
}

/// Over what the broker closed a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// It did not, or over nothing that was published.
    No,
    /// Over one message of the set.
    OneMessage,
    /// Over an exchange that is missing.
    NoExchange,
    /// It closed the whole connection, over something that it was sent.
    Connection,
}

fn exchange_of(outgoing: &Outgoing) -> &str {
    &outgoing.destination.exchange
}

/// A command that finds no exchange is a failed attempt, as if there were no queue. An event is one
/// that has not yet found those who listen.
fn no_exchange(exchange: &str, mandatory: bool) -> Published {
    if mandatory {
        Published::Unroutable
    } else {
        Published::NotYet(format!("there is no exchange `{exchange}`"))
    }
}

/// The word on a message that can't be published, if it can't. One that is `awaited` is kept if no
/// queue takes it, although it need not arrive.
fn prepare(
    outgoing: Outgoing,
    missing: &HashSet<String>,
    awaited: bool,
) -> Result<Prepared, Published> {
    if missing.contains(exchange_of(&outgoing)) {
        let mandatory = outgoing.mandatory;
        return Err(no_exchange(exchange_of(&outgoing), mandatory));
    }
    let destination = outgoing.destination.clone();
    match convert::outgoing(outgoing) {
        Ok(prepared) if awaited && !prepared.mandatory => Ok(Prepared {
            mandatory: true,
            is_awaited: true,
            ..prepared
        }),
        Ok(prepared) => Ok(prepared),
        Err(why) => {
            tracing::error!(%destination, why, "AMQP can't carry the message");
            Err(Published::Refused(why))
        }
    }
}

/// Publishes a set and collects what the broker says about each message.
async fn exchange(channel: &Channel, set: &[&Prepared]) -> Vec<Answer> {
    let mut sends: Vec<MaybeDone<BoxFuture<'_, Answer>>> = set
        .iter()
        .map(|prepared| maybe_done(send(channel, prepared).boxed()))
        .collect();
    // The first poll of each hands it to the connection: in order, before any is waited for.
    for send in &mut sends {
        let _ = poll!(send);
    }
    let all = join_all(sends.iter_mut());
    let _ = timeout(CONFIRM_TIME_MAX, all).await;
    sends
        .iter_mut()
        .map(|send| {
            std::pin::Pin::new(send)
                .take_output()
                .unwrap_or(Answer::None)
        })
        .collect()
}

async fn send(channel: &Channel, prepared: &Prepared) -> Answer {
    let options = BasicPublishOptions {
        mandatory: prepared.mandatory,
        ..BasicPublishOptions::default()
    };
    let sent = channel.basic_publish(
        prepared.exchange.clone(),
        prepared.routing_key.clone(),
        options,
        &prepared.body,
        prepared.properties.clone(),
    );
    let confirmed = match sent.await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    match confirmed {
        Ok(Confirmation::Ack(returned)) => Answer::Ack(returned.map(Box::new)),
        Ok(Confirmation::Nack(returned)) => Answer::Nack(returned.map(Box::new)),
        Ok(Confirmation::NotRequested) => {
            Answer::Lost("the channel is not in confirm mode".to_owned())
        }
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(said) => {
                let why = said.get_message().to_string();
                match said.get_id() {
                    PRECONDITION_FAILED => Answer::Refused(why),
                    ACCESS_REFUSED => Answer::Forbidden(why),
                    NOT_FOUND => Answer::NoExchange(why),
                    code if FATAL.contains(&code) => Answer::Fatal(error.to_string()),
                    _ => Answer::Lost(error.to_string()),
                }
            }
            _ => Answer::Lost(error.to_string()),
        },
    }
}
