//! Where a message that died is sent, so that what is refused there again is not lost.
//!
//! The aim is the one queue whose consumer refused it. The exchange by which it came may give it to
//! other queues too, whose consumers have handled it long ago; so it goes through the default exchange.
//! But a queue without a dead-letter routing key of its own dead-letters by the key that a message was
//! published with, and nothing may be bound for the queue's name. So the message is published with its
//! original keys besides (AMQP's `CC`), by which it dies again as it died before. Should there be a queue
//! that has such a key for its name, it would get a copy: then the replay is refused.
//!
//! What can't be seen over AMQP is what policies set and which queues are bound to an exchange. Where it
//! matters there is a caution, and canaries count for nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

pub use super::no_route::NoRoute;
use crate::broker::{Broker, BrokerError, QueueArguments, QueueFacts};
use crate::message::{DEAD_LETTER_QUEUE, Destination};
use crate::store::dead_letters::{Teller, Trail};

/// Names of our own queues begin like this; how they dead-letter is known.
const OWN_PREFIX: &str = "backstitch.";
/// Longest name of a queue.
const NAME_BYTES_MAX: usize = 255;
/// Most queues, names and cautions remembered.
const REMEMBERED_MAX: usize = 10_000;

/// Where somebody wants it sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// There.
    pub to: Option<Destination>,
    /// By the exchange and key by which it came, so that the consumer sees the same.
    pub as_published: bool,
    /// Also where it could be lost.
    pub anyway: bool,
    /// The only ways by an exchange that may be taken, as `EXCHANGE/KEY`; all, if nothing is said.
    pub within: Option<Vec<String>>,
}

/// What died, and where it was taken from.
#[derive(Debug, Clone)]
pub struct Dead<'a> {
    /// How it came to be dead.
    pub trail: &'a Trail,
    /// The queue it was taken from.
    pub taken_from: &'a str,
    /// Whether we could not handle it ourselves: then it was taken from where it belongs.
    pub ours: bool,
    /// Whether somebody brought it from elsewhere. What it says of itself is then that somebody's word.
    pub imported: bool,
}

/// Where a message is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// There.
    pub destination: Destination,
    /// With these routing keys besides.
    pub copies: Vec<String>,
    /// Where it is seen again if it is refused.
    pub watch: Watch,
    /// What one should know about it.
    pub caution: Option<String>,
}

/// Where a message is seen again if it is refused once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// Our nodes write a letter of it.
    Letters,
    /// In this queue.
    Queue(String),
    /// Nobody knows, and why. Should it be seen in the queue it was taken from, it came back.
    Blind {
        /// That queue.
        taken_from: String,
        /// Why nobody knows.
        why: String,
    },
}

/// Chooses routes, and remembers what it saw.
pub struct Routes {
    broker: Option<Arc<dyn Broker>>,
    queues: HashMap<String, Option<QueueFacts>>,
    /// Whether there are queues of these names.
    names: HashMap<String, bool>,
    exchanges: HashMap<String, bool>,
    /// Exchanges from which our own queue is fed.
    listened: BTreeSet<String>,
    said: HashSet<String>,
}

impl Routes {
    /// With a look at the broker, if there is one to look at.
    pub fn new(broker: Option<Arc<dyn Broker>>) -> Self {
        Self {
            broker,
            queues: HashMap::new(),
            names: HashMap::new(),
            exchanges: HashMap::new(),
            listened: BTreeSet::new(),
            said: HashSet::new(),
        }
    }

    /// Sends nothing by these exchanges: our own queue is bound to them.
    #[must_use]
    pub fn besides(self, listened: BTreeSet<String>) -> Self {
        Self { listened, ..self }
    }

    /// Whether this was not said before.
    pub fn is_news(&mut self, caution: &str) -> bool {
        self.said.len() < REMEMBERED_MAX && self.said.insert(caution.to_owned())
    }

