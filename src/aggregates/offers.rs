//! An offer that expires by itself, with prices that change at times set before.
//!
//! When it is made it asks for a command to itself at the time it expires. The command is a reminder:
//! an offer is over at its time whether or not that has come, and one that comes for an offer which was
//! accepted changes nothing. A price counts from its `valid_from`, so the same events tell what the
//! price was, is, and will be, as far as that was known at any time.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::payload::{id_field, not_handled, payload};
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, FollowUp, Rejection};

const MAKE: &str = "offers.make";
const WITHDRAW: &str = "offers.withdraw";
const REPRICE: &str = "offers.reprice";
const ACCEPT: &str = "offers.accept";
const TAKE_BACK: &str = "offers.take-back";
const EXPIRE: &str = "offers.expire";

/// Most prices that are set for later.
const PRICES_MAX: usize = 100;

/// The aggregate; its id is the `offer`.
pub struct Offers;

impl Offers {
    /// The participant's name.
    pub const NAME: &str = "offers";
}

/// Where an offer stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Never made.
    #[default]
    New,
    /// It can be accepted.
    Open,
    /// It was accepted.
    Accepted,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Withdrawn,
}

/// What is known of an offer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it stands.
    pub status: Status,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Prices in cents and since when they count, the earliest first.
    pub prices: Vec<(Timestamp, u64)>,
}

impl State {
    /// The price at a time.
    pub fn price_at(&self, now: Timestamp) -> u64 {
        let valid = self.prices.iter().take_while(|(since, _)| *since <= now);
        valid.last().map_or(0, |(_, price)| *price)
    }

    fn is_open(&self, now: Timestamp) -> bool {
        self.status == Status::Open && now < self.expires_at
    }
}

/// What can happen to an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It was made.
    Made {
        /// Which offer.
        offer: String,
        /// When.
        at: Timestamp,
        /// In cents.
        price: u64,
        /// When it expires.
        expires_at: Timestamp,
    },
    /// It has another price from a time on.
    Repriced {
        /// In cents.
        price: u64,
        /// Since when.
        valid_from: Timestamp,
    },
    /// It was accepted.
    Accepted {
        /// At this price.
        price: u64,
    },
    /// Whoever had accepted it takes that back.
    Reopened,
    /// Its time is over.
    Expired {
        /// Since when.
        at: Timestamp,
    },
    /// It was taken back.
    Withdrawn,
}

#[derive(Deserialize)]
struct Making {
    price: u64,
    expires_at: String,
}

#[derive(Deserialize)]
struct Repricing {
    price: u64,
    valid_from: String,
}

impl Aggregate for Offers {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "offers";
    const COMMANDS: &'static [CommandSpec] = &[
        CommandSpec::new(MAKE),
        CommandSpec::new(WITHDRAW),
        CommandSpec::standalone(REPRICE),
        CommandSpec::new(ACCEPT),
        CommandSpec::new(TAKE_BACK),
        CommandSpec::new(EXPIRE),
    ];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "offer")
    }

    fn handle(
        state: &State,
        command: &Command,
        now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let offer = Self::id_of(command)?;
        let closed = || Rejection::new(format!("offer `{offer}` is not open"));
        let events = match command.name.as_str() {
            MAKE if state.status == Status::New => vec![made(&offer, command, now)?],
            MAKE => return Err(Rejection::new(format!("offer `{offer}` was made before"))),
            WITHDRAW if state.status == Status::Open => vec![Event::Withdrawn],
            TAKE_BACK if state.status != Status::Accepted => Vec::new(),
            TAKE_BACK if now < state.expires_at => vec![Event::Reopened],
            // It may come for what was never made, and the reminder for what is over.
            WITHDRAW | EXPIRE if state.status != Status::Open => Vec::new(),
            EXPIRE if state.is_open(now) => {
                return Err(Rejection::new(format!("offer `{offer}` is still open")));
            }
            // When an acceptance is taken back the reminder may have come and gone.
            EXPIRE | TAKE_BACK => vec![Event::Expired {
                at: state.expires_at,
            }],
            _ if !state.is_open(now) => return Err(closed()),
            REPRICE => vec![repriced(state, command, now)?],
            ACCEPT => vec![Event::Accepted {
                price: state.price_at(now),
            }],
            _ => return Err(not_handled(command)),
        };
        let mut reply = json!({ "offer": offer });
        if let [Event::Accepted { price }] = events[..] {
            reply["price"] = price.into();
        }
        Ok((events, reply))
    }

    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::Made {
                at,
                price,
                expires_at,
                ..
            } => {
                state.status = Status::Open;
                state.expires_at = *expires_at;
                state.prices = vec![(*at, *price)];
            }
            Event::Repriced { price, valid_from } => {
                let after = state
                    .prices
                    .partition_point(|(since, _)| since <= valid_from);
                state.prices.insert(after, (*valid_from, *price));
            }
            Event::Accepted { .. } => state.status = Status::Accepted,
            Event::Reopened => state.status = Status::Open,
            Event::Expired { .. } => state.status = Status::Expired,
            Event::Withdrawn => state.status = Status::Withdrawn,
        }
    }

    fn valid_from(event: &Event) -> Option<Timestamp> {
        match event {
            Event::Repriced { valid_from, .. } => Some(*valid_from),
            Event::Expired { at } => Some(*at),
            _ => None,
        }
    }

    fn follow_up(event: &Event) -> Option<FollowUp> {
        match event {
            Event::Made {
                offer, expires_at, ..
            } => Some(FollowUp {
                command: EXPIRE,
                payload: json!({ "offer": offer }),
                at: *expires_at,
            }),
            _ => None,
        }
    }
}

fn made(offer: &str, command: &Command, now: Timestamp) -> Result<Event, Rejection> {
    let Making { price, expires_at } = payload(command)?;
    let expires_at = time("expires_at", &expires_at)?;
    if expires_at <= now {
        return Err(Rejection::new("an offer must expire later than now"));
    }
    Ok(Event::Made {
        offer: offer.to_owned(),
        at: now,
        price,
        expires_at,
    })
}

fn repriced(state: &State, command: &Command, now: Timestamp) -> Result<Event, Rejection> {
    let Repricing { price, valid_from } = payload(command)?;
    let valid_from = time("valid_from", &valid_from)?;
    if valid_from < now {
        return Err(Rejection::new(
            "a price can't be changed for times that are over",
        ));
    }
    if state.prices.len() >= PRICES_MAX {
        return Err(Rejection::new(format!(
            "an offer has at most {PRICES_MAX} prices"
        )));
    }
    Ok(Event::Repriced { price, valid_from })
}

fn time(field: &str, text: &str) -> Result<Timestamp, Rejection> {
    text.parse().map_err(|_| {
        Rejection::new(format!(
            "`{field}` must be a time, as in 2026-11-01T00:00:00Z, not `{text}`"
        ))
    })
}

#[cfg(test)]
#[path = "offers_tests.rs"]
mod tests;
