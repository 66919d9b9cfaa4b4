//! Declaring queues, exchanges and bindings, and saying what differs when something is in the way.
//!
//! Everything is declared on a channel of its own, because the server closes the channel at the
//! first thing it refuses. Queues are ours and have our arguments. An exchange may be somebody
//! else's: it is looked for first, and taken with whatever type and arguments it has.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ErrorKind, ExchangeKind};

use super::link::{Failure, Link, Live, REQUEST_TIME_MAX, within};
use crate::broker::{
    Binding, BrokerError, DELIVERY_LIMIT, Queue, QueueFacts, Topology, Trouble, TroubleAbout,
};

/// A limit for queues without a dead-letter queue that no message reaches. It must be given:
/// without one, RabbitMQ 4 drops a message after 20 deliveries, and 3.10 requeues to the back.
pub const DELIVERY_LIMIT_NONE: u32 = 1_000_000_000;

pub(super) const ACCESS_REFUSED: u16 = 403;
pub(super) const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
pub(super) const PRECONDITION_FAILED: u16 = 406;

/// What became of a topology.
pub(super) struct Outcome {
    /// What can't be had, but can be done without.
    pub(super) troubles: Vec<Trouble>,
    /// Exchanges that are there now.
    pub(super) exchanges: Vec<String>,
    /// Of those, the ones that were not, and have been made.
    pub(super) made: Vec<String>,
}

/// Creates what is missing. The queues must be had; exchanges and bindings may be somebody else's
/// affair, and one that can't be had is told in the outcome.
pub(super) async fn declare(
    link: &Link,
    live: &Live,
    topology: &Topology,
) -> Result<Outcome, BrokerError> {
    let mut session = Session {
        link,
        live,
        channel: None,
    };
    let queues = topology.queues.iter().map(|queue| (queue, false));
    let in_order = topology.queues_in_order.iter().map(|queue| (queue, true));
    for (queue, in_order) in queues.chain(in_order) {
        session.queue(queue, in_order).await?;
    }
    let mut outcome = Outcome {
        troubles: Vec::new(),
        exchanges: Vec::new(),
        made: Vec::new(),
    };
    for exchange in &topology.topic_exchanges {
        match told(session.exchange(exchange).await)? {
            Ok(made) => {
                outcome.exchanges.push(exchange.clone());
                outcome.made.extend(made.then(|| exchange.clone()));
            }
            Err(why) => outcome.troubles.push(Trouble {
                about: TroubleAbout::Exchange(exchange.clone()),
                why,
            }),
        }
    }
    for binding in &topology.bindings {
        if lacks(&outcome.troubles, &binding.exchange) {
            continue; // told already
        }
        if let Err(why) = told(session.binding(binding).await)? {
            outcome.troubles.push(Trouble {
                about: TroubleAbout::Binding(binding.clone()),
                why,
            });
        }
    }
    if let Some(channel) = session.channel {
        close(&channel).await;
    }
    Ok(outcome)
}

fn lacks(troubles: &[Trouble], exchange: &str) -> bool {
    let missing = TroubleAbout::Exchange(exchange.to_owned());
    troubles.iter().any(|trouble| trouble.about == missing)
}

/// Tells the server's refusal from its absence.
fn told<T>(result: Result<T, BrokerError>) -> Result<Result<T, String>, BrokerError> {
    match result {
        Ok(done) => Ok(Ok(done)),
        Err(BrokerError::Unavailable(why)) => Err(BrokerError::Unavailable(why)),
        Err(refused) => Ok(Err(refused.to_string())),
    }
}

/// Declarations on a channel that is opened again after each refusal.
struct Session<'l> {
    link: &'l Link,
    live: &'l Live,
    channel: Option<Channel>,
}

impl Session<'_> {
    async fn channel(&mut self) -> Result<Channel, BrokerError> {
        if let Some(channel) = &self.channel
            && channel.status().connected()
        {
            return Ok(channel.clone());
        }
        let channel = self.live.channel(self.link).await.map_err(unavailable)?;
        self.channel = Some(channel.clone());
        Ok(channel)
    }

    /// A queue with our arguments. If we may not declare, one that is there is taken as it is.
    async fn queue(&mut self, queue: &Queue, in_order: bool) -> Result<(), BrokerError> {
        let what = format!("queue `{}`", queue.name);
        let channel = self.channel().await?;
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared =
            channel.queue_declare(name(&queue.name)?, options, arguments(queue, in_order)?);
        let Err(failure) = within(REQUEST_TIME_MAX, declared).await else {
            return Ok(());
        };
        if code(&failure) == Some(ACCESS_REFUSED) {
            let channel = self.channel().await?;
            let options = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let found = channel.queue_declare(name(&queue.name)?, options, FieldTable::default());
            if within(REQUEST_TIME_MAX, found).await.is_ok() {
                return Ok(());
            }
        }
        Err(refused(what, failure))
    }

    /// An exchange: as it is if it is there, else a durable topic one; whether it had to be made.
    async fn exchange(&mut self, exchange: &str) -> Result<bool, BrokerError> {
        let what = || format!("exchange `{exchange}`");
        let channel = self.channel().await?;
        let found = within(REQUEST_TIME_MAX, look_for(&channel, name(exchange)?)).await;
        match found {
            Ok(()) => return Ok(false),
            Err(failure) if code(&failure) == Some(NOT_FOUND) => {}
            Err(failure) => return Err(refused(what(), failure)),
        }
        let channel = self.channel().await?;
        let declared = channel.exchange_declare(
            name(exchange)?,
            ExchangeKind::Topic,
            ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            },
            FieldTable::default(),
        );
        let declared = within(REQUEST_TIME_MAX, declared).await;
        declared.map_err(|failure| match code(&failure) {
            Some(ACCESS_REFUSED) => BrokerError::Refused(format!(
                "exchange `{exchange}` is not there, and this user may not make it"
            )),
            _ => refused(what(), failure),
        })?;
        Ok(true)
    }

    async fn binding(&mut self, binding: &Binding) -> Result<(), BrokerError> {
        let what = format!("binding of `{}` to `{}`", binding.queue, binding.exchange);
        let channel = self.channel().await?;
        let bound = channel.queue_bind(
            name(&binding.queue)?,
            name(&binding.exchange)?,
            name(&binding.routing_key)?,
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        let bound = within(REQUEST_TIME_MAX, bound).await;
        bound.map_err(|failure| refused(what, failure))
    }
}

