//! Domain events: which of them definitions are about, and what each means.
//!
//! One durable queue is bound to every exchange and routing key that a rule names. What comes out of
//! it is matched against all rules again, because a binding outlives the definition it was made for.
//! A message says which exchange it was *published* to, and that need not be one we are bound to: an
//! exchange can be bound to another, or be its alternate. So one whose exchange and key we were never
//! bound to must have come by another way, and is matched by its key alone. If that leaves a choice
//! between definitions, nobody can know; it becomes a dead letter.
//!
//! Rules under `start.on` count in the newest version that is known; rules of a `wait` count in every
//! version, because sagas keep the version they began with.
//!
//! The queue gives its messages to one node at a time, so that a saga that an event starts is there
//! when the next event about it comes. Deliberately absent: keeping events for sagas that are not
//! started yet. Others' events pass by all day, and nobody could say for how long.

mod intake;
mod strays;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use super::catalogue::Known;
use super::decode::{StartRequest, Undecodable, json_body, start_of};
use super::signals::{Addressee, Correlated, SignalRequest, What};
use crate::broker::{Binding, Topology, topic};
use crate::canonical::fingerprint_text;
use crate::definition::{BlockId, BlockKind, Definition, EventRule};
use crate::error::code;
use crate::message::{
    DOMAIN_EVENT_QUEUE, Destination, HEADER_EVENT_EXCHANGE, HEADER_EVENT_FOR, Message,
};
use crate::metric;
use crate::store::SagaKey;

pub(super) use strays::Strays;

/// The rules of all definitions.
#[derive(Debug, Default)]
pub(super) struct EventRules {
    /// By exchange.
    rules: BTreeMap<String, Vec<Rule>>,
    /// Patterns that any version named, by exchange. Their bindings are there, or may still be.
    bound: BTreeMap<String, BTreeSet<String>>,
    /// What they are the rules of.
    known: Arc<Known>,
}

/// A definition's interest in events of one exchange.
#[derive(Debug)]
struct Rule {
    definition: Arc<Definition>,
    place: Place,
}

/// Where in its definition a rule stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Under `start.on`, the how-manieth.
    Start(usize),
    /// In this `wait`.
    Wait(BlockId),
}

/// What an event means here.
#[derive(Debug)]
enum Meant {
    /// This, to these definitions.
    Something(Vec<Meaning>),
    /// Nothing; but it came by a binding that was made for a definition.
    NothingNow,
    /// Nothing, and no binding of ours explains how it came here.
    Stray,
    /// By its exchange nothing; and for what its key alone says, the rules must be complete.
    AskAgain,
}

/// What an event means to one definition.
#[derive(Debug)]
enum Meaning {
    /// It starts a saga.
    Start(StartRequest),
    /// It is a signal to the saga with this key, if there is one.
    Signal(SignalRequest),
    /// It should, and can't.
    Unusable {
        /// The definition; `None` if it is not even known what the event is about.
        by: Option<String>,
        /// Why not.
        wrong: Undecodable,
    },
    /// It may be meant for a definition that only a newer release can read, for this reason.
    Beyond(String),
}

impl Meaning {
    /// What can't be used by anybody.
    fn nothing(wrong: Undecodable) -> Self {
        Self::Unusable { by: None, wrong }
    }

    fn is_unusable(&self) -> bool {
        matches!(self, Self::Unusable { .. })
    }

    /// The definition that it is about.
    fn definition(&self) -> Option<&str> {
        match self {
            Self::Start(request) => Some(&request.definition.name),
            Self::Signal(request) => match &request.to {
                Addressee::Key(key) => Some(&key.name),
                Addressee::Saga(_) => None,
            },
            Self::Unusable { by, .. } => by.as_deref(),
            Self::Beyond(_) => None,
        }
    }
}

impl EventRules {
    pub(super) fn of(known: Arc<Known>) -> Self {
        let mut rules = Self::default();
        for definition in known.newest_of_all() {
            for position in 0..definition.start.on.len() {
                rules.add(definition, Place::Start(position));
            }
        }
        for definition in known.all_versions() {
            rules.add_waits(definition);
        }
        Self { known, ..rules }
    }

    /// Whether nothing was learned since.
    pub(super) fn are_of(&self, known: &Arc<Known>) -> bool {
        Arc::ptr_eq(&self.known, known)
    }

    /// The sagas that hear of events by an exchange, and by this pattern if one is given.
    pub(super) fn listeners(&self, exchange: &str, routing_key: Option<&str>) -> BTreeSet<&str> {
        let rules = self.rules.get(exchange).into_iter().flatten();
        rules
            .filter(|rule| {
                let event = rule.event();
                routing_key.is_none_or(|key| event.is_some_and(|event| event.routing_key == key))
            })
            .map(|rule| rule.definition.name.as_str())
            .collect()
    }

