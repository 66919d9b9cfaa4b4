//! The stage: any definitions, played to their end by the real engine on a virtual clock.
//!
//! Store, broker, scheduler and clock are the simulator's; the engine is the one that runs in
//! production. Every queue that a step names gets a stand-in participant, which answers as the
//! script says ([`Stage::answer`]), as the seed says ([`Stage::improvise`]), or simply yes. What
//! comes from outside (starts, signals, domain events, people) comes at the virtual time that the
//! script says. Time jumps from one thing to the next, so a year costs what happens in it.
//!
//! ```
//! use backstitch::sim::stage::{Stage, on, rejects};
//! use serde_json::json;
//!
//! let play = Stage::of(&["
//! saga: greet
//! version: 1
//! key: ${ input.name }
//! steps:
//!   - { step: seat, reserve: theatre.reserve, confirm: theatre.confirm, compensate: theatre.release }
//!   - { step: card, action: mailer.send, compensate: mailer.revoke }
//! "])
//! .unwrap()
//! .answer("mailer.send", rejects("no such address"))
//! .start("greet", json!({ "name": "Ada" }))
//! .play();
//! assert_eq!(play.saga("Ada").ended_as(), "compensated: card rejected: no such address");
//! assert_eq!(play.saga("Ada").done(), ["theatre.reserve", "theatre.release"]);
//! play.assert_sound();
//! ```
//!
//! Separate from the seeded shop in [`super`], which proves the engine with one saga and shipped
//! participants; here the definition is what is put to the test. Deliberately absent: real time,
//! databases, and any knowledge of what a saga means.

mod answer;
mod cast;
mod cue;
mod guess;
mod improvise;
pub mod invent;
mod judge;
mod ledger;
mod outside;
mod play;
mod schema;
pub mod script;
mod setup;
mod usage;
mod world;

pub use super::scheduler::DAY;
pub use answer::{Calls, Response, echoes, fails, on, on_step, rejects, silent, succeeds};
pub use ledger::{Counts, Effect, EffectLedger};
pub use play::{Play, SagaPlay};
pub use setup::Stage;

#[cfg(test)]
mod tests;
