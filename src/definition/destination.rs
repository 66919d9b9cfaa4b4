//! Commands and where they are sent.

use super::draft::Draft;
use super::fields::{Fields, wrong_type};
use super::grammar::TO;
use super::kinds::Call;
use super::names::{check_exchange, check_queue, check_route, participant};
use super::problem::Rule;
use super::yaml::{Content, Yaml};
use crate::message::Destination;

impl Draft<'_> {
    /// The command of a phase, and where it goes: to `to`, else to the participant's queue.
    pub fn command(
        &mut self,
        fields: &Fields<'_>,
        phase: &str,
        to: Option<&Destination>,
    ) -> Option<Call> {
        let command = fields.text(phase, &mut self.findings)?;
        let at = fields.get(phase).map_or(fields.at, |yaml| yaml.at);
        let queue = match participant(command) {
            Ok(queue) => queue,
            Err(why) => {
                self.findings.add(at, Rule::BadName, why);
                return None;
            }
        };
        if to.is_none()
            && let Err(why) = check_queue(queue)
        {
            self.findings.add(at, Rule::BadName, why);
            return None;
        }
        Some(Call {
            command: command.to_owned(),
            to: to.cloned().unwrap_or_else(|| Destination::queue(queue)),
        })
    }

    /// `to`: a queue's name, or an exchange and a routing key.
    pub fn destination(&mut self, yaml: &Yaml) -> Option<Destination> {
        if let Some(queue) = yaml.text() {
            if let Err(why) = check_queue(queue) {
                self.findings.add(yaml.at, Rule::BadName, why);
                return None;
            }
            return Some(Destination::queue(queue));
        }
        if !matches!(yaml.content, Content::Map(_)) {
            let expected = "a queue's name or `{ exchange: …, routing_key: … }`";
            wrong_type(yaml, "to", expected, &mut self.findings);
            return None;
        }
        let fields = Fields::of(yaml, "`to`", TO, &mut self.findings)?;
        let example = "to: { exchange: billing, routing_key: invoices }";
        let exchange = fields.require("exchange", example, &mut self.findings);
        let routing_key = fields.require("routing_key", example, &mut self.findings);
        exchange.and(routing_key)?;
        let exchange = fields.text("exchange", &mut self.findings)?;
        let routing_key = fields.text("routing_key", &mut self.findings)?;
        let checked = check_exchange(exchange).and_then(|()| {
            if exchange.is_empty() {
                check_queue(routing_key)
            } else {
                check_route("a routing key", routing_key)
            }
        });
        if let Err(why) = checked {
            self.findings.add(yaml.at, Rule::BadName, why);
            return None;
        }
        Some(Destination {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
        })
    }
}