    fn add_waits(&mut self, definition: &Arc<Definition>) {
        for event in definition.events() {
            let patterns = self.bound.entry(event.exchange.clone()).or_default();
            patterns.insert(event.routing_key.clone());
        }
        for (block, _) in waits(definition) {
            self.add(definition, Place::Wait(block));
        }
    }

    fn add(&mut self, definition: &Arc<Definition>, place: Place) {
        let rule = Rule {
            definition: Arc::clone(definition),
            place,
        };
        if let Some(event) = rule.event() {
            let exchange = event.exchange.clone();
            self.rules.entry(exchange).or_default().push(rule);
        }
    }

    /// What an event that was published to `route` means. `complete` if the rules are known to be
    /// those of all definitions that are stored.
    ///
    /// # Errors
    /// If it means something, but can't be read, or nobody can tell what.
    fn meanings(
        &self,
        message: &Message,
        route: &Destination,
        complete: bool,
    ) -> Result<Meant, Undecodable> {
        let key = &route.routing_key;
        let mut matching = matching(self.rules.get(&route.exchange), key);
        let only = message.header(HEADER_EVENT_FOR);
        if matching.is_empty() {
            let is_bound = self.is_bound(route);
            if is_bound && only.is_none() {
                return Ok(Meant::NothingNow);
            }
            if !complete {
                return Ok(Meant::AskAgain);
            }
            if !is_bound {
                matching = self.matching_by_key(route)?;
            }
        }
        if let Some(name) = only {
            matching.retain(|(rule, _)| rule.definition.name == name);
            if matching.is_empty() && complete {
                return Err(for_another(name));
            }
            if matching.is_empty() {
                return Ok(Meant::AskAgain);
            }
        }
        if matching.is_empty() {
            return Ok(Meant::Stray);
        }
        let event = Arc::new(json_body(message)?);
        let id = id_of(message, route, &event);
        let mut meanings = Vec::with_capacity(matching.len());
        // A definition may name the same event twice; it starts one saga, and is one signal.
        let mut meant = BTreeSet::new();
        for (rule, about) in matching {
            let Some(meaning) = rule.meaning(about, &event, &id) else {
                metric::event_ignored("no_key");
                continue;
            };
            if meant.insert((
                &rule.definition.name,
                rule.definition.version,
                rule.signal(),
            )) {
                meanings.push(meaning);
            }
        }
        Ok(Meant::Something(meanings))
    }

    /// Whether an event came by a binding that was made for a definition.
    fn is_bound(&self, route: &Destination) -> bool {
        let patterns = self.bound.get(&route.exchange).into_iter().flatten();
        let mut patterns = patterns;
        patterns.any(|pattern| topic::matches(pattern, &route.routing_key))
    }

    /// The rules about an event that came by another exchange than it was published to.
    fn matching_by_key(
        &self,
        route: &Destination,
    ) -> Result<Vec<(&Rule, &EventRule)>, Undecodable> {
        let found: Vec<(&Rule, &EventRule)> = self
            .rules
            .values()
            .flat_map(|rules| matching(Some(rules), &route.routing_key))
            .collect();
        let ways: BTreeSet<&str> = found
            .iter()
            .map(|(_, event)| event.exchange.as_str())
            .collect();
        let meant: BTreeSet<_> = found
            .iter()
            .map(|(rule, _)| (&rule.definition.name, rule.signal()))
            .collect();
        if ways.len() < 2 || meant.len() < 2 {
            return Ok(found);
        }
        let ways: Vec<String> = ways.iter().map(|way| format!("`{way}`")).collect();
        Err(Undecodable::new(
            code::EVENT_AMBIGUOUS,
            format!(
                "the event was published to {route}, to which nothing here is bound; by its key it may have come by {}, which mean different things. Name exchange `{}` in the definition that it is for; or say in the header `{HEADER_EVENT_EXCHANGE}` of this letter by which it came, and replay it",
                ways.join(" or "),
                route.exchange
            ),
        ))
    }
}

/// Why an event that is for one definition alone can't be used.
fn for_another(name: &str) -> Undecodable {
    let why = format!(
        "its header `{HEADER_EVENT_FOR}` says that it is for `{name}`, which is about no such event (any more); without that header it is for whoever it concerns"
    );
    Undecodable::new(code::EVENT_UNUSABLE, why)
}

