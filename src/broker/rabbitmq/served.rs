//! A channel that one consumer is served on: what was delivered, acknowledged and given back.
//!
//! Separate from the consumer's task, which outlives channels. Only that task writes to the channel.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions};
use lapin::types::ShortString;

use super::acks::AckWindow;
use super::convert;
use super::link::{Failure, REQUEST_TIME_MAX, within};
use super::wire::Kept;
use crate::broker::{Delivery, DeliveryTag};
use crate::message::{Destination, Message};

/// Longest time that the server may take to end a consumer: all that it has sent on the channel before
/// must arrive first.
const CANCEL_TIME_MAX: Duration = Duration::from_secs(30);

/// What the other end asks for.
pub(super) struct Command {
    pub(super) verb: Verb,
    pub(super) tags: Vec<DeliveryTag>,
}

/// See [`Command`].
#[derive(Clone, Copy)]
pub(super) enum Verb {
    Ack,
    Requeue,
    /// Deliver no more.
    Stop,
}

/// A channel being served, and what was delivered on it.
pub(super) struct Served {
    pub(super) channel: Channel,
    /// The server's name for the consumer.
    consumer: ShortString,
    pub(super) prefetch: u16,
    kept: Arc<Kept>,
    epoch: u64,
    pub(super) window: AckWindow,
    pub(super) delivered: u64,
    /// Whether it was asked to deliver no more.
    pub(super) stopped: bool,
}

impl Served {
    pub(super) fn new(
        channel: Channel,
        consumer: ShortString,
        prefetch: u16,
        kept: Arc<Kept>,
        epoch: u64,
    ) -> Self {
        Self {
            channel,
            consumer,
            prefetch,
            kept,
            epoch,
            window: AckWindow::default(),
            delivered: 0,
            stopped: false,
        }
    }

    pub(super) fn delivery(&mut self, delivery: lapin::message::Delivery) -> Option<Delivery> {
        if !self.window.delivered(delivery.delivery_tag) {
            // Can't be: the server counts without gaps. Left unacked, it comes back in the end.
            tracing::error!(tag = delivery.delivery_tag, "a delivery is out of line");
            return None;
        }
        self.delivered += 1;
        let message = convert::incoming(&delivery.properties, &self.kept, delivery.data);
        let returns = returns(&message, delivery.redelivered);
        Some(Delivery {
            tag: DeliveryTag {
                epoch: self.epoch,
                tag: delivery.delivery_tag,
            },
            message,
            published_to: Destination {
                exchange: delivery.exchange.to_string(),
                routing_key: delivery.routing_key.to_string(),
            },
            redelivered: delivery.redelivered,
            returns,
        })
    }

    pub(super) async fn carry_out(&mut self, commands: Vec<Command>) -> Result<(), Failure> {
        for command in commands {
            if matches!(command.verb, Verb::Stop) {
                self.cancel().await?;
            }
            let tags = command.tags.iter().filter(|tag| tag.epoch == self.epoch);
            for tag in tags {
                match command.verb {
                    Verb::Stop => {}
                    Verb::Ack => self.window.ack(tag.tag),
                    Verb::Requeue => {
                        if self.window.requeue(tag.tag) {
                            self.give_back(tag.tag).await?;
                        }
                    }
                }
            }
        }
        match self.window.take_watermark() {
            Some(tag) => self.acknowledge(tag, true).await,
            None => Ok(()),
        }
    }

    /// Asks the server to deliver no more; what it had delivered until then has arrived when this
    /// returns.
    pub(super) async fn cancel(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.stopped, true) {
            return Ok(());
        }
        let name = self.consumer.clone();
        let cancelled = self
            .channel
            .basic_cancel(name, BasicCancelOptions::default());
        // Behind it, in line, may come large messages.
        within(CANCEL_TIME_MAX, cancelled).await
    }

    pub(super) async fn acknowledge_waiting(&mut self) -> Result<(), Failure> {
        for tag in self.window.take_waiting() {
            self.acknowledge(tag, false).await?;
        }
        Ok(())
    }

    async fn acknowledge(&self, tag: u64, multiple: bool) -> Result<(), Failure> {
        let acked = self.channel.basic_ack(tag, BasicAckOptions { multiple });
        within(REQUEST_TIME_MAX, acked).await
    }

    async fn give_back(&self, tag: u64) -> Result<(), Failure> {
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        within(REQUEST_TIME_MAX, self.channel.basic_nack(tag, options)).await
    }
}

/// The header in which the server counts how often a message was delivered and came back.
const HEADER_RETURNS: &str = "x-delivery-count";

/// How often the server says that a message was delivered before.
fn returns(message: &Message, redelivered: bool) -> u32 {
    let header = message.properties.headers.get(HEADER_RETURNS);
    let count = header.and_then(serde_json::Value::as_u64);
    let count = count.and_then(|count| u32::try_from(count).ok());
    count
        .filter(|_| redelivered)
        .unwrap_or(u32::from(redelivered))
}
