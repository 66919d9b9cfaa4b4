//! The simulator: the real engine, relay, timers and participants over a simulated world.
//!
//! One run is one seed: two nodes and a process of participants work off a handful of orders
//! while messages get lost, doubled and overtaken, confirms and commits are reported wrongly, and
//! processes crash at whatever await they stand. Then everything heals, and the run demands what
//! Backstitch promises: every saga ends, all or nothing, the totals add up, and nothing that was
//! acknowledged is gone. A run that fails is repeated by its seed.
//!
//! The simulator is itself tested: with a known bug switched on ([`Bug`]), it must complain.
//! Deliberately absent: real threads, real time, real sockets; those are for the end-to-end tests.

mod account;
mod books;
mod bundles;
mod customers;
#[cfg(test)]
mod ends_tests;
pub mod network;
mod now;
mod releases;
#[cfg(test)]
mod rollout_tests;
mod scenario;
pub mod scheduler;
#[cfg(test)]
mod schedules_tests;
mod shop;
pub mod stage;
#[cfg(test)]
mod starts_tests;
mod strangers;
mod times;
mod world;

use std::time::Duration;

pub use scenario::{Bug, FailedRun, RunReport, Scenario, Workload};

use scheduler::{Ended, Scheduler};
use shop::Shop;
use world::{NODES, World};

/// How long a healed world may take to bring everything to its end, in virtual time.
const PATIENCE: Duration = Duration::from_hours(2);

/// Runs a scenario to its end.
///
/// # Errors
/// A [`FailedRun`] that names everything that does not hold.
pub fn run(scenario: &Scenario) -> Result<RunReport, FailedRun> {
    let scheduler = Scheduler::new(scenario.seed);
    let world = World::new(&scheduler, scenario);
    let shop = Shop::draw(&scheduler, scenario.orders, scenario.workload);
    let (saga, sagas) = shop.asked_for();
    let fail = |wrong: Vec<String>| {
        Err(FailedRun {
            seed: scenario.seed,
            wrong,
        })
    };

    world.start_all();
    world.drive(
        shop.clone()
            .open(world.driver(), world.shop_store.clone(), world.broker()),
    );
    world.let_strangers_in();
    let crashes = world.wreak_havoc(scenario);
    world.faults.heal();
    for node in NODES {
        scheduler.set_clock(node, 0);
    }
    world.settle_releases();
    let ended = scheduler.run_until(PATIENCE, || world.is_quiet(saga, sagas));
    if ended != Ended::Met {
        return fail(world.describe_unfinished(ended));
    }
    let mut wrong = shop.wrong(&world.store, &world.shop_store);
    wrong.extend(world.unexpected_letters());
    wrong.extend(releases::wrong(&world.store));
    wrong.extend(times::wrong(&world.store, &world.faults.stored));
    let books = &world.faults.books;
    wrong.extend(account::wrong(books, &world.store, &world.shop_store));
    if !wrong.is_empty() {
        return fail(wrong);
    }
    let (completed, compensated) = world.ended(saga);
    Ok(RunReport {
        completed,
        compensated,
        crashes,
        letters: world.letter_count(),
        polls: scheduler.polls(),
    })
}