/// Rules about events with this key.
fn matching<'r>(rules: Option<&'r Vec<Rule>>, key: &str) -> Vec<(&'r Rule, &'r EventRule)> {
    let rules = rules.into_iter().flatten();
    rules
        .filter_map(|rule| Some((rule, rule.event()?)))
        .filter(|(_, event)| topic::matches(&event.routing_key, key))
        .collect()
}

impl Rule {
    fn event(&self) -> Option<&EventRule> {
        match self.place {
            Place::Start(position) => self.definition.start.on.get(position),
            Place::Wait(block) => match &self.definition.block(block).kind {
                BlockKind::Wait(wait) => wait.on.as_ref(),
                _ => None,
            },
        }
    }

    /// The signal that an event is; `None` for a rule that starts.
    fn signal(&self) -> Option<&str> {
        match self.place {
            Place::Start(_) => None,
            Place::Wait(block) => match &self.definition.block(block).kind {
                BlockKind::Wait(wait) => Some(&wait.signal),
                _ => None,
            },
        }
    }

    /// What an event means here; `None` if it is about no saga that could be waiting.
    fn meaning(&self, rule: &EventRule, event: &Arc<Value>, id: &str) -> Option<Meaning> {
        match self.place {
            Place::Start(_) => Some(self.start(rule, event, id)),
            Place::Wait(block) => {
                let key = rule.key_of(event).ok().flatten()?;
                let name = self.definition.name.clone();
                Some(Meaning::Signal(SignalRequest {
                    to: Addressee::Key(SagaKey { name, key }),
                    what: What::Event(Correlated {
                        definition: Arc::clone(&self.definition),
                        block,
                        event: Arc::clone(event),
                        id: id.to_owned(),
                    }),
                    sender: None,
                    // The one who has the delivery knows.
                    by_content: false,
                    uncertain: AtomicBool::default(),
                }))
            }
        }
    }

    fn start(&self, rule: &EventRule, event: &Value, id: &str) -> Meaning {
        let name = &self.definition.name;
        let unusable = |why: String| {
            let why = format!("the event should start `{name}`, but {why}");
            Meaning::Unusable {
                by: Some(name.clone()),
                wrong: Undecodable::new(code::EVENT_UNUSABLE, why),
            }
        };
        let key = match rule.key_of(event) {
            Ok(key) => key,
            Err(error) => return unusable(format!("its `key` fails: {error}")),
        };
        let input = match rule.content_of(event) {
            Ok(input) => input,
            Err(error) => return unusable(format!("its `with` fails: {error}")),
        };
        match start_of(&self.definition, input, key, None) {
            Ok(request) => Meaning::Start(StartRequest {
                id: Some(id.to_owned()),
                ..request
            }),
            Err(wrong) => unusable(wrong.reason),
        }
    }
}

/// The exchanges and the bindings that definitions need: for starts those of the newest that are
/// known, for waits those of every version, for a saga keeps its own.
pub(super) fn topology(known: &Known) -> Topology {
    let starts = known.newest_of_all().flat_map(|it| &it.start.on);
    let waits = known
        .all_versions()
        .flat_map(|it| waits(it).map(|(_, event)| event));
    let routes: BTreeSet<(&String, &String)> = starts
        .chain(waits)
        .map(|event| (&event.exchange, &event.routing_key))
        .collect();
    let exchanges: BTreeSet<&String> = routes.iter().map(|(exchange, _)| *exchange).collect();
    Topology {
        topic_exchanges: exchanges.into_iter().cloned().collect(),
        bindings: routes
            .into_iter()
            .map(|(exchange, routing_key)| Binding {
                exchange: exchange.clone(),
                queue: DOMAIN_EVENT_QUEUE.to_owned(),
                routing_key: routing_key.clone(),
            })
            .collect(),
        ..Topology::default()
    }
}

fn waits(definition: &Definition) -> impl Iterator<Item = (BlockId, &EventRule)> {
    definition
        .blocks
        .iter()
        .filter_map(|node| match &node.kind {
            BlockKind::Wait(wait) => Some((node.id, wait.on.as_ref()?)),
            _ => None,
        })
}

/// What an event is deduplicated by: its id, or what it is and says.
fn id_of(message: &Message, route: &Destination, event: &Value) -> String {
    let id = message.properties.message_id.as_deref();
    match id.filter(|id| !id.is_empty()) {
        Some(id) => id.to_owned(),
        None => {
            let whole = json!([route.exchange, route.routing_key, event]);
            format!("hash:{}", fingerprint_text(&whole))
        }
    }
}

#[cfg(test)]
mod tests;
