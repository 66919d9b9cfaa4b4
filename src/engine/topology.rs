//! The queues and exchanges that a node needs, and what it means if one can't be had.
//!
//! Without its own, a node is not ready. An exchange that a definition names may be somebody else's:
//! if it can't be had, that is the trouble of that definition alone, and all other sagas run.

use std::collections::BTreeSet;

use super::events::EventRules;
use crate::broker::{Binding, Queue, Topology, Trouble, TroubleAbout};
use crate::error::code;
use crate::message::{
    DEAD_LETTER_QUEUE, DOMAIN_EVENT_QUEUE, DOORS, EVENT_EXCHANGE, REPLY_QUEUE, SIGNAL_QUEUE,
    START_QUEUE,
};

/// A queue, exchange or binding that can't be had, and who is without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyTrouble {
    /// The name of the exchange, or of the queue.
    pub name: String,
    /// Whether it is the node's own, so that it is not ready.
    pub is_ours: bool,
    /// For people.
    pub text: String,
}

impl TopologyTrouble {
    pub(super) fn of(trouble: &Trouble, rules: &EventRules) -> Self {
        let Trouble { about, why } = trouble;
        let (exchange, key) = match about {
            TroubleAbout::Queue(name) => {
                return Self {
                    name: name.clone(),
                    is_ours: true,
                    text: format!("{}: {about}: {why}", code::TOPOLOGY_TROUBLE),
                };
            }
            TroubleAbout::Exchange(exchange) => (exchange, None),
            TroubleAbout::Binding(binding) => {
                (&binding.exchange, Some(binding.routing_key.as_str()))
            }
        };
        let is_ours = *about == TroubleAbout::Exchange(EVENT_EXCHANGE.to_owned());
        let mut effects = Vec::new();
        if is_ours {
            effects.push("events wait in the outbox until it can be had".to_owned());
        }
        if DOORS.contains(&exchange.as_str()) {
            effects.push("who publishes by it instead of to the queue is not heard".to_owned());
        }
        let listeners = rules.listeners(exchange, key);
        if !listeners.is_empty() {
            effects.push(format!("{} no events of it", hear(&listeners)));
        }
        Self {
            name: exchange.clone(),
            is_ours,
            text: format!("{}: {why}; {}", code::TOPOLOGY_TROUBLE, effects.join("; ")),
        }
    }
}

fn hear(sagas: &BTreeSet<&str>) -> String {
    let names: Vec<String> = sagas.iter().map(|name| format!("`{name}`")).collect();
    match &names[..] {
        [one] => format!("saga {one} hears"),
        _ => format!("sagas {} hear", names.join(", ")),
    }
}

/// What this side needs. Participants declare their own queues: a command that no queue takes is
/// found out and counts as a failed attempt.
pub(super) fn topology() -> Topology {
    let own = |name: &str| Queue {
        name: name.to_owned(),
        dead_letter_to: Some(DEAD_LETTER_QUEUE.to_owned()),
    };
    let queues = vec![
        Queue {
            name: DEAD_LETTER_QUEUE.to_owned(),
            dead_letter_to: None,
        },
        own(START_QUEUE),
        own(REPLY_QUEUE),
        own(SIGNAL_QUEUE),
    ];
    Topology {
        queues,
        queues_in_order: vec![own(DOMAIN_EVENT_QUEUE)],
        topic_exchanges: [EVENT_EXCHANGE]
            .iter()
            .chain(&DOORS)
            .map(|name| (*name).to_owned())
            .collect(),
        bindings: DOORS.iter().map(|name| door(name)).collect(),
    }
}

/// By the exchange of a queue's name, whatever the routing key.
fn door(name: &str) -> Binding {
    Binding {
        exchange: name.to_owned(),
        queue: name.to_owned(),
        routing_key: "#".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::catalogue::Catalogue;

    fn told(about: TroubleAbout) -> TopologyTrouble {
        let catalogue = Catalogue::default();
        for name in ["bill", "pack"] {
            let source = format!(
                "saga: {name}\nversion: 1\nkey: ${{ input.id }}\nstart:\n  on: {{ exchange: shop, routing_key: {name}.it }}\nsteps:\n  - step: x\n    confirm: x.y\n"
            );
            let definition = crate::definition::parse(&source, "x.yaml").unwrap();
            catalogue.offer(definition.into());
        }
        let trouble = Trouble {
            about,
            why: "no".to_owned(),
        };
        TopologyTrouble::of(&trouble, &EventRules::of(catalogue.known()))
    }

    #[test]
    fn a_trouble_says_whose_it_is() {
        let shop = told(TroubleAbout::Exchange("shop".to_owned()));
        assert!(!shop.is_ours);
        assert_eq!(
            shop.text,
            "BST-0076: no; sagas `bill`, `pack` hear no events of it"
        );
        let one = told(TroubleAbout::Binding(Binding {
            exchange: "shop".to_owned(),
            queue: DOMAIN_EVENT_QUEUE.to_owned(),
            routing_key: "pack.it".to_owned(),
        }));
        assert_eq!(one.text, "BST-0076: no; saga `pack` hears no events of it");
        let ours = told(TroubleAbout::Exchange(EVENT_EXCHANGE.to_owned()));
        assert!(
            ours.is_ours && ours.text.contains("wait in the outbox"),
            "{ours:?}"
        );
        assert!(told(TroubleAbout::Queue(START_QUEUE.to_owned())).is_ours);
    }
}
