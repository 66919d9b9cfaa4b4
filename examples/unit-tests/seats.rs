//! How a team tests its own aggregates and projections: *given* events, *when* a command comes,
//! *then* these events follow. No database, no broker, no clock: aggregates and projections are
//! functions. Run it with `cargo test --example seats`.

use backstitch::id::Timestamp;
use backstitch::participant::{Aggregate, Command, CommandSpec, Rejection};
use backstitch::projection::{Key, Projection, Recorded};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The seats of a concert.
pub struct Seats;

/// How many are left, and who has one.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    left: u64,
    buyers: Vec<String>,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Seats can be bought.
    Opened {
        /// How many.
        seats: u64,
    },
    /// One was bought.
    Taken {
        /// By whom.
        buyer: String,
    },
}

impl Aggregate for Seats {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "seats";
    const COMMANDS: &'static [CommandSpec] = &[CommandSpec::new("seats.take")];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        let concert = command.payload["concert"].as_str();
        concert
            .map(str::to_owned)
            .ok_or_else(|| Rejection::new("`concert` must be text"))
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let buyer = command.payload["buyer"].as_str().unwrap_or_default();
        if state.buyers.iter().any(|known| known == buyer) {
            return Ok((Vec::new(), json!({ "seat": "yours already" })));
        }
        if state.left == 0 {
            return Err(Rejection::new("sold out"));
        }
        let buyer = buyer.to_owned();
        Ok((vec![Event::Taken { buyer }], json!({ "seat": "yours" })))
    }

    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Opened { seats } => state.left += seats,
            Event::Taken { buyer } => {
                state.left -= 1;
                state.buyers.push(buyer.clone());
            }
        }
    }
}

/// How many seats a buyer has, in all concerts.
pub struct SeatsOfBuyer;

impl Projection for SeatsOfBuyer {
    type Document = u64;

    const NAME: &'static str = "seats-of-buyer";
    const KINDS: &'static [&'static str] = &[Seats::KIND];
    const KEY: Key = Key::Event(|event| Some(event.text("buyer")?.to_owned()));

    fn apply(seats: &mut u64, event: &Recorded<'_>) {
        if let Some(Event::Taken { .. }) = event.of::<Seats>() {
            *seats += 1;
        }
    }
}

fn main() {
    println!("This example is its tests: cargo test --example seats");
}

/// An aggregate to which something has happened, and what came of a command to it.
struct Given<A: Aggregate> {
    state: A::State,
    result: Option<Result<Vec<A::Event>, Rejection>>,
}

#[cfg_attr(not(test), expect(dead_code, reason = "the tests use it"))]
fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut state = A::State::default();
    for event in events {
        A::apply(&mut state, &event);
    }
    Given {
        state,
        result: None,
    }
}

#[cfg_attr(not(test), expect(dead_code, reason = "the tests use it"))]
impl<A: Aggregate> Given<A>
where
    A::Event: PartialEq + std::fmt::Debug,
{
    fn when(mut self, name: &str, payload: Value) -> Self {
        let command = Command::example(name, payload);
        let handled = A::handle(&self.state, &command, Timestamp::default());
        self.result = Some(handled.map(|(events, _)| events));
        self
    }

    fn then(self, events: impl IntoIterator<Item = A::Event>) {
        let expected: Vec<A::Event> = events.into_iter().collect();
        assert_eq!(self.result.expect("`when` comes first"), Ok(expected));
    }

    fn then_rejected(self, why: &str) {
        let rejection = self.result.expect("`when` comes first").unwrap_err();
        assert_eq!(rejection.0, why);
    }
}

#[cfg(test)]
mod tests {
    use backstitch::projection::{example, fold};

    use super::*;

    fn taken(buyer: &str) -> Event {
        Event::Taken {
            buyer: buyer.to_owned(),
        }
    }

    #[test]
    fn the_last_seat_is_sold_once() {
        let take = || json!({ "concert": "c", "buyer": "bob" });
        given::<Seats>([Event::Opened { seats: 2 }, taken("ann")])
            .when("seats.take", take())
            .then([taken("bob")]);
        given::<Seats>([Event::Opened { seats: 1 }, taken("ann")])
            .when("seats.take", take())
            .then_rejected("sold out");
    }

    #[test]
    fn who_has_a_seat_gets_no_second_one() {
        given::<Seats>([Event::Opened { seats: 2 }, taken("ann")])
            .when("seats.take", json!({ "concert": "c", "buyer": "ann" }))
            .then([]);
    }

    #[test]
    fn a_buyers_seats_are_counted_over_all_concerts() {
        let events = [
            example::<Seats>("rock", 1, &Event::Opened { seats: 9 }),
            example::<Seats>("rock", 2, &taken("ann")),
            example::<Seats>("jazz", 1, &taken("ann")),
        ];
        assert_eq!(fold::<SeatsOfBuyer>(&events), 2);
    }
}
