//! How a message came to be dead: read from what RabbitMQ and the libraries of consumers leave in it.
//!
//! Separate because two ask: whoever stores a letter (what it can be searched by), and whoever sends a
//! message again (where to). The answer is the queue whose *consumer refused* the message, not the
//! one where it died first: a message that waited in a delay queue has expired there before any
//! consumer saw it, and would lie there for ever.
//!
//! Who is believed, in this order: the consumer's library, which names its queue; the broker about a
//! refusal; a library that names only exchange and key; our own note on a replay; the broker about any
//! other death, the latest one.

use serde_json::Value;

use super::{HEADER_EXCHANGE, HEADER_KEYS, HEADER_ORIGIN};
use crate::message::Message;

/// RabbitMQ's words for what a consumer did, or let happen.
const REFUSALS: [&str; 2] = ["rejected", "delivery_limit"];
/// RabbitMQ's word for what nobody took in time.
const EXPIRED: &str = "expired";

/// Header in which MassTransit leaves the address of the queue.
const MASSTRANSIT_ADDRESS: &str = "MT-Fault-InputAddress";
/// Header with MassTransit's reason, on all that it moves to its queues for errors.
const MASSTRANSIT_REASON: &str = "MT-Reason";
/// What MassTransit calls those queues, after the name of the queue itself.
const MASSTRANSIT_SUFFIXES: [&str; 2] = ["_error", "_skipped"];
/// Headers in which Rebus and `NServiceBus` leave the name of the queue.
const QUEUE_HEADERS: [&str; 2] = ["rbs2-source-queue", "NServiceBus.FailedQ"];
/// Headers in which Spring leaves exchange and routing key.
const SPRING_EXCHANGE: &str = "x-original-exchange";
const SPRING_KEY: &str = "x-original-routingKey";

/// Who tells where a message died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Teller {
    /// The broker: so the queue has a dead-letter route.
    Broker,
    /// The consumer's library, which publishes what it gives up to another queue itself.
    Library,
    /// We did, when we sent it the last time.
    Note,
    /// Nobody.
    #[default]
    Nobody,
}

/// How a message came to be dead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    /// Who tells.
    pub teller: Teller,
    /// The queue whose consumer refused it, or where it died otherwise.
    pub queue: Option<String>,
    /// The exchange by which it came to that queue; empty for the default one.
    pub exchange: Option<String>,
    /// The routing keys with which it came there.
    pub keys: Vec<String>,
    /// The broker's word.
    pub reason: Option<String>,
    /// How often it died there.
    pub count: u64,
    /// Whether nothing is known to lie between that queue and the one it was taken from.
    pub direct: bool,
    /// The queue where it died last, by the broker's list: what stands before that may have come with
    /// the message, but this the broker has written itself.
    pub last: Option<String>,
}

impl Trail {
    /// Reads the trail of a message that was taken from queue `taken_from`.
    pub fn of(message: &Message, taken_from: &str) -> Self {
        let by_queue = library_queue(message, taken_from).map(|queue| Self {
            teller: Teller::Library,
            queue: Some(queue),
            direct: true,
            ..Self::default()
        });
        let trail = by_queue
            .or_else(|| refusal(message))
            .or_else(|| by_exchange(message))
            .or_else(|| note(message))
            .or_else(|| latest_death(message))
            .unwrap_or_default();
        Self {
            last: deaths(message).into_iter().next().and_then(|it| it.queue),
            ..trail
        }
    }

    /// Whether it was not refused, but expired.
    pub fn expired(&self) -> bool {
        self.reason.as_deref() == Some(EXPIRED)
    }
}

/// The queue of which a consumer's library says that it gave the message up there.
fn library_queue(message: &Message, taken_from: &str) -> Option<String> {
    let told = |name: &str| {
        let text = message.header(name)?.trim();
        // NServiceBus may add the machine.
        let queue = text.split('@').next().unwrap_or_default();
        (!queue.is_empty()).then(|| queue.to_owned())
    };
    if let Some(queue) = QUEUE_HEADERS.iter().find_map(|name| told(name)) {
        return Some(queue);
    }
    if let Some(queue) = message.header(MASSTRANSIT_ADDRESS).and_then(last_segment) {
        return Some(queue);
    }
    message.header(MASSTRANSIT_REASON)?;
    let mut suffixes = MASSTRANSIT_SUFFIXES.iter();
    let queue = suffixes.find_map(|suffix| taken_from.strip_suffix(suffix))?;
    (!queue.is_empty()).then(|| queue.to_owned())
}

/// `rabbitmq://host/vhost/queue?durable=true` names `queue`.
fn last_segment(address: &str) -> Option<String> {
    let path = address.split(['?', '#']).next()?;
    let (_, name) = path.split_once("://")?.1.rsplit_once('/')?;
    let name = percent_encoding::percent_decode_str(name)
        .decode_utf8()
        .ok()?;
    (!name.is_empty()).then(|| name.into_owned())
}

