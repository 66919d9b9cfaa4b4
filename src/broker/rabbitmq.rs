//! RabbitMQ, 3.10 and newer, over AMQP 0-9-1.
//!
//! Two connections: one publishes, one consumes and declares, because a server that runs short of
//! memory or disk stops reading from whoever publishes, and acknowledgements must still reach it.
//! Each is supervised and rebuilt for ever ([`link`]); publishers and consumers live through it.
//!
//! Invariants:
//! * a channel is used by one task only; confirms and acknowledgements depend on it;
//! * everything that is asked of the server has a time limit;
//! * passwords are never printed.
//!
//! Known limits, both in how the library reads what the server sends: a message with a property
//! that is not UTF-8 costs the connection each time it is delivered, until the delivery limit
//! (consumers then go on one message at a time, so that it alone reaches the limit); and a header
//! nested a thousand levels deep overflows the stack of the library's thread, which ends the
//! program.
//!
//! Deliberately absent: the library's recovery, publishing again, delays, classic queues.

mod acks;
mod address;
mod consumer;
mod convert;
mod exact;
mod link;
mod publisher;
mod topology;
mod verdict;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use self::link::{CONNECT_TIME_MAX, Link};
use self::publisher::{CONNECTION_WAIT_MAX, Publisher};
use super::pace::Pace;
use super::{Broker, BrokerError, Consumer, Health, Outgoing, Published, Topology};
use crate::message::{Message, Properties};

/// Says why RabbitMQ would never take a message, if so: what could be found out by asking it, it
/// would answer by closing the channel.
///
/// # Errors
/// The reason.
pub fn check_sendable(message: &Message) -> Result<(), String> {
    convert::check_sendable(message)
}

/// Says why properties can't be those of an AMQP message, if so.
///
/// # Errors
/// The reason.
pub fn check_properties(properties: &Properties) -> Result<(), String> {
    convert::check_properties(properties)
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct RabbitMqOptions {
    /// The name under which the connections show up in the server's lists.
    pub name: String,
    /// For how long to try while the server can't be reached at first. Refusals of user, password
    /// or virtual host are reported at once; after the first success it never gives up.
    pub patience: Duration,
}

impl Default for RabbitMqOptions {
    fn default() -> Self {
        Self {
            name: "backstitch".to_owned(),
            patience: Duration::from_secs(30),
        }
    }
}

/// A RabbitMQ server. Dropping it ends publishing; consumers live on until they are dropped.
pub struct RabbitMqBroker {
    publisher: Publisher,
    control: Arc<Link>,
    declared: Arc<Mutex<Vec<Topology>>>,
    /// Each consumer's task holds a clone of the sender, until it has said its last to the server.
    running: Mutex<Option<mpsc::Sender<()>>>,
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl RabbitMqBroker {
    /// Connects to an `amqp://` or `amqps://` URL.
    pub async fn connect(url: &str, options: RabbitMqOptions) -> Result<Self, BrokerError> {
        let uri = address::parse(url)?;
        let RabbitMqOptions { name, patience } = options;
        let control = Link::connect(uri.clone(), format!("{name} (consuming)"), patience).await?;
        let publishing = Link::connect(uri, format!("{name} (publishing)"), patience).await?;
        let control = Arc::new(control);
        let (running, ended) = mpsc::channel(1);
        Ok(Self {
            publisher: Publisher::start(Arc::new(publishing), Arc::clone(&control)),
            control,
            declared: Arc::default(),
            running: Mutex::new(Some(running)),
            ended: tokio::sync::Mutex::new(ended),
        })
    }

    /// Waits until all dropped consumers have told the server their last acknowledgements, then
    /// closes the connections. Drop the consumers first; those still alive are cut off.
    pub async fn close(&self) {
        drop(lock(&self.running).take());
        // Ends when the last consumer's task has; at the latest after a request's time.
        let _ = timeout(CONNECT_TIME_MAX, self.ended.lock().await.recv()).await;
        self.publisher.link().close().await;
        self.control.close().await;
    }
}

#[async_trait]
impl Broker for RabbitMqBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        undeterred(|| declare_on(&self.control, topology)).await?;
        let mut declared = lock(&self.declared);
        if !declared.contains(topology) {
            declared.push(topology.clone());
        }
        Ok(())
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        let Some(running) = lock(&self.running).clone() else {
            return Err(BrokerError::Unavailable("the client is closed".into()));
        };
        let (link, declared) = (Arc::clone(&self.control), Arc::clone(&self.declared));
        let redeclare: consumer::Redeclare =
            Arc::new(move || redeclare(Arc::clone(&link), Arc::clone(&declared)).boxed());
        let link = Arc::clone(&self.control);
        consumer::consume(link, queue, prefetch, redeclare, running).await
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Published> {
        self.publisher.publish(messages).await
    }

    async fn queue_len(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        let live = self
            .control
            .up(Instant::now() + CONNECTION_WAIT_MAX)
            .await
            .map_err(|why| BrokerError::Unavailable(why.into()))?;
        topology::queue_len(&self.control, &live, queue).await
    }

    fn health(&self) -> Health {
        match (self.control.health(), self.publisher.link().health()) {
            (Health::Down(why), _) | (_, Health::Down(why)) => Health::Down(why),
            (_, publishing) => publishing,
        }
    }
}

/// Does it again if the connection breaks under it, within a bound. It is shared, and whoever
/// shares it may break it: RabbitMQ 3.10 ends a whole connection when one channel consumes from a
/// quorum queue that was declared a moment ago and has no leader yet.
async fn undeterred<T, F: Future<Output = Result<T, BrokerError>>>(
    attempt: impl Fn() -> F,
) -> Result<T, BrokerError> {
    let begin = Instant::now();
    let mut pace = Pace::new();
    loop {
        match attempt().await {
            Err(BrokerError::Unavailable(why)) if begin.elapsed() < CONNECTION_WAIT_MAX => {
                tracing::debug!(why, "the connection broke; once more");
                sleep(pace.next_delay()).await;
            }
            result => return result,
        }
    }
}

async fn declare_on(link: &Link, topology: &Topology) -> Result<(), BrokerError> {
    let live = link
        .up(Instant::now() + CONNECTION_WAIT_MAX)
        .await
        .map_err(|why| BrokerError::Unavailable(why.into()))?;
    topology::declare(link, &live, topology).await
}

/// Declares again what was declared before: the server may have lost it all (a new volume, a
/// deleted queue), and nobody else will.
async fn redeclare(link: Arc<Link>, declared: Arc<Mutex<Vec<Topology>>>) {
    let topologies = lock(&declared).clone();
    for topology in topologies {
        if let Err(error) = declare_on(&link, &topology).await {
            tracing::warn!(%error, "a queue is missing and can't be declared again");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