    /// What can be seen of a queue; nothing at all without a broker.
    pub async fn facts(&mut self, queue: &str) -> Result<Option<QueueFacts>, BrokerError> {
        let Some(broker) = &self.broker else {
            return Ok(Some(QueueFacts::default()));
        };
        if let Some(known) = self.queues.get(queue) {
            return Ok(known.clone());
        }
        let facts = match broker.queue_facts(queue).await {
            Ok(facts) => facts,
            Err(error @ BrokerError::Unavailable(_)) => return Err(error),
            // It is there, but not for us to look at.
            Err(_) => Some(QueueFacts::default()),
        };
        if self.queues.len() >= REMEMBERED_MAX {
            self.queues.clear();
        }
        self.queues.insert(queue.to_owned(), facts.clone());
        Ok(facts)
    }

    /// Whether there is a queue of this name; without a broker, there is none.
    async fn is_queue(&mut self, name: &str) -> Result<bool, BrokerError> {
        let Some(broker) = &self.broker else {
            return Ok(false);
        };
        if let Some(known) = self.names.get(name) {
            return Ok(*known);
        }
        let is_there = match broker.queue_counts(name).await {
            Ok(counts) => counts.is_some(),
            Err(error @ BrokerError::Unavailable(_)) => return Err(error),
            // It is there, but not for us to look at; or no queue can have such a name.
            Err(_) => name.len() <= NAME_BYTES_MAX,
        };
        if self.names.len() >= REMEMBERED_MAX {
            self.names.clear();
        }
        self.names.insert(name.to_owned(), is_there);
        Ok(is_there)
    }

    async fn has_exchange(&mut self, exchange: &str) -> bool {
        let Some(broker) = &self.broker else {
            return true;
        };
        if let Some(known) = self.exchanges.get(exchange) {
            return *known;
        }
        let is_there = exchange.is_empty() || broker.exchange_exists(exchange).await;
        self.exchanges.insert(exchange.to_owned(), is_there);
        is_there
    }

    /// Where text such as `QUEUE` or `EXCHANGE/KEY` leads: a queue that has the whole for its name
    /// is meant before an exchange is.
    pub async fn destination(&mut self, text: &str) -> Result<Destination, BrokerError> {
        let Some((exchange, key)) = text.split_once('/') else {
            return Ok(Destination::queue(text));
        };
        if self.is_queue(text).await? {
            return Ok(Destination::queue(text));
        }
        Ok(Destination {
            exchange: exchange.to_owned(),
            routing_key: key.to_owned(),
        })
    }

    /// Where a message goes.
    pub async fn choose(
        &mut self,
        dead: &Dead<'_>,
        wish: &Wish,
    ) -> Result<Result<Route, NoRoute>, BrokerError> {
        let trail = dead.trail;
        if let Some(to) = &wish.to {
            return self.through(to.clone(), dead, wish).await;
        }
        if dead.imported {
            return Ok(Err(NoRoute::Imported));
        }
        if dead.ours {
            return self
                .through(Destination::queue(dead.taken_from), dead, wish)
                .await;
        }
        let published = published(trail);
        match (&trail.queue, published) {
            (_, Some(published)) if wish.as_published => self.through(published, dead, wish).await,
            (Some(queue), _) if trail.expired() && !wish.anyway => {
                match self.beyond(queue, dead.taken_from).await? {
                    Ok(to) => self.through(to, dead, wish).await,
                    Err(why) => Ok(Err(why)),
                }
            }
            (Some(queue), _) => self.through(Destination::queue(queue), dead, wish).await,
            (None, Some(published)) => self.through(published, dead, wish).await,
            (None, None) => Ok(Err(NoRoute::Unknown)),
        }
    }

