//! What one tenant may have, of three things at once: users, projects, storage.
//!
//! Always, for each of the three: `used + reserved <= limit`, unless somebody lowered the limit
//! below what was in use; then nothing more is given until enough was given back. One command
//! reserves all three or none: two commands would let two sagas each get half and both fail.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::payload::{id_field, not_handled, payload};
use super::reservation::ReservationKey;
use crate::id::Timestamp;
use crate::participant::{Aggregate, Command, CommandSpec, Rejection};

const RESERVE: &str = "quotas.reserve";
const CONFIRM: &str = "quotas.confirm";
const RELEASE: &str = "quotas.release";
const SET_LIMITS: &str = "quotas.set-limits";
const GIVE_BACK: &str = "quotas.give-back";

/// The aggregate; its id is the `tenant`.
pub struct Quotas;

impl Quotas {
    /// The participant's name.
    pub const NAME: &str = "quotas";
}

/// So many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// People who may log in.
    #[serde(default)]
    pub users: u64,
    /// Projects.
    #[serde(default)]
    pub projects: u64,
    /// Storage, in megabytes.
    #[serde(default)]
    pub storage_mb: u64,
}

impl Amounts {
    /// Each of the three of both; `None` for the whole if it is `None` for one.
    fn each(self, other: Self, of: impl Fn(u64, u64) -> Option<u64>) -> Option<Self> {
        Some(Self {
            users: of(self.users, other.users)?,
            projects: of(self.projects, other.projects)?,
            storage_mb: of(self.storage_mb, other.storage_mb)?,
        })
    }

    fn plus(self, other: Self) -> Self {
        let sum = self.each(other, |a, b| Some(a.saturating_add(b)));
        sum.unwrap_or(self)
    }

    fn minus(self, other: Self) -> Self {
        let rest = self.each(other, |a, b| Some(a.saturating_sub(b)));
        rest.unwrap_or(self)
    }

    fn named(self) -> [(&'static str, u64); 3] {
        [
            ("users", self.users),
            ("projects", self.projects),
            ("storage_mb", self.storage_mb),
        ]
    }
}

/// What is known of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What it may have.
    pub limits: Amounts,
    /// What it has.
    pub used: Amounts,
    /// Held by open reservations.
    pub reserved: Amounts,
    /// The open reservations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reservations: BTreeMap<ReservationKey, Amounts>,
}

/// What can happen to a tenant's quotas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The limits are these from now on.
    LimitsSet {
        /// All three.
        limits: Amounts,
    },
    /// Something is held.
    Reserved {
        /// By whom.
        key: ReservationKey,
        /// How much.
        amounts: Amounts,
    },
    /// What was held is in use.
    Confirmed {
        /// Whose.
        key: ReservationKey,
    },
    /// What was held is free again.
    Released {
        /// Whose.
        key: ReservationKey,
    },
    /// What was in use is free again.
    GivenBack {
        /// How much.
        amounts: Amounts,
    },
}

impl State {
    /// What may still be reserved.
    pub fn left(&self) -> Amounts {
        self.limits.minus(self.used.plus(self.reserved))
    }
}

impl Aggregate for Quotas {
    type State = State;
    type Event = Event;

