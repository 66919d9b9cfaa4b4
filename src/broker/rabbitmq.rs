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
//! What strangers put into a message is looked at before the library parses it ([`wire`]): it could end
//! the connection, or the program.
//!
//! Deliberately absent: the library's recovery, publishing again, delays, classic queues.

mod acks;
mod address;
mod consumer;
mod convert;
mod copies;
mod exact;
mod exchanges;
mod header;
mod inspect;
mod keeper;
mod link;
mod publisher;
mod served;
mod topology;
mod verdict;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use lapin::uri::AMQPUri;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::exchanges::Exchanges;
use self::keeper::Keeper;
use self::link::{CONNECT_TIME_MAX, Link};
use self::publisher::Publisher;
use super::{
    Broker, BrokerError, Consumer, Health, Outgoing, Published, QueueFacts, Topology, Trouble,
};
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
    /// How often to look whether what was declared is still there, although nothing says otherwise.
    pub look_every: Duration,
}

impl Default for RabbitMqOptions {
    fn default() -> Self {
        Self {
            name: "backstitch".to_owned(),
            patience: Duration::from_secs(30),
            look_every: keeper::LOOK_EVERY,
        }
    }
}

/// A RabbitMQ server. Dropping it ends publishing; consumers live on until they are dropped.
pub struct RabbitMqBroker {
    publisher: Publisher,
    control: Arc<Link>,
    /// To connect once more.
    uri: AMQPUri,
    name: String,
    keeper: Arc<Keeper>,
    /// Ends the keeper with this.
    _keeping: JoinSet<()>,
    /// Each consumer's task holds a clone of the sender, until it has said its last to the server.
    running: Mutex<Option<mpsc::Sender<()>>>,
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl RabbitMqBroker {
    /// Connects to an `amqp://` or `amqps://` URL.
    pub async fn connect(url: &str, options: RabbitMqOptions) -> Result<Self, BrokerError> {
        let uri = address::parse(url)?;
        let RabbitMqOptions {
            name,
            patience,
            look_every,
        } = options;
        let control = Link::connect(uri.clone(), format!("{name} (consuming)"), patience).await?;
        let publishing =
            Link::connect(uri.clone(), format!("{name} (publishing)"), patience).await?;
        let control = Arc::new(control);
        let (running, ended) = mpsc::channel(1);
        let exchanges = Arc::new(Exchanges::default());
        let keeper = Keeper::new(Arc::clone(&control), Arc::clone(&exchanges), look_every);
        let keeper = Arc::new(keeper);
        let mut keeping = JoinSet::new();
        keeping.spawn(Arc::clone(&keeper).run());
        Ok(Self {
            publisher: Publisher::start(Arc::new(publishing), exchanges, Arc::clone(&keeper)),
            control,
            uri,
            name,
            keeper,
            _keeping: keeping,
            running: Mutex::new(Some(running)),
            ended: tokio::sync::Mutex::new(ended),
        })
    }

    async fn subscribe(
        &self,
        queue: &str,
        prefetch: u16,
        wary: bool,
    ) -> Result<Consumer, BrokerError> {
        let Some(running) = lock(&self.running).clone() else {
            return Err(BrokerError::Unavailable("the client is closed".into()));
        };
        let keeper = Arc::clone(&self.keeper);
        let redeclare: consumer::Redeclare = Arc::new(move || {
            let keeper = Arc::clone(&keeper);
            async move { keeper.look_again().await }.boxed()
        });
        let link = Arc::clone(&self.control);
        consumer::consume(link, queue, prefetch, wary, redeclare, running).await
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
        self.keeper.declare(topology).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        self.subscribe(queue, prefetch, true).await
    }

    async fn look(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        self.subscribe(queue, prefetch, false).await
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Published> {
        self.publisher.publish(messages).await
    }

    async fn queue_len(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        let live = self.control.awaited().await?;
        let counts = topology::queue_counts(&self.control, &live, queue).await?;
        Ok(counts.map(|counts| counts.waiting))
    }

    async fn queue_facts(&self, queue: &str) -> Result<Option<QueueFacts>, BrokerError> {
        // Over a connection of its own: RabbitMQ 3.10 ends it over some of these questions (541), and
        // nobody else's deliveries may go with it.
        let name = format!("{} (inspecting)", self.name);
        let link = Link::connect(self.uri.clone(), name, link::REQUEST_TIME_MAX).await?;
        let live = link.awaited().await?;
        let facts = inspect::queue_facts(&link, &live, queue).await;
        link.close().await;
        facts
    }

    async fn queue_counts(&self, queue: &str) -> Result<Option<QueueFacts>, BrokerError> {
        let live = self.control.awaited().await?;
        topology::queue_counts(&self.control, &live, queue).await
    }

    async fn exchange_exists(&self, exchange: &str) -> bool {
        match self.control.awaited().await {
            Ok(live) => topology::exchange_exists(&self.control, &live, exchange).await,
            Err(_) => true,
        }
    }

    fn health(&self) -> Health {
        match (self.control.health(), self.publisher.link().health()) {
            (Health::Down(why), _) | (_, Health::Down(why)) => Health::Down(why),
            (_, publishing) => publishing,
        }
    }

    fn troubles(&self) -> Vec<Trouble> {
        self.keeper.troubles()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
