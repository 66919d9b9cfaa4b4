//! Domain events from the queue to the workers, in order.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::Value;

use super::{Meaning, Meant};
use crate::broker::{Acks, Delivery, Session};
use crate::engine::decode::{Undecodable, unreadable};
use crate::engine::intake::Workers;
use crate::engine::lock;
use crate::engine::shared_ack::SharedAck;
use crate::engine::work::{Job, Origin, Work};
use crate::engine::worker::Shared;
use crate::error::code;
use crate::message::{
    DOMAIN_EVENT_QUEUE, Destination, HEADER_EVENT_EXCHANGE, HEADER_EVENT_FOR,
    HEADER_EVENT_ROUTING_KEY, Message,
};
use crate::metric;
use crate::store::DeadLetter;

impl Shared {
    /// Has a batch of domain events worked on, in order.
    pub(in crate::engine) async fn receive_events(
        &self,
        batch: Vec<Delivery>,
        session: &mut Session,
        acks: &Arc<dyn Acks>,
        workers: &Workers,
    ) {
        let mut has_learned = false;
        for delivery in batch {
            let space = self.room.take_for(&delivery.message.body).await;
            let sighting = self.sighting(&delivery, session);
            let Delivery {
                tag,
                mut message,
                published_to,
                redelivered,
                ..
            } = delivery;
            let id = message.properties.message_id.as_deref();
            let by_content = id.is_none_or(str::is_empty);
            let meanings = match route_of(&message, published_to) {
                Ok(route) if message.properties.unreadable.is_some() => {
                    let wrong = unreadable(&message);
                    note_route(&mut message, &route);
                    vec![Meaning::nothing(wrong)]
                }
                Ok(route) => {
                    let meanings = self.meanings(&message, &route, &mut has_learned).await;
                    // Unacknowledged, so the broker gives the rest to another node.
                    let Some(meanings) = meanings else { return };
                    note_route(&mut message, &route);
                    meanings
                }
                Err(wrong) => vec![Meaning::nothing(wrong)],
            };
            if meanings.is_empty() {
                acks.ack(&[tag]);
                continue;
            }
            let acks: Arc<dyn Acks> = SharedAck::new(acks, tag, meanings.len());
            let several = meanings.len() > 1;
            let mut copies = std::iter::repeat_n(message, meanings.len());
            for mut meaning in meanings {
                if let Meaning::Signal(request) = &mut meaning {
                    request.by_content = by_content;
                    request.uncertain = AtomicBool::new(redelivered);
                }
                let mut message = copies.next().unwrap_or_default();
                if several && let Some(name) = meaning.definition() {
                    let headers = &mut message.properties.headers;
                    headers.insert(HEADER_EVENT_FOR.to_owned(), Value::from(name));
                }
                // Each definition that can't use it has its own reason, so its own letter.
                let letter = self.letter(DOMAIN_EVENT_QUEUE, message, sighting);
                let job = meaning.job(&*letter);
                let origin = Origin::Delivery {
                    acks: Arc::clone(&acks),
                    tag,
                    letter: Arc::clone(&letter),
                    space: space.clone(),
                };
                workers.give(Work { job, origin }).await;
            }
        }
    }

    /// What an event means. One that no rule is about, or that should start a saga and can't, may be
    /// about a definition that another node has stored meanwhile, so the database is asked, once a batch, before it is let go or set aside. `None` if
    /// the node stops before it is known.
    async fn meanings(
        &self,
        message: &Message,
        route: &Destination,
        has_learned: &mut bool,
    ) -> Option<Vec<Meaning>> {
        loop {
            let rules = self.event_rules();
            match rules.meanings(message, route, *has_learned) {
                Ok(Meant::Something(meanings))
                    if !*has_learned && meanings.iter().any(Meaning::is_unusable) =>
                {
                    *has_learned = true;
                    self.wait_for_news(Duration::ZERO).await?;
                }
                Ok(Meant::Something(meanings)) => {
                    let known = self.catalogue.known();
                    let each = meanings.into_iter().map(|meaning| match &meaning {
                        Meaning::Unusable { by: Some(name), .. } => {
                            let beyond = known.beyond(Some(name)).map(str::to_owned);
                            beyond.map_or(meaning, Meaning::Beyond)
                        }
                        _ => meaning,
                    });
                    return Some(each.collect());
                }
                Err(wrong) => return Some(vec![Meaning::nothing(wrong)]),
                Ok(_) if !*has_learned => {
                    *has_learned = true;
                    self.wait_for_news(Duration::ZERO).await?;
                }
                // Which events that listens for nobody can say here.
                Ok(_) if let Some(why) = self.catalogue.known().beyond(None) => {
                    return Some(vec![Meaning::Beyond(why.to_owned())]);
                }
                Ok(Meant::NothingNow) => {
                    metric::event_ignored("unmatched");
                    return Some(Vec::new());
                }
                Ok(Meant::Stray | Meant::AskAgain) => {
                    lock(&self.strays).note(route, self.environment.now());
                    return Some(Vec::new());
                }
            }
        }
    }
}

impl Meaning {
    fn job(self, letter: &(dyn Fn() -> DeadLetter + Send + Sync)) -> Job {
        match self {
            Self::Start(request) => Job::Start {
                request,
                key_taken: false,
            },
            Self::Signal(request) => Job::Signal(Arc::new(request)),
            Self::Beyond(why) => Job::Leave {
                about: "an event".to_owned(),
                why,
            },
            Self::Unusable {
                wrong: Undecodable { code, reason },
                ..
            } => Job::Bury {
                letter: Box::new(DeadLetter {
                    code,
                    reason,
                    ..letter()
                }),
                starter: None,
            },
        }
    }
}

/// Where an event was published to. One that is replayed comes to the queue itself, and says in its
/// headers where it was published first.
pub(super) fn route_of(
    message: &Message,
    published_to: Destination,
) -> Result<Destination, Undecodable> {
    if !published_to.exchange.is_empty() {
        return Ok(published_to);
    }
    let exchange = message.header(HEADER_EVENT_EXCHANGE);
    let routing_key = message.header(HEADER_EVENT_ROUTING_KEY);
    match (exchange, routing_key) {
        (Some(exchange), Some(routing_key)) => Ok(Destination {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
        }),
        _ => Err(Undecodable::new(
            code::EVENT_UNUSABLE,
            format!(
                "the message was sent to `{DOMAIN_EVENT_QUEUE}` itself, so nobody knows which event it is; publish it to its exchange, or say so in the headers `{HEADER_EVENT_EXCHANGE}` and `{HEADER_EVENT_ROUTING_KEY}`"
            ),
        )),
    }
}

/// Notes on an event where it was published to, for the case that it becomes a dead letter.
pub(super) fn note_route(message: &mut Message, route: &Destination) {
    let headers = &mut message.properties.headers;
    for (name, value) in [
        (HEADER_EVENT_EXCHANGE, &route.exchange),
        (HEADER_EVENT_ROUTING_KEY, &route.routing_key),
    ] {
        headers.insert(name.to_owned(), Value::from(value.as_str()));
    }
}