/// What the broker says about a consumer's refusal.
fn refusal(message: &Message) -> Option<Trail> {
    let is_refusal = |reason: &Option<String>| {
        let reason = reason.as_deref();
        reason.is_some_and(|reason| REFUSALS.contains(&reason))
    };
    let deaths = deaths(message);
    let first = first_death(message).filter(|death| is_refusal(&death.reason));
    let found = match first {
        Some(first) => {
            let same = |death: &&Trail| death.queue == first.queue && death.reason == first.reason;
            deaths.iter().find(same).cloned().unwrap_or(first)
        }
        // The broker puts the latest death first.
        None => deaths
            .iter()
            .rfind(|death| is_refusal(&death.reason))?
            .clone(),
    };
    let direct = deaths
        .first()
        .is_none_or(|latest| latest.queue == found.queue && latest.reason == found.reason);
    Some(Trail {
        direct,
        ..noted(message, found)
    })
}

/// What we sent to the queue alone came there by another way before; we noted which.
fn noted(message: &Message, died: Trail) -> Trail {
    let ours = died.exchange.as_deref().is_none_or(str::is_empty)
        && message.header(HEADER_ORIGIN) == died.queue.as_deref();
    match note(message) {
        Some(note) if ours && !note.keys.is_empty() => Trail {
            exchange: note.exchange,
            keys: note.keys,
            ..died
        },
        _ => died,
    }
}

/// Spring names the way to its queue, not the queue.
fn by_exchange(message: &Message) -> Option<Trail> {
    let (exchange, key) = (
        message.header(SPRING_EXCHANGE)?,
        message.header(SPRING_KEY)?,
    );
    Some(Trail {
        teller: Teller::Library,
        queue: exchange.is_empty().then(|| key.to_owned()),
        exchange: Some(exchange.to_owned()),
        keys: vec![key.to_owned()],
        direct: true,
        ..Trail::default()
    })
}

fn note(message: &Message) -> Option<Trail> {
    Some(Trail {
        teller: Teller::Note,
        queue: Some(message.header(HEADER_ORIGIN)?.to_owned()),
        exchange: message.header(HEADER_EXCHANGE).map(str::to_owned),
        keys: texts(message.properties.headers.get(HEADER_KEYS)),
        direct: true,
        ..Trail::default()
    })
}

fn latest_death(message: &Message) -> Option<Trail> {
    let found = deaths(message).into_iter().next();
    let found = found.or_else(|| first_death(message))?;
    Some(Trail {
        direct: true,
        ..noted(message, found)
    })
}

/// The broker's list, the latest first, without what is no death.
fn deaths(message: &Message) -> Vec<Trail> {
    let list = message.properties.headers.get("x-death");
    let list = list.and_then(Value::as_array).into_iter().flatten();
    let deaths = list.map(|death| Trail {
        teller: Teller::Broker,
        queue: text(death.get("queue")),
        exchange: text(death.get("exchange")),
        keys: texts(death.get("routing-keys")),
        reason: text(death.get("reason")),
        count: death.get("count").and_then(Value::as_u64).unwrap_or(0),
        direct: false,
        last: None,
    });
    deaths.filter(|death| death.queue.is_some()).collect()
}

