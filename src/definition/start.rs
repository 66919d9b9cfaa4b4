//! `start`: how sagas of a definition are started besides by command; and domain events, which
//! also end a `wait`.

use super::draft::{Draft, Place};
use super::expression::references::Extent;
use super::fields::{Fields, wrong_type};
use super::grammar::{EVENT, START};
use super::kinds::{CatchUp, ConflictRule, EventRule, Every, StartRules};
use super::names::check_route;
use super::problem::Rule;
use super::template::{Shape, Template};
use super::yaml::{Content, Yaml};

/// Most kinds of events that start one definition's sagas.
const EVENTS_MAX: usize = 20;
/// Where we publish what becomes of sagas; the one exchange of ours that may be listened to.
const OUR_EVENTS: &str = "backstitch.events";
/// The zone of a schedule that does not name one.
const TIMEZONE_DEFAULT: &str = "UTC";

impl Draft<'_> {
    /// `start`; `key` is the definition's.
    pub fn start(&mut self, fields: &Fields<'_>, key: &Template) -> StartRules {
        let Some(yaml) = fields.get("start") else {
            return StartRules::default();
        };
        let Some(fields) = Fields::of(yaml, "`start`", START, &mut self.findings) else {
            return StartRules::default();
        };
        let conflicts = [
            ("existing", ConflictRule::Existing),
            ("reject", ConflictRule::Reject),
            ("restart", ConflictRule::Restart),
        ];
        let conflict = fields.choice("conflict", &conflicts, &mut self.findings);
        let rules = StartRules {
            on: fields.get("on").map_or_else(Vec::new, |on| self.events(on)),
            every: self.every(&fields),
            conflict: conflict.unwrap_or_default(),
        };
        self.check_key_of_ticks(&fields, &rules, key);
        rules
    }

    /// `on`: one event or several.
    fn events(&mut self, yaml: &Yaml) -> Vec<EventRule> {
        let Content::List(items) = &yaml.content else {
            return self.event(yaml, false).into_iter().collect();
        };
        if items.len() > EVENTS_MAX {
            let message =
                format!("more than {EVENTS_MAX} kinds of events; use `*` and `#` in `routing_key`");
            self.findings.add(yaml.at, Rule::TooLarge, message);
            return Vec::new();
        }
        items
            .iter()
            .filter_map(|item| self.event(item, false))
            .collect()
    }

    /// A domain event. For a wait it must say which saga is meant.
    pub fn event(&mut self, yaml: &Yaml, for_wait: bool) -> Option<EventRule> {
        let fields = Fields::of(yaml, "a domain event", EVENT, &mut self.findings)?;
        let example =
            "on: { exchange: shop, routing_key: order.placed, key: \"${ event.order_id }\" }";
        let exchange = fields.require("exchange", example, &mut self.findings);
        let routing_key = fields.require("routing_key", example, &mut self.findings);
        if for_wait {
            fields.require("key", example, &mut self.findings);
        }
        let key = fields.get("key").and_then(|key| self.event_key(key));
        let with = fields
            .get("with")
            .map(|with| self.template(with, Place::Event));
        exchange.and(routing_key)?;
        let exchange_name = fields.text("exchange", &mut self.findings)?;
        let pattern = fields.text("routing_key", &mut self.findings)?;
        let checked = check_route("an exchange", exchange_name)
            .and_then(|()| refuse_ours(exchange_name))
            .map_err(|why| (exchange, why))
            .and_then(|()| check_route("a routing key", pattern).map_err(|why| (routing_key, why)));
        if let Err((at, why)) = checked {
            let at = at.map_or(fields.at, |yaml| yaml.at);
            self.findings.add(at, Rule::BadName, why);
            return None;
        }
        Some(EventRule {
            exchange: exchange_name.to_owned(),
            routing_key: pattern.to_owned(),
            key,
            with,
        })
    }

    fn event_key(&mut self, yaml: &Yaml) -> Option<Template> {
        if yaml.text().is_none() {
            let expected = "text with an expression, as in `${ event.order_id }`";
            wrong_type(yaml, "key", expected, &mut self.findings);
            return None;
        }
        let problems_before = self.findings.len();
        let key = self.template(yaml, Place::Event);
        if matches!(key.0, Shape::Constant(_)) && self.findings.len() == problems_before {
            let message =
                "the key is the same for every event; use the event, as in `${ event.order_id }`";
            self.findings.add(yaml.at, Rule::Contradiction, message);
        }
        Some(key)
    }

    fn every(&mut self, fields: &Fields<'_>) -> Option<Every> {
        let words = [
            ("all", CatchUp::All),
            ("last", CatchUp::Last),
            ("none", CatchUp::None),
        ];
        let catch_up = fields.choice("catch_up", &words, &mut self.findings);
        let with = fields
            .get("with")
            .map(|with| self.template(with, Place::Tick));
        let timezone = fields.text("timezone", &mut self.findings);
        if fields.get("every").is_none() {
            for name in ["timezone", "catch_up", "with"] {
                if let Some(entry) = fields.entry(name) {
                    let message =
                        format!("`{name}` is about a schedule; add `every: \"0 9 1 * *\"`");
                    self.findings.add(entry.at, Rule::Contradiction, message);
                }
            }
        }
        let every = Every {
            schedule: fields.text("every", &mut self.findings)?.to_owned(),
            timezone: timezone.unwrap_or(TIMEZONE_DEFAULT).to_owned(),
            catch_up: catch_up.unwrap_or_default(),
            with,
        };
        for (field, why) in every.check() {
            let at = fields.get(field).map_or(fields.at, |yaml| yaml.at);
            self.findings.add(at, Rule::BadSchedule, why);
        }
        Some(every)
    }

    /// One saga per key: if all ticks have one key, only the first would start a saga.
    fn check_key_of_ticks(&mut self, fields: &Fields<'_>, rules: &StartRules, key: &Template) {
        let (Some(every), Some(yaml)) = (&rules.every, fields.get("every")) else {
            return;
        };
        if rules.conflict == ConflictRule::Restart {
            return;
        }
        let from_tick: Vec<&str> = match every.with.as_ref().map(|with| &with.0) {
            None => vec!["tick"],
            Some(Shape::Map(entries)) => entries
                .iter()
                .filter(|(_, shape)| !matches!(shape, Shape::Constant(_)))
                .map(|(name, _)| name.as_str())
                .collect(),
            Some(Shape::Constant(_)) => Vec::new(),
            Some(_) => return,
        };
        let differs =
            key.0
                .expressions()
                .iter()
                .any(|expression| match &expression.references().input {
                    Extent::Nothing => false,
                    Extent::Fields(names) => {
                        names.iter().any(|name| from_tick.contains(&name.as_str()))
                    }
                    Extent::Whole => !from_tick.is_empty(),
                });
        let is_read = matches!(key.0, Shape::Expression(_) | Shape::Text(_));
        if is_read && !differs {
            let message = "every tick would have the same key, so only the first would start a saga; use the tick in `key`, as in `key: ${ input.tick }`";
            self.findings.add(yaml.at, Rule::Contradiction, message);
        }
    }
}

/// Our own exchanges carry commands and replies, save the one with life-cycle events.
fn refuse_ours(exchange: &str) -> Result<(), String> {
    let ours = exchange == "backstitch" || exchange.starts_with("backstitch.");
    if !ours || exchange == OUR_EVENTS {
        return Ok(());
    }
    Err(format!(
        "the exchange `{exchange}` belongs to Backstitch; what becomes of sagas is on `{OUR_EVENTS}`"
    ))
}