    const KIND: &'static str = "quotas";
    const COMMANDS: &'static [CommandSpec] = &[
        CommandSpec::new(RESERVE),
        CommandSpec::new(CONFIRM),
        CommandSpec::new(RELEASE),
        CommandSpec::standalone(SET_LIMITS),
        CommandSpec::standalone(GIVE_BACK),
    ];

    fn id_of(command: &Command) -> Result<String, Rejection> {
        id_field(command, "tenant")
    }

    fn handle(
        state: &State,
        command: &Command,
        _now: Timestamp,
    ) -> Result<(Vec<Event>, Value), Rejection> {
        let key = ReservationKey::of(command);
        let tenant = Self::id_of(command)?;
        match command.name.as_str() {
            RESERVE => reserve(state, key, &tenant, payload(command)?),
            CONFIRM => confirm(state, key, &tenant),
            RELEASE => Ok(release(state, key, &tenant)),
            SET_LIMITS => {
                let limits: Amounts = payload(command)?;
                let reply = json!({ "tenant": tenant, "limits": limits });
                Ok((vec![Event::LimitsSet { limits }], reply))
            }
            GIVE_BACK => give_back(state, &tenant, payload(command)?),
            _ => Err(not_handled(command)),
        }
    }

    // Saturating, because `apply` must be total; `handle` lets nothing through that would need it.
    fn apply(state: &mut State, event: &Event) {
        match event {
            Event::LimitsSet { limits } => state.limits = *limits,
            Event::Reserved { key, amounts } => {
                state.reserved = state.reserved.plus(*amounts);
                state.reservations.insert(key.clone(), *amounts);
            }
            Event::Confirmed { key } => {
                let amounts = state.settle(key);
                state.used = state.used.plus(amounts);
            }
            Event::Released { key } => {
                state.settle(key);
            }
            Event::GivenBack { amounts } => state.used = state.used.minus(*amounts),
        }
    }
}

impl State {
    /// Takes a reservation out of the snapshot; nothing if it is not there.
    fn settle(&mut self, key: &ReservationKey) -> Amounts {
        let amounts = self.reservations.remove(key).unwrap_or_default();
        self.reserved = self.reserved.minus(amounts);
        amounts
    }
}

type Handled = Result<(Vec<Event>, Value), Rejection>;

fn reserve(state: &State, key: ReservationKey, tenant: &str, wanted: Amounts) -> Handled {
    if state.reservations.contains_key(&key) {
        return Err(Rejection::new(format!(
            "this step already holds a reservation of `{tenant}`"
        )));
    }
    let left = state.left();
    let short: Vec<String> = wanted
        .named()
        .into_iter()
        .zip(left.named())
        .filter(|((_, wanted), (_, left))| wanted > left)
        .map(|((name, wanted), (_, left))| format!("{wanted} {name} wanted, {left} left"))
        .collect();
    if !short.is_empty() {
        return Err(Rejection::new(format!(
            "over the quota of `{tenant}`: {}",
            short.join("; ")
        )));
    }
    let left = left.minus(wanted);
    let reply = json!({
        "tenant": tenant, "users": wanted.users, "projects": wanted.projects,
        "storage_mb": wanted.storage_mb, "left": left,
    });
    Ok((
        vec![Event::Reserved {
            key,
            amounts: wanted,
        }],
        reply,
    ))
}

fn confirm(state: &State, key: ReservationKey, tenant: &str) -> Handled {
    let amounts = *state
        .reservations
        .get(&key)
        .ok_or_else(|| Rejection::new(format!("this step holds no reservation of `{tenant}`")))?;
    let used = state.used.plus(amounts);
    Ok((
        vec![Event::Confirmed { key }],
        json!({ "tenant": tenant, "used": used }),
    ))
}

/// Never refused: with nothing held there is nothing to give back.
fn release(state: &State, key: ReservationKey, tenant: &str) -> (Vec<Event>, Value) {
    let (events, released) = match state.reservations.get(&key) {
        Some(amounts) => (vec![Event::Released { key }], *amounts),
        None => (Vec::new(), Amounts::default()),
    };
    (events, json!({ "tenant": tenant, "released": released }))
}

fn give_back(state: &State, tenant: &str, amounts: Amounts) -> Handled {
    let used = state
        .used
        .each(amounts, u64::checked_sub)
        .ok_or_else(|| Rejection::new(format!("`{tenant}` does not use so much")))?;
    Ok((
        vec![Event::GivenBack { amounts }],
        json!({ "tenant": tenant, "used": used }),
    ))
}

#[cfg(test)]
#[path = "quotas_tests.rs"]
mod tests;