    /// Where what expired in a queue belongs: in that queue, if somebody consumes of it; else it is a
    /// delay queue, and it belongs where that leads.
    async fn beyond(
        &mut self,
        queue: &str,
        taken_from: &str,
    ) -> Result<Result<Destination, NoRoute>, BrokerError> {
        let facts = self.facts(queue).await?;
        let attended = facts
            .as_ref()
            .is_none_or(|facts| facts.consumers != Some(0));
        if attended {
            return Ok(Ok(Destination::queue(queue)));
        }
        let arguments = facts.and_then(|facts| facts.arguments).unwrap_or_default();
        if let (Some(""), Some(next)) = (
            arguments.dead_letter_exchange.as_deref(),
            arguments.dead_letter_routing_key,
        ) && next != taken_from
            && self.is_queue(&next).await?
        {
            return Ok(Ok(Destination::queue(next)));
        }
        Ok(Err(NoRoute::Unattended(queue.to_owned())))
    }

    async fn through(
        &mut self,
        destination: Destination,
        dead: &Dead<'_>,
        wish: &Wish,
    ) -> Result<Result<Route, NoRoute>, BrokerError> {
        if let Some(place) = foreign_to(&destination, dead) {
            return Ok(Err(NoRoute::Ours(place)));
        }
        if !destination.exchange.is_empty() {
            return Ok(self.by_exchange(destination, dead, wish));
        }
        let queue = destination.routing_key.clone();
        let facts = self.facts(&queue).await?;
        let arguments = facts.and_then(|facts| facts.arguments);
        let mut route = Route {
            watch: watch(dead, &queue, arguments.as_ref()),
            destination,
            copies: Vec::new(),
            caution: None,
        };
        let own = dead.ours || is_own(&queue);
        // A library publishes what it gives up itself, whatever the queue does.
        let library =
            dead.trail.teller == Teller::Library && dead.trail.queue.as_ref() == Some(&queue);
        if own || library {
            return Ok(Ok(route));
        }
        let exchange = arguments
            .as_ref()
            .and_then(|known| known.dead_letter_exchange.clone());
        if let Some(exchange) = &exchange
            && !wish.anyway
            && !self.has_exchange(exchange).await
        {
            let exchange = exchange.clone();
            return Ok(Err(NoRoute::NoExchange { queue, exchange }));
        }
        let has_key = arguments
            .as_ref()
            .is_some_and(|known| known.dead_letter_routing_key.is_some());
        if has_key {
            return Ok(Ok(route));
        }
        for key in dead.trail.keys.iter().filter(|key| **key != queue) {
            if is_own(key) || self.is_queue(key).await? {
                if wish.anyway {
                    continue;
                }
                let key = key.clone();
                let exchange =
                    exchange.map_or(String::new(), |name| format!(" to exchange `{name}`"));
                return Ok(Err(NoRoute::KeyTaken {
                    queue,
                    exchange,
                    key,
                }));
            }
            route.copies.push(key.clone());
        }
        route.caution = caution(dead.trail, &queue, arguments.as_ref());
        Ok(Ok(route))
    }

    fn by_exchange(
        &self,
        destination: Destination,
        dead: &Dead<'_>,
        wish: &Wish,
    ) -> Result<Route, NoRoute> {
        let Destination {
            exchange,
            routing_key,
        } = &destination;
        if self.listened.contains(exchange) {
            return Err(NoRoute::Listened(exchange.clone()));
        }
        let way = format!("{exchange}/{routing_key}");
        match &wish.within {
            Some(allowed) if !allowed.contains(&way) => Err(NoRoute::NotAllowed(way)),
            _ => Ok(by_exchange(destination, dead)),
        }
    }
}

/// Whether a queue or exchange of this name is ours.
pub(in crate::dead_letters) fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX)
}

