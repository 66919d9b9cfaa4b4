//! What a queue was declared with, found out by asking for it otherwise.
//!
//! AMQP has no question for a queue's arguments. But whoever declares a queue that exists with other
//! arguments is told, in the error, what the first one that differs is. So the queue is declared with
//! what is known so far, again and again, until nothing differs.
//!
//! Invariant: this never creates a queue. It is looked at passively first, and each declaration has an
//! argument that no queue can be created with. Deliberately absent: what a policy sets; nobody is told.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

use super::link::{Failure, Link, Live, REQUEST_TIME_MAX, within};
use super::topology::{self, PRECONDITION_FAILED};
use crate::broker::{BrokerError, QueueArguments, QueueFacts};

/// Most arguments that are found out: more than a queue can have.
const ARGUMENTS_MAX: usize = 32;
/// No queue can be created with this priority, so a queue that has just gone stays gone. A quorum queue
/// has none, and does not compare it; a classic one does, after those that matter here.
const IMPOSSIBLE: (&str, i64) = ("x-max-priority", -1);

/// See [`Broker::queue_facts`](crate::broker::Broker::queue_facts).
pub(super) async fn queue_facts(
    link: &Link,
    live: &Live,
    queue: &str,
) -> Result<Option<QueueFacts>, BrokerError> {
    let Some(counts) = topology::queue_counts(link, live, queue).await? else {
        return Ok(None);
    };
    Ok(Some(QueueFacts {
        arguments: arguments(link, live, queue).await,
        ..counts
    }))
}

/// `None` if the server does not say: we may not configure the queue, or it has gone.
async fn arguments(link: &Link, live: &Live, queue: &str) -> Option<QueueArguments> {
    let mut options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let mut known = FieldTable::default();
    known.insert(IMPOSSIBLE.0.into(), AMQPValue::LongLongInt(IMPOSSIBLE.1));
    for _ in 0..ARGUMENTS_MAX {
        let channel = live.channel(link).await.ok()?;
        let name = topology::name(queue).ok()?;
        let declared = channel.queue_declare(name, options, known.clone());
        let Err(failure) = within(REQUEST_TIME_MAX, declared).await else {
            topology::close(&channel).await;
            return Some(read(&known));
        };
        match difference(&failure)? {
            Difference::Durable => options.durable = false,
            Difference::AutoDelete => options.auto_delete = true,
            Difference::Argument(name, _) if name == IMPOSSIBLE.0 => return Some(read(&known)),
            Difference::Argument(name, value) => {
                known.insert(name.into(), value);
            }
        }
    }
    None
}

/// What the server says differs.
#[derive(Debug, PartialEq)]
enum Difference {
    Durable,
    AutoDelete,
    Argument(String, AMQPValue),
}

fn difference(failure: &Failure) -> Option<Difference> {
    let Failure::Library(error) = failure else {
        return None;
    };
    let lapin::ErrorKind::ProtocolError(error) = error.kind() else {
        return None;
    };
    if error.get_id() != PRECONDITION_FAILED {
        return None;
    }
    parse(error.get_message().as_str())
}

/// `… inequivalent arg 'NAME' for queue 'Q' in vhost 'V': received … but current is the value 'VALUE'
/// of type 'TYPE'`.
fn parse(text: &str) -> Option<Difference> {
    let (_, rest) = text.split_once("inequivalent arg '")?;
    let (name, rest) = rest.split_once('\'')?;
    match name {
        "durable" => return Some(Difference::Durable),
        "auto_delete" => return Some(Difference::AutoDelete),
        _ => {}
    }
    let (_, current) = rest.rsplit_once(" but current is ")?;
    if name == IMPOSSIBLE.0 {
        return Some(Difference::Argument(name.to_owned(), AMQPValue::Void));
    }
    let current = current.strip_prefix("the value '")?;
    let (value, kind) = current.rsplit_once("' of type '")?;
    let value = match kind.trim_end_matches('\'') {
        "longstr" => AMQPValue::LongString(value.into()),
        "bool" => AMQPValue::Boolean(value == "true"),
        _ => AMQPValue::LongLongInt(value.parse().ok()?),
    };
    Some(Difference::Argument(name.to_owned(), value))
}

fn read(known: &FieldTable) -> QueueArguments {
    let argument = |name: &str| known.inner().get(name);
    let text = |name: &str| match argument(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        _ => None,
    };
    let limit = match argument("x-delivery-limit") {
        Some(AMQPValue::LongLongInt(limit)) => u64::try_from(*limit).ok(),
        _ => None,
    };
    QueueArguments {
        dead_letter_exchange: text("x-dead-letter-exchange"),
        dead_letter_routing_key: text("x-dead-letter-routing-key"),
        delivery_limit: limit,
        counts_deliveries: text("x-queue-type").as_deref() == Some("quorum"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_understood() {
        let words = |name: &str, current: &str| {
            format!(
                "PRECONDITION_FAILED - inequivalent arg '{name}' for queue 'it's' in vhost '/': received none but current is {current}"
            )
        };
        let argument = |name: &str, value| Some(Difference::Argument(name.to_owned(), value));
        for (name, current, expected) in [
            ("durable", "'false'", Some(Difference::Durable)),
            ("auto_delete", "'true'", Some(Difference::AutoDelete)),
            (
                "x-dead-letter-exchange",
                "the value 'it's' of type 'longstr'",
                argument(
                    "x-dead-letter-exchange",
                    AMQPValue::LongString("it's".into()),
                ),
            ),
            (
                "x-delivery-limit",
                "the value '3' of type 'signedint'",
                argument("x-delivery-limit", AMQPValue::LongLongInt(3)),
            ),
            (
                "x-single-active-consumer",
                "the value 'true' of type 'bool'",
                argument("x-single-active-consumer", AMQPValue::Boolean(true)),
            ),
            (
                "x-max-priority",
                "none",
                argument("x-max-priority", AMQPValue::Void),
            ),
            ("x-expires", "none", None),
        ] {
            assert_eq!(parse(&words(name, current)), expected, "{name}");
        }
        assert_eq!(parse("invalid arg 'x-max-priority' for queue 'q'"), None);
    }
}