async fn look_for(channel: &Channel, exchange: ShortString) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    // The kind is not looked at.
    let kind = ExchangeKind::Topic;
    channel
        .exchange_declare(exchange, kind, options, FieldTable::default())
        .await
}

/// Messages and consumers of a queue; `None` if there is no such queue.
pub(super) async fn queue_counts(
    link: &Link,
    live: &Live,
    queue: &str,
) -> Result<Option<QueueFacts>, BrokerError> {
    let name = name(queue)?;
    let channel = live.channel(link).await.map_err(unavailable)?;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let found = channel.queue_declare(name, options, FieldTable::default());
    match within(REQUEST_TIME_MAX, found).await {
        Ok(found) => {
            close(&channel).await;
            Ok(Some(QueueFacts {
                waiting: u64::from(found.message_count()),
                consumers: Some(u64::from(found.consumer_count())),
                arguments: None,
            }))
        }
        Err(failure) if code(&failure) == Some(NOT_FOUND) => Ok(None),
        Err(failure) => Err(refused(format!("queue `{queue}`"), failure)),
    }
}

/// Whether an exchange is there; when in doubt, it is.
pub(super) async fn exchange_exists(link: &Link, live: &Live, exchange: &str) -> bool {
    let (Ok(name), Ok(channel)) = (name(exchange), live.channel(link).await) else {
        return true;
    };
    match within(REQUEST_TIME_MAX, look_for(&channel, name)).await {
        Ok(()) => {
            close(&channel).await;
            true
        }
        Err(failure) => code(&failure) != Some(NOT_FOUND),
    }
}

/// The error for a queue that could not be consumed from.
pub(super) fn not_consumed(queue: &str, failure: Failure) -> BrokerError {
    match code(&failure) {
        Some(NOT_FOUND) => BrokerError::NoQueue(queue.to_owned()),
        _ => refused(format!("queue `{queue}`"), failure),
    }
}

/// A name as AMQP takes it.
pub(super) fn name(text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|_| {
        BrokerError::Refused(format!(
            "`{}…` is longer than the 255 bytes a name may have",
            text.chars().take(40).collect::<String>()
        ))
    })
}

pub(super) fn unavailable(failure: Failure) -> BrokerError {
    BrokerError::Unavailable(Box::new(failure))
}

/// Closes a channel; if that fails, the connection's end closes it.
pub(super) async fn close(channel: &Channel) {
    let closed = channel.close(200, "OK".into());
    if let Err(failure) = within(REQUEST_TIME_MAX, closed).await {
        tracing::debug!(%failure, "a channel did not close cleanly");
    }
}

fn arguments(queue: &Queue, in_order: bool) -> Result<FieldTable, BrokerError> {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    if in_order {
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    // The server gives up when a message has come back more often than the limit.
    let mut limit = DELIVERY_LIMIT_NONE;
    if let Some(dead_letters) = &queue.dead_letter_to {
        limit = DELIVERY_LIMIT - 1;
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert(
            "x-dead-letter-routing-key".into(),
            text(name(dead_letters)?.as_str()),
        );
        // Together these two lose nothing on the way to the dead-letter queue.
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments.insert("x-overflow".into(), text("reject-publish"));
    }
    let limit = AMQPValue::LongLongInt(i64::from(limit));
    arguments.insert("x-delivery-limit".into(), limit);
    Ok(arguments)
}

/// The server's reply code, if it was the server that refused.
fn code(failure: &Failure) -> Option<u16> {
    match failure {
        Failure::Library(error) => match error.kind() {
            ErrorKind::ProtocolError(error) => Some(error.get_id()),
            _ => None,
        },
        Failure::TimeOut(_) => None,
    }
}

fn refused(what: String, failure: Failure) -> BrokerError {
    let text = match &failure {
        Failure::Library(error) => match error.kind() {
            ErrorKind::ProtocolError(error) => error.get_message().to_string(),
            _ => return unavailable(failure),
        },
        Failure::TimeOut(_) => return unavailable(failure),
    };
    match code(&failure) {
        Some(PRECONDITION_FAILED | RESOURCE_LOCKED) => BrokerError::Clash {
            what,
            difference: text.trim_start_matches("PRECONDITION_FAILED - ").to_owned(),
        },
        Some(NOT_FOUND | ACCESS_REFUSED) => BrokerError::Refused(format!("{what}: {text}")),
        _ => unavailable(failure),
    }
}