/// The queue or exchange of ours that a message would go to although it did not die there.
fn foreign_to(destination: &Destination, dead: &Dead<'_>) -> Option<String> {
    let Destination {
        exchange,
        routing_key,
    } = destination;
    let is_queue = exchange.is_empty();
    let place = if is_queue { routing_key } else { exchange };
    let trail = dead.trail;
    // What dies in a queue of ours comes to our dead-letter queue at once, so the broker's newest word
    // there is its own; older ones, and those in other queues, whoever sent the message may have put
    // into it.
    let is_told = trail.teller == Teller::Broker
        && dead.taken_from == DEAD_LETTER_QUEUE
        && trail.last.as_ref() == Some(place)
        && trail.queue.as_ref() == Some(place);
    let died_there =
        is_queue && !dead.imported && ((dead.ours && dead.taken_from == place) || is_told);
    (is_own(place) && !died_there).then(|| place.clone())
}

/// What one should know before sending to a queue that dead-letters by routing key, or not at all.
fn caution(trail: &Trail, queue: &str, arguments: Option<&QueueArguments>) -> Option<String> {
    let arguments = arguments?;
    // It died there before, and dies by the same keys again.
    let died_there = trail.queue.as_deref() == Some(queue);
    let same = died_there && !trail.keys.is_empty();
    match &arguments.dead_letter_exchange {
        _ if same => None,
        None if died_there && trail.teller != Teller::Nobody => None,
        None => Some(format!(
            "queue `{queue}` was declared without a dead-letter exchange: unless a policy sets one, what its consumer refuses is lost"
        )),
        Some(exchange) if exchange.is_empty() && trail.keys.is_empty() => None,
        Some(exchange) => Some(format!(
            "queue `{queue}` dead-letters to exchange `{exchange}` by routing key: what it refuses is lost if nothing is bound there for the key it gets, and AMQP does not tell"
        )),
    }
}

fn by_exchange(destination: Destination, dead: &Dead<'_>) -> Route {
    let trail = dead.trail;
    let same = published(trail).as_ref() == Some(&destination);
    let caution = format!(
        "{destination} leads to every queue that is bound for it, not only to the one whose consumer refused the message; `--to QUEUE` sends it to one alone"
    );
    Route {
        copies: if same {
            let others = trail.keys.iter().skip(1);
            others.filter(|key| !is_own(key)).cloned().collect()
        } else {
            Vec::new()
        },
        watch: if same && trail.direct {
            Watch::Queue(dead.taken_from.to_owned())
        } else {
            blind(
                dead,
                format!(
                    "which queues are bound there, and where they dead-letter to, AMQP does not tell ({destination})"
                ),
            )
        },
        destination,
        caution: Some(caution),
    }
}

/// The exchange and key by which a message came, if that was not the default exchange.
fn published(trail: &Trail) -> Option<Destination> {
    let exchange = trail.exchange.as_ref().filter(|name| !name.is_empty())?;
    Some(Destination {
        exchange: exchange.clone(),
        routing_key: trail.keys.first()?.clone(),
    })
}

fn watch(dead: &Dead<'_>, queue: &str, arguments: Option<&QueueArguments>) -> Watch {
    let trail = dead.trail;
    if queue == dead.taken_from {
        return if dead.ours {
            Watch::Letters
        } else {
            Watch::Queue(queue.to_owned())
        };
    }
    if let Some(QueueArguments {
        dead_letter_exchange: Some(exchange),
        dead_letter_routing_key: Some(next),
        ..
    }) = arguments
        && exchange.is_empty()
        && next == dead.taken_from
    {
        return Watch::Queue(next.clone());
    }
    if trail.queue.as_deref() != Some(queue) {
        return blind(
            dead,
            format!(
                "nothing tells that queue `{queue}` dead-letters to where these letters were taken from, `{}`",
                dead.taken_from
            ),
        );
    }
    if !trail.direct {
        return blind(
            dead,
            format!(
                "from queue `{queue}` they came to `{}` by way of others, which may take longer",
                dead.taken_from
            ),
        );
    }
    Watch::Queue(dead.taken_from.to_owned())
}

fn blind(dead: &Dead<'_>, why: String) -> Watch {
    Watch::Blind {
        taken_from: dead.taken_from.to_owned(),
        why,
    }
}