/// What the broker says in headers of its own, which outlive its list.
fn first_death(message: &Message) -> Option<Trail> {
    Some(Trail {
        teller: Teller::Broker,
        queue: Some(message.header("x-first-death-queue")?.to_owned()),
        exchange: message.header("x-first-death-exchange").map(str::to_owned),
        reason: message.header("x-first-death-reason").map(str::to_owned),
        ..Trail::default()
    })
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(str::to_owned)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let values = value.and_then(Value::as_array).into_iter().flatten();
    let texts = values.filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trail(headers: Value, taken_from: &str) -> Trail {
        let mut message = Message::default();
        message.properties.headers = serde_json::from_value(headers).unwrap();
        Trail::of(&message, taken_from)
    }

    fn death(queue: &str, reason: &str, exchange: &str, keys: &[&str]) -> Value {
        json!({ "count": 1, "queue": queue, "reason": reason, "exchange": exchange,
                "routing-keys": keys })
    }

    #[test]
    fn the_queue_whose_consumer_refused_it_is_found_whatever_died_before_and_after() {
        let refused = death("orders", "rejected", "shop", &["order.new", "cc"]);
        let delayed = death("delay", "expired", "", &["delay"]);
        let parked = death("parked", "expired", "x", &["k"]);
        for (deaths, first, direct) in [
            (json!([refused]), Some("orders"), true),
            (json!([refused, delayed]), Some("delay"), true),
            (json!([refused, delayed]), None, true),
            (json!([delayed, refused]), Some("orders"), false),
            (json!([parked, refused, delayed]), Some("delay"), false),
        ] {
            let mut headers = json!({ "x-death": deaths });
            if let Some(first) = first {
                headers["x-first-death-queue"] = first.into();
                let reason = if first == "delay" {
                    "expired"
                } else {
                    "rejected"
                };
                headers["x-first-death-reason"] = reason.into();
            }
            let trail = trail(headers, "dead");
            assert_eq!(trail.queue.as_deref(), Some("orders"), "{deaths}");
            assert_eq!(trail.exchange.as_deref(), Some("shop"), "{deaths}");
            assert_eq!(trail.keys, ["order.new", "cc"], "{deaths}");
            assert_eq!(
                (trail.teller, trail.direct),
                (Teller::Broker, direct),
                "{deaths}"
            );
        }
    }

    #[test]
    fn of_several_queues_whose_consumers_refused_it_the_first_counts() {
        let deaths = json!([
            death("orders", "rejected", "", &["orders"]),
            death("repair", "rejected", "", &["repair"]),
        ]);
        let first = json!({ "x-death": deaths, "x-first-death-queue": "orders",
                            "x-first-death-reason": "rejected" });
        assert_eq!(trail(first, "dead").queue.as_deref(), Some("orders"));
        let unsaid = json!({ "x-death": deaths });
        assert_eq!(trail(unsaid, "dead").queue.as_deref(), Some("repair"));
    }

    #[test]
    fn without_a_refusal_the_latest_death_counts() {
        let deaths = json!([
            death("orders", "expired", "work", &["o"]),
            death("delay", "expired", "", &["delay"]),
        ]);
        let found = trail(
            json!({ "x-death": deaths, "x-first-death-queue": "delay" }),
            "dead",
        );
        assert_eq!(found.queue.as_deref(), Some("orders"));
        assert!(found.expired());
    }

    #[test]
    fn libraries_name_their_queue_in_headers_of_their_own() {
        for (headers, taken_from, queue) in [
            (
                json!({ "MT-Fault-InputAddress": "rabbitmq://host:5672/v/new%20orders?durable=true" }),
                "x_error",
                "new orders",
            ),
            (
                json!({ "MT-Fault-InputAddress": "rabbitmq://host/orders", "MT-Reason": "fault" }),
                "orders_error",
                "orders",
            ),
            (json!({ "MT-Reason": "fault" }), "orders_error", "orders"),
            (
                json!({ "MT-Reason": "dead-letter" }),
                "orders_skipped",
                "orders",
            ),
            (
                json!({ "rbs2-source-queue": "billing" }),
                "error",
                "billing",
            ),
            (
                json!({ "NServiceBus.FailedQ": "Sales@WEB1" }),
                "error",
                "Sales",
            ),
            (
                json!({ "x-original-exchange": "", "x-original-routingKey": "orders" }),
                "errors",
                "orders",
            ),
        ] {
            let trail = trail(headers.clone(), taken_from);
            assert_eq!(trail.queue.as_deref(), Some(queue), "{headers}");
            assert_eq!(trail.teller, Teller::Library, "{headers}");
        }
        let dlq = death("orders.dlq", "expired", "DLX", &["orders"]);
        let spring = json!({ "x-death": [dlq], "x-original-exchange": "shop",
                             "x-original-routingKey": "order.new" });
        let found = trail(spring, "orders.dlq");
        assert_eq!(found.queue, None);
        assert_eq!(found.exchange.as_deref(), Some("shop"));
        assert_eq!(found.keys, ["order.new"]);
    }

    #[test]
    fn a_replay_that_comes_back_keeps_the_way_by_which_it_came_first() {
        let note = json!({ HEADER_ORIGIN: "orders", HEADER_EXCHANGE: "shop",
                           HEADER_KEYS: ["order.new"] });
        assert_eq!(trail(note.clone(), "dead").keys, ["order.new"]);
        let mut back = note;
        back["x-death"] = json!([death("orders", "rejected", "", &["orders", "order.new"])]);
        let found = trail(back, "dead");
        assert_eq!(
            (found.exchange.as_deref(), found.keys),
            (Some("shop"), vec!["order.new".to_owned()])
        );
    }

    #[test]
    fn what_nobody_understands_says_nothing() {
        for odd in [
            json!({}),
            json!({ "x-death": 1 }),
            json!({ "x-death": [1, {}] }),
            json!({ "MT-Fault-InputAddress": "nowhere" }),
            json!({ "MT-Reason": "fault" }),
            json!({ "rbs2-source-queue": " " }),
            json!({ "x-original-exchange": "shop" }),
        ] {
            assert_eq!(trail(odd.clone(), "dead"), Trail::default(), "{odd}");
        }
    }
}
